package sd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// SDXL is Stable Diffusion XL (Podell et al., arXiv 2307.01952): a diffusers folder
// (StableDiffusionXLPipeline) or one file in the layout of Stability AI's
// generative-models. Networks of few steps with its U-Net (SDXL-Turbo,
// SDXL-Lightning) are SDXL; its refiner is not.
//
// The U-Net reads the states before the last layer of two text encoders, side by
// side, the pooled text of the second, and sizes (section 2.2 of the paper):
// diffusers pipeline_stable_diffusion_xl.py encode_prompt and _get_add_time_ids,
// whose arguments the flags are. A batch gets the sizes that its images are meant to
// have; the pipeline mixes up those of ∅ where it draws several prompts at once.
type SDXL struct {
	flags                      `yaml:",inline"`
	OriginalSize               []int         `yaml:"original_size" min:"0" max:"65536" doc:"micro-conditioning: height and width of the original image, in pixels; empty = those of the images"`
	CropsCoordsTopLeft         []int         `yaml:"crops_coords_top_left" min:"0" max:"65536" doc:"micro-conditioning: top and left of the crop, in pixels"`
	TargetSize                 []int         `yaml:"target_size" min:"0" max:"65536" doc:"micro-conditioning: height and width that are aimed at, in pixels; empty = those of the images"`
	NegativeOriginalSize       []int         `yaml:"negative_original_size" min:"0" max:"65536" doc:"original_size of ∅, together with negative_target_size; empty = the same sizes for both"`
	NegativeCropsCoordsTopLeft []int         `yaml:"negative_crops_coords_top_left" min:"0" max:"65536" doc:"crops_coords_top_left of ∅, beside the other two; empty = 0 and 0"`
	NegativeTargetSize         []int         `yaml:"negative_target_size" min:"0" max:"65536" doc:"target_size of ∅, together with negative_original_size"`
	ForceZerosForEmptyPrompt   *bool         `yaml:"force_zeros_for_empty_prompt" doc:"without a negative prompt ∅ is embeddings of zeros, and not those of the empty text; absent = what model_index.json says, or true"`
	UNet                       sampling.File `yaml:"unet" type:"path" doc:"path of a file with another U-Net of the same sizes in diffusers' names, which takes the place of the checkpoint's: sdxl_lightning_4step_unet.safetensors"`
	Tokenizer2                 sampling.File `yaml:"tokenizer_2" type:"path" doc:"of a single file: as tokenizer, for the second text encoder"`
	TextEncoder2               *clipSizes    `yaml:"text_encoder_2" doc:"of a single file: sizes of the second text encoder that differ from the published ones"`
}

// NewSDXL is SDXL with the defaults of diffusers' pipeline.
func NewSDXL() *SDXL { return &SDXL{CropsCoordsTopLeft: []int{0, 0}} }

// sdxlPipelines are the pipelines whose networks those are.
var sdxlPipelines = []string{"StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLPAGPipeline"}

var sdxlGeneration = generation{
	name: "Stable Diffusion XL", versions: "Stable Diffusion XL",
	pipelines: sdxlPipelines,
	textParts: []textPart{
		{encoder: "text_encoder", tokenizer: "tokenizer", class: "CLIPTextModel", transformers: "conditioner.embedders.0.transformer."},
		{encoder: "text_encoder_2", tokenizer: "tokenizer_2", class: "CLIPTextModelWithProjection", openCLIP: "conditioner.embedders.1.model."},
	},
	added: true, indexed: true,
	original: originalLayout{
		whose: "Stability AI's", engine: "Stability AI's DiffusionEngine",
		evidence: "model.diffusion_model, first_stage_model and conditioner of Stability AI's DiffusionEngine in one file",
		targets: []target{
			{"model.target", []string{"sgm.models.diffusion.DiffusionEngine"}},
			{"model.params.network_config.target", []string{"sgm.modules.diffusionmodules.openaimodel.UNetModel"}},
			{"model.params.first_stage_config.target", []string{"sgm.models.autoencoder.AutoencoderKL", "sgm.models.autoencoder.AutoencoderKLInferenceWrapper"}},
			{"model.params.denoiser_config.target", []string{"sgm.modules.diffusionmodules.denoiser.DiscreteDenoiser"}},
			{"model.params.denoiser_config.params.discretization_config.target", []string{"sgm.modules.diffusionmodules.discretizer.LegacyDDPMDiscretization"}},
			{"model.params.conditioner_config.params.emb_models.0.target", []string{"sgm.modules.encoders.modules.FrozenCLIPEmbedder"}},
			{"model.params.conditioner_config.params.emb_models.1.target", []string{"sgm.modules.encoders.modules.FrozenOpenCLIPEmbedder2"}},
		},
		network: "model.params.network_config.params.",
		process: readSGM,
	},
	published: publishedSDXL,
	guessed: func(*singleFile) (string, int, models.Flag) {
		return "XL", sdxlSide, models.NewFlag("prediction_type", "epsilon", "as published; not in the shapes")
	},
	refused: func(index value) string {
		if at, ok := index.at("requires_aesthetics_score"); ok && at.text() == "true" {
			return refinerIs
		}
		return ""
	},
}

const (
	// sdxlSide is the side of the latents that SDXL was trained on.
	sdxlSide = 128
	// sdxlScale is the scaling factor of its autoencoder: configs/inference/sd_xl_base.yaml.
	sdxlScale = 0.13025

	refinerIs = "this is Stable Diffusion XL's refiner, which works on images of the base model and draws none from prompts alone; give the base model"
)

// publishedSDXL are the habits of stable-diffusion-xl-base-1.0.
func publishedSDXL(_ pipeline, _ *singleFile, d *description) error {
	d.unet.SampleSize, d.vae.ScalingFactor, d.scheduler.ClassName = new(one(sdxlSide)), sdxlScale, "EulerDiscreteScheduler"
	return nil
}

// readSGM reads what a YAML file of generative-models (configs/inference/
// sd_xl_base.yaml) says of the process and of the sizes' embedding.
func readSGM(r *originalReader, d *description) {
	const denoiser = "model.params.denoiser_config.params."
	scaling, prefix := "", "sgm.modules.diffusionmodules.denoiser_scaling."
	switch r.read(denoiser+"scaling_config.target", &scaling); scaling {
	case prefix + "EpsScaling":
	case prefix + "VScaling":
		*d.scheduler.PredictionType = "v_prediction"
	default:
		r.fault(denoiser+"scaling_config.target", "%q is not supported; supported: %[2]sEpsScaling, %[2]sVScaling", scaling, prefix)
	}
	r.read(denoiser+"num_idx", d.scheduler.NumTrainTimesteps)
	r.read(denoiser+"discretization_config.params.linear_start", d.scheduler.BetaStart)
	r.read(denoiser+"discretization_config.params.linear_end", d.scheduler.BetaEnd)
	if d.unet.AdditionTimeEmbedDim != nil {
		r.read("model.params.conditioner_config.params.emb_models.2.params.outdim", d.unet.AdditionTimeEmbedDim)
	}
	d.unet.SampleSize, d.scheduler.ClassName = new(one(sdxlSide)), "EulerDiscreteScheduler" // which the file does not tell
}

// isXL reports whether a single file, or a U-Net in diffusers' names, is told of
// sizes, as those of SDXL are.
func isXL(sd checkpoint.StateDict) bool {
	return begins(sd, "conditioner.embedders.") || !begins(sd, "cond_stage_model.") && (sd.Has("add_embedding.linear_1.weight") || sd.Has(ldmUNet+"label_emb.0.0.weight"))
}

func (c *SDXL) pipeline() pipeline {
	return pipeline{
		flags: &c.flags, generation: &sdxlGeneration, conditioner: c, unetFile: c.UNet,
		stated: []statedText{{c.Tokenizer, c.TextEncoder}, {c.Tokenizer2, c.TextEncoder2}},
	}
}

var (
	_ models.Captioned     = (*SDXL)(nil)
	_ models.Composite     = (*SDXL)(nil)
	_ models.Conditional   = (*SDXL)(nil)
	_ models.FileLister    = (*SDXL)(nil)
	_ models.FolderGuesser = (*SDXL)(nil)
	_ models.Guesser       = (*SDXL)(nil)
	_ models.Noter         = (*SDXL)(nil)
	_ models.WithImageSide = (*SDXL)(nil)
	_ models.Measured      = (*SDXL)(nil)
)

// Validate tells everything that is wrong with the flags.
func (c *SDXL) Validate() error {
	errs := []error{c.validate(&sdxlGeneration)}
	for _, f := range []struct {
		key  string
		size []int
	}{
		{"original_size", c.OriginalSize}, {"crops_coords_top_left", c.CropsCoordsTopLeft}, {"target_size", c.TargetSize},
		{"negative_original_size", c.NegativeOriginalSize}, {"negative_crops_coords_top_left", c.NegativeCropsCoordsTopLeft}, {"negative_target_size", c.NegativeTargetSize},
	} {
		if n := len(f.size); n != 0 && n != 2 {
			errs = append(errs, fmt.Errorf("%s has %d numbers, expected 2", f.key, n))
		}
	}
	original, target := len(c.NegativeOriginalSize) > 0, len(c.NegativeTargetSize) > 0
	switch {
	case original != target:
		errs = append(errs, errors.New("negative_original_size and negative_target_size are given together or not at all"))
	case !original && len(c.NegativeCropsCoordsTopLeft) > 0:
		errs = append(errs, errors.New("negative_crops_coords_top_left needs negative_original_size and negative_target_size"))
	}
	return errors.Join(errs...)
}

// Open implements Family.
func (c *SDXL) Open(path string, opt models.Options) (models.Model, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("models: sdxl: %w", err)
	}
	return c.pipeline().open(path, opt)
}

// Notes implements Noter.
func (c *SDXL) Notes(path string, prompts []string, opt models.Options) ([]string, error) {
	return c.pipeline().notes(path, prompts, opt)
}

// ImageSides implements WithImageSide.
func (c *SDXL) ImageSides(path string) (height, width int) { return c.pipeline().imageSides(path) }

// Measure implements Measured.
func (c *SDXL) Measure(path string, _, _ int) (models.Size, error) { return c.pipeline().measure(path) }

// Files implements FileLister.
func (c *SDXL) Files(path string) ([]string, error) { return c.pipeline().files(path) }

// Parts implements Composite.
func (c *SDXL) Parts() []models.Part { return c.pipeline().named() }

// Guess implements Guesser for single files and for the U-Net of a folder.
func (c *SDXL) Guess(sd checkpoint.StateDict) (models.Guess, bool) { return c.pipeline().guess(sd) }

// GuessFolder implements FolderGuesser.
func (c *SDXL) GuessFolder(path string) (models.Guess, bool) { return c.pipeline().guessFolder(path) }

// check implements conditioner.
func (c *SDXL) check(n *Net) error {
	var errs []error
	for i, text := range n.texts {
		if layers := text.config.NumHiddenLayers; c.ClipSkip >= layers {
			errs = append(errs, fmt.Errorf("clip_skip is %d, %s has %d layers, of which the last is never used", c.ClipSkip, sdxlGeneration.textParts[i].name(), layers))
		}
	}
	last := n.texts[len(n.texts)-1]
	want, have := n.unet.config.textEmbeds(), last.config.ProjectionDim
	if !last.projects() {
		errs = append(errs, errors.New("the second text encoder has no text_projection"))
	} else if have != want {
		errs = append(errs, fmt.Errorf("the U-Net takes text_embeds of %d channels, the second text encoder has projection_dim %d", want, have))
	}
	if a, b := n.tokens[0], n.tokens[1]; a != nil && b != nil && a.length != b.length {
		errs = append(errs, fmt.Errorf("the tokenizers make prompts of %d and of %d tokens, expected the same", a.length, b.length))
	}
	return errors.Join(errs...)
}

// condition implements conditioner: the states before the last layer, or with
// clip_skip before further ones, [N,L,D1+D2]; text_embeds and time ids, [N,P+6]. As
// in the pipeline, clip_skip is not for ∅.
func (c *SDXL) condition(ctx context.Context, n *Net, ids []ort.Array, negative bool) (none sampling.Cond, err error) {
	key := textKey{skip: 1, raw: true}
	if !negative {
		key.skip += c.ClipSkip
	}
	var states []tensor.Tensor
	var pooled tensor.Tensor
	for i, text := range n.texts {
		out, err := text.run(ctx, ids[i], key)
		if err != nil {
			return none, err
		}
		states = append(states, out["hidden"].Tensor())
		if i == len(n.texts)-1 {
			pooled = out["text_embeds"].Tensor()
		}
	}
	return sampling.Cond{Context: tensor.Beside(states...), Vector: c.withSizes(n, pooled, negative)}, nil
}

// blank implements conditioner: embeddings of zeros, with force_zeros_for_empty_prompt.
func (c *SDXL) blank(n *Net) (sampling.Cond, bool) {
	if !c.zeros(n.path) || n.Lacks() != nil {
		return sampling.Cond{}, false
	}
	u := n.unet.config
	pooled := c.withSizes(n, tensor.New(1, u.textEmbeds()), true)
	return sampling.Cond{Context: tensor.New(1, n.tokens[0].length, u.CrossAttentionDim), Vector: pooled}, true
}

// zeros is force_zeros_for_empty_prompt of the flags, of model_index.json, or of the
// pipeline's constructor.
func (c *SDXL) zeros(path string) bool {
	if c.ForceZerosForEmptyPrompt != nil {
		return *c.ForceZerosForEmptyPrompt
	}
	index, err := readJSON(filepath.Join(path, "model_index.json"))
	at, _ := index.at("force_zeros_for_empty_prompt")
	return err != nil || at.text() != "false"
}

// withSizes puts the time ids behind pooled text, [N,P] → [N,P+6].
func (c *SDXL) withSizes(n *Net, pooled tensor.Tensor, negative bool) tensor.Tensor {
	s, f := n.latentSize(), n.vae.config.factor()
	image := []int{s.height * f, s.width * f}
	size := func(given []int, otherwise ...int) []int {
		if len(given) > 0 {
			return given
		}
		return otherwise
	}
	original, crop, target := size(c.OriginalSize, image...), size(c.CropsCoordsTopLeft, 0, 0), size(c.TargetSize, image...)
	if negative && len(c.NegativeOriginalSize) > 0 {
		original, crop, target = c.NegativeOriginalSize, size(c.NegativeCropsCoordsTopLeft, 0, 0), c.NegativeTargetSize
	}
	ids := tensor.New(pooled.Rows(), timeIDs)
	for i, v := range slices.Concat(original, crop, target) {
		for row := range pooled.Rows() {
			ids.Row(row)[i] = float32(v)
		}
	}
	return tensor.Beside(pooled, ids)
}
