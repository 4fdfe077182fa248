// Package sd is Stable Diffusion 1.x, 2.x and XL, and diffusers' folders of other
// networks: a folder of diffusers or a single file in the layout of the authors'
// code goes in, a network that draws from prompts, or a part of one (U-Net,
// autoencoder, text encoder), comes out.
package sd

import (
	"context"
	"fmt"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/sampling"
)

// SD is Stable Diffusion 1.x and 2.x (Rombach et al., arXiv 2112.10752): a
// diffusers folder (StableDiffusionPipeline), whose config.json files are the
// source of all dimensions, or one file in the layout of CompVis' and
// Stability AI's code.
type SD struct {
	flags `yaml:",inline"`
}

// sdPipelines are the pipelines whose networks those are.
var sdPipelines = []string{"StableDiffusionPipeline", "StableDiffusionSAGPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionPAGPipeline"}

var sdGeneration = generation{
	name:      "Stable Diffusion",
	versions:  "Stable Diffusion 1.x or 2.x",
	pipelines: sdPipelines,
	textParts: []textPart{{
		encoder: "text_encoder", tokenizer: "tokenizer", class: "CLIPTextModel",
		transformers: "cond_stage_model.transformer.", openCLIP: "cond_stage_model.model.", spare: openCLIPLayers,
	}},
	published: publishedSD,
	guessed:   guessedSD,
	original:  compVis,
}

// openCLIPLayers is the number of layers of OpenCLIP ViT-H/14, of which SD 2.x
// leaves out the last (ldm/modules/encoders/modules.py FrozenOpenCLIPEmbedder,
// layer penultimate).
const openCLIPLayers = 24

func (c *SD) pipeline() pipeline {
	return pipeline{flags: &c.flags, generation: &sdGeneration, stated: []statedText{{c.Tokenizer, c.TextEncoder}}, conditioner: c}
}

var (
	_ models.Captioned     = (*SD)(nil)
	_ models.Composite     = (*SD)(nil)
	_ models.Conditional   = (*SD)(nil)
	_ models.FileLister    = (*SD)(nil)
	_ models.FolderGuesser = (*SD)(nil)
	_ models.Guesser       = (*SD)(nil)
	_ models.Noter         = (*SD)(nil)
	_ models.WithImageSide = (*SD)(nil)
	_ models.Measured      = (*SD)(nil)
)

// Validate tells everything that is wrong with the flags.
func (c *SD) Validate() error { return c.validate(&sdGeneration) }

// Open implements Family.
func (c *SD) Open(path string, opt models.Options) (models.Model, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("models: sd: %w", err)
	}
	return c.pipeline().open(path, opt)
}

// Notes implements Noter.
func (c *SD) Notes(path string, prompts []string, opt models.Options) ([]string, error) {
	return c.pipeline().notes(path, prompts, opt)
}

// ImageSides implements WithImageSide.
func (c *SD) ImageSides(path string) (height, width int) { return c.pipeline().imageSides(path) }

// Measure implements Measured.
func (c *SD) Measure(path string, _, _ int) (models.Size, error) { return c.pipeline().measure(path) }

// Files implements FileLister.
func (c *SD) Files(path string) ([]string, error) { return c.pipeline().files(path) }

// Parts implements Composite.
func (c *SD) Parts() []models.Part { return c.pipeline().named() }

// Guess implements Guesser for single files and for the U-Net of a folder.
func (c *SD) Guess(sd checkpoint.StateDict) (models.Guess, bool) { return c.pipeline().guess(sd) }

// GuessFolder implements FolderGuesser.
func (c *SD) GuessFolder(path string) (models.Guess, bool) { return c.pipeline().guessFolder(path) }

// check implements conditioner.
func (c *SD) check(n *Net) error {
	if layers := n.texts[0].config.NumHiddenLayers; c.ClipSkip > layers {
		return fmt.Errorf("clip_skip is %d, the text encoder has %d layers", c.ClipSkip, layers)
	}
	return nil
}

// condition implements conditioner: the text encoder's last hidden state, or with
// clip_skip that of an earlier layer, [N,L,D].
func (c *SD) condition(ctx context.Context, n *Net, ids []ort.Array, _ bool) (cond sampling.Cond, err error) {
	cond.Context, err = n.texts[0].Encode(ctx, ids[0], c.ClipSkip)
	return cond, err
}

// blank implements conditioner: ∅ is the empty prompt.
func (c *SD) blank(*Net) (sampling.Cond, bool) { return sampling.Cond{}, false }

// publishedSD are the habits of the published models. SD 2.x was published for
// both predictions under the same shapes.
func publishedSD(p pipeline, s *singleFile, d *description) error {
	side := 64
	if s.texts[0].openCLIP && p.Component == "" {
		prediction := p.PredictionType
		if s.predictsV {
			prediction = "v_prediction"
		}
		switch prediction {
		case "":
			return fmt.Errorf("models: %s is an SD 2.x checkpoint, which does not tell what it predicts; give prediction_type: v_prediction (768-v) or epsilon (512-base), or original_config", s.weights.path)
		case "v_prediction":
			side = 96
		}
	}
	d.unet.SampleSize = new(one(side))
	return nil
}

// guessedSD tells 1.x and 2.x apart.
func guessedSD(s *singleFile) (version string, side int, prediction models.Flag) {
	if s.texts[0].openCLIP {
		return "2.x", 96, models.NewFlag("prediction_type", "v_prediction", models.Assumed+": that of 768-v; 512-base has epsilon")
	}
	return "1.x", 64, models.NewFlag("prediction_type", "epsilon", "as published; not in the shapes")
}
