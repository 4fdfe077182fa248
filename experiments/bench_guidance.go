package main

import (
	"fmt"
	"slices"
	"time"

	"sagbench/models"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// A combination is a line of the table of guided steps: the row of an experiment
// by its label, under its own guidances or under others.
type combination struct{ name, label, guidance string }

// guidedModels are embedded models with what guides them.
var guidedModels = []struct {
	name, experiment string
	combinations     []combination
}{
	{"ADM", "configs/table2-fashion.yaml", []combination{
		{"none", "no guidance", ""},
		{"SAG", "SAG", ""},
		{"CG", "CG", ""},
		{"CG + SAG", "SAG and CG", ""},
		{"PAG", "no guidance", "{pag: {layers: [middle_block.1]}}"},
		{"SEG", "no guidance", "{seg: {layers: [middle_block.1]}}"},
		{"SLG", "no guidance", "{slg: {layers: [middle_block.1]}}"},
	}},
	{"DiT", "configs/families-fashion.yaml", []combination{
		{"none", "DiT", "{}"},
		{"SAG", "DiT", "{sag: {layer: blocks.3.attn, blur_sigma: 1.5, blur_kernel: 9}}"},
		{"CFG", "DiT", "{cfg: {scale: 3}}"},
		{"CFG + SAG", "DiT", "{cfg: {scale: 3}, sag: {layer: blocks.3.attn, blur_sigma: 1.5, blur_kernel: 9}}"},
		{"PAG", "DiT", "{pag: {layers: [blocks.3.attn]}}"},
		{"SEG", "DiT", "{seg: {layers: [blocks.3.attn], blur_sigma: 1}}"},
		{"SLG", "DiT", "{slg: {layers: [blocks.3]}}"},
		{"CFG + PAG", "DiT", "{cfg: {scale: 3}, pag: {layers: [blocks.3.attn]}}"},
	}},
	{"SD", "configs/families-fashion.yaml", []combination{
		{"none", "SD", "{}"},
		{"SAG", "SD", "{sag: {preset: diffusers}}"},
		{"CFG", "SD", "{cfg: {scale: 3}}"},
		{"CFG + SAG", "SD", "{cfg: {scale: 3}, sag: {preset: diffusers}}"},
		{"PAG", "SD", "{pag: {layers: [mid_block.attentions.0.transformer_blocks.0.attn1]}}"},
		{"SEG", "SD", "{seg: {layers: [mid_block.attentions.0.transformer_blocks.0.attn1], blur_sigma: 1}}"},
		{"SLG", "SD", "{slg: {layers: [mid_block.attentions.0.transformer_blocks.0]}}"},
	}},
}

// guidedBatch is the number of images of the steps that are timed.
const guidedBatch = 8

// guidedSteps times steps under combinations of guidances, beside the same calls
// of networks as they are, without a tap or a perturbation.
func (b *bench) guidedSteps() error {
	fmt.Fprintf(b.out, "Batches of %d. The same calls are those of the network as it is, of as many images each.\n\n", guidedBatch)
	b.header("model", "guidance", "a step", "step, best", "the same calls, best", "more", "outside the networks, median")
	for _, m := range guidedModels {
		for _, c := range m.combinations {
			r, err := guidedRow(m.experiment, c)
			if err == nil {
				err = b.guidedStep(r, m.name, c.name)
			}
			if err != nil {
				return fmt.Errorf("%s, %s: %w", m.name, c.name, err)
			}
		}
	}
	fmt.Fprint(b.out, "\nPredictions of a batch in one call or in one each:\n\n")
	b.header("model", "images a call", "call, best", "an image, best")
	for _, m := range guidedModels {
		r, err := guidedRow(m.experiment, m.combinations[0])
		if err == nil {
			err = b.joinedCalls(r, m.name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// guidedRow is the row of an experiment for a combination.
func guidedRow(experiment string, c combination) (*row, error) {
	overrides := []string{"sampler=!replace {ddpm: {steps: 4}}"}
	if c.guidance != "" {
		overrides = append(overrides, "guidance=!replace "+c.guidance)
	}
	e, err := loadExperiment(experiment, overrides)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(e.rows, func(r *row) bool { return r.label == c.label })
	if i < 0 {
		return nil, fmt.Errorf("%s has no row %q", experiment, c.label)
	}
	return e.rows[i], nil
}

// openRow prepares all networks of a row.
func (b *bench) openRow(r *row) (n *network, closeAll func(), err error) {
	var opened []models.Model
	closeAll = func() {
		for _, m := range opened {
			m.Close()
		}
	}
	for i := range r.networks() {
		m, err := r.openNetwork(i, b.options)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		opened = append(opened, m)
	}
	if n, err = r.assemble(opened); err != nil {
		closeAll()
		return nil, nil, err
	}
	return n, closeAll, nil
}

// guidedStep prints the line of a row.
func (b *bench) guidedStep(r *row, model, guidance string) error {
	steps, others, err := r.loads()
	if err != nil {
		return err
	}
	n, closeAll, err := b.openRow(r)
	if err != nil {
		return err
	}
	defer closeAll()
	plain, err := r.model.open(models.Options{Options: b.options})
	if err != nil {
		return err
	}
	defer plain.Close()
	t := &tape{}
	p, x, err := b.guidedPredictor(r, n, t.record(n, plain.(models.Generator)), t.attached(n.attached))
	if err != nil {
		return err
	}
	var outside []float64
	sample := func() error {
		start := time.Now()
		t.spent = 0
		defer func() { outside = append(outside, 1-t.spent.Seconds()/time.Since(start).Seconds()) }()
		_, err := r.sampler.Value.Sample(b.ctx, p, x, sampling.Keyed{Images: make([]int, guidedBatch)})
		return err
	}
	if err := sample(); err != nil {
		return err
	}
	t.done = true
	best, err := alternately(sample, func() error { return t.replay(b.ctx) })
	if err != nil {
		return err
	}
	one := time.Duration(p.Schedule.Len())
	b.row(model, guidance, r.perStep(steps, others), ms(best[0]/one), ms(best[1]/one), percent(best[0].Seconds()/best[1].Seconds()-1), percent(median(outside)))
	return nil
}

// guidedPredictor is the row's predictor for a batch of its network n, called
// through d and attached, and its x_T.
func (b *bench) guidedPredictor(r *row, n *network, d sampling.Denoiser, attached []any) (*sampling.Predictor, tensor.Tensor, error) {
	p, err := r.predictor(d, n.Process(), attached)
	if err != nil {
		return nil, tensor.Tensor{}, err
	}
	x, c, err := benchInput(n, guidedBatch)
	if err != nil {
		return nil, tensor.Tensor{}, err
	}
	if err := condition(p, n.Generator, c.Labels, guidedBatch); err != nil {
		return nil, tensor.Tensor{}, err
	}
	return p, x, r.prompt(b.ctx, p, n.Generator, span{0, guidedBatch})
}

// alternately calls f and g in turn, so that the load of the machine is the same
// for both: once to warm up and then for at least six seconds and six times each.
// It returns the fastest of each.
func alternately(f, g func() error) (best [2]time.Duration, err error) {
	best = [2]time.Duration{time.Hour, time.Hour}
	for i, start := -1, time.Now(); i < 6 || time.Since(start) < 6*time.Second; i++ {
		for k, call := range []func() error{f, g} {
			from := time.Now()
			if err := call(); err != nil {
				return best, err
			}
			if took := time.Since(from); i >= 0 {
				best[k] = min(best[k], took)
			}
		}
	}
	return best, nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func percent(part float64) string { return fmt.Sprintf("%.1f %%", 100*part) }

// joinedCalls prints the calls of a row's network for one to three predictions of
// a batch.
func (b *bench) joinedCalls(r *row, model string) error {
	n, closeAll, err := b.openRow(r)
	if err != nil {
		return err
	}
	defer closeAll()
	p, x, err := b.guidedPredictor(r, n, n, n.attached)
	if err != nil {
		return err
	}
	for k := 1; k <= 3; k++ {
		wide := repeatedImages(x, k)
		c := sampling.Cond{Labels: slices.Repeat(p.Cond.Labels, k), Context: repeatedImages(p.Cond.Context, k)}
		best, _, err := measure(func() error {
			_, err := n.Denoise(b.ctx, wide, p.Schedule.Timestep(1), c)
			return err
		})
		if err != nil {
			return err
		}
		b.row(model, k*guidedBatch, ms(best), ms(best/time.Duration(k*guidedBatch)))
	}
	return nil
}

// repeatedImages is t k times along the batch; nothing of the zero tensor.
func repeatedImages(t tensor.Tensor, k int) tensor.Tensor {
	if t.IsZero() {
		return t
	}
	shape := slices.Clone(t.Shape)
	shape[0] *= k
	return tensor.Of(slices.Repeat(t.Data, k), shape...)
}
