package sd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ldmTargets are the classes that are supported, and where they stand.
var ldmTargets = []struct {
	at      string
	classes []string
}{
	{"model.target", []string{"ldm.models.diffusion.ddpm.LatentDiffusion"}},
	{"model.params.unet_config.target", []string{"ldm.modules.diffusionmodules.openaimodel.UNetModel"}},
	{"model.params.first_stage_config.target", []string{"ldm.models.autoencoder.AutoencoderKL"}},
	{"model.params.cond_stage_config.target", []string{"ldm.modules.encoders.modules.FrozenCLIPEmbedder", "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"}},
}

// originalDocument is the YAML file that original_config names.
func originalDocument(path string) (doc value, err error) {
	data, err := readSmall(path)
	if err == nil {
		doc, err = parseYAML(path, data)
	}
	if err != nil {
		return doc, fmt.Errorf("models: original_config: %w", err)
	}
	return doc, nil
}

// readOriginal adds what a YAML file of CompVis/stable-diffusion
// (configs/stable-diffusion/v1-inference.yaml and its kin) says to what was read
// off the shapes of a single-file checkpoint, and compares what both say.
func (d *description) readOriginal(path string, s *singleFile) error {
	doc, err := originalDocument(path)
	if err != nil {
		return err
	}
	r := &originalReader{doc: doc}
	for _, t := range ldmTargets {
		var target string
		r.read(t.at, &target)
		if !slices.Contains(t.classes, target) {
			r.fault(t.at, "%q is not supported; supported: %s", target, strings.Join(t.classes, ", "))
		}
	}
	scheduler, parameterization, heads, headChannels, side := d.scheduler, "eps", -1, -1, 0
	*scheduler.BetaStart, *scheduler.BetaEnd, d.vae.ScalingFactor = 1e-4, 2e-2, 1 // LatentDiffusion's defaults
	r.read("model.params.parameterization", &parameterization)
	switch parameterization {
	case "eps":
	case "v":
		*scheduler.PredictionType = "v_prediction"
	default:
		r.fault("model.params.parameterization", "%q is not supported; supported: eps, v", parameterization)
	}
	r.read("model.params.image_size", &side)
	r.read("model.params.scale_factor", &d.vae.ScalingFactor)
	r.read("model.params.timesteps", scheduler.NumTrainTimesteps)
	r.read("model.params.linear_start", scheduler.BetaStart)
	r.read("model.params.linear_end", scheduler.BetaEnd)
	r.read("model.params.unet_config.params.num_heads", &heads)
	r.read("model.params.unet_config.params.num_head_channels", &headChannels)
	r.compare(d, s)
	if err := errors.Join(r.errs...); err != nil {
		return fmt.Errorf("models: original_config: %w", err)
	}
	if side > 0 {
		d.unet.SampleSize = new(one(side))
	}
	for i, width := range d.unet.BlockOutChannels {
		switch {
		case headChannels > 0:
			d.unet.AttentionHeadDim.values[i] = max(1, width/headChannels)
		case heads > 0:
			d.unet.AttentionHeadDim.values[i] = heads
		default:
			return errors.New("models: original_config: num_heads or num_head_channels is needed")
		}
	}
	return nil
}

// An originalReader collects what is wrong with the file.
type originalReader struct {
	doc  value
	errs []error
}

func (r *originalReader) read(path string, into any) {
	if v, ok := r.doc.at(path); ok && v.kind() != 0 {
		if err := v.decode(into); err != nil {
			r.errs = append(r.errs, err)
		}
	}
}

func (r *originalReader) fault(path, format string, args ...any) {
	v, ok := r.doc.at(path)
	if !ok {
		format, v = path+": "+format, r.doc
	}
	r.errs = append(r.errs, v.errorf(format, args...))
}

// compare holds numbers that leave a trace in the shapes against them: a file
// of another model is told at once.
func (r *originalReader) compare(d *description, s *singleFile) {
	u, v := d.unet, d.vae
	for _, f := range []struct {
		path string
		have int
	}{
		{"unet_config.params.in_channels", u.InChannels}, {"unet_config.params.out_channels", u.OutChannels},
		{"unet_config.params.model_channels", s.unet.Dim("conv_in.weight", 0)}, {"unet_config.params.num_res_blocks", s.blocks},
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
