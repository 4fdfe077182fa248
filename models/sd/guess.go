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

// unetConfig reads the U-Net's dimensions off the shapes. The number of heads
// leaves no trace: SD 1.x has 8 in every layer, SD 2.x, which is known by its
// linear projections, one for every 64 channels.
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

// openCLIPLayers is the number of layers of OpenCLIP ViT-H/14, of which SD 2.x
// leaves out the last (ldm/modules/encoders/modules.py FrozenOpenCLIPEmbedder,
// layer penultimate).
const openCLIPLayers = 24

// textConfig reads the text encoder's dimensions off the shapes; stated are those
// of the flags. A file with more layers than are used keeps the others,
// which are dropped from s.text.
func (s *singleFile) textConfig(stated *clipSizes) *clipTextConfig {
	t, c := s.text, newCLIPTextConfig()
	root := "text_model."
	if !t.Has("text_model.embeddings.token_embedding.weight") {
		root = ""
	}
	c.VocabSize, c.HiddenSize = t.Dim(root+"embeddings.token_embedding.weight", 0), t.Dim(root+"embeddings.token_embedding.weight", 1)
	c.MaxPositionEmbeddings = t.Dim(root+"embeddings.position_embedding.weight", 0)
	c.IntermediateSize = t.Dim(root+"encoder.layers.0.mlp.fc1.weight", 0)
	layers := t.Count(root + "encoder.layers.%d.layer_norm1.weight")
	c.NumHiddenLayers, c.NumAttentionHeads, c.EOSTokenID = layers, max(1, c.HiddenSize/64), 2
	if s.openCLIP {
		c.HiddenAct = "gelu"
		if layers == openCLIPLayers {
			c.NumHiddenLayers--
		}
	}
	stated.replace(c)
	for i := c.NumHiddenLayers; s.openCLIP && i < layers; i++ {
		prefix := fmt.Sprintf("%sencoder.layers.%d.", root, i)
		maps.DeleteFunc(t, func(key string, _ checkpoint.Tensor) bool { return strings.HasPrefix(key, prefix) })
	}
	return c
}

var (
	_ models.Captioned = (*SD)(nil)
	_ models.Composite = (*SD)(nil)
	_ models.Guesser   = (*SD)(nil)
	_ models.Guesser   = (*CLIPText)(nil)
	_ models.Guesser   = (*VAE)(nil)
)

// Guess implements Guesser for single files and for the U-Net of a folder.
func (c *SD) Guess(sd checkpoint.StateDict) (models.Guess, bool) {
	if sd.Has("down_blocks.0.resnets.0.conv1.weight") && sd.Has("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight") {
		return models.Guess{
			Evidence: "down_blocks, mid_block and up_blocks with cross-attention, the U-Net of a diffusers folder; give the folder of the whole pipeline, or of unet, as checkpoint",
			Flags:    []models.Flag{models.NewFlag("component", "unet")},
		}, true
	}
	if !sd.Has(ldmUNet + "input_blocks.0.0.weight") {
		return models.Guess{}, false
	}
	g := models.Guess{Evidence: "model.diffusion_model, first_stage_model and cond_stage_model of CompVis' LatentDiffusion in one file"}
	s, err := splitSingle(&weights{path: "the file", tensors: sd}, false, "")
	if err != nil {
		if part, errPart := splitSingle(&weights{path: "the file", tensors: sd}, false, "unet"); errPart == nil {
			s, g.Evidence = part, "model.diffusion_model of CompVis' LatentDiffusion; "+strings.TrimPrefix(err.Error(), "models: the file: ")
			g.Flags, err = []models.Flag{models.NewFlag("component", "unet")}, nil
		}
	}
	if err != nil {
		g.Mismatches = []string{strings.TrimPrefix(err.Error(), "models: the file: ")}
		return g, true
	}
	u := s.unetConfig()
	version, prediction := "1.x", models.NewFlag("prediction_type", "epsilon", "as published; not in the shapes")
	if s.openCLIP {
		version, prediction = "2.x", models.NewFlag("prediction_type", "v_prediction", models.Assumed+": that of 768-v; 512-base has epsilon")
	}
	g.Evidence += fmt.Sprintf("; context of %d channels: Stable Diffusion %s", u.CrossAttentionDim, version)
	g.Flags = []models.Flag{prediction}
	if s.textConfig(nil).VocabSize != clipbpe.PublishedSize {
		g.Needs = append(g.Needs, "tokenizer: FOLDER  # with its vocab.json and merges.txt: the vocabulary is not CLIP's")
	}
	side := 64
	if s.openCLIP {
		side = 96
	}
	g.Mismatches = models.Mismatches(s.unet, u.Validate(), func(m *onnx.Module) { g.Attention = u.layers(m, size{side, side}) })
	return g, true
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

// GuessFolder implements FolderGuesser.
func (c *SD) GuessFolder(path string) (models.Guess, bool) {
	path, err := snapshot(path)
	if err != nil {
		return models.Guess{}, false
	}
	if partClass(path) == unetFormat.class {
		c.Component = "unet"
		return models.Guess{Evidence: "config.json of a UNet2DConditionModel", Flags: []models.Flag{models.NewFlag("component", "unet")}, Attention: folderLayers(path)}, true
	}
	if class := pipelineClass(path); class == ditPipeline || slices.Contains(unet2DPipelines, class) {
		return models.Guess{}, false
	}
	_, errIndex := os.Stat(filepath.Join(path, "model_index.json"))
	_, errUNet := os.Stat(filepath.Join(path, "unet"))
	switch {
	case errIndex == nil:
		return models.Guess{Evidence: "model_index.json of a pipeline of diffusers", Attention: folderLayers(filepath.Join(path, "unet"))}, true
	case errUNet == nil:
		return models.Guess{Evidence: "a folder unet", Attention: folderLayers(filepath.Join(path, "unet"))}, true
	}
	return models.Guess{}, false
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
