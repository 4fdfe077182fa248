// Package sd is Stable Diffusion 1.x and 2.x and diffusers' folders of other
// networks: a folder of diffusers or a single file in CompVis' layout goes in, a
// network that draws from prompts, or a part of one (U-Net, autoencoder, text
// encoder), comes out.
package sd

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/clipbpe"
	"sagbench/models/onnx"
	"sagbench/sampling"
)

// SD is Stable Diffusion 1.x and 2.x (Rombach et al., arXiv 2112.10752): a
// diffusers folder (StableDiffusionPipeline), whose config.json files are the
// source of all dimensions, or one file in the layout of CompVis' and
// Stability AI's code.
type SD struct {
	Component      string `yaml:"component" doc:"one part alone: unet, vae or text_encoder; empty = all, to draw images"`
	Variant        string `yaml:"variant" doc:"which weights of the folder: fp16 = files such as diffusion_pytorch_model.fp16.safetensors; empty = those without a variant"`
	Height         int    `yaml:"height" min:"0" max:"4096" doc:"of the images, in pixels; 0 = what the U-Net was trained on"`
	Width          int    `yaml:"width" min:"0" max:"4096" doc:"of the images, in pixels; 0 = what the U-Net was trained on"`
	NegativePrompt string `yaml:"negative_prompt" doc:"what stands for ∅ in classifier-free guidance; empty = the empty prompt"`
	ClipSkip       int    `yaml:"clip_skip" min:"0" max:"255" doc:"layers at the end of the text encoder that are left out; 0 = none"`
	PredictionType string `yaml:"prediction_type" doc:"epsilon or v_prediction; empty = what scheduler_config.json or original_config says, or for SD 1.x epsilon"`

	// Of single files, which do not hold everything.
	OriginalConfig sampling.File `yaml:"original_config" type:"path" doc:"of a single file: path of its YAML configuration, such as v1-inference.yaml; without one, what the shapes tell and the published models have"`
	Tokenizer      sampling.File `yaml:"tokenizer" type:"path" doc:"of a single file: path of a tokenizer folder (vocab.json, merges.txt); without one, CLIP's own, where the text encoder has its 49,408 tokens"`
	TextEncoder    *clipSizes    `yaml:"text_encoder" doc:"of a single file: sizes of the text encoder that differ from the published ones"`
	ExtractEMA     bool          `yaml:"extract_ema" doc:"of a single file: take the averaged weights of the U-Net, where the file holds both"`
}

// IdleFlags are the flags that change no pixel: files count by their content.
func (*SD) IdleFlags() []string { return []string{"variant", "original_config", "tokenizer"} }

// The parts of a diffusers folder that are used.
var sdParts = []struct {
	name    string
	classes []string // that are supported; nil = any: the sampler is the experiment's choice
	stem    stems    // of the weights; the zero stems where there are none
}{
	{"unet", []string{"UNet2DConditionModel"}, diffusersStems},
	{"vae", []string{"AutoencoderKL"}, diffusersStems},
	{"text_encoder", []string{"CLIPTextModel"}, transformersStems},
	{"tokenizer", []string{"CLIPTokenizer", "CLIPTokenizerFast"}, stems{}},
	{"scheduler", nil, stems{}},
}

// sdPipelines are the pipelines whose networks those are.
var sdPipelines = []string{"StableDiffusionPipeline", "StableDiffusionSAGPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionPAGPipeline"}

// Validate tells everything that is wrong with the flags.
func (c *SD) Validate() error {
	errs := []error{
		oneOf("component", c.Component, "", "unet", "vae", "text_encoder"),
		oneOf("prediction_type", c.PredictionType, "", "epsilon", "v_prediction", "sample"),
	}
	for key, n := range map[string]int{"height": c.Height, "width": c.Width, "clip_skip": c.ClipSkip} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s is %d, expected 0 or a positive number", key, n))
		}
	}
	return errors.Join(errs...)
}

// Conditioning implements Conditional: ∅ is the empty prompt.
func (*SD) Conditioning() models.Conditioning { return models.Conditioning{Text: true, Null: true} }

// Open implements Family.
func (c *SD) Open(path string, opt models.Options) (models.Model, error) {
	if err := errors.Join(c.Validate(), models.CheckTaps(opt.Taps)); err != nil {
		return nil, fmt.Errorf("models: sd: %w", err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("models: %s: no such file or folder; expected a diffusers folder of Stable Diffusion, or one .safetensors or .ckpt file", path)
	case err != nil:
		return nil, fmt.Errorf("models: %w", err)
	case !info.IsDir():
		return c.openSingle(path, opt)
	case !c.OriginalConfig.IsZero(), !c.Tokenizer.IsZero(), c.TextEncoder != nil, c.ExtractEMA:
		return nil, fmt.Errorf("models: %s: original_config, tokenizer, text_encoder and extract_ema are for single files; a folder of diffusers says all of it itself", path)
	}
	if path, err = snapshot(path); err != nil {
		return nil, err
	}
	return c.openFolder(path, opt)
}

func (c *SD) openFolder(path string, opt models.Options) (models.Model, error) {
	switch c.Component {
	case "vae":
		return (&VAE{Variant: c.Variant}).Open(partFolder(path, "vae"), opt)
	case "text_encoder":
		return (&CLIPText{Variant: c.Variant}).Open(partFolder(path, "text_encoder"), opt)
	case "unet":
		return loadPart(partFolder(path, "unet"), newSDUNetConfig(), c.Variant, newSDUNet, opt)
	}
	if err := checkPipeline(path); err != nil {
		return nil, err
	}
	n := &Net{flags: c}
	var errs [5]error
	plain := models.Options{Options: opt.Options}
	n.unet, errs[0] = loadPart(filepath.Join(path, "unet"), newSDUNetConfig(), c.Variant, newSDUNet, opt)
	n.vae, errs[1] = (&VAE{Variant: c.Variant}).load(filepath.Join(path, "vae"), plain)
	n.text, errs[2] = (&CLIPText{Variant: c.Variant}).load(filepath.Join(path, "text_encoder"), plain)
	n.tokens, errs[3] = openCLIPTokens(filepath.Join(path, "tokenizer"))
	n.scheduler, errs[4] = readScheduler(filepath.Join(path, "scheduler", "scheduler_config.json"))
	return n.checked(path, errors.Join(errs[:]...))
}

// partFolder is the folder of a part, or path itself where that is one.
func partFolder(path, part string) string {
	if _, err := os.Stat(filepath.Join(path, "config.json")); err == nil {
		return path
	}
	return filepath.Join(path, part)
}

// checkPipeline looks at model_index.json, where there is one, and for the
// folders of all parts.
func checkPipeline(path string) error {
	index, err := readJSON(filepath.Join(path, "model_index.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("models: %w", err)
	}
	unsupported := func(key string, supported []string) error {
		if at, ok := index.at(key); ok && supported != nil && !slices.Contains(supported, at.text()) {
			return fmt.Errorf("models: %w", at.errorf("%q is not supported; supported: %s", at.text(), strings.Join(supported, ", ")))
		}
		return nil
	}
	if class := pipelineClass(path); slices.Contains(unet2DPipelines, class) {
		return fmt.Errorf("models: %s is the folder of a %s, which draws without prompts (family: unet2d)", path, class)
	}
	if pipelineClass(path) == ditPipeline {
		return fmt.Errorf("models: %s is the folder of a %s, which draws from labels (family: dit2d)", path, ditPipeline)
	}
	if err := unsupported("_class_name", sdPipelines); err != nil {
		return err
	}
	var errs []error
	var missing []string
	for _, part := range sdParts {
		if info, err := os.Stat(filepath.Join(path, part.name)); err != nil || !info.IsDir() {
			missing = append(missing, part.name)
			continue
		}
		errs = append(errs, unsupported(part.name+".1", part.classes))
	}
	if of := partClass(path); of != "" && len(missing) > 0 {
		return fmt.Errorf("models: %s is the folder of a part (%s); give the folder that holds it, or component: unet, vae or text_encoder for the part alone", path, of)
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("models: %s: %s is missing; a Stable Diffusion folder has unet, vae, text_encoder, tokenizer and scheduler (or give component: unet, vae or text_encoder for one of them)", path, strings.Join(missing, ", ")))
	}
	return errors.Join(errs...)
}

// newSDUNet compares the keys with the configuration and looks for the taps;
// graphs are made for the sizes that come.
func newSDUNet(c *sdUNetConfig, w *weights, opt models.Options) (*sdUNet, error) {
	build := func(m *onnx.Module, s sdSize) error { return c.build(m, s, models.NewTaps(opt)) }
	var tapErr error
	_, err := onnx.Build(w.tensors, func(m *onnx.Module) { tapErr = build(m, sdSize{size{1, 1}, 1}) })
	if err = errors.Join(err, tapErr); err != nil {
		return nil, w.fault(err)
	}
	return &sdUNet{config: c, weights: w, net: sessions(w, w.tensors, opt, build), tapped: len(opt.Taps) > 0, perturbations: opt.Perturbations}, nil
}

// TakesPrompts implements Captioned: all of Stable Diffusion does, a component
// of it does not.
func (c *SD) TakesPrompts() bool { return c.Component == "" }

// Negative implements Captioned.
func (c *SD) Negative() string { return c.NegativePrompt }

// Notes implements Noter: the text of prompts that is cut off.
func (c *SD) Notes(path string, prompts []string, opt models.Options) ([]string, error) {
	averages, t, err := c.openTokens(path, opt)
	var notes []string
	if averages {
		used := map[bool]string{false: "raw ones are used; extract_ema: true takes the averages", true: "averages are used (extract_ema)"}[c.ExtractEMA]
		notes = append(notes, fmt.Sprintf("%s: holds the U-Net's weights and their averages; the %s", filepath.Base(path), used))
	}
	if t == nil || err != nil {
		return notes, err
	}
	long, rest, seen := 0, []string(nil), map[string]bool{}
	for _, p := range prompts {
		if seen[p] {
			continue
		}
		seen[p] = true
		cut := t.Cut(p, t.length)
		if cut == "" {
			continue
		}
		if long++; long <= 3 {
			rest = append(rest, fmt.Sprintf("%q", shortened(cut)))
		}
	}
	switch {
	case long == 0:
		return notes, nil
	case long > len(rest):
		rest = append(rest, "…")
	}
	return append(notes, fmt.Sprintf("%d of %d prompts are longer than the %d tokens that the text encoder reads; cut off: %s", long, len(seen), t.length-2, strings.Join(rest, ", "))), nil
}

// openTokens is the tokenizer alone, nil where prompts are not taken or there is
// none, and whether a single file holds averages of the U-Net's weights.
func (c *SD) openTokens(path string, opt models.Options) (averages bool, t *clipTokens, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return false, nil, err
	case info.IsDir() && c.Component != "":
		return false, nil, nil
	case info.IsDir():
		if path, err = snapshot(path); err != nil {
			return false, nil, err
		}
		t, err = openCLIPTokens(filepath.Join(path, "tokenizer"))
		return false, t, err
	}
	w, err := fileWeights(path, opt.Weights)
	if err != nil {
		return false, nil, err
	}
	defer w.Close()
	averages = len(withPrefix(w.tensors, ldmEMA)) > 0
	s, err := splitSingle(w, c.ExtractEMA, c.Component)
	if err != nil || c.Component != "" {
		return averages, nil, err
	}
	d, err := c.describe(s)
	if err != nil {
		return averages, nil, err
	}
	t, err = c.singleTokens(s, d)
	return averages, t, err
}

var _ models.WithImageSide = (*SD)(nil)

// ImageSides implements WithImageSide: what the flags say, else what the U-Net
// was trained on.
func (c *SD) ImageSides(path string) (height, width int) {
	if d, err := c.description(path); err == nil {
		s, f := c.latentSize(d.unet, d.vae), d.vae.factor()
		height, width = s.height*f, s.width*f
	}
	return cmp.Or(c.Height, height), cmp.Or(c.Width, width)
}

// latentSize is the size that was asked for, or that the U-Net was trained on.
func (c *SD) latentSize(u *sdUNetConfig, v *vaeConfig) size {
	s := u.latentSize()
	return size{cmp.Or(c.Height/v.factor(), s.height), cmp.Or(c.Width/v.factor(), s.width)}
}

// description is what the configurations of the checkpoint at path say, or the shapes
// of a single file.
func (c *SD) description(path string) (d description, err error) {
	if isFile(path) {
		w, err := fileWeights(path, "")
		if err != nil {
			return d, err
		}
		defer w.Close()
		s, err := splitSingle(w, false, c.Component)
		if err != nil {
			return d, err
		}
		return c.describe(s)
	}
	d = description{unet: newSDUNetConfig(), vae: newVAEConfig(), text: newCLIPTextConfig()}
	if path, err = snapshot(path); err == nil {
		err = errors.Join(readConfig(filepath.Join(path, "unet"), d.unet), readConfig(filepath.Join(path, "vae"), d.vae), readConfig(filepath.Join(path, "text_encoder"), d.text))
	}
	return d, err
}

// Files implements FileLister: of a folder the files of the parts that are used, of
// a single file that and what the flags name.
func (c *SD) Files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	if !info.IsDir() {
		return c.singleFiles(path)
	}
	if path, err = snapshot(path); err != nil {
		return nil, err
	}
	if c.Component == "" {
		if err := checkPipeline(path); err != nil {
			return nil, err
		}
	}
	var files []string
	for _, part := range sdParts {
		if part.stem == (stems{}) || c.Component != "" && c.Component != part.name {
			continue
		}
		folder := filepath.Join(path, part.name)
		if c.Component != "" {
			folder = partFolder(path, part.name)
		}
		of, err := componentFiles(folder, part.stem, c.Variant)
		if err != nil {
			return nil, err
		}
		files = append(files, of...)
	}
	if c.Component == "" {
		files = append(files, clipbpe.Files(filepath.Join(path, "tokenizer"))...)
		files = append(files, filepath.Join(path, "scheduler", "scheduler_config.json"))
	}
	return files, nil
}

func (c *SD) singleFiles(path string) ([]string, error) {
	files := []string{path}
	if !c.OriginalConfig.IsZero() {
		config, err := c.OriginalConfig.Find()
		if err != nil {
			return nil, err
		}
		files = append(files, config)
	}
	if !c.Tokenizer.IsZero() {
		folder, err := c.Tokenizer.Find()
		if err != nil {
			return nil, err
		}
		files = append(files, clipbpe.Files(folder)...)
	}
	return files, nil
}
