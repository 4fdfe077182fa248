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

// A counter is a network that predicts nothing and counts what it is asked. All
// positions of its map are attended to, whatever the threshold.
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

// loads is what each step of the row's sampler asks of the network, counted on
// a small image and a network that predicts nothing: samplers and guidances need
// not say it.
func (r *row) loads() ([]load, error) {
	c := &counter{}
	p, err := r.predictor(c, models.Process{Schedule: r.schedule, ClipDenoised: true})
	if err != nil {
		return nil, err
	}
	var steps []load
	p.Trace = func(name string, _ sampling.Timestep, _ tensor.Tensor) {
		if name == "x" {
			steps, c.load = append(steps, c.load), load{}
		}
	}
	p.Cond.Labels, p.Null.Labels = []int64{0}, []int64{1}
	noise := sampling.Keyed{Images: []int{0}}
	p.Random = noise
	x := tensor.New(1, 3, 8, 8)
	if _, err := r.sampler.Value.Sample(context.Background(), p, x, noise); err != nil {
		return nil, fmt.Errorf("row %q: %w", r.title(), err)
	}
	return steps, nil
}

// total is the sum of all steps.
func total(steps []load) (sum load) {
	for _, l := range steps {
		sum.calls, sum.passes = sum.calls+l.calls, sum.passes+l.passes
	}
	return sum
}

// perStep describes the steps, each kind once: "1 pass in 1 call, then 2 passes
// in 2 calls".
func perStep(steps []load) string {
	var kinds []string
	for _, l := range steps {
		if s := l.String(); !slices.Contains(kinds, s) {
			kinds = append(kinds, s)
		}
	}
	return strings.Join(kinds, ", then ")
}
