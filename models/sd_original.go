package models

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/sampling"
)

// An originalConfig is what a YAML file of CompVis/stable-diffusion
// (configs/stable-diffusion/v1-inference.yaml and its kin) adds to the shapes
// of a single-file checkpoint.
type originalConfig struct {
	numHeads, numHeadChannels int
	latentSide                int
	scaleFactor               float64
	timesteps                 int
	linearStart, linearEnd    float64
	vPrediction               bool
}

// ldmTargets are the classes that are supported, by where they stand.
var ldmTargets = map[string][]string{
	"model.target":                           {"ldm.models.diffusion.ddpm.LatentDiffusion"},
	"model.params.unet_config.target":        {"ldm.modules.diffusionmodules.openaimodel.UNetModel"},
	"model.params.first_stage_config.target": {"ldm.models.autoencoder.AutoencoderKL"},
	"model.params.cond_stage_config.target":  {"ldm.modules.encoders.modules.FrozenCLIPEmbedder", "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"},
}

// readOriginal reads the file and compares what it says of the dimensions with
// what the shapes say.
func readOriginal(path string, s *singleFile) (originalConfig, error) {
	o := originalConfig{numHeads: -1, numHeadChannels: -1, scaleFactor: 1, timesteps: 1000, linearStart: 1e-4, linearEnd: 2e-2}
	data, err := os.ReadFile(path)
	if err != nil {
		return o, fmt.Errorf("models: original_config: %w", err)
	}
	b, err := configs.Parse(path, data)
	if err != nil {
		return o, fmt.Errorf("models: original_config: %w", err)
	}
	r := &originalReader{doc: b}
	for _, at := range []string{"model.target", "model.params.unet_config.target", "model.params.first_stage_config.target", "model.params.cond_stage_config.target"} {
		var target string
		r.read(at, &target)
		if !slices.Contains(ldmTargets[at], target) {
			r.fault(at, "%q is not supported; supported: %s", target, strings.Join(ldmTargets[at], ", "))
		}
	}
	parameterization := "eps"
	r.read("model.params.parameterization", &parameterization)
	if o.vPrediction = parameterization == "v"; !o.vPrediction && parameterization != "eps" {
		r.fault("model.params.parameterization", "%q is not supported; supported: eps, v", parameterization)
	}
	r.read("model.params.image_size", &o.latentSide)
	r.read("model.params.scale_factor", &o.scaleFactor)
	r.read("model.params.timesteps", &o.timesteps)
	r.read("model.params.linear_start", &o.linearStart)
	r.read("model.params.linear_end", &o.linearEnd)
	r.read("model.params.unet_config.params.num_heads", &o.numHeads)
	r.read("model.params.unet_config.params.num_head_channels", &o.numHeadChannels)
	r.compare(s)
	if err := errors.Join(r.errs...); err != nil {
		return o, fmt.Errorf("models: original_config: %w", err)
	}
	return o, nil
}

// An originalReader collects what is wrong with the file.
type originalReader struct {
	doc  configs.Block
	errs []error
}

func (r *originalReader) read(path string, into any) {
	if b, ok := r.doc.At(path); ok {
		if err := b.Decode(into); err != nil {
			r.errs = append(r.errs, err)
		}
	}
}

func (r *originalReader) fault(path, format string, args ...any) {
	b, ok := r.doc.At(path)
	if !ok {
		format, b = path+": "+format, r.doc
	}
	r.errs = append(r.errs, b.Errorf(format, args...))
}

// compare holds numbers that leave a trace in the shapes against them: a file
// of another model is told at once.
func (r *originalReader) compare(s *singleFile) {
	u, v := s.unetConfig(), s.vaeConfig()
	for _, f := range []struct {
		path string
		have int
	}{
		{"unet_config.params.in_channels", u.InChannels}, {"unet_config.params.out_channels", u.OutChannels},
		{"unet_config.params.model_channels", dim(s.unet, "conv_in.weight", 0)}, {"unet_config.params.num_res_blocks", s.blocks},
		{"unet_config.params.context_dim", u.CrossAttentionDim}, {"first_stage_config.params.embed_dim", v.LatentChannels},
		{"first_stage_config.params.ddconfig.num_res_blocks", v.LayersPerBlock},
	} {
		said := f.have
		r.read("model.params."+f.path, &said)
		if said != f.have {
			r.fault("model.params."+f.path, "%d, but the checkpoint's shapes say %d; is it the configuration of another model?", said, f.have)
		}
	}
}

// apply puts the file's values into the configs that were read off the shapes.
func (o originalConfig) apply(u *sdUNetConfig, v *vaeConfig) error {
	v.ScalingFactor = o.scaleFactor
	if o.latentSide > 0 {
		side := one(o.latentSide)
		u.SampleSize = &side
	}
	for i, width := range u.BlockOutChannels {
		switch {
		case o.numHeadChannels > 0:
			u.AttentionHeadDim.values[i] = max(1, width/o.numHeadChannels)
		case o.numHeads > 0:
			u.AttentionHeadDim.values[i] = o.numHeads
		default:
			return errors.New("models: original_config: num_heads or num_head_channels is needed")
		}
	}
	return nil
}

func (o originalConfig) scheduler() *sampling.SchedulerConfig {
	c, prediction := compVisScheduler(), "epsilon"
	if o.vPrediction {
		prediction = "v_prediction"
	}
	c.NumTrainTimesteps, c.BetaStart, c.BetaEnd, c.PredictionType = &o.timesteps, &o.linearStart, &o.linearEnd, &prediction
	return c
}
