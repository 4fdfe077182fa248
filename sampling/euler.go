package sampling

import (
	"context"
	"fmt"
	"math"
	"slices"

	"sagbench/sampling/tensor"
)

var _ Sampler = (*Euler)(nil)

// Euler is Euler's method for the probability flow of states x = x_0 + σ ε,
// dx/dσ = (x − x̂0)/σ. With D the guided x̂0, for i = Len()-1 … 0, and σ' of the
// state to which the step goes:
//
//	x_T = σ_T z, or √(σ_T² + 1) z with leading timestep_spacing
//	D   = x̂0 from the network at x/√(σ_i² + 1), t_i
//	d   = (x − D)/σ_i
//	x'  = x + (σ' − σ_i) d = D + σ' d
//
// Sources: Karras et al. 2022, algorithm 1; diffusers EulerDiscreteScheduler.
// Guidances see x/√(σ² + 1), which has the variance of the diffusion.
type Euler struct {
	Steps         int `yaml:"steps" min:"1" max:"10000" doc:"denoising steps, one network call each"`
	Spacing       `yaml:",inline"`
	FinalSigmas   string `yaml:"final_sigmas_type" doc:"the last step goes to σ = 0 (zero) or to that of timestep 0 (sigma_min); empty for the checkpoint's own"`
	Interpolation string `yaml:"interpolation_type" doc:"σ between timesteps (linear), or at equal steps of log σ whatever the timesteps are (log_linear); empty for the checkpoint's own"`
	KarrasSigmas  *bool  `yaml:"use_karras_sigmas" doc:"noise levels at equal steps of σ^(1/7) between the first and the last one; absent for the checkpoint's own"`
}

// Validate tells everything that is wrong with the options.
func (d *Euler) Validate() error {
	var f Faults
	f.steps(d.Steps)
	f.When(!slices.Contains([]string{"", "zero", "sigma_min"}, d.FinalSigmas), "final_sigmas_type is %q, expected zero or sigma_min", d.FinalSigmas)
	f.When(!slices.Contains([]string{"", "linear", "log_linear"}, d.Interpolation), "interpolation_type is %q, expected linear or log_linear", d.Interpolation)
	return f.Join()
}

// Schedule is the timesteps and noise levels of diffusers'
// EulerDiscreteScheduler.
func (d *Euler) Schedule(c ScheduleConfig) (*Schedule, error) {
	const name = "euler"
	p, err := c.processFor(name)
	if err != nil {
		return nil, err
	}
	if kind := or(p.from.TimestepType, "discrete"); kind != "discrete" {
		return nil, fmt.Errorf("sampling: %s: scheduler config: timestep_type is %q, expected discrete", name, kind)
	}
	sigmas := p.sigmas()
	grid := d.spacer(&p, "linspace")
	grid.round = false
	times, err := grid.times(len(sigmas), len(sigmas), d.Steps)
	if err != nil {
		return nil, fmt.Errorf("sampling: %s: %w", name, err)
	}
	times, levels := d.levels(&p, times, sigmas)
	s := p.atLevels(times, levels, p.finalLevel(d.FinalSigmas, sigmas))
	s.initNoiseSigma = s.sigmas[0]
	if grid.spacing == "leading" {
		s.initNoiseSigma = math.Sqrt(s.sigmas[0]*s.sigmas[0] + 1)
	}
	return s, nil
}

// levels is σ of the steps: those of the times, or others, in place of which the
// times at which the process has them. log_linear makes one level more, which
// the last step goes to, and leaves the times as they are.
func (d *Euler) levels(p *process, times, sigmas []float64) (at, levels []float64) {
	f := &p.from
	for _, t := range times {
		levels = append(levels, interpolated(sigmas, t))
	}
	if chosen(optional(d.Interpolation), f.InterpolationType, "linear") == "log_linear" {
		levels = exponential(sigmas[len(sigmas)-1], sigmas[0], d.Steps+1)
	}
	high, low := or(f.SigmaMax, levels[0]), or(f.SigmaMin, levels[len(levels)-1])
	others := p.respacedLevels(d.KarrasSigmas, false, high, low, d.Steps)
	if others == nil {
		return times, levels
	}
	for _, sigma := range others {
		at = append(at, timeOf(sigma, sigmas))
	}
	return at, others
}

// Sample takes x_T to x_0 over all steps of p.Schedule. No noise is asked for.
func (d *Euler) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, _ Noise) (tensor.Tensor, error) {
	s, shown := p.Schedule, xT.Like()
	return p.walk(ctx, xT, loop{
		shown: func(i int, x tensor.Tensor) tensor.Tensor { return scaled(shown, x, math.Sqrt(s.AlphaBar(i))) },
		next: func(v *visit) error {
			c, limit := s.At(v.i), p.limit()
			v.follow(&c, p.Predicts)
			sigma, bar := float32(s.Sigma(v.i)), s.AlphaBarPrev(v.i)
			denoised := newDenoised(p.Predicts, s.Sigma(v.i))
			stride := float32(math.Sqrt((1-bar)/bar)) - sigma // σ' − σ
			EachImage(xT.Rows(), func(n int) {
				x, out := v.x.Row(n), v.guided.Eps.Row(n)
				for j, xj := range x {
					x0 := float32(denoised.x*xj) + float32(denoised.out*out[j])
					slope := (xj - max(-limit, min(x0, limit))) / sigma
					x[j] = xj + float32(slope*stride)
				}
			})
			return nil
		},
	})
}

// A denoised is D as a linear function of x = x_0 + σ ε and the network's output.
type denoised struct{ x, out float32 }

func newDenoised(kind Parametrization, sigma float64) denoised {
	switch kind {
	case V:
		return denoised{float32(1 / (sigma*sigma + 1)), float32(-sigma / math.Sqrt(sigma*sigma+1))}
	case XStart:
		return denoised{0, 1}
	}
	return denoised{1, float32(-sigma)}
}

// scaled sets dst to factor·src and returns it.
func scaled(dst, src tensor.Tensor, factor float64) tensor.Tensor {
	f := float32(factor)
	EachImage(src.Rows(), func(n int) {
		dst, src := dst.Row(n), src.Row(n)
		for j, v := range src {
			dst[j] = float32(f * v)
		}
	})
	return dst
}
