package sampling

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sagbench/sampling/tensor"
)

var _ Sampler = (*SDE)(nil)

// SDE solves the reverse SDE of SiT's path from t = 0, noise, to 1, data: with the
// velocity v and the score s = −ε/σ by the guided prediction, any w(t) ≥ 0 and
// z ~ N(0, I),
//
//	dx = (v + w s) dt + √(2w) dW
//	Euler:  x += (v + w s) h + √(2w h) z
//	Heun:   x̂ = x + √(2w h) z,  x = x̂ + h/2 (drift(x̂, t) + drift(x̂ + h drift(x̂, t), t + h))
//
// The last step, at 1 − last_step_size, adds no noise:
//
//	Mean:     x += (v + w s) last_step_size
//	Euler:    x += v last_step_size
//	Tweedie:  x = x/α + σ²/α s
//
// w is diffusion_form: constant, norm; SBDM, norm (dα/dt σ²/α − σ dσ/dt); sigma,
// norm σ; linear, norm (1−t); decreasing, (norm cos πt + 1)²/4; increasing-decreasing,
// norm sin² πt. The official code knows them all by name, but fails at constant, at
// increasing-decreasing, and at SBDM with velocities on the paths that begin without
// signal, where w is infinite.
//
// Sources: Ma et al. 2024 (arXiv:2401.08740), equations 4 and 20, table 2;
// willisma/SiT transport/transport.py Sampler.sample_sde, integrators.py sde.
type SDE struct {
	Steps          int     `yaml:"steps" min:"2" max:"10000" doc:"steps, the last step counted (num-sampling-steps); Heun calls the network twice in each but the last one"`
	SamplingMethod string  `yaml:"sampling_method" doc:"Euler (Euler and Maruyama) or Heun"`
	DiffusionForm  string  `yaml:"diffusion_form" doc:"w(t): constant, SBDM, sigma, linear, decreasing or increasing-decreasing"`
	DiffusionNorm  float64 `yaml:"diffusion_norm" min:"0" max:"1000" doc:"factor of w"`
	LastStep       string  `yaml:"last_step" doc:"Mean, Tweedie, Euler, or None for no last step"`
	LastStepSize   float64 `yaml:"last_step_size" min:"0" max:"0.5" doc:"where the last step begins, before 1"`
}

// NewSDE is SDE with the defaults of SiT's sample.py.
func NewSDE() *SDE {
	return &SDE{Steps: 250, SamplingMethod: "Euler", DiffusionForm: "sigma", DiffusionNorm: 1, LastStep: "Mean", LastStepSize: 0.04}
}

// diffusionForms are w(t) by name.
var diffusionForms = map[string]func(norm, t float64, at Point) float64{
	"constant": func(norm, _ float64, _ Point) float64 { return norm },
	"SBDM": func(norm, _ float64, at Point) float64 {
		return norm * (at.DAlpha/at.Alpha*at.Sigma*at.Sigma - at.Sigma*at.DSigma)
	},
	"sigma":  func(norm, _ float64, at Point) float64 { return norm * at.Sigma },
	"linear": func(norm, t float64, _ Point) float64 { return norm * (1 - t) },
	"decreasing": func(norm, t float64, _ Point) float64 {
		c := norm*math.Cos(math.Pi*t) + 1
		return 0.25 * c * c
	},
	"increasing-decreasing": func(norm, t float64, _ Point) float64 {
		s := math.Sin(math.Pi * t)
		return norm * s * s
	},
}

// Validate tells everything that is wrong with the options.
func (d *SDE) Validate() error {
	var f Faults
	f.When(d.Steps < 2, "steps is %d, expected at least 2", d.Steps)
	f.When(!slices.Contains([]string{"Euler", "Heun"}, d.SamplingMethod), "sampling_method is %q, expected Euler or Heun", d.SamplingMethod)
	_, known := diffusionForms[d.DiffusionForm]
	f.When(!known, "diffusion_form is %q, expected constant, SBDM, sigma, linear, decreasing or increasing-decreasing", d.DiffusionForm)
	f.When(!(d.DiffusionNorm >= 0), "diffusion_norm is %g, expected 0 or more", d.DiffusionNorm)
	f.When(!slices.Contains([]string{"Mean", "Tweedie", "Euler", "None"}, d.LastStep), "last_step is %q, expected Mean, Tweedie, Euler or None", d.LastStep)
	f.When(!(d.LastStepSize >= 0 && d.LastStepSize < 1), "last_step_size is %g, expected a part of the time from 0 to 1", d.LastStepSize)
	return f.Join()
}

// grid is the times of the steps with noise, and that of the last step.
func (d *SDE) grid(p Interpolant) []float64 {
	size := d.LastStepSize
	if d.LastStep == "None" {
		size = 0
	}
	from, to := p.interval(true, d.DiffusionForm == "SBDM", size)
	return flowGrid(from, to, d.Steps)
}

// Schedule is the times of the network's calls.
func (d *SDE) Schedule(c ScheduleConfig) (*Schedule, error) {
	p, err := c.interpolant()
	if err != nil {
		return nil, fmt.Errorf("sampling: sde: %w", err)
	}
	grid := d.grid(p)
	if d.DiffusionForm == "SBDM" && p.At(grid[0]).Alpha == 0 {
		return nil, errors.New("sampling: sde: diffusion_form SBDM is infinite where a path begins without signal, at time 0; choose another form, such as sigma")
	}
	h := stepOf(grid)
	var times []float64
	for _, t := range grid[:len(grid)-1] {
		times = append(times, t)
		if d.SamplingMethod == "Heun" {
			times = append(times, float64(float32(t+h)))
		}
	}
	if d.LastStep != "None" {
		times = append(times, grid[len(grid)-1])
	}
	return c.along(times, 1), nil
}

// stepOf is the step of a grid, in float32: the first one, for all.
func stepOf(grid []float64) float64 { return float64(float32(grid[1] - grid[0])) }

// Sample takes x_T, at time 0, to x_0.
func (d *SDE) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, noise Noise) (x tensor.Tensor, err error) {
	path, err := p.Schedule.Config().interpolant()
	if err != nil {
		return x, fmt.Errorf("sampling: sde: %w", err)
	}
	c, err := p.begin(xT)
	if err != nil {
		return x, err
	}
	grid, z := d.grid(path), xT.Like()
	h := stepOf(grid)
	k, k2, trial := make([]float64, len(c.x)), make([]float64, len(c.x)), make([]float64, len(c.x))
	var at Timestep
	for i, t := range grid[:len(grid)-1] {
		if err := noise.Fill(i, z); err != nil {
			return x, err
		}
		add := math.Sqrt(2*d.w(t, path)) * math.Sqrt(h)
		heun := d.SamplingMethod == "Heun"
		if heun {
			c.each(func(i int) { c.x[i] += float64(add * float64(z.Data[i])) })
		}
		at = c.next()
		if err := d.drift(ctx, c, at, c.x, k, true); err != nil {
			return x, err
		}
		if heun {
			c.each(func(i int) { trial[i] = c.x[i] + float64(h*k[i]) })
			at = c.next()
			if err := d.drift(ctx, c, at, trial, k2, true); err != nil {
				return x, err
			}
			c.each(func(i int) { c.x[i] += float64(0.5 * h * (k[i] + k2[i])) })
		} else {
			c.each(func(i int) { c.x[i] += float64(h*k[i]) + float64(add*float64(z.Data[i])) })
		}
		if x, err = c.arrive(at); err != nil {
			return x, err
		}
	}
	if d.LastStep != "None" {
		at = c.next()
		if err := d.last(ctx, c, at, k); err != nil {
			return x, err
		}
	}
	return c.arrive(at)
}

// w is the diffusion at a time.
func (d *SDE) w(t float64, p Path) float64 {
	return diffusionForms[d.DiffusionForm](d.DiffusionNorm, t, p.At(t))
}

// drift sets k to v + w s at the states x of time t, or to v: one call of the network.
func (d *SDE) drift(ctx context.Context, c *course, t Timestep, x, k []float64, stochastic bool) error {
	out, err := c.ask(ctx, t, x)
	if err != nil {
		return err
	}
	c.velocity(t, x, out.Data, k)
	if !stochastic {
		return nil
	}
	path := c.p.Schedule.Config().Path
	at, w := path.At(t.Value), d.w(t.Value, path)
	c.each(func(i int) {
		_, eps := at.split(c.p.Predicts, x[i], float64(out.Data[i]))
		k[i] -= float64(w * eps / at.Sigma)
	})
	return nil
}

// last makes the last step.
func (d *SDE) last(ctx context.Context, c *course, t Timestep, k []float64) error {
	if d.LastStep != "Tweedie" {
		err := d.drift(ctx, c, t, c.x, k, d.LastStep == "Mean")
		c.each(func(i int) { c.x[i] += float64(d.LastStepSize * k[i]) })
		return err
	}
	out, err := c.ask(ctx, t, c.x)
	if err != nil {
		return err
	}
	at := c.p.Schedule.Config().Path.At(t.Value)
	c.each(func(i int) { // x/α + σ²/α s is x̂0
		c.x[i], _ = at.split(c.p.Predicts, c.x[i], float64(out.Data[i]))
	})
	return nil
}
