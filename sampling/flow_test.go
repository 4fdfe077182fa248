package sampling

import (
	"math"
	"slices"
	"strings"
	"testing"

	"sagbench/sampling/tensor"
)

// interpolant is a path of SiT, with the ends that its family sets.
func interpolant(kind string, predicts Parametrization) ScheduleConfig {
	p := Interpolant{Type: kind, Velocity: predicts == Flow}
	if !p.Velocity || kind == "VP" {
		p.Eps = 1e-3
	}
	return ScheduleConfig{Path: p}
}

// arrived is where the probability flow takes x_T of a path: data of the gaussian,
// quantile by quantile.
func (g gaussian) arrived(c ScheduleConfig, x tensor.Tensor) tensor.Tensor {
	start, end := c.Path.At(0), c.Path.At(1)
	if p := c.Path.(Interpolant); p.Eps > 0 {
		from, to := p.interval(false, false, 0)
		start, end = p.At(from), p.At(to)
	}
	spread := func(at Point) float64 { return math.Sqrt(at.Alpha*at.Alpha*g.sd*g.sd + at.Sigma*at.Sigma) }
	return each(x, func(v float64) float64 {
		return end.Alpha*g.mean + (v-start.Alpha*g.mean)*spread(end)/spread(start)
	})
}

func TestInterpolants(t *testing.T) {
	const step = 1e-6
	for _, kind := range Interpolants {
		p := Interpolant{Type: kind}
		for _, time := range []float64{0.1, 0.5, 0.9} {
			at, before, after := p.At(time), p.At(time-step), p.At(time+step)
			if d := (after.Alpha - before.Alpha) / (2 * step); math.Abs(d-at.DAlpha) > 1e-6*(1+math.Abs(d)) {
				t.Errorf("%s at %g: dα/dt = %g, want %g", kind, time, at.DAlpha, d)
			}
			if d := (after.Sigma - before.Sigma) / (2 * step); math.Abs(d-at.DSigma) > 1e-6*(1+math.Abs(d)) {
				t.Errorf("%s at %g: dσ/dt = %g, want %g", kind, time, at.DSigma, d)
			}
		}
		if from, to := p.At(0), p.At(1); from.Alpha > 0.01 || from.Sigma < 0.9999 || math.Abs(to.Alpha-1) > 1e-9 || to.Sigma > 1e-5 {
			t.Errorf("%s goes from %+v to %+v", kind, from, to)
		}
	}
}

// Every solver on every path, for every kind of network, comes to the closed form of
// the gaussian's flow.
func TestODEFlow(t *testing.T) {
	g := gaussian{0.2, 0.5}
	x := start(t, 5, 2, 1, 6)
	for _, kind := range Interpolants {
		for _, predicts := range []Parametrization{Flow, Score, Epsilon} {
			c := interpolant(kind, predicts)
			want := g.arrived(c, x).Data
			for method, tolerance := range map[string]float64{"euler": 0.05, "heun2": 0.01, "dopri5": 0.05} {
				d := NewODE()
				d.SamplingMethod, d.Steps = method, 101
				var times []float64
				p := &Predictor{Denoiser: g.along(c.Path, predicts, &times), Schedule: scheduleOf(t, d, c), Predicts: predicts}
				states := 0
				p.Trace = func(name string, at Timestep, v tensor.Tensor) {
					if name == "x" {
						states++
					}
				}
				got, err := d.Sample(t.Context(), p, x, nil)
				if err != nil {
					t.Fatal(kind, predicts, method, err)
				}
				if e := far(got.Data, want); e > tolerance {
					t.Errorf("%s, %s, %s: distance %.2g, want at most %.2g", kind, predicts, method, e, tolerance)
				}
				if states != 100 {
					t.Errorf("%s: %d states, want 100", method, states)
				}
				if calls := map[string]int{"euler": 100, "heun2": 200}[method]; calls > 0 && len(times) != calls || method == "dopri5" && (len(times) < 16 || len(times) > 400) {
					t.Errorf("%s, %s, %s: %d calls", kind, predicts, method, len(times))
				}
			}
		}
	}
}

// dopri5 solves to its tolerance, at every point of the grid, and asks more for less
// error; an image has the same bits whatever others are in its batch.
func TestDopri5(t *testing.T) {
	g := gaussian{0.2, 0.5}
	c := interpolant("Linear", Flow)
	solve := func(rtol float64, images ...int) (states [][]float32, calls int) {
		d := &ODE{Steps: 6, SamplingMethod: "dopri5", Atol: rtol / 1000, Rtol: rtol}
		x := tensor.New(len(images), 1, 4, 4)
		if err := (Keyed{4, images}).Fill(-1, x); err != nil {
			t.Fatal(err)
		}
		var times []float64
		p := &Predictor{Denoiser: g.along(c.Path, Flow, &times), Schedule: scheduleOf(t, d, c), Predicts: Flow}
		p.Trace = func(name string, at Timestep, v tensor.Tensor) {
			if name == "x" {
				states = append(states, slices.Clone(v.Data))
			}
		}
		if _, err := d.Sample(t.Context(), p, x, nil); err != nil {
			t.Fatal(err)
		}
		return states, len(times)
	}
	x := tensor.New(1, 1, 4, 4)
	if err := (Keyed{4, []int{3}}).Fill(-1, x); err != nil {
		t.Fatal(err)
	}
	few, coarse := solve(1e-3, 3)
	fine, many := solve(1e-6, 3)
	if coarse >= many {
		t.Errorf("%d calls for 1e-3, %d for 1e-6", coarse, many)
	}
	for i := range 5 {
		at := c.Path.At(float64(i+1) / 5)
		spread := math.Sqrt(at.Alpha*at.Alpha*g.sd*g.sd + at.Sigma*at.Sigma)
		want := each(x, func(v float64) float64 { return at.Alpha*g.mean + v*spread }).Data
		if a, b := far(few[i], want), far(fine[i], want); a > 0.06 || b > 5e-6 {
			t.Errorf("point %d: distance %.2g with rtol 1e-3, %.2g with 1e-6", i+1, a, b)
		}
	}
	batch, _ := solve(1e-3, 0, 3, 7)
	if !slices.Equal(batch[4][16:32], few[4]) {
		t.Error("image 3 differs in a batch")
	}
	d := &dopri5{atol: 0, rtol: 1e-300, y: []float64{1}, flow: func(t float64, y, f []float64) error { f[0] = math.Sin(1e6 * t); return nil }}
	if err := d.begin(0); err != nil {
		t.Fatal(err)
	}
	if err := d.advance(1, make([]float32, 1)); err == nil || !strings.Contains(err.Error(), "does not get on") {
		t.Errorf("a tolerance that no step meets: %v", err)
	}
}

// The reverse SDE leaves the data's mean and variance, whatever w is.
func TestSDE(t *testing.T) {
	g := gaussian{0.2, 0.5}
	const images = 150
	x := start(t, 8, images, 1, 10)
	for name, d := range map[string]*SDE{
		"defaults":              {SamplingMethod: "Euler", DiffusionForm: "sigma", LastStep: "Mean"},
		"Heun":                  {SamplingMethod: "Heun", DiffusionForm: "decreasing", LastStep: "Euler"},
		"linear":                {SamplingMethod: "Euler", DiffusionForm: "linear", LastStep: "Euler"},
		"constant":              {SamplingMethod: "Euler", DiffusionForm: "constant", LastStep: "Mean"},
		"increasing-decreasing": {SamplingMethod: "Euler", DiffusionForm: "increasing-decreasing", LastStep: "Euler"},
	} {
		d.Steps, d.DiffusionNorm, d.LastStepSize = 100, 1, 0.01
		for _, kind := range []string{"Linear", "GVP"} {
			c := interpolant(kind, Flow)
			states := 0
			p := &Predictor{Denoiser: g.along(c.Path, Flow, nil), Schedule: scheduleOf(t, d, c), Predicts: Flow}
			p.Trace = func(name string, _ Timestep, _ tensor.Tensor) {
				if name == "x" {
					states++
				}
			}
			got, err := d.Sample(t.Context(), p, x, Keyed{8, numbers(images)})
			if err != nil {
				t.Fatal(name, err)
			}
			mean, square := 0.0, 0.0
			for _, v := range got.Data {
				mean, square = mean+float64(v), square+float64(v)*float64(v)
			}
			n := float64(len(got.Data))
			if mean, sd := mean/n, math.Sqrt(square/n-mean*mean/n/n); math.Abs(mean-g.mean) > 0.03 || math.Abs(sd-g.sd) > 0.04 {
				t.Errorf("%s, %s: mean %.3f, standard deviation %.3f, want %g and %g", name, kind, mean, sd, g.mean, g.sd)
			}
			if states != 100 {
				t.Errorf("%s: %d states, want 100", name, states)
			}
		}
	}
}

// Tweedie's last step is x̂0; without a last step the last state counts.
func TestSDELastStep(t *testing.T) {
	g := gaussian{0.2, 0.5}
	c := interpolant("Linear", Flow)
	x := start(t, 9, 2, 1, 4)
	run := func(last string) (states []tensor.Tensor, at float64) {
		d := &SDE{Steps: 10, SamplingMethod: "Euler", DiffusionForm: "sigma", DiffusionNorm: 1, LastStep: last, LastStepSize: 0.1}
		s := scheduleOf(t, d, c)
		p := &Predictor{Denoiser: g.along(c.Path, Flow, nil), Schedule: s, Predicts: Flow}
		p.Trace = func(name string, _ Timestep, v tensor.Tensor) {
			if name == "x" {
				states = append(states, v.Clone())
			}
		}
		if _, err := d.Sample(t.Context(), p, x, Keyed{9, numbers(2)}); err != nil {
			t.Fatal(err)
		}
		return states, s.Timestep(0).Value
	}
	states, at := run("Tweedie")
	point := c.Path.At(at)
	want := each(states[8], func(v float64) float64 {
		variance := point.Alpha*point.Alpha*g.sd*g.sd + point.Sigma*point.Sigma
		return g.mean + point.Alpha*g.sd*g.sd/variance*(v-point.Alpha*g.mean)
	})
	if d := far(states[9].Data, want.Data); len(states) != 10 || math.Abs(at-0.9) > 1e-6 || d > 1e-5 {
		t.Errorf("%d states, the last step at %g, x̂0 at distance %.2g", len(states), at, d)
	}
	if states, _ := run("None"); len(states) != 10 || !slices.Equal(states[9].Data, states[8].Data) {
		t.Error("None makes a last step")
	}
}

func TestFlowRefused(t *testing.T) {
	flow := interpolant("Linear", Flow)
	sbdm := NewSDE()
	sbdm.DiffusionForm = "SBDM"
	for _, c := range []struct {
		sampler Sampler
		config  ScheduleConfig
		want    string
	}{
		{NewODE(), DefaultSchedule(), "ode: the network is told one of a number of timesteps"},
		{NewSDE(), levels, "sde: the network's time is that of noise levels, as EDM's; expected a network that is told a time from 0, noise, to 1, data, such as those of family sit; the samplers for it: edm or edm_ablation"},
		{NewEDM(), flow, "the network's time is that of a Linear path from noise, 0, to data, 1, as SiT's; expected a network that is told noise levels"},
		{&DDIM{Steps: 5}, flow, "the samplers for it: ode or sde"},
		{sbdm, flow, "SBDM is infinite where a path begins without signal"},
	} {
		if _, err := c.sampler.Schedule(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%T: %v lacks %q", c.sampler, err, c.want)
		}
	}
	for _, c := range []ScheduleConfig{interpolant("VP", Flow), interpolant("Linear", Score)} {
		if _, err := sbdm.Schedule(c); err != nil {
			t.Errorf("SBDM on %v: %v", c.Path, err)
		}
	}
	for want, s := range map[string]interface{ Validate() error }{
		"steps is 1": &ODE{Steps: 1}, `sampling_method is "heun"`: &ODE{SamplingMethod: "heun"}, "atol is 0 and rtol 0": &ODE{},
		`sampling_method is "dopri5"`: &SDE{SamplingMethod: "dopri5"}, `diffusion_form is "none"`: &SDE{DiffusionForm: "none"},
		`last_step is "Last"`: &SDE{LastStep: "Last"}, "last_step_size is 1": &SDE{LastStepSize: 1}, "diffusion_norm is -1": &SDE{DiffusionNorm: -1}, "steps is 0": &SDE{},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if NewODE().Validate() != nil || NewSDE().Validate() != nil {
		t.Error("the defaults are wrong")
	}
	if NewODE().Least() == nil || (&ODE{SamplingMethod: "euler"}).Least() != nil {
		t.Error("dopri5 alone chooses its steps")
	}
}
