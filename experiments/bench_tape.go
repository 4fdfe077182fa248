package main

import (
	"context"
	"time"

	"sagbench/models/tensor"
	"sagbench/sampling"
)

// A tape keeps the calls that a row's networks get, to make them again.
type tape struct {
	calls []func(context.Context) error
	done  bool          // nothing more is kept
	spent time.Duration // in the networks
}

func (t *tape) clock(start time.Time) { t.spent += time.Since(start) }

func (t *tape) replay(ctx context.Context) error {
	for _, call := range t.calls {
		if err := call(ctx); err != nil {
			return err
		}
	}
	return nil
}

// record is the network n, whose calls are kept as those of plain, the same
// network unperturbed.
func (t *tape) record(n, plain sampling.Denoiser) sampling.Denoiser {
	return &recordedDenoiser{n, plain, t}
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

type recordedDenoiser struct {
	sampling.Denoiser
	plain sampling.Denoiser
	tape  *tape
}

func (d *recordedDenoiser) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	if !d.tape.done {
		state, cond := x.Clone(), sampling.Cond{Labels: c.Labels, Context: c.Context}
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
