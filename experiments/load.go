package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// A load is what is asked of the network: a call may take an image several
// times, under several conditions.
type load struct {
	calls  int // of a batch
	passes int // of an image
}

// String is the load of a step: "3 passes in 2 calls".
func (l load) String() string {
	passes, calls := "passes", "calls"
	if l.passes == 1 {
		passes = "pass"
	}
	if l.calls == 1 {
		calls = "call"
	}
	return fmt.Sprintf("%d %s in %d %s", l.passes, passes, l.calls, calls)
}

// A counter is a denoiser and a classifier that knows nothing and counts what it
// is asked. All positions of its map are attended to, whatever the threshold.
type counter struct{ load }

// Denoise implements sampling.Denoiser.
func (c *counter) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, _ sampling.Cond) (sampling.Prediction, error) {
	c.calls, c.passes = c.calls+1, c.passes+x.Rows()
	p := sampling.Prediction{Eps: x.Like(), Attn: tensor.New(x.Rows(), x.Shape[2]*x.Shape[3])}
	for i := range p.Attn.Data {
		p.Attn.Data[i] = float32(math.Inf(1))
	}
	return p, nil
}

// Classes implements sampling.Classifier.
func (c *counter) Classes() int { return 2 }

// Null is ∅.
func (c *counter) Null(n int) (sampling.Cond, error) {
	return sampling.Cond{Labels: make([]int64, n)}, nil
}

// Gradient implements sampling.Classifier.
func (c *counter) Gradient(_ context.Context, x tensor.Tensor, _ sampling.Timestep, _ []int64) (tensor.Tensor, error) {
	c.calls, c.passes = c.calls+1, c.passes+x.Rows()
	return x.Like(), nil
}

// take is the load since the last time.
func (c *counter) take() load {
	l := c.load
	c.load = load{}
	return l
}

// loads is what each step of the row's sampler asks of the network, and of each
// guidance's own, counted on a small image and networks that know nothing:
// samplers and guidances need not say it.
func (r *row) loads() (steps []load, others [][]load, err error) {
	c, attached := &counter{}, []any{}
	for range r.attachments {
		attached = append(attached, &counter{})
	}
	p, err := r.predictor(c, models.Process{Schedule: r.schedule, ClipDenoised: true}, attached)
	if err != nil {
		return nil, nil, err
	}
	others = make([][]load, len(attached))
	p.Trace = func(name string, _ sampling.Timestep, _ tensor.Tensor) {
		if name != "x" {
			return
		}
		steps = append(steps, c.take())
		for i, a := range attached {
			others[i] = append(others[i], a.(*counter).take())
		}
	}
	p.Cond, p.Null = r.dryConditions()
	noise := sampling.Keyed{Images: []int{0}}
	p.Random = noise
	x := tensor.New(1, 3, 8, 8)
	if err := noise.Fill(-1, x); err != nil {
		return nil, nil, err
	}
	if _, err := r.sampler.Value.Sample(context.Background(), p, x, noise); err != nil {
		return nil, nil, fmt.Errorf("row %q: %w", r.title(), err)
	}
	return steps, others, nil
}

// dryConditions are conditions of one image of the kinds that the row's networks
// take, so that guidances find fault with what they do not know.
func (r *row) dryConditions() (cond, null sampling.Cond) {
	of := conditioning(r.model)
	if of.Text {
		cond.Context = tensor.New(1, 1, 1)
		null.Context = tensor.Of([]float32{1}, 1, 1, 1)
	}
	if of.Labels {
		null.Labels = []int64{1}
	}
	for _, s := range r.networks() {
		if conditioning(s).Labels {
			cond.Labels = []int64{0}
		}
	}
	if !of.Null {
		null = sampling.Cond{}
	}
	return cond, null
}

// conditioning is what a network is conditioned on; everything where its family
// does not tell.
func conditioning(s netSpec) models.Conditioning {
	if c, ok := s.Flags.(models.Conditional); ok {
		return c.Conditioning()
	}
	return models.Conditioning{Labels: true, Null: true}
}

// total is the sum of all steps.
func total(steps []load) (sum load) {
	for _, l := range steps {
		sum.calls, sum.passes = sum.calls+l.calls, sum.passes+l.passes
	}
	return sum
}

// perStep describes the steps, each kind once: "1 pass in 1 call, then 2 passes
// in 2 calls + 1 of classifier", the last through the network of that guidance.
func (r *row) perStep(steps []load, others [][]load) string {
	var kinds []string
	for k, l := range steps {
		s := l.String()
		for i, o := range others {
			if o[k].passes > 0 {
				s += fmt.Sprintf(" + %d of %s", o[k].passes, r.attachments[i].name)
			}
		}
		if !slices.Contains(kinds, s) {
			kinds = append(kinds, s)
		}
	}
	return strings.Join(kinds, ", then ")
}
