package sd

import (
	"context"
	"errors"
	"fmt"

	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/sampling"
)

// flags are those that all generations of Stable Diffusion share.
type flags struct {
	Component      string `yaml:"component" doc:"one part alone: unet, vae, text_encoder or, of SDXL, text_encoder_2; empty = all, to draw images"`
	Variant        string `yaml:"variant" doc:"which weights of the folder: fp16 = files such as diffusion_pytorch_model.fp16.safetensors; empty = those without a variant"`
	Height         int    `yaml:"height" min:"0" max:"4096" doc:"of the images, in pixels; 0 = what the U-Net was trained on"`
	Width          int    `yaml:"width" min:"0" max:"4096" doc:"of the images, in pixels; 0 = what the U-Net was trained on"`
	NegativePrompt string `yaml:"negative_prompt" doc:"what stands for ∅ in classifier-free guidance; empty = the empty prompt, or for SDXL what force_zeros_for_empty_prompt says"`
	ClipSkip       int    `yaml:"clip_skip" min:"0" max:"255" doc:"layers at the end of each text encoder that are left out, beside those that the model leaves out anyway; 0 = none"`
	PredictionType string `yaml:"prediction_type" doc:"epsilon, v_prediction or sample; empty = what scheduler_config.json or original_config says, or for SD 1.x and SDXL epsilon"`

	// Of single files, which do not hold everything.
	OriginalConfig sampling.File `yaml:"original_config" type:"path" doc:"of a single file: path of its YAML configuration, such as v1-inference.yaml or sd_xl_base.yaml; without one, what the shapes tell and the published models have"`
	Tokenizer      sampling.File `yaml:"tokenizer" type:"path" doc:"of a single file: path of a tokenizer folder (vocab.json, merges.txt); without one, CLIP's own, where the text encoder has its 49,408 tokens"`
	TextEncoder    *clipSizes    `yaml:"text_encoder" doc:"of a single file: sizes of the text encoder that differ from the published ones"`
	ExtractEMA     bool          `yaml:"extract_ema" doc:"of a single file: take the averaged weights of the U-Net, where the file holds both"`
}

// IdleFlags are the flags that change no pixel: files count by their content.
func (*flags) IdleFlags() []string {
	return []string{"variant", "original_config", "tokenizer", "tokenizer_2", "unet"}
}

// Conditioning implements Conditional: ∅ is that of the negative prompt.
func (*flags) Conditioning() models.Conditioning { return models.Conditioning{Text: true, Null: true} }

// TakesPrompts implements Captioned: all of Stable Diffusion does, a component
// of it does not.
func (c *flags) TakesPrompts() bool { return c.Component == "" }

// Negative implements Captioned.
func (c *flags) Negative() string { return c.NegativePrompt }

// validate tells everything that is wrong with the flags of a generation.
func (c *flags) validate(g *generation) error {
	errs := []error{
		oneOf("component", c.Component, append([]string{""}, g.components()...)...),
		oneOf("prediction_type", c.PredictionType, "", "epsilon", "v_prediction", "sample"),
	}
	for key, n := range map[string]int{"height": c.Height, "width": c.Width, "clip_skip": c.ClipSkip} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s is %d, expected 0 or a positive number", key, n))
		}
	}
	return errors.Join(errs...)
}

// A generation is what tells the pipelines of Stable Diffusion apart: 1.x and 2.x
// are one, XL is another.
type generation struct {
	name, versions string   // for messages
	pipelines      []string // classes of diffusers
	textParts      []textPart
	added          bool // the U-Net takes text_embeds and time_ids as well
	indexed        bool // model_index.json says something of what is drawn
	original       originalLayout
	// published adds to what the shapes of a single file tell what the published
	// models have.
	published func(p pipeline, s *singleFile, d *description) error
	// guessed is the version that a single file is of, the side of its latents, and
	// what it predicts.
	guessed func(*singleFile) (version string, side int, prediction models.Flag)
	// refused says what a pipeline's folder is by its model_index.json, where it is
	// none that can draw; nil where there is nothing to refuse.
	refused func(index value) string
}

// A textPart is a text encoder with its tokenizer.
type textPart struct {
	encoder, tokenizer, class string // the folders, and the encoder's class
	transformers, openCLIP    string // what its keys begin with in a single file, by the library whose names follow; "" = never
	spare                     int    // of an OpenCLIP encoder with so many layers the last is left out
}

// A part is one folder of a pipeline.
type part struct {
	name    string
	classes []string // that are supported; nil = any: the sampler is the experiment's choice
	stem    stems    // of the weights; the zero stems where there are none
}

// parts are those that are used.
func (g *generation) parts() []part {
	all := []part{{"unet", []string{"UNet2DConditionModel"}, diffusersStems}, {"vae", []string{"AutoencoderKL"}, diffusersStems}}
	for _, t := range g.textParts {
		all = append(all, part{t.encoder, []string{t.class}, transformersStems}, part{t.tokenizer, []string{"CLIPTokenizer", "CLIPTokenizerFast"}, stems{}})
	}
	return append(all, part{"scheduler", nil, stems{}})
}

// components are the parts that are networks.
func (g *generation) components() []string {
	var names []string
	for _, p := range g.parts() {
		if p.stem != (stems{}) {
			names = append(names, p.name)
		}
	}
	return names
}

// A conditioner makes conditions of what the text encoders say.
type conditioner interface {
	// check holds the text encoders against the U-Net.
	check(n *Net) error
	// condition is that of the tokens of prompts, [N,L] for each text encoder;
	// negative where they stand for ∅.
	condition(ctx context.Context, n *Net, ids []ort.Array, negative bool) (sampling.Cond, error)
	// blank is ∅ of one image without a negative prompt; false where that is the
	// empty prompt's.
	blank(n *Net) (sampling.Cond, bool)
}
