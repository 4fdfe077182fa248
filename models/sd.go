package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/models/onnx"
)

// SD is Stable Diffusion 1.x and 2.x (Rombach et al., arXiv 2112.10752): a
// diffusers folder (StableDiffusionPipeline), whose config.json files are the
// source of all dimensions, or one file in the layout of CompVis' and
// Stability AI's code.
type SD struct {
	Component      string `yaml:"component" doc:"one part alone: unet, vae or text_encoder; empty = all, to draw images"`
	Variant        string `yaml:"variant" doc:"which weights of the folder: fp16 = files such as diffusion_pytorch_model.fp16.safetensors; empty = those without a variant"`
	Height         int    `yaml:"height" doc:"of the images, in pixels; 0 = what the U-Net was trained on"`
	Width          int    `yaml:"width" doc:"of the images, in pixels; 0 = what the U-Net was trained on"`
	NegativePrompt string `yaml:"negative_prompt" doc:"what stands for ∅ in classifier-free guidance; empty = the empty prompt"`
	ClipSkip       int    `yaml:"clip_skip" doc:"layers at the end of the text encoder that are left out; 0 = none"`
	PredictionType string `yaml:"prediction_type" doc:"epsilon or v_prediction; empty = what scheduler_config.json or original_config says, or for SD 1.x epsilon"`

	// Of single files, which do not hold everything.
	OriginalConfig configs.Block `yaml:"original_config" doc:"of a single file: path of its YAML configuration, such as v1-inference.yaml; without one, what the shapes tell and the published models have"`
	Tokenizer      configs.Block `yaml:"tokenizer" doc:"of a single file: path of a tokenizer folder (vocab.json, merges.txt); without one, CLIP's own, where the text encoder has its 49,408 tokens"`
	TextEncoder    *clipSizes    `yaml:"text_encoder" doc:"of a single file: sizes of the text encoder that differ from the published ones"`
	ExtractEMA     bool          `yaml:"extract_ema" doc:"of a single file: take the averaged weights of the U-Net, where the file holds both"`
}

// IdleFlags are the flags that change no pixel: files count by their content.
func (*SD) IdleFlags() []string { return []string{"variant", "original_config", "tokenizer"} }

// The parts of a diffusers folder that are used, with the class of each.
var sdParts = map[string][]string{
	"unet":         {"UNet2DConditionModel"},
	"vae":          {"AutoencoderKL"},
	"text_encoder": {"CLIPTextModel"},
	"tokenizer":    {"CLIPTokenizer", "CLIPTokenizerFast"},
	"scheduler":    nil, // the sampler is the experiment's choice
}

// sdPipelines are the pipelines whose networks those are.
var sdPipelines = []string{"StableDiffusionPipeline", "StableDiffusionSAGPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionPAGPipeline"}

// Validate implements configs.Validator.
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
func (*SD) Conditioning() Conditioning { return Conditioning{Text: true, Null: true} }

// Open implements Family.
func (c *SD) Open(path string, opt Options) (Model, error) {
	if err := errors.Join(c.Validate(), validTaps(opt.Taps)); err != nil {
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
	case !c.OriginalConfig.IsNull(), !c.Tokenizer.IsNull(), c.TextEncoder != nil, c.ExtractEMA:
		return nil, fmt.Errorf("models: %s: original_config, tokenizer, text_encoder and extract_ema are for single files; a folder of diffusers says all of it itself", path)
	}
	return c.openFolder(path, opt)
}

func (c *SD) openFolder(path string, opt Options) (Model, error) {
	switch c.Component {
	case "vae":
		return (&VAE{Variant: c.Variant}).Open(partFolder(path, "vae"), opt)
	case "text_encoder":
		return (&CLIPText{Variant: c.Variant}).Open(partFolder(path, "text_encoder"), opt)
	case "unet":
		return c.loadUNet(partFolder(path, "unet"), opt)
	}
	if err := checkPipeline(path); err != nil {
		return nil, err
	}
	n := &SDNet{flags: c}
	var errs [5]error
	plain := Options{Options: opt.Options}
	n.unet, errs[0] = c.loadUNet(filepath.Join(path, "unet"), opt)
	n.vae, errs[1] = (&VAE{Variant: c.Variant}).Load(filepath.Join(path, "vae"), plain)
	n.text, errs[2] = (&CLIPText{Variant: c.Variant}).Load(filepath.Join(path, "text_encoder"), plain)
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
	b, err := readJSON(filepath.Join(path, "model_index.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("models: %w", err)
	}
	var errs []error
	if at, ok := b.At("_class_name"); ok {
		if name, _ := at.Text(); !slices.Contains(sdPipelines, name) {
			return fmt.Errorf("models: %w", at.Errorf("%q is not supported; supported: %s", name, strings.Join(sdPipelines, ", ")))
		}
	}
	var missing []string
	for _, part := range []string{"unet", "vae", "text_encoder", "tokenizer", "scheduler"} {
		if info, err := os.Stat(filepath.Join(path, part)); err != nil || !info.IsDir() {
			missing = append(missing, part)
			continue
		}
		if class, ok := b.At(part + ".1"); ok && sdParts[part] != nil {
			if name, _ := class.Text(); !slices.Contains(sdParts[part], name) {
				errs = append(errs, fmt.Errorf("models: %w", class.Errorf("%q is not supported; supported: %s", name, strings.Join(sdParts[part], ", "))))
			}
		}
	}
	if of := partClass(path); of != "" && len(missing) > 0 {
		return fmt.Errorf("models: %s is the folder of a part (%s); give the folder that holds it, or component: unet, vae or text_encoder for the part alone", path, of)
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("models: %s: %s is missing; a Stable Diffusion folder has unet, vae, text_encoder, tokenizer and scheduler (or give component: unet, vae or text_encoder for one of them)", path, strings.Join(missing, ", ")))
	}
	return errors.Join(errs...)
}

// loadUNet opens the U-Net; graphs are made for the sizes that come. The
// folder's keys are compared with its config.json, and the taps looked for, at
// once.
func (c *SD) loadUNet(folder string, opt Options) (*sdUNet, error) {
	config := newSDUNetConfig()
	if err := readConfig(folder, config); err != nil {
		return nil, err
	}
	w, err := folderWeights(folder, diffusersStems, c.Variant)
	if err != nil {
		return nil, err
	}
	n, err := newSDUNet(config, w, opt)
	if err != nil {
		w.Close()
		return nil, err
	}
	return n, nil
}

func newSDUNet(c *sdUNetConfig, w *weights, opt Options) (*sdUNet, error) {
	build := func(m *onnx.Module, s sdSize) error { return c.build(m, s, newTaps(opt.Taps, opt.Perturbations...)) }
	var tapErr error
	_, err := onnx.Build(w.tensors, func(m *onnx.Module) { tapErr = build(m, sdSize{size{1, 1}, 1}) })
	if err = errors.Join(err, tapErr); err != nil {
		return nil, w.fault(err)
	}
	opt.Content = w.SHA256
	return &sdUNet{config: c, weights: w, tapped: len(opt.Taps) > 0, perturbations: opt.Perturbations,
		net: &sizedNet[sdSize]{path: w.path, tensors: w.tensors, opt: opt.Options, build: build}}, nil
}
