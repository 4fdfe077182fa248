package sampling

import (
	"context"
	"fmt"

	"sagbench/models/tensor"
)

// A Parametrization is what a network was trained to predict.
type Parametrization string

// The parametrizations whose predictions ε follows from.
const (
	Epsilon Parametrization = "epsilon" // the noise
	XStart  Parametrization = "x_start" // the image x_0
	V       Parametrization = "v"       // √ᾱ ε − √(1−ᾱ) x_0 (Salimans and Ho 2022)
)

// Parametrized wraps a network whose Eps holds another parametrization, so
// that it predicts ε. Only the schedule s knows ᾱ, so it has to be the one
// that the sampler uses. Source: gaussian_diffusion.py p_mean_variance.
func Parametrized(d Denoiser, kind Parametrization, s *Schedule) (Denoiser, error) {
	switch kind {
	case Epsilon:
		return d, nil
	case XStart, V:
		return &parametrized{d, kind, s}, nil
	}
	return nil, fmt.Errorf("sampling: parametrization is %q, expected %s, %s or %s", kind, Epsilon, XStart, V)
}

type parametrized struct {
	Denoiser
	kind     Parametrization
	schedule *Schedule
}

// Denoise is the wrapped network's prediction with Eps turned into ε.
func (d *parametrized) Denoise(ctx context.Context, x tensor.Tensor, t Timestep, c Cond) (Prediction, error) {
	p, err := d.Denoiser.Denoise(ctx, x, t, c)
	if err != nil {
		return Prediction{}, err
	}
	if err := p.check(x); err != nil {
		return Prediction{}, fmt.Errorf("sampling: step %d (t = %g): the network's prediction: %w", t.Index, t.Value, err)
	}
	coef := d.schedule.At(t.Index)
	f := coef.Eps
	if d.kind == V {
		f = coef.EpsFromV
	}
	p.Eps = combine(x, p.Eps, f)
	return p, nil
}
