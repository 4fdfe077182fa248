package sd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/clipbpe"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// A CLIP is a checkpoint of both halves of CLIP (Radford et al., arXiv 2103.00020),
// or of the image half alone, in a layout in which these are published:
//
//   - a folder of transformers: config.json of a CLIPModel or of a
//     CLIPVisionModelWithProjection, model.safetensors and its kin,
//     preprocessor_config.json, a tokenizer's files;
//   - a folder of OpenCLIP: open_clip_config.json and open_clip_model.safetensors or
//     open_clip_pytorch_model.bin;
//   - one file with OpenCLIP's names, which are OpenAI's as well, with or without
//     open_clip_config.json beside it.
//
// Tensors have transformers' names throughout, but for visual_projection and
// text_projection of OpenCLIP, which are the transposes of the layers' weights.
type CLIP struct {
	Image CLIPImage // the image half
	Mean  [3]float32
	Std   [3]float32 // of each channel in [0,1]: pixels are (v/255 − Mean)/Std
	Notes []string   // what the files do not say and was taken

	tensors   checkpoint.StateDict // of the image half
	weights   *weights             // of the whole; names are the files' own
	texts     checkpoint.StateDict // of the text half; nil where there is none
	text      *clipTextConfig      // its sizes
	textFault error                // why it cannot be used
	tokenizer string               // folder with a tokenizer's files; "" = CLIP's own
	files     []string             // that all this was read from
}

// OpenAI's mean and standard deviation of the channels of images in [0,1]
// (openai/CLIP clip/clip.py _transform).
var openAIMean, openAIStd = [3]float32{0.48145466, 0.4578275, 0.40821073}, [3]float32{0.26862954, 0.26130258, 0.27577711}

// A CLIPImage is the image half of CLIP: transformers modeling_clip.py
// CLIPVisionTransformer, open_clip/transformer.py VisionTransformer.
type CLIPImage struct {
	HiddenSize        int     `json:"hidden_size"`
	IntermediateSize  int     `json:"intermediate_size"`
	NumHiddenLayers   int     `json:"num_hidden_layers"`
	NumAttentionHeads int     `json:"num_attention_heads"`
	NumChannels       int     `json:"num_channels"`
	ImageSize         int     `json:"image_size"` // height and width of its images
	PatchSize         int     `json:"patch_size"`
	ProjectionDim     int     `json:"projection_dim"` // of an image's embedding
	HiddenAct         string  `json:"hidden_act"`     // quick_gelu or gelu
	LayerNormEps      float64 `json:"layer_norm_eps"`
}

var clipImageFormat = configFormat{
	class: "CLIPVisionModel", stems: transformersStems,
	key: "model_type", is: "clip_vision_model", unsupported: "%q is not supported; supported: %s",
	ignoresRest: true, // of the dozens that transformers writes, which concern training and generation
}

func (*CLIPImage) format() *configFormat { return &clipImageFormat }

// newCLIPImage are CLIPVisionConfig's defaults.
func newCLIPImage() CLIPImage {
	return CLIPImage{
		HiddenSize: 768, IntermediateSize: 3072, NumHiddenLayers: 12, NumAttentionHeads: 12, NumChannels: 3,
		ImageSize: 224, PatchSize: 32, ProjectionDim: 512, HiddenAct: "quick_gelu", LayerNormEps: 1e-5,
	}
}

// Validate implements componentConfig.
func (c *CLIPImage) Validate() error {
	errs := []error{
		oneOf("hidden_act", c.HiddenAct, "quick_gelu", "gelu"),
		check(quantity{"hidden_size", c.HiddenSize, maxWidth}, quantity{"intermediate_size", c.IntermediateSize, 4 * maxWidth},
			quantity{"num_hidden_layers", c.NumHiddenLayers, 8 * maxLayers}, quantity{"num_attention_heads", c.NumAttentionHeads, maxWidth},
			quantity{"image_size", c.ImageSize, 1 << 12}, quantity{"patch_size", c.PatchSize, 1 << 12}, quantity{"projection_dim", c.ProjectionDim, maxWidth}),
	}
	if c.NumChannels != 3 {
		errs = append(errs, fmt.Errorf("num_channels is %d, expected 3", c.NumChannels))
	}
	if c.NumAttentionHeads > 0 && c.HiddenSize%c.NumAttentionHeads != 0 {
		errs = append(errs, fmt.Errorf("num_attention_heads %d does not divide hidden_size %d", c.NumAttentionHeads, c.HiddenSize))
	}
	if c.PatchSize > 0 && (c.PatchSize > c.ImageSize || c.ImageSize/c.PatchSize > 1<<8) {
		errs = append(errs, fmt.Errorf("patch_size %d does not fit image_size %d", c.PatchSize, c.ImageSize))
	}
	return errors.Join(errs...)
}

// clipNetworks are the published networks: name, width and blocks.
var clipNetworks = []struct {
	name          string
	width, blocks int
}{{"B", 768, 12}, {"L", 1024, 24}, {"H", 1280, 32}, {"g", 1408, 40}, {"bigG", 1664, 48}}

// Name is that of the published network with this geometry: ViT-L/14, or
// ViT-L/14@336px where its images are not the usual 224 pixels high.
func (c *CLIPImage) Name() string {
	for _, n := range clipNetworks {
		if n.width != c.HiddenSize || n.blocks != c.NumHiddenLayers {
			continue
		}
		name := fmt.Sprintf("ViT-%s/%d", n.name, c.PatchSize)
		if c.ImageSize != 224 {
			name += fmt.Sprintf("@%dpx", c.ImageSize)
		}
		return name
	}
	return fmt.Sprintf("%d blocks of width %d at %d pixels", c.NumHiddenLayers, c.HiddenSize, c.ImageSize)
}

// The files of OpenCLIP's folders.
const openCLIPConfig = "open_clip_config.json"

var openCLIPStems = stems{"open_clip", "open_clip_model", "open_clip_pytorch_model"}

// imageRoot begins the image half's names.
const imageRoot = "vision_model."

// OpenCLIP reads the headers of a checkpoint, and what its JSON files say. set is
// which of several sets of weights in a file is used. hiddenAct, where it is not
// "", is the activation of both halves where no file says which.
func OpenCLIP(path, set, hiddenAct string) (*CLIP, error) {
	path, err := snapshot(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	c := &CLIP{Mean: openAIMean, Std: openAIStd}
	switch {
	case !info.IsDir():
		err = c.openFile(path, set, hiddenAct)
	case set != "":
		err = fmt.Errorf("models: %s: weights %q: a folder holds one set of weights; leave weights out", path, set)
	case ofOpenCLIP(path):
		err = c.openFolder(path, openCLIPStems, func() error { return c.readOpenCLIP(filepath.Join(path, openCLIPConfig)) })
	default:
		err = c.openFolder(path, transformersStems, func() error { return c.readTransformers(path) })
	}
	if err == nil && hiddenAct != "" && hiddenAct != c.Image.HiddenAct {
		err = fmt.Errorf("models: %s: hidden_act is %q, but its files say %q; leave it out", path, hiddenAct, c.Image.HiddenAct)
	}
	if err == nil {
		if _, err = models.Build(c.tensors, func(m *onnx.Module) error { c.Image.Build(m, true); return nil }); err != nil {
			err = c.weights.fault(err)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// ofOpenCLIP tells whether a folder is one of OpenCLIP. Published ones hold a
// config.json of transformers or of timm as well; the weights beside it tell.
func ofOpenCLIP(folder string) bool {
	if !isFile(filepath.Join(folder, openCLIPConfig)) {
		return false
	}
	w, err := folderWeights(folder, openCLIPStems, "")
	if err == nil {
		w.Close()
	}
	return err == nil || !isFile(filepath.Join(folder, "config.json"))
}

// openFolder opens the weights of a folder, and reads what read finds there.
func (c *CLIP) openFolder(folder string, s stems, read func() error) (err error) {
	if !isFile(filepath.Join(folder, "config.json")) && !isFile(filepath.Join(folder, openCLIPConfig)) {
		return fmt.Errorf("models: %s: neither config.json nor %s is there; expected the folder of a CLIP as transformers or OpenCLIP saves it, or one file with its weights", folder, openCLIPConfig)
	}
	if c.weights, err = folderWeights(folder, s, ""); err != nil {
		return err
	}
	for _, f := range c.weights.files {
		c.files = append(c.files, f.Path)
	}
	if tokens := clipbpe.Files(folder); len(tokens) > 0 {
		c.tokenizer, c.files = folder, append(c.files, tokens...)
	}
	if err := read(); err != nil {
		return err
	}
	return c.sort()
}

// openFile opens a file with OpenCLIP's names.
func (c *CLIP) openFile(path, set, hiddenAct string) (err error) {
	if c.weights, err = fileWeights(path, set); err != nil {
		return err
	}
	c.files = []string{path}
	beside := filepath.Join(filepath.Dir(path), openCLIPConfig)
	if !c.weights.tensors.Has("visual.conv1.weight") {
		what := models.Foreign(c.weights.tensors)
		if c.weights.tensors.Has(imageRoot + "embeddings.class_embedding") {
			what = "the names are those of transformers, which does not put the sizes into the file; give the folder with its config.json"
		} else if c.weights.tensors.Has("visual.layer1.0.conv1.weight") {
			what = "the image half is a ResNet; supported are vision transformers"
		} else if what == "" {
			what = "there is no visual.conv1.weight; expected a CLIP with the names of OpenCLIP or OpenAI, or a folder of transformers"
		}
		return fmt.Errorf("models: %s: %s", path, what)
	}
	if isFile(beside) {
		if err := c.readOpenCLIP(beside); err != nil {
			return err
		}
		return c.sort()
	}
	openAI := markOfOpenAI(c.weights.tensors)
	if err := c.sort(); err != nil {
		return err
	}
	return c.guess(openAI, hiddenAct)
}

// markOfOpenAI is what OpenAI's files have and OpenCLIP's have not: input_resolution among
// the tensors, or layers in half precision between LayerNorms in full
// (clip/model.py convert_weights); "" where there is neither.
func markOfOpenAI(sd checkpoint.StateDict) string {
	switch {
	case sd.Has("input_resolution"):
		return "it holds input_resolution, as OpenAI's files do"
	case sd["visual.conv1.weight"].DType == checkpoint.F16 && sd["visual.ln_pre.weight"].DType == checkpoint.F32:
		return "it has layers in half precision and LayerNorms in full, as OpenAI's files do"
	}
	return ""
}

// clipUnused are what else lies in files of CLIP.
var clipUnused = []string{"logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size", "attn_mask", "transformer.attn_mask"}

// sort gives the tensors transformers' names and parts them into halves.
func (c *CLIP) sort() error {
	all := c.weights.tensors
	names := map[string]string{}
	if all.Has("visual.conv1.weight") {
		image, text, root := checkpoint.StateDict{}, checkpoint.StateDict{}, ""
		if all.Has("text.token_embedding.weight") { // open_clip CustomTextCLIP
			root = "text."
		}
		for key, t := range all {
			if rest, ok := strings.CutPrefix(key, "visual."); ok {
				image[rest] = t
			} else if rest := strings.TrimPrefix(key, root); !slices.Contains(clipUnused, rest) {
				text[rest] = t
			}
		}
		c.tensors = openCLIPNamed("visual.", image, names, func(key string) string { return openCLIPKeys.Replace(clipImageKey(key)) })
		c.texts = openCLIPNames(root, text, names)
	} else {
		c.tensors, c.texts = checkpoint.StateDict{}, checkpoint.StateDict{}
		for key, t := range all {
			switch {
			case slices.Contains(clipUnused, key), strings.HasSuffix(key, "embeddings.position_ids"):
			case strings.HasPrefix(key, imageRoot), strings.HasPrefix(key, "visual_projection."):
				c.tensors[key] = t
			default:
				c.texts[key] = t
			}
		}
	}
	if len(c.texts) == 0 {
		c.texts = nil
	}
	c.weights.names = names
	return nil
}

// clipImageKey gives a part of OpenCLIP's image half that is no transformer's
// transformers' name.
func clipImageKey(key string) string {
	switch key {
	case "conv1.weight":
		return imageRoot + "embeddings.patch_embedding.weight"
	case "class_embedding":
		return imageRoot + "embeddings.class_embedding"
	case "positional_embedding":
		return imageRoot + "embeddings.position_embedding.weight"
	case "proj":
		return "visual_projection"
	}
	for from, root := range map[string]string{"ln_pre.": "pre_layrnorm.", "ln_post.": "post_layernorm.", "transformer.resblocks.": "encoder.layers."} {
		if rest, ok := strings.CutPrefix(key, from); ok {
			return imageRoot + root + rest
		}
	}
	return key
}

// guess reads the sizes off the shapes, where no file says them. Heads are 64 wide
// in all of OpenAI's networks and by OpenCLIP's default.
func (c *CLIP) guess(openAI, hiddenAct string) error {
	sd, i := c.tensors, newCLIPImage()
	patches := sd[imageRoot+"embeddings.patch_embedding.weight"].Shape
	positions := sd.Dim(imageRoot+"embeddings.position_embedding.weight", 0)
	if len(patches) != 4 {
		return fmt.Errorf("models: %s: visual.conv1.weight has shape %v, expected [width,3,P,P]", c.weights.path, patches)
	}
	side := 0
	for side*side < positions-1 {
		side++
	}
	i.HiddenSize, i.PatchSize, i.ImageSize = patches[0], patches[2], side*patches[2]
	i.NumHiddenLayers = sd.Count(imageRoot + "encoder.layers.%d.layer_norm1.weight")
	i.IntermediateSize = sd.Dim(imageRoot+"encoder.layers.0.mlp.fc1.weight", 0)
	i.NumAttentionHeads, i.ProjectionDim = max(1, i.HiddenSize/64), sd.Dim("visual_projection", 1)
	i.HiddenAct = hiddenAct
	if hiddenAct == "" {
		i.HiddenAct = "gelu"
		if openAI != "" {
			i.HiddenAct = "quick_gelu"
		}
		why := cmp.Or(openAI, "OpenCLIP's default; OpenAI's networks have quick_gelu")
		c.Notes = append(c.Notes, fmt.Sprintf("%s: no file says which activation the network has; %s was taken (%s), and heads of 64. Another one gives other numbers: put its %s beside the file, or set hidden_act in its block",
			filepath.Base(c.weights.path), i.HiddenAct, why, openCLIPConfig))
	}
	if err := i.Validate(); err != nil {
		return fmt.Errorf("models: %s: the shapes of the image half make no sense: %w", c.weights.path, err)
	}
	c.Image = i
	if c.texts != nil {
		c.text = singleText{tensors: c.texts, openCLIP: true, spare: -1}.config(nil)
		c.text.HiddenAct = i.HiddenAct
		if err := c.text.Validate(); err != nil {
			c.textFault = fmt.Errorf("models: %s: the shapes of the text half make no sense: %w", c.weights.path, err)
		}
	}
	return nil
}

// readTransformers reads config.json and preprocessor_config.json of a folder.
func (c *CLIP) readTransformers(folder string) error {
	path := filepath.Join(folder, "config.json")
	doc, err := readJSON(path)
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	c.files = append(c.files, path)
	kind, _ := doc.at("model_type")
	image := newCLIPImage()
	switch kind.text() {
	case "clip_vision_model":
		err = decodeConfig(doc, &image)
		c.textFault = fmt.Errorf("models: %s: is a %s, which holds no text half; take the folder of the whole CLIPModel", path, "CLIPVisionModelWithProjection")
	case "clip":
		var half value
		if half, err = section(doc, "vision_config"); err == nil {
			err = decodeConfig(half, &image)
		}
		if projection, ok := doc.at("projection_dim"); ok && projection.kind() != 0 && err == nil {
			if err = projection.decode(&image.ProjectionDim); err == nil {
				err = doc.place(image.Validate())
			}
			if err != nil {
				err = fmt.Errorf("models: %w", err)
			}
		}
		text := newCLIPTextConfig()
		if half, c.textFault = section(doc, "text_config"); c.textFault == nil {
			c.textFault = decodeConfig(half, text)
		}
		if c.textFault == nil {
			text.ProjectionDim = image.ProjectionDim
			c.text = text
		}
	default:
		err = fmt.Errorf("models: %s: model_type is %q, expected clip or clip_vision_model", path, kind.text())
	}
	if err != nil {
		return err
	}
	c.Image = image
	return c.readPreprocessor(filepath.Join(folder, "preprocessor_config.json"))
}

// section is a half's part of a CLIPModel's config.json. KEY_dict, where there is
// one, overrides KEY, with the class's defaults for what it lacks
// (configuration_clip.py CLIPConfig.__init__).
func section(doc value, key string) (value, error) {
	v, ok := doc.at(key + "_dict")
	if !ok || v.kind() != yaml.MappingNode {
		v, _ = doc.at(key)
	}
	if v.kind() != yaml.MappingNode {
		return v, fmt.Errorf("models: %s: %s is missing; expected the sizes of that half", doc.file, key)
	}
	v.key = "" // keys in it are those of a configuration of its own
	return v, nil
}

// readPreprocessor reads a CLIPImageProcessor, if there is one.
func (c *CLIP) readPreprocessor(path string) error {
	doc, err := readJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		c.Notes = append(c.Notes, filepath.Base(filepath.Dir(path))+": there is no preprocessor_config.json; OpenAI's mean and standard deviation of the channels were taken")
		return nil
	}
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	c.files = append(c.files, path)
	var errs []error
	for key, want := range map[string]string{"resample": "3", "do_resize": "true", "do_center_crop": "true", "do_normalize": "true", "do_rescale": "true"} {
		if v, ok := doc.at(key); ok && !is(v, want) {
			errs = append(errs, v.errorf("%s is not supported; supported: %s", v, want))
		}
	}
	side := fmt.Sprint(c.Image.ImageSize)
	for _, key := range []string{"size", "size.shortest_edge", "crop_size", "crop_size.height", "crop_size.width"} {
		if v, ok := doc.at(key); ok && v.kind() == yaml.ScalarNode && !is(v, side) {
			errs = append(errs, v.errorf("%s does not fit the network's images of %s pixels", v, side))
		}
	}
	if v, ok := doc.at("rescale_factor"); ok && !is(v, "0.00392156862745098") {
		errs = append(errs, v.errorf("%s is not supported; supported: 1/255", v))
	}
	if err := errors.Join(append(errs, c.readChannels(doc, "image_mean", "image_std"))...); err != nil {
		return fmt.Errorf("models: %w", err)
	}
	return nil
}

// readChannels reads mean and standard deviation of the channels, where they are
// there.
func (c *CLIP) readChannels(doc value, mean, std string) error {
	for key, into := range map[string]*[3]float32{mean: &c.Mean, std: &c.Std} {
		v, ok := doc.at(key)
		if !ok || v.kind() == 0 {
			continue
		}
		var three []float32
		if err := v.decode(&three); err != nil {
			return err
		}
		if len(three) != 3 || key == std && slices.Min(three) <= 0 {
			return v.errorf("expected three numbers, of the standard deviation above 0, found %s", v)
		}
		copy(into[:], three)
	}
	return nil
}

// GuessCLIP tells from keys and shapes whether a file is a CLIP with OpenCLIP's or
// OpenAI's names, and the sizes of its image half.
func GuessCLIP(sd checkpoint.StateDict) (image CLIPImage, mismatches []string, ok bool) {
	if !sd.Has("visual.conv1.weight") || !sd.Has("visual.class_embedding") {
		return image, nil, false
	}
	c := &CLIP{weights: &weights{path: "the file", tensors: sd}}
	err := c.sort()
	if err == nil {
		err = c.guess(markOfOpenAI(sd), "")
	}
	if err != nil {
		return image, []string{strings.TrimPrefix(err.Error(), "models: the file: ")}, true
	}
	return c.Image, models.Mismatches(c.tensors, nil, func(m *onnx.Module) { c.Image.Build(m, true) }), true
}

// IsCLIPFolder tells whether a folder holds a CLIP, by the configuration in it.
func IsCLIPFolder(path string) bool {
	path, err := snapshot(path)
	if err != nil {
		return false
	}
	if isFile(filepath.Join(path, openCLIPConfig)) {
		return true
	}
	doc, err := readJSON(filepath.Join(path, "config.json"))
	kind, _ := doc.at("model_type")
	return err == nil && (kind.text() == "clip" || kind.text() == "clip_vision_model")
}

// Build is CLIPVisionTransformer.forward with the projection: x [N,3,S,S], pixels
// less Mean over Std → image_embeds [N,P], the projected class token, not
// normalized. With all set also model [N,1+(S/P)²,D], the last block's output without
// post_layernorm, and pooled [N,D], its class token with it.
func (c *CLIPImage) Build(m *onnx.Module, all bool) {
	x := m.Input("pixels", checkpoint.F32, onnx.Batch, 3, c.ImageSize, c.ImageSize)
	v := m.In("vision_model") // [N, T, D] from here on
	e := v.In("embeddings")
	h := e.In("patch_embedding").Conv(x, onnx.Conv{Out: c.HiddenSize, Kernel: [2]int{c.PatchSize, c.PatchSize}, Stride: c.PatchSize, NoBias: true})
	side := h.Dim(2)
	h = m.Transpose(m.Reshape(h, onnx.Batch, c.HiddenSize, side*side), 0, 2, 1)
	positions := e.In("position_embedding").Param("weight", 1+side*side, c.HiddenSize)
	class := m.Add(m.Reshape(e.Param("class_embedding", c.HiddenSize), 1, c.HiddenSize), m.Slice(positions, 0, 0, 1))
	rows := m.Concat(0, class, m.Slice(positions, 0, 1, 1+side*side))
	h = v.In("pre_layrnorm").LayerNorm(m.Add(m.PadFront(h, 1, 1), rows), c.LayerNormEps)
	for i := range c.NumHiddenLayers {
		h = c.layer(v.In("encoder.layers.%d", i), h, !all && i == c.NumHiddenLayers-1)
	}
	if all {
		m.Output("model", h)
	}
	pooled := v.In("post_layernorm").LayerNorm(m.Reshape(m.Slice(h, 1, 0, 1), onnx.Batch, c.HiddenSize), c.LayerNormEps)
	if all {
		m.Output("pooled", pooled)
	}
	if m.Has("visual_projection") { // of OpenCLIP, the other way round
		m.Output("image_embeds", m.MatMul(pooled, m.Param("visual_projection", c.HiddenSize, c.ProjectionDim)))
		return
	}
	m.Output("image_embeds", m.In("visual_projection").LinearNoBias(pooled, c.ProjectionDim))
}

// layer is CLIPEncoderLayer: h [N,T,D] → the same shape; of the last one, only the
// class token [N,1,D].
func (c *CLIPImage) layer(m *onnx.Module, h onnx.Value, last bool) onnx.Value {
	x := m.In("layer_norm1").LayerNorm(h, c.LayerNormEps)
	query := x
	if last {
		h, query = m.Slice(h, 1, 0, 1), m.Slice(x, 1, 0, 1)
	}
	a := m.In("self_attn")
	q, k, v := a.In("q_proj").Linear(query, c.HiddenSize), a.In("k_proj").Linear(x, c.HiddenSize), a.In("v_proj").Linear(x, c.HiddenSize)
	h = m.Add(h, a.In("out_proj").Linear(m.Attention(q, k, v, c.NumAttentionHeads), c.HiddenSize))

	x = m.In("mlp.fc1").Linear(m.In("layer_norm2").LayerNorm(h, c.LayerNormEps), c.IntermediateSize)
	if c.HiddenAct == "gelu" {
		x = m.GELU(x)
	} else {
		x = m.QuickGELU(x)
	}
	return m.Add(h, m.In("mlp.fc2").Linear(x, c.HiddenSize))
}

// Images are sessions of the image half: with the key true all outputs of
// CLIPImage.Build, else image_embeds alone.
func (c *CLIP) Images(opt models.Options) *models.Sessions[bool] {
	opt.Precision = "" // of a denoiser
	image := &weights{path: c.weights.path, tensors: c.tensors, files: c.weights.files, names: c.weights.names}
	return sessions(image, c.tensors, opt, func(m *onnx.Module, all bool) error { c.Image.Build(m, all); return nil })
}

// Files lists what the checkpoint was read from, weights first.
func (c *CLIP) Files() []string { return c.files }

// Path is the file of the weights, or the index of its shards.
func (c *CLIP) Path() string { return c.weights.path }

// Close unmaps the files.
func (c *CLIP) Close() {
	if c.weights != nil {
		c.weights.Close()
	}
}

// A CLIPTextNet is the text half of a CLIP with its tokenizer, ready to run.
type CLIPTextNet struct {
	net       *textNet
	Tokenizer *clipbpe.Tokenizer
	Length    int // tokens of a text, the begin and the end token included
	// OwnTokenizer: no file held a tokenizer, and CLIP's is used.
	OwnTokenizer bool
}

// Texts opens the text half. The CLIP has to stay open.
func (c *CLIP) Texts(opt models.Options) (*CLIPTextNet, error) {
	switch {
	case c.textFault != nil:
		return nil, c.textFault
	case c.texts == nil || c.text == nil:
		return nil, fmt.Errorf("models: %s: holds no text half; take the file or the folder of the whole CLIP", c.weights.path)
	}
	w := &weights{path: c.weights.path, tensors: maps.Clone(c.texts), files: c.weights.files, names: c.weights.names}
	net, err := newTextNet(c.text, w, models.Options{Options: opt.Options})
	if err != nil {
		return nil, err
	}
	if !net.projects() {
		return nil, fmt.Errorf("models: %s: the text half has no text_projection", c.weights.path)
	}
	t := &CLIPTextNet{net: net, Length: min(clipLength, c.text.MaxPositionEmbeddings)}
	if c.tokenizer != "" {
		t.Tokenizer, err = clipbpe.Load(c.tokenizer)
	} else if c.text.VocabSize == clipbpe.PublishedSize {
		t.OwnTokenizer = true
		t.Tokenizer, err = clipbpe.Published(false)
	} else {
		err = fmt.Errorf("models: %s: there is no tokenizer, and its %d tokens are not CLIP's %d; put vocab.json and merges.txt beside it", c.weights.path, c.text.VocabSize, clipbpe.PublishedSize)
	}
	if err == nil && t.Tokenizer.Size() > c.text.VocabSize {
		err = fmt.Errorf("models: %s: the tokenizer has %d tokens, the text half vocab_size %d; they do not belong together", c.weights.path, t.Tokenizer.Size(), c.text.VocabSize)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Embed are the projected embeddings of texts of L tokens each, not normalized:
// ids [N,L] → [N,P]. A text is pooled at its end token, see pooledAt.
func (t *CLIPTextNet) Embed(ctx context.Context, ids ort.Array) (tensor.Tensor, error) {
	out, err := t.net.run(ctx, ids, textKey{})
	if err != nil {
		return tensor.Tensor{}, err
	}
	return out["text_embeds"].Tensor(), nil
}

// Rest gives the memory of the graphs back until the next Embed.
func (t *CLIPTextNet) Rest() { t.net.net.Rest() }

// Close frees the sessions; the files stay open.
func (t *CLIPTextNet) Close() { t.net.net.Close() }
