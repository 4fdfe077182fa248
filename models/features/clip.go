package features

import (
	"context"
	"fmt"
	"math"
	"slices"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/models/sd"
	"sagbench/sampling/tensor"
)

// CLIP is the image half of CLIP (Radford et al., arXiv 2103.00020), whose pool
// features are the projected embedding of an image, not normalized, with the text
// half beside it where a metric compares images with texts. checkpoint is a
// folder of transformers or of OpenCLIP, or one file with OpenCLIP's or
// OpenAI's names; see sd.OpenCLIP.
type CLIP struct {
	HiddenAct string `yaml:"hidden_act" doc:"activation, quick_gelu or gelu, of a file that has no config.json or open_clip_config.json beside it; empty = what its files say, or what a note names"`
}

// Validate implements the check after decoding.
func (c *CLIP) Validate() error {
	if c.HiddenAct != "" && c.HiddenAct != "quick_gelu" && c.HiddenAct != "gelu" {
		return fmt.Errorf("hidden_act is %q, expected quick_gelu or gelu", c.HiddenAct)
	}
	return nil
}

// Resize implements Flags: transformers' on PIL images.
func (c *CLIP) Resize() Resize { return CLIPCrop }

// Features implements Flags.
func (c *CLIP) Features(path string) (pool, spatial int) {
	n, err := sd.OpenCLIP(path, "", c.HiddenAct)
	if err != nil {
		return 0, 0
	}
	defer n.Close()
	return n.Image.ProjectionDim, 0
}

// Files implements models.FileLister: weights, configuration, preprocessing and
// tokenizer.
func (c *CLIP) Files(path string) ([]string, error) {
	n, err := sd.OpenCLIP(path, "", c.HiddenAct)
	if err != nil {
		return []string{path}, err
	}
	defer n.Close()
	return n.Files(), nil
}

// Open implements Family.
func (c *CLIP) Open(path string, opt models.Options) (models.Model, error) { return c.open(path, opt) }

// Extractor implements Flags.
func (c *CLIP) Extractor(_ context.Context, path string, opt models.Options) (Extractor, error) {
	return c.open(path, opt)
}

func (c *CLIP) open(path string, opt models.Options) (*clipNet, error) {
	if len(opt.Taps) > 0 {
		return nil, fmt.Errorf("models: %s: layer %q: the attention maps of CLIP cannot be tapped", path, opt.Taps[0].Layer)
	}
	f, err := sd.OpenCLIP(path, opt.Weights, c.HiddenAct)
	if err != nil {
		return nil, err
	}
	n := &clipNet{file: f, images: f.Images(opt), opt: opt}
	if err := n.images.Prepare(false); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// A clipNet is a CLIP that is ready to run.
type clipNet struct {
	file   *sd.CLIP
	images *models.Sessions[bool] // true: with all outputs of a reference case
	opt    models.Options
	texts  *sd.CLIPTextNet // nil until it is asked for
}

var (
	_ Extractor = (*clipNet)(nil)
	_ Texting   = (*clipNet)(nil)
	_ Described = (*clipNet)(nil)
)

// Width implements Extractor.
func (n *clipNet) Width() int { return n.file.Image.ProjectionDim }

// Outputs implements Extractor.
func (n *clipNet) Outputs() []string { return []string{Pool} }

// InputShape implements Extractor.
func (n *clipNet) InputShape() []int { return []int{3, n.file.Image.ImageSize, n.file.Image.ImageSize} }

// Name implements Described.
func (n *clipNet) Name() string { return n.file.Image.Name() }

// Notes implements Described.
func (n *clipNet) Notes() []string { return n.file.Notes }

// Input implements Extractor: pixels in [0,1] less the mean over the standard
// deviation of their channel, in float32 and in torch's order.
func (n *clipNet) Input(r Resize, images models.Images) (tensor.Tensor, error) {
	x, err := resizedPixels(r, images, n.file.Image.ImageSize)
	if err != nil {
		return x, err
	}
	mean, std := n.file.Mean, n.file.Std
	plane := x.RowLen() / 3
	for i, v := range x.Data {
		c := i / plane % 3
		x.Data[i] = float32(float32(v/255)-mean[c]) / std[c]
	}
	return x, nil
}

// Run implements Extractor.
func (n *clipNet) Run(ctx context.Context, x tensor.Tensor, outputs ...string) (map[string]ort.Array, error) {
	for _, o := range outputs {
		if o != Pool {
			return nil, fmt.Errorf("models: %s has no output %q; it has %s", n.file.Path(), o, Pool)
		}
	}
	out, err := n.images.Run(ctx, false, map[string]ort.Array{"pixels": ort.Floats(x)})
	if err != nil {
		return nil, err
	}
	embeds := out["image_embeds"]
	if err := models.CheckFinite(embeds.Tensor(), n.file.Path(), "image_embeds"); err != nil {
		return nil, err
	}
	return map[string]ort.Array{Pool: embeds}, nil
}

// Rest implements Extractor.
func (n *clipNet) Rest() {
	n.images.Rest()
	if n.texts != nil {
		n.texts.Rest()
	}
}

// Close implements Model.
func (n *clipNet) Close() {
	if n.texts != nil {
		n.texts.Close()
	}
	n.images.Close()
	n.file.Close()
}

// cropOutputs are what a reference case calls the pixels and embeddings of a
// preprocessing.
var cropOutputs = map[Resize][2]string{
	CLIPCrop: {"pixels", "image_embeds"}, OpenAICrop: {"pixels_openai", ""}, CMMDCrop: {"pixels_cmmd", "image_embeds_cmmd"},
}

// Forward implements Model: pixels [N,3,S,S] less the mean over the standard deviation →
// model [N,1+(S/P)²,D], pooled [N,D], image_embeds [N,P]; or images uint8
// [N,H,W,3] → pixels, pixels_openai and pixels_cmmd [N,3,S,S], image_embeds [N,P] of
// the first and image_embeds_cmmd [N,P] of the last, each row over its length.
func (n *clipNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	side := n.file.Image.ImageSize
	if x, ok := in["pixels"]; ok {
		if _, floats := x.Data.([]float32); !floats || len(x.Shape) != 4 || !slices.Equal(x.Shape[1:], []int{3, side, side}) {
			return nil, fmt.Errorf("models: pixels have shape %v and hold %T, expected float32 [N,3,%d,%[3]d]", x.Shape, x.Data, side)
		}
		return n.images.Run(ctx, true, map[string]ort.Array{"pixels": x})
	}
	images, err := models.ImagesIn(in)
	if err != nil {
		return nil, err
	}
	out := map[string]ort.Array{}
	for r, names := range cropOutputs {
		x, err := n.Input(r, images)
		if err != nil {
			return nil, err
		}
		out[names[0]] = ort.Floats(x.Clone())
		if names[1] == "" {
			continue
		}
		o, err := n.Run(ctx, x, Pool)
		if err != nil {
			return nil, err
		}
		embeds := o[Pool].Tensor()
		if r == CMMDCrop {
			for i := range embeds.Rows() {
				overLength(embeds.Row(i))
			}
		}
		out[names[1]] = ort.Floats(embeds)
	}
	return out, nil
}

// overLength divides a row by its L2 norm.
func overLength(row []float32) {
	sum := 0.0
	for _, v := range row {
		sum += float64(v) * float64(v)
	}
	for i, v := range row {
		row[i] = float32(float64(v) / math.Sqrt(sum))
	}
}

var (
	_ models.Guesser       = (*CLIP)(nil)
	_ models.FolderGuesser = (*CLIP)(nil)
	_ models.FileLister    = (*CLIP)(nil)
)

// Guess implements Guesser.
func (c *CLIP) Guess(tensors checkpoint.StateDict) (models.Guess, bool) {
	image, mismatches, ok := sd.GuessCLIP(tensors)
	g := models.Guess{Evidence: "visual.conv1 and visual.class_embedding of OpenCLIP or OpenAI", Mismatches: mismatches}
	if ok && mismatches == nil {
		g.Evidence += ": " + image.Name()
		g.Flags = []models.Flag{models.NewFlag("hidden_act", image.HiddenAct)}
	}
	return g, ok
}

// GuessFolder implements FolderGuesser.
func (c *CLIP) GuessFolder(path string) (models.Guess, bool) {
	if !sd.IsCLIPFolder(path) {
		return models.Guess{}, false
	}
	g := models.Guess{Evidence: "the configuration of a CLIP"}
	if n, err := sd.OpenCLIP(path, "", ""); err == nil {
		g.Evidence += ": " + n.Image.Name()
		n.Close()
	}
	return g, true
}

// OpenTokenizer implements models.Tokenizing: path is a folder with a tokenizer's files.
func (c *CLIP) OpenTokenizer(path string) (models.Tokenizer, error) {
	return (&sd.CLIPText{}).OpenTokenizer(path)
}

// CLIPVision is the image half as a family of its own, for reference cases: with
// the pixels of a case its outputs are those of CLIPVisionModelWithProjection.
type CLIPVision CLIP

// Open implements Family.
func (c *CLIPVision) Open(path string, opt models.Options) (models.Model, error) {
	return (*CLIP)(c).open(path, opt)
}
