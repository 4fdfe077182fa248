package sampling

import (
	"context"
	"fmt"
	"slices"

	"sagbench/sampling/tensor"
)

var _ Adaptive = (*ODE)(nil)

// ODE solves the probability flow dx/dt = v(x, t) of SiT's path from t = 0, noise, to
// 1, data, v the velocity by the guided prediction. The n steps are the points of the
// time grid, so that the fixed solvers make n − 1 steps, with h the step:
//
//	euler:  x += h v(x, t)
//	heun2:  x += h/2 (v(x, t) + v(x + h v(x, t), t + h))
//
// dopri5 chooses its steps by the error that it estimates, and gives the states at
// the points by a polynomial of fourth degree. It goes image by image, in calls of
// one image: in the official code all images of a batch share their steps, and so
// depend on each other.
//
// Sources: Ma et al. 2024 (arXiv:2401.08740); willisma/SiT transport/transport.py
// Sampler.sample_ode, which calls torchdiffeq 0.2.5.
type ODE struct {
	Steps          int     `yaml:"steps" min:"2" max:"10000" doc:"points of the time grid, both ends counted (num-sampling-steps): euler calls the network at all but the last one, heun2 twice as often; dopri5 gives the states there, and calls it as often as atol and rtol ask"`
	SamplingMethod string  `yaml:"sampling_method" doc:"solver: euler, heun2 or dopri5 (adaptive), as torchdiffeq calls them"`
	Atol           float64 `yaml:"atol" min:"0" max:"1000" doc:"of dopri5: absolute error of a step"`
	Rtol           float64 `yaml:"rtol" min:"0" max:"1000" doc:"of dopri5: relative error of a step"`
}

// NewODE is ODE with the defaults of SiT's sample.py.
func NewODE() *ODE { return &ODE{Steps: 250, SamplingMethod: "dopri5", Atol: 1e-6, Rtol: 1e-3} }

var odeMethods = []string{"euler", "heun2", "dopri5"}

// Validate tells everything that is wrong with the options.
func (d *ODE) Validate() error {
	var f Faults
	f.When(d.Steps < 2, "steps is %d, expected at least 2: both ends of the time grid", d.Steps)
	f.When(!slices.Contains(odeMethods, d.SamplingMethod), "sampling_method is %q, expected one of %v", d.SamplingMethod, odeMethods)
	f.When(!(d.Atol >= 0 && d.Rtol >= 0 && d.Atol+d.Rtol > 0), "atol is %g and rtol %g, expected tolerances, one of them above 0", d.Atol, d.Rtol)
	return f.Join()
}

// adaptive tells whether the steps are chosen by their errors.
func (d *ODE) adaptive() bool { return d.SamplingMethod == "dopri5" }

// Least implements Adaptive: two calls before the first step, and six in one step.
func (d *ODE) Least() Sampler {
	if !d.adaptive() {
		return nil
	}
	return &ODE{Steps: 9, SamplingMethod: "euler"}
}

// Schedule is the times of the network's calls; of dopri5 the points at which its
// steps are looked at.
func (d *ODE) Schedule(c ScheduleConfig) (*Schedule, error) {
	p, err := c.interpolant()
	if err != nil {
		return nil, fmt.Errorf("sampling: ode: %w", err)
	}
	grid := d.grid(p)
	times := grid[:len(grid)-1]
	if d.SamplingMethod == "heun2" {
		times = nil
		for i, t := range grid[1:] {
			times = append(times, grid[i], t)
		}
	}
	return c.along(times, 1), nil
}

// grid is the points of the time grid.
func (d *ODE) grid(p Interpolant) []float64 {
	from, to := p.interval(false, false, 0)
	return flowGrid(from, to, d.Steps)
}

// Sample takes x_T, at time 0, to x_0. No noise is asked for.
func (d *ODE) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, _ Noise) (x tensor.Tensor, err error) {
	path, err := p.Schedule.Config().interpolant()
	if err != nil {
		return x, fmt.Errorf("sampling: ode: %w", err)
	}
	grid := d.grid(path)
	if d.adaptive() {
		return d.solve(ctx, p, xT, grid)
	}
	c, err := p.begin(xT)
	if err != nil {
		return x, err
	}
	v, v2, trial := make([]float64, len(c.x)), make([]float64, len(c.x)), make([]float64, len(c.x))
	for i, to := range grid[1:] {
		h, at := to-grid[i], c.next()
		if err := c.flow(ctx, at, c.x, v); err != nil {
			return x, err
		}
		if d.SamplingMethod == "heun2" {
			c.each(func(i int) { trial[i] = c.x[i] + float64(h*v[i]) })
			at = c.next()
			if err := c.flow(ctx, at, trial, v2); err != nil {
				return x, err
			}
			c.each(func(i int) { v[i] = (v[i] + v2[i]) / 2 })
		}
		c.each(func(i int) { c.x[i] += float64(h * v[i]) })
		if x, err = c.arrive(at); err != nil {
			return x, err
		}
	}
	return x, nil
}

// flow sets v to dx/dt at the states x of time t: one call of the network.
func (c *course) flow(ctx context.Context, t Timestep, x, v []float64) error {
	out, err := c.ask(ctx, t, x)
	if err == nil {
		c.velocity(t, x, out.Data, v)
	}
	return err
}

// solve takes each image through dopri5, point by point.
func (d *ODE) solve(ctx context.Context, p *Predictor, xT tensor.Tensor, grid []float64) (x tensor.Tensor, err error) {
	if err := p.Check(xT); err != nil {
		return x, fmt.Errorf("sampling: %w", err)
	}
	at := p.Schedule.Timestep(p.Schedule.Len() - 1)
	solvers := make([]*dopri5, xT.Rows())
	for n := range solvers {
		c, err := p.alone(n, xT.Rows()).begin(xT.Slice(n, n+1))
		if err != nil {
			return x, err
		}
		solvers[n] = &dopri5{atol: d.Atol, rtol: d.Rtol, y: c.x, flow: func(t float64, y, v []float64) error {
			return renumbered(c.flow(ctx, Timestep{Index: at.Index, Value: float64(float32(t))}, y, v), func(int) int { return n })
		}}
		if err := solvers[n].begin(grid[0]); err != nil {
			return x, err
		}
	}
	for i, to := range grid[1:] {
		at = p.Schedule.Timestep(p.Schedule.Len() - 1 - i)
		x = xT.Like()
		for n, s := range solvers {
			if err := s.advance(to, x.Row(n)); err != nil {
				return x, err
			}
		}
		if n, broken := FirstNotFinite(x); broken {
			return x, &NotFinite{Step: at, Image: n, What: "the update, which overflowed"}
		}
		p.trace("x", at, x)
	}
	return x, nil
}

// alone is the predictor of image n of a batch.
func (p *Predictor) alone(n, images int) *Predictor {
	one := *p
	one.Cond, one.Null = p.Cond.Pick([]int{n}), p.Null.Pick([]int{n})
	if p.Random != nil {
		one.Random = imageOf{p.Random, n, images}
	}
	return &one
}

// imageOf is the random numbers of an image of a batch.
type imageOf struct {
	batch     Uniform
	n, images int
}

// Uniform implements Uniform.
func (u imageOf) Uniform(step int, dst tensor.Tensor) error {
	all := tensor.New(append([]int{u.images}, dst.Shape[1:]...)...)
	err := u.batch.Uniform(step, all)
	copy(dst.Data, all.Row(u.n))
	return err
}
