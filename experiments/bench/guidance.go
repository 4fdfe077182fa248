package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// sagStep runs DDPM with self-attention guidance and counts what is not spent
// in the network.
func (b *bench) sagStep() error {
	r, err := b.loadRow("configs/table1-fashion.yaml", "Fashion-MNIST (uncond.)", "sampler=!replace {ddpm: {steps: 10}}", "sweep.guidance.sag.scale=[0.5]")
	if err != nil {
		return err
	}
	n, err := run.OpenRow(b.ctx, r, b.options)
	if err != nil {
		return err
	}
	defer n.Close()
	b.header("batch", "step", "outside the network")
	for _, size := range []int{1, 8, 64} {
		t := &tape{done: true}
		p, x, err := b.predictor(r, n, &recordedDenoiser{n, nil, t}, nil, size)
		if err != nil {
			return err
		}
		outside, step := 1.0, time.Hour
		for range 4 {
			t.spent = 0
			start := time.Now()
			if _, err := r.Sampler.Value.Sample(b.ctx, p, x, sampling.Keyed{Images: make([]int, size)}); err != nil {
				return err
			}
			total := time.Since(start)
			outside = min(outside, 1-t.spent.Seconds()/total.Seconds())
			step = min(step, total/time.Duration(p.Schedule.Len()))
		}
		b.row(size, ms(step), fmt.Sprintf("%.2f %%", 100*outside))
	}
	return nil
}

// A guidedModel is an embedded model with what guides it.
type guidedModel struct {
	name, experiment string
	sag              string // label of the row whose SAG names the attention layer
	block            string // that slg skips
	combinations     []combination
}

// A combination is a line of the table of guided steps: the row of an experiment
// by its label, under its own guidances or under others, in which LAYER and BLOCK
// stand for the model's.
type combination struct{ name, label, guidance string }

// row is the experiment's row for a combination.
func (m guidedModel) row(b *bench, c combination) (*plan.Row, error) {
	settings := []string{"sampler=!replace {ddpm: {steps: 4}}"}
	if c.guidance != "" {
		r, err := b.loadRow(m.experiment, m.sag)
		if err != nil {
			return nil, err
		}
		settings = append(settings, "guidance=!replace "+strings.NewReplacer("LAYER", r.Taps[0].Layer, "BLOCK", m.block).Replace(c.guidance))
	}
	return b.loadRow(m.experiment, c.label, settings...)
}

// Guidances that several of the models are under.
const (
	pag     = "{pag: {layers: [LAYER]}}"
	seg     = "{seg: {layers: [LAYER], blur_sigma: 1}}"
	slg     = "{slg: {layers: [BLOCK]}}"
	cfg     = "{cfg: {scale: 3}}"
	blurred = "sag: {layer: LAYER, blur_sigma: 1.5, blur_kernel: 9}"
)

var guidedModels = []guidedModel{
	{"ADM", "configs/table2-fashion.yaml", "SAG", "middle_block.1", []combination{
		{"none", "no guidance", ""},
		{"SAG", "SAG", ""},
		{"CG", "CG", ""},
		{"CG + SAG", "SAG and CG", ""},
		{"PAG", "no guidance", pag},
		{"SEG", "no guidance", seg},
		{"SLG", "no guidance", slg},
	}},
	{"DiT", "configs/families-fashion.yaml", "DiT", "blocks.3", []combination{
		{"none", "DiT", "{}"},
		{"SAG", "DiT", "{" + blurred + "}"},
		{"CFG", "DiT", cfg},
		{"CFG + SAG", "DiT", "{cfg: {scale: 3}, " + blurred + "}"},
		{"PAG", "DiT", pag},
		{"SEG", "DiT", seg},
		{"SLG", "DiT", slg},
		{"CFG + PAG", "DiT", "{cfg: {scale: 3}, pag: {layers: [LAYER]}}"},
	}},
	{"SD", "configs/families-fashion.yaml", "SD", "mid_block.attentions.0.transformer_blocks.0", []combination{
		{"none", "SD", "{}"},
		{"SAG", "SD", "{sag: {preset: diffusers}}"},
		{"CFG", "SD", cfg},
		{"CFG + SAG", "SD", "{cfg: {scale: 3}, sag: {preset: diffusers}}"},
		{"PAG", "SD", pag},
		{"SEG", "SD", seg},
		{"SLG", "SD", slg},
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
			r, err := m.row(b, c)
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
		r, err := m.row(b, m.combinations[0])
		if err == nil {
			err = b.joinedCalls(r, m.name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// guidedStep prints the line of a row.
func (b *bench) guidedStep(r *plan.Row, model, guidance string) error {
	costs, err := r.Costs(b.ctx)
	if err != nil {
		return err
	}
	n, err := run.OpenRow(b.ctx, r, b.options)
	if err != nil {
		return err
	}
	defer n.Close()
	plain, err := models.Open(&r.Model.Ref, models.Options{Options: b.options})
	if err != nil {
		return err
	}
	defer plain.Close()
	t := &tape{}
	p, x, err := b.predictor(r, n, &recordedDenoiser{n, plain.(models.Generator), t}, t.attached(n.Attached), guidedBatch)
	if err != nil {
		return err
	}
	var outside []float64
	sample := func() error {
		start := time.Now()
		t.spent = 0
		defer func() { outside = append(outside, 1-t.spent.Seconds()/time.Since(start).Seconds()) }()
		_, err := r.Sampler.Value.Sample(b.ctx, p, x, sampling.Keyed{Images: make([]int, guidedBatch)})
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
	slices.Sort(outside)
	count := time.Duration(p.Schedule.Len())
	b.row(model, guidance, costs, ms(best[0]/count), ms(best[1]/count), percent(best[0].Seconds()/best[1].Seconds()-1), percent(outside[len(outside)/2]))
	return nil
}

// predictor is the row's predictor for a batch of so many images of its network n,
// called through d and attached, and its x_T.
func (b *bench) predictor(r *plan.Row, n *run.Network, d sampling.Denoiser, attached []any, batch int) (*sampling.Predictor, tensor.Tensor, error) {
	p, err := r.Predictor(b.ctx, d, n.Process(), attached)
	if err != nil {
		return nil, tensor.Tensor{}, err
	}
	x, c, err := run.NoiseInput(n, batch)
	if err != nil {
		return nil, tensor.Tensor{}, err
	}
	if err := run.Condition(b.ctx, p, n.Generator, c.Labels, batch); err != nil {
		return nil, tensor.Tensor{}, err
	}
	return p, x, n.Prompt(b.ctx, r, p, store.Span{From: 0, To: batch})
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

// joinedCalls prints the calls of a row's network for one to three predictions of
// a batch.
func (b *bench) joinedCalls(r *plan.Row, model string) error {
	n, err := run.OpenRow(b.ctx, r, b.options)
	if err != nil {
		return err
	}
	defer n.Close()
	p, x, err := b.predictor(r, n, n, n.Attached, guidedBatch)
	if err != nil {
		return err
	}
	for k := 1; k <= 3; k++ {
		wide := repeatedImages(x, k)
		c := sampling.Join(slices.Repeat([]sampling.Cond{p.Cond}, k), guidedBatch)
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

// repeatedImages is t k times along the batch.
func repeatedImages(t tensor.Tensor, k int) tensor.Tensor {
	shape := slices.Clone(t.Shape)
	shape[0] *= k
	return tensor.Of(slices.Repeat(t.Data, k), shape...)
}

// A tape keeps the calls that a row's networks get, to make them again, and adds up
// the time that they take.
type tape struct {
	calls []func(context.Context) error
	done  bool          // nothing more is kept
	spent time.Duration // in the networks
}

// clock adds the time since the start of a call.
func (t *tape) clock(start time.Time) { t.spent += time.Since(start) }

// replay makes the calls again.
func (t *tape) replay(ctx context.Context) error {
	for _, call := range t.calls {
		if err := call(ctx); err != nil {
			return err
		}
	}
	return nil
}

// attached are the networks of guidances, of which classifiers are recorded.
func (t *tape) attached(networks []any) []any {
	var all []any
	for _, n := range networks {
		if c, ok := n.(sampling.Classifier); ok {
			n = &recordedClassifier{c, t}
		}
		all = append(all, n)
	}
	return all
}

// A recordedDenoiser is a network whose calls are kept as those of plain, the same
// network unperturbed.
type recordedDenoiser struct {
	sampling.Denoiser
	plain sampling.Denoiser
	tape  *tape
}

func (d *recordedDenoiser) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	if !d.tape.done {
		state, cond := x.Clone(), sampling.Cond{Labels: c.Labels, Context: c.Context, Vector: c.Vector}
		d.tape.calls = append(d.tape.calls, func(ctx context.Context) error {
			_, err := d.plain.Denoise(ctx, state, t, cond)
			return err
		})
	}
	defer d.tape.clock(time.Now())
	return d.Denoiser.Denoise(ctx, x, t, c)
}

type recordedClassifier struct {
	sampling.Classifier
	tape *tape
}

func (d *recordedClassifier) Gradient(ctx context.Context, x tensor.Tensor, t sampling.Timestep, y []int64) (tensor.Tensor, error) {
	if !d.tape.done {
		state := x.Clone()
		d.tape.calls = append(d.tape.calls, func(ctx context.Context) error {
			_, err := d.Classifier.Gradient(ctx, state, t, y)
			return err
		})
	}
	defer d.tape.clock(time.Now())
	return d.Classifier.Gradient(ctx, x, t, y)
}
