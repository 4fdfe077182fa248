package sd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An originalLayout is the code whose single files and YAML files a generation was
// published in.
type originalLayout struct {
	whose, engine string // for messages
	evidence      string // of its single files, for inspect
	targets       []target
	network       string // where the U-Net's parameters stand
	process       processReader
}

// A target is where the YAML file names a class, and the classes that are supported.
type target struct {
	at      string
	classes []string
}

// A processReader reads the process into d, and what a generation's YAML alone says
// of the networks.
type processReader func(r *originalReader, d *description)

// compVis is CompVis/stable-diffusion and Stability-AI/stablediffusion
// (configs/stable-diffusion/v1-inference.yaml and its kin).
var compVis = originalLayout{
	whose: "CompVis'", engine: "CompVis' LatentDiffusion",
	evidence: "model.diffusion_model, first_stage_model and cond_stage_model of CompVis' LatentDiffusion in one file",
	targets: []target{
		{"model.target", []string{"ldm.models.diffusion.ddpm.LatentDiffusion"}},
		{"model.params.unet_config.target", []string{"ldm.modules.diffusionmodules.openaimodel.UNetModel"}},
		{"model.params.first_stage_config.target", []string{"ldm.models.autoencoder.AutoencoderKL"}},
		{"model.params.cond_stage_config.target", []string{"ldm.modules.encoders.modules.FrozenCLIPEmbedder", "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"}},
	},
	network: "model.params.unet_config.params.",
	process: readCompVis,
}

// readCompVis reads LatentDiffusion's parameters.
func readCompVis(r *originalReader, d *description) {
	scheduler, parameterization, side := d.scheduler, "eps", 0
	*scheduler.BetaStart, *scheduler.BetaEnd = 1e-4, 2e-2 // LatentDiffusion's defaults
	r.read("model.params.parameterization", &parameterization)
	switch parameterization {
	case "eps":
	case "v":
		*scheduler.PredictionType = "v_prediction"
	default:
		r.fault("model.params.parameterization", "%q is not supported; supported: eps, v", parameterization)
	}
	r.read("model.params.timesteps", scheduler.NumTrainTimesteps)
	r.read("model.params.linear_start", scheduler.BetaStart)
	r.read("model.params.linear_end", scheduler.BetaEnd)
	if r.read("model.params.image_size", &side); side > 0 {
		d.unet.SampleSize = new(one(side))
	}
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

// readOriginal adds what a YAML file of the authors' code says to what was read off
// the shapes of a single-file checkpoint, and compares what both say.
func (d *description) readOriginal(path string, s *singleFile, layout originalLayout) error {
	doc, err := originalDocument(path)
	if err != nil {
		return err
	}
	r := &originalReader{doc: doc}
	for _, t := range layout.targets {
		var target string
		r.read(t.at, &target)
		if !slices.Contains(t.classes, target) {
			r.fault(t.at, "%q is not supported; supported: %s", target, strings.Join(t.classes, ", "))
		}
	}
	heads, headChannels := -1, -1
	d.vae.ScalingFactor = 1 // the default
	r.read("model.params.scale_factor", &d.vae.ScalingFactor)
	layout.process(r, d)
	r.read(layout.network+"num_heads", &heads)
	r.read(layout.network+"num_head_channels", &headChannels)
	r.compare(d, s, layout.network)
	if err := errors.Join(r.errs...); err != nil {
		return fmt.Errorf("models: original_config: %w", err)
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
func (r *originalReader) compare(d *description, s *singleFile, network string) {
	const firstStage = "model.params.first_stage_config.params."
	u, v := d.unet, d.vae
	for _, f := range []struct {
		path string
		have int
	}{
		{network + "in_channels", u.InChannels}, {network + "out_channels", u.OutChannels},
		{network + "model_channels", s.unet.Dim("conv_in.weight", 0)}, {network + "num_res_blocks", s.blocks},
		{network + "context_dim", u.CrossAttentionDim}, {network + "adm_in_channels", s.unet.Dim("add_embedding.linear_1.weight", 1)},
		{firstStage + "embed_dim", v.LatentChannels}, {firstStage + "ddconfig.num_res_blocks", v.LayersPerBlock},
	} {
		said := f.have
		r.read(f.path, &said)
		if said != f.have && f.have > 0 { // a part that is not in the file has no sizes
			r.fault(f.path, "%d, but the checkpoint's shapes say %d; is it the configuration of another model?", said, f.have)
		}
	}
}
