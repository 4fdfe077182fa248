package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sagbench/configs"
	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/models"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// officialModels are the families and flags of published checkpoints, as their
// READMEs give them.
var officialModels = map[string]string{
	"64x64_diffusion":          `{family: adm, image_size: 64, num_channels: 192, num_head_channels: 64, num_res_blocks: 3, class_cond: true, use_new_attention_order: true, noise_schedule: cosine, attention_resolutions: "32,16,8", learn_sigma: true, resblock_updown: true}`,
	"128x128_diffusion":        `{family: adm, image_size: 128, num_channels: 256, num_heads: 4, num_res_blocks: 2, class_cond: true, attention_resolutions: "32,16,8", learn_sigma: true, resblock_updown: true}`,
	"128x128_classifier":       `{family: classifier, image_size: 128}`,
	"256x256_diffusion_uncond": `{family: adm, image_size: 256, num_channels: 256, num_head_channels: 64, num_res_blocks: 2, attention_resolutions: "32,16,8", learn_sigma: true, resblock_updown: true}`,

	"imagenet64_uncond_100M_1500K": `{family: iddpm, image_size: 64, num_channels: 128, num_res_blocks: 3, learn_sigma: true, diffusion_steps: 4000, noise_schedule: cosine}`,
	"DiT-XL-2-256x256":             `{family: dit, model: DiT-XL/2, input_size: 32}`,

	"SiT-XL-2-256x256":            `{family: sit, model: SiT-XL/2, input_size: 32}`,
	"edm-imagenet-64x64-cond-adm": `{family: edm, precond: EDMPrecond, img_resolution: 64, img_channels: 3, label_dim: 1000, model_type: DhariwalUNet, model_channels: 192, channel_mult: [1, 2, 3, 4]}`,
	"edm2-img512-s":               `{family: edm2, img_resolution: 64, img_channels: 4, label_dim: 1000, model_channels: 192, encoder: StabilityVAEEncoder}`,
}

// openOfficial opens a published configuration on random weights, and tells how
// long that took. closeIt also removes the weights.
func (b *bench) openOfficial(name string) (m models.Model, opened time.Duration, closeIt func(), err error) {
	spec, err := b.officialModel(name)
	if err == nil {
		err = writeRandom(spec)
	}
	if err != nil {
		return nil, 0, nil, err
	}
	start := time.Now()
	if m, err = models.Open(&spec.Ref, models.Options{Options: b.options}); err != nil {
		return nil, 0, nil, err
	}
	return m, time.Since(start), func() { m.Close(); os.Remove(spec.Checkpoint.Path) }, nil
}

// officialModel is a published configuration, whose checkpoint lies in the scratch
// folder.
func (b *bench) officialModel(name string) (plan.NetworkRef, error) {
	block, err := configs.Parse(name, fmt.Appendf(nil, "{checkpoint: %q, %s", filepath.Join(b.scratch, name+".pt"), officialModels[name][1:]))
	if err != nil {
		return plan.NetworkRef{}, err
	}
	n, err := plan.DecodeNetwork(block.With(plan.Hooks(plan.FileOf)))
	n.Precision = b.precision
	return n, err
}

// writeRandom writes a network's checkpoint with random weights.
func writeRandom(n plan.NetworkRef) error {
	shapes, err := n.Flags.(models.WithParameters).Parameters()
	if err != nil {
		return err
	}
	return randomweights.Write(n.Checkpoint.Path, shapes, 1)
}

// official times a published configuration.
func (b *bench) official(name string, batches ...int) error {
	m, opened, closeIt, err := b.openOfficial(name)
	if err != nil {
		return err
	}
	defer closeIt()
	g := m.(models.Generator)
	x, c, err := run.NoiseInput(g, 1)
	if err != nil {
		return err
	}
	start := time.Now()
	if _, err := g.Denoise(b.ctx, x, midway(g), c); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "opened in %.2f s, the first call in %.1f s\n\n", opened.Seconds(), time.Since(start).Seconds())
	if err := b.calls(g, batches...); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\npeak resident memory so far %s\n", gigabytes(peakMemory()))
	return nil
}

// admFashion times the embedded ADM with its attention map tapped.
func (b *bench) admFashion() error {
	r, err := b.loadRow("configs/table1-fashion.yaml", "Fashion-MNIST (uncond.)")
	if err != nil {
		return err
	}
	n, err := run.OpenRow(b.ctx, r, b.options)
	if err != nil {
		return err
	}
	defer n.Close()
	return b.calls(n, 1, 8, 64)
}

// calls times network calls at the given batch sizes.
func (b *bench) calls(g models.Generator, batches ...int) error {
	b.header("batch", "call, best", "call, median", "an image, best")
	for _, n := range batches {
		x, c, err := run.NoiseInput(g, n)
		if err != nil {
			return err
		}
		best, median, err := measure(func() error {
			_, err := g.Denoise(b.ctx, x, midway(g), c)
			return err
		})
		if err != nil {
			return err
		}
		b.row(n, ms(best), ms(median), ms(best/time.Duration(n)))
	}
	return nil
}

// midway is what a network is told amid its process: a timestep, or a time or noise
// level.
func midway(g models.Generator) sampling.Timestep {
	if g.Process().Schedule.Path != nil {
		return sampling.Timestep{Value: 0.5}
	}
	return sampling.Timestep{Value: 500}
}

// loadRow is the first row of an experiment with a label, under further settings.
func (b *bench) loadRow(experiment, label string, settings ...string) (*plan.Row, error) {
	e, err := plan.Load(experiment, settings)
	if err == nil {
		err = e.Compute(b.precision)
	}
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(e.Rows, func(r *plan.Row) bool { return r.Label == label })
	if i < 0 {
		return nil, fmt.Errorf("%s has no row %q", experiment, label)
	}
	return e.Rows[i], nil
}

// classifierFashion times the embedded classifier, as the row under classifier
// guidance alone has it.
func (b *bench) classifierFashion() error {
	r, err := b.loadRow("configs/table2-fashion.yaml", "CG")
	if err != nil {
		return err
	}
	m, err := run.OpenNetwork(r, 1, b.options)
	if err != nil {
		return err
	}
	defer m.Close()
	return b.gradients(m, 1, 8, 64)
}

func (b *bench) classifier128() error {
	m, _, closeIt, err := b.openOfficial("128x128_classifier")
	if err != nil {
		return err
	}
	defer closeIt()
	return b.gradients(m, 1, 8)
}

// gradients times the logits alone, and with the gradient that classifier
// guidance follows, at the given batch sizes.
func (b *bench) gradients(m models.Model, batches ...int) error {
	shape := m.(*models.ClassifierNet).SampleShape()
	b.header("batch", "logits, best", "logits and gradient, best", "ratio")
	for _, n := range batches {
		x, t, y := tensor.New(append([]int{n}, shape...)...), tensor.New(n), make([]int64, n)
		if err := (sampling.Keyed{Images: make([]int, n)}).Fill(-1, x); err != nil {
			return err
		}
		for i := range t.Data {
			t.Data[i] = 500
		}
		in := map[string]ort.Array{"x": ort.Floats(x), "t": ort.Floats(t)}
		call := func() error {
			_, err := m.Forward(b.ctx, in)
			return err
		}
		logits, _, err := measure(call)
		if err != nil {
			return err
		}
		in["y"] = ort.Array{Shape: []int{n}, Data: y}
		gradient, _, err := measure(call)
		if err != nil {
			return err
		}
		b.row(n, ms(logits), ms(gradient), fmt.Sprintf("%.1f", gradient.Seconds()/logits.Seconds()))
	}
	return nil
}
