package sampling

import (
	"context"
	"errors"
	"fmt"

	"sagbench/models/tensor"
)

// An update takes the state x from step i to step i−1, in place: k counts the
// loop's steps up from 0, guided and score are what Predictor.Predict returned.
type update func(k, i int, x tensor.Tensor, guided Prediction, score tensor.Tensor) error

// walk takes a copy of xT through all steps of the schedule, one prediction a
// step, and returns x_0. It stops at a cancelled context, and at a state that
// is not finite, which nothing later could repair.
func (p *Predictor) walk(ctx context.Context, xT tensor.Tensor, next update) (tensor.Tensor, error) {
	if err := p.check(xT); err != nil {
		return tensor.Tensor{}, fmt.Errorf("sampling: %w", err)
	}
	x := xT.Clone()
	for k := range p.Schedule.Len() {
		i := p.Schedule.Len() - 1 - k
		t := p.Schedule.Timestep(i)
		if err := ctx.Err(); err != nil {
			return tensor.Tensor{}, fmt.Errorf("sampling: stopped before step %d: %w", i, err)
		}
		guided, score, err := p.Predict(ctx, x, t)
		if err != nil {
			return tensor.Tensor{}, err
		}
		if err := next(k, i, x, guided, score); err != nil {
			return tensor.Tensor{}, err
		}
		if err := finite(x, guided, score, t); err != nil {
			return tensor.Tensor{}, err
		}
		p.trace("x", t, x)
	}
	return x, nil
}

// rowOf is image n of a tensor, nil of the zero tensor.
func rowOf(t tensor.Tensor, n int) []float32 {
	if t.IsZero() {
		return nil
	}
	return t.Row(n)
}

// check tells everything that keeps p from sampling from x.
func (p *Predictor) check(x tensor.Tensor) error {
	var errs []error
	fault := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(p.Denoiser == nil, "the predictor has no Denoiser")
	fault(p.Schedule == nil, "the predictor has no Schedule")
	if len(x.Shape) != 4 || x.Rows() < 1 || len(x.Data) != tensor.Size(x.Shape) {
		fault(true, "x_T has shape %v (%d values), expected [N,C,H,W] with N ≥ 1", x.Shape, len(x.Data))
		return errors.Join(errs...)
	}
	for i, name := range []string{"condition", "null condition"} {
		c := []Cond{p.Cond, p.Null}[i]
		labels, texts := c.Labels, c.Context
		fault(labels != nil && len(labels) != x.Rows(), "the %s has %d labels for a batch of %d", name, len(labels), x.Rows())
		fault(!texts.IsZero() && (len(texts.Shape) != 3 || texts.Rows() != x.Rows()),
			"the %s's Context has shape %v, expected [%d,L,D]", name, texts.Shape, x.Rows())
	}
	return errors.Join(errs...)
}

// finite tells which image of the state is not, and which tensor brought it.
func finite(x tensor.Tensor, guided Prediction, score tensor.Tensor, t Timestep) error {
	broken := make([]bool, x.Rows())
	EachImage(x.Rows(), func(n int) { broken[n] = !finiteRow(x.Row(n)) })
	for n, b := range broken {
		if !b {
			continue
		}
		from := "a finite ε: the update overflowed"
		switch {
		case !finiteRow(guided.Eps.Row(n)):
			from = "the guided ε"
		case !guided.Var.IsZero() && !finiteRow(guided.Var.Row(n)):
			from = "the learned variance"
		case !score.IsZero() && !finiteRow(score.Row(n)):
			from = "a guidance's Score"
		}
		return fmt.Errorf("sampling: step %d (t = %g): image %d of the batch is not finite, from %s; check the checkpoint, its flags and the guidance scale", t.Index, t.Value, n, from)
	}
	return nil
}

// finiteRow is false where v holds a NaN or an infinity: v−v is 0 otherwise.
func finiteRow(v []float32) bool {
	var sum float32
	for _, f := range v {
		sum += f - f
	}
	return sum == 0
}
