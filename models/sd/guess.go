package sd

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/clipbpe"
	"sagbench/models/onnx"
)

// compVisGroups is the number of groups of every GroupNorm in CompVis' code.
const compVisGroups = 32

// sgmTimeEmbed is the width of the embedding of each size in Stability AI's code
// (configs/inference/sd_xl_base.yaml, ConcatTimestepEmbedderND outdim).
const sgmTimeEmbed = 256

// unetConfig reads the U-Net's dimensions off the shapes. The number of heads
// leaves no trace: SD 1.x has 8 in every layer, SD 2.x and XL, which are known by
// their linear projections, one for every 64 channels.
func (s *singleFile) unetConfig() *sdUNetConfig {
	u, c := s.unet, newSDUNetConfig()
	levels := u.Count("down_blocks.%d.resnets.0.conv1.weight")
	c.InChannels, c.OutChannels = u.Dim("conv_in.weight", 1), u.Dim("conv_out.weight", 0)
	c.NormNumGroups, c.LayersPerBlock = compVisGroups, one(s.blocks)
	attention := "mid_block.attentions.0"
	c.UseLinearProjection = u.Has("%s.proj_in.weight", attention) && len(u[attention+".proj_in.weight"].Shape) == 2
	c.CrossAttentionDim = u.Dim(attention+".transformer_blocks.0.attn2.to_k.weight", 1)
	c.BlockOutChannels, c.DownBlockTypes, c.UpBlockTypes = nil, nil, make([]string, levels)
	heads, depth := oneOrMany{list: true}, oneOrMany{list: true}
	middle := u.Count(attention + ".transformer_blocks.%d.norm1.weight")
	for i := range levels {
		width := u.Dim(fmt.Sprintf("down_blocks.%d.resnets.0.conv1.weight", i), 0)
		c.BlockOutChannels = append(c.BlockOutChannels, width)
		down, up, layers := "DownBlock2D", "UpBlock2D", middle
		if u.Has("down_blocks.%d.attentions.0.norm.weight", i) {
			down = "CrossAttnDownBlock2D"
			layers = u.Count(fmt.Sprintf("down_blocks.%d.attentions.0.transformer_blocks.", i) + "%d.norm1.weight")
		}
		if u.Has("up_blocks.%d.attentions.0.norm.weight", levels-1-i) {
			up = "CrossAttnUpBlock2D"
		}
		c.DownBlockTypes, c.UpBlockTypes[levels-1-i] = append(c.DownBlockTypes, down), up
		depth.values = append(depth.values, layers)
		h := 8
		if c.UseLinearProjection {
			h = max(1, width/64)
		}
		heads.values = append(heads.values, h)
	}
	c.AttentionHeadDim, c.TransformerLayersPerBlock = heads, depth
	if all := u.Dim("add_embedding.linear_1.weight", 1); all > 0 {
		c.AdditionEmbedType, c.AdditionTimeEmbedDim, c.ProjectionInputsWidth = new(textTime), new(sgmTimeEmbed), new(all)
	}
	return c
}

// vaeConfigOf reads the autoencoder's dimensions off the shapes of its decoder,
// which every file holds.
func vaeConfigOf(v checkpoint.StateDict) *vaeConfig {
	c := newVAEConfig()
	c.OutChannels, c.LatentChannels, c.NormNumGroups = v.Dim("decoder.conv_out.weight", 0), v.Dim("decoder.conv_in.weight", 1), compVisGroups
	c.InChannels = c.OutChannels
	if v.Has("encoder.conv_in.weight") {
		c.InChannels = v.Dim("encoder.conv_in.weight", 1)
	}
	c.LayersPerBlock = max(0, v.Count("decoder.up_blocks.0.resnets.%d.conv1.weight")-1)
	c.BlockOutChannels, c.DownBlockTypes, c.UpBlockTypes = nil, nil, nil
	for i := range v.Count("decoder.up_blocks.%d.resnets.0.conv1.weight") {
		c.BlockOutChannels = append(c.BlockOutChannels, v.Dim(fmt.Sprintf("decoder.up_blocks.%d.resnets.0.conv1.weight", i), 0))
		c.DownBlockTypes, c.UpBlockTypes = append(c.DownBlockTypes, "DownEncoderBlock2D"), append(c.UpBlockTypes, "UpDecoderBlock2D")
	}
	slices.Reverse(c.BlockOutChannels)
	c.UseQuantConv, c.UsePostQuantConv = v.Has("quant_conv.weight"), v.Has("post_quant_conv.weight")
	c.MidBlockAddAttention = v.Has("decoder.mid_block.attentions.0.group_norm.weight")
	return c
}

// config reads the text encoder's dimensions off the shapes; stated are those of the
// flags. A file with more layers than are used keeps the others, which are dropped
// from the tensors.
func (t singleText) config(stated *clipSizes) *clipTextConfig {
	sd, c := t.tensors, newCLIPTextConfig()
	root := "text_model."
	if !sd.Has("text_model.embeddings.token_embedding.weight") {
		root = ""
	}
	c.VocabSize, c.HiddenSize = sd.Dim(root+"embeddings.token_embedding.weight", 0), sd.Dim(root+"embeddings.token_embedding.weight", 1)
	c.MaxPositionEmbeddings = sd.Dim(root+"embeddings.position_embedding.weight", 0)
	c.IntermediateSize = sd.Dim(root+"encoder.layers.0.mlp.fc1.weight", 0)
	layers := sd.Count(root + "encoder.layers.%d.layer_norm1.weight")
	c.NumHiddenLayers, c.NumAttentionHeads, c.EOSTokenID = layers, max(1, c.HiddenSize/64), 2
	if t.openCLIP {
		c.HiddenAct = "gelu"
		if layers == t.spare {
			c.NumHiddenLayers--
		}
	}
	stated.replace(c)
	for i := c.NumHiddenLayers; t.openCLIP && i < layers; i++ {
		prefix := fmt.Sprintf("%sencoder.layers.%d.", root, i)
		maps.DeleteFunc(sd, func(key string, _ checkpoint.Tensor) bool { return strings.HasPrefix(key, prefix) })
	}
	return c
}

var (
	_ models.Guesser = (*CLIPText)(nil)
	_ models.Guesser = (*VAE)(nil)
)

// guess is Guesser for single files and for the U-Net of a folder.
func (p pipeline) guess(sd checkpoint.StateDict) (models.Guess, bool) {
	if isXL(sd) != p.added {
		return models.Guess{}, false
	}
	if sd.Has(inDiffusers) && sd.Has("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight") {
		evidence := "down_blocks, mid_block and up_blocks with cross-attention, the U-Net of a diffusers folder; give the folder of the whole pipeline, or of unet, as checkpoint"
		if p.added {
			evidence += ", or this file as unet beside the checkpoint whose U-Net it replaces"
		}
		return models.Guess{Evidence: evidence, Flags: []models.Flag{models.NewFlag("component", "unet")}}, true
	}
	if !sd.Has(ldmUNet + "input_blocks.0.0.weight") {
		return models.Guess{}, false
	}
	g := models.Guess{Evidence: p.original.evidence}
	s, err := p.split(&weights{path: "the file", tensors: sd})
	if err != nil {
		unet := *p.flags
		unet.Component = "unet"
		alone := p
		alone.flags = &unet
		if part, errPart := alone.split(&weights{path: "the file", tensors: sd}); errPart == nil {
			s, g.Evidence = part, "model.diffusion_model of "+p.original.engine+"; "+strings.TrimPrefix(err.Error(), "models: the file: ")
			g.Flags, err = []models.Flag{models.NewFlag("component", "unet")}, nil
		}
	}
	if err != nil {
		g.Mismatches = []string{strings.TrimPrefix(err.Error(), "models: the file: ")}
		return g, true
	}
	u := s.unetConfig()
	version, side, prediction := p.guessed(s)
	g.Evidence += fmt.Sprintf("; context of %d channels: Stable Diffusion %s", u.CrossAttentionDim, version)
	g.Flags = append(g.Flags, prediction)
	for i, t := range s.texts {
		if len(t.tensors) > 0 && t.config(nil).VocabSize != clipbpe.PublishedSize {
			g.Needs = append(g.Needs, p.textParts[i].tokenizer+": FOLDER  # with its vocab.json and merges.txt: the vocabulary is not CLIP's")
		}
	}
	g.Mismatches = models.Mismatches(s.unet, u.Validate(), func(m *onnx.Module) { g.Attention = u.layers(m, size{side, side}) })
	return g, true
}

// otherGeneration says which other generation a single file is of; "" where it is
// of none that is known.
func (p pipeline) otherGeneration(sd checkpoint.StateDict) string {
	switch {
	case isXL(sd) == p.added:
		return ""
	case p.added && begins(sd, "cond_stage_model."):
		return "its keys are those of Stable Diffusion 1.x or 2.x (family: sd)"
	case p.added:
		return ""
	}
	return "its keys are those of Stable Diffusion XL (family: sdxl)"
}

// layers builds the U-Net for latents of a size, and lists its layers of
// self-attention.
func (c *sdUNetConfig) layers(m *onnx.Module, latent size) []models.Layer {
	t := models.NewTaps(models.Options{})
	c.build(m, sdSize{latent, clipLength}, t)
	return t.Layers()
}

// folderLayers are those of the U-Net whose config.json lies in a folder; none
// where that makes no sense.
func folderLayers(folder string) (layers []models.Layer) {
	c := newSDUNetConfig()
	if err := readConfig(folder, c); err != nil {
		return nil
	}
	if s := c.latentSize(); s.height > 0 && s.width > 0 {
		_, _ = onnx.Parameters(func(m *onnx.Module) { layers = c.layers(m, s) })
	}
	return layers
}

// Guess implements Guesser.
func (c *VAE) Guess(sd checkpoint.StateDict) (models.Guess, bool) {
	return models.Guess{Evidence: "encoder, decoder and quant_conv of diffusers' AutoencoderKL; give its folder, with config.json, as checkpoint"},
		sd.Has("decoder.mid_block.resnets.0.conv1.weight") && sd.Has("decoder.conv_in.weight") && sd.Has("encoder.conv_in.weight")
}

// Guess implements Guesser.
func (c *CLIPText) Guess(sd checkpoint.StateDict) (models.Guess, bool) {
	return models.Guess{Evidence: "embeddings and encoder.layers of transformers' CLIPTextModel; give its folder, with config.json, as checkpoint"},
		sd.Has("text_model.embeddings.token_embedding.weight") && !sd.Has("visual_projection.weight") || sd.Has("embeddings.token_embedding.weight")
}

// guessFolder is FolderGuesser, which sets the component that a folder is.
func (p pipeline) guessFolder(path string) (models.Guess, bool) {
	path, err := snapshot(path)
	if err != nil {
		return models.Guess{}, false
	}
	if partClass(path) == unetFormat.class {
		p.Component = "unet"
		return models.Guess{Evidence: "config.json of a UNet2DConditionModel", Flags: []models.Flag{models.NewFlag("component", "unet")}, Attention: folderLayers(path)}, addedOf(path) == p.added
	}
	unet, class := filepath.Join(path, "unet"), pipelineClass(path)
	for _, other := range otherPipelines {
		if slices.Contains(other.classes, class) && !slices.Contains(p.pipelines, class) {
			return models.Guess{}, false
		}
	}
	_, errIndex := os.Stat(filepath.Join(path, "model_index.json"))
	_, errUNet := os.Stat(unet)
	switch {
	case !slices.Contains(p.pipelines, class) && addedOf(unet) != p.added:
		return models.Guess{}, false
	case errIndex == nil:
		return models.Guess{Evidence: "model_index.json of a pipeline of diffusers", Attention: folderLayers(unet)}, true
	case errUNet == nil:
		return models.Guess{Evidence: "a folder unet", Attention: folderLayers(unet)}, true
	}
	return models.Guess{}, false
}

// addedOf reports whether the config.json in a folder is of a U-Net that is told
// of sizes, as SDXL's is.
func addedOf(folder string) bool {
	doc, err := readJSON(filepath.Join(folder, "config.json"))
	at, _ := doc.at("addition_embed_type")
	return err == nil && at.text() == textTime
}

// GuessFolder implements FolderGuesser.
func (c *VAE) GuessFolder(path string) (models.Guess, bool) {
	return models.Guess{Evidence: "config.json of an AutoencoderKL"}, partClass(path) == vaeFormat.class
}

// GuessFolder implements FolderGuesser.
func (c *CLIPText) GuessFolder(path string) (models.Guess, bool) {
	class := partClass(path)
	return models.Guess{Evidence: "config.json of a " + class}, strings.HasPrefix(class, "CLIPTextModel")
}

// pipelineClass is the class of the pipeline of diffusers whose folder path is, ""
// where model_index.json does not tell.
func pipelineClass(path string) string {
	index, err := readJSON(filepath.Join(path, "model_index.json"))
	if err != nil {
		return ""
	}
	at, _ := index.at("_class_name")
	return at.text()
}

// partClass is the class of the part of a diffusers folder whose own folder
// path is, "" where it is none.
func partClass(path string) string {
	if of, err := snapshot(path); err == nil {
		path = of
	}
	doc, err := readJSON(filepath.Join(path, "config.json"))
	if err != nil {
		return ""
	}
	if at, ok := doc.at("_class_name"); ok {
		return at.text()
	}
	if at, ok := doc.at("architectures"); ok && len(at.values()) > 0 { // of transformers
		return at.values()[0].text()
	}
	return ""
}
