package sampling

import (
	"math"
	"strings"
	"testing"

	"sagbench/sampling/tensor"
)

var levels = ScheduleConfig{Path: NoiseLevels{Max: math.Inf(1)}}

// along is the best denoiser of the gaussian on a path, in the terms of a kind, at
// x_t as networks see it. It keeps the times that it is asked at.
func (g gaussian) along(path Path, kind Parametrization, times *[]float64) Denoiser {
	return denoise(func(x tensor.Tensor, t Timestep, _ Cond) (Prediction, error) {
		if times != nil {
			*times = append(*times, t.Value)
		}
		at := path.At(t.Value)
		ofXStart, ofEps := at.stands(kind)
		return Prediction{Eps: each(x, func(v float64) float64 {
			state := v * at.Length()
			variance := at.Alpha*at.Alpha*g.sd*g.sd + at.Sigma*at.Sigma
			xStart := g.mean + at.Alpha*g.sd*g.sd/variance*(state-at.Alpha*g.mean)
			eps := at.Sigma / variance * (state - at.Alpha*g.mean)
			return ofXStart*xStart + ofEps*eps
		})}, nil
	})
}

// What an output stands for, read back, at states of a path's own length and of x_t's.
func TestPoints(t *testing.T) {
	for _, path := range []Path{NoiseLevels{}, Interpolant{Type: "Linear"}, Interpolant{Type: "GVP"}, Interpolant{Type: "VP"}} {
		for _, time := range []float64{0.03, 0.5, 0.9} {
			at := path.At(time)
			c := at.coefficients()
			const xStart, eps = 0.7, -1.3
			x := at.Alpha*xStart + at.Sigma*eps
			for _, kind := range []Parametrization{Epsilon, XStart, V, Velocity, Flow, Score} {
				p, q := at.stands(kind)
				output := p*xStart + q*eps
				gotX, gotEps := at.split(kind, x, output)
				if math.Abs(gotX-xStart) > 1e-12 || math.Abs(gotEps-eps) > 1e-12 {
					t.Errorf("%v at %g: %s %g is read as x_0 %g, ε %g", path, time, kind, output, gotX, gotEps)
				}
				if kind == Velocity {
					continue // no network's
				}
				var x0, e, back [1]float32
				c.Split(kind, []float32{float32(x / at.Length())}, []float32{float32(output)}, x0[:], e[:])
				c.Output(kind, x0[:], e[:], back[:])
				if math.Abs(float64(x0[0])-xStart) > 2e-5 || math.Abs(float64(e[0])-eps) > 2e-5 || math.Abs(float64(back[0])-output) > 1e-5*(1+math.Abs(output)) {
					t.Errorf("%v at %g: %s %g is read as x_0 %g, ε %g, which makes %g", path, time, kind, output, x0[0], e[0], back[0])
				}
				// a change of the output at a fixed state, as that of ε
				moved := func(by float64) float64 {
					e := eps + by
					return p*(x-at.Sigma*e)/at.Alpha + q*e - output
				}
				if want := moved(1) / 1; math.Abs(float64(c.Slope(kind)/c.Slope(Epsilon))-want) > 1e-4*(1+math.Abs(want)) {
					t.Errorf("%v at %g: %s changes by %g where ε changes by 1, want %g", path, time, kind, c.Slope(kind)/c.Slope(Epsilon), want)
				}
				if want := moved(-float64(c.sqrtOneMinusAlphaBar)); math.Abs(float64(c.Shift(kind))-want) > 1e-4*(1+math.Abs(want)) {
					t.Errorf("%v at %g: a score shifts %s by %g, want %g", path, time, kind, c.Shift(kind), want)
				}
			}
		}
	}
}

// The probability flow of the gaussian has a closed form, to which every variant of
// the sampler comes near, the better the more steps.
func TestEDMFlow(t *testing.T) {
	g := gaussian{0.2, 0.5}
	x := start(t, 5, 2, 1, 8)
	ablation := func(solver, disc, schedule, scaling string, alpha float64) func(steps int) Sampler {
		return func(steps int) Sampler {
			d := NewEDMAblation()
			d.Steps, d.Solver, d.Disc, d.NoiseSchedule, d.Scaling, d.Alpha = steps, solver, disc, schedule, scaling, alpha
			d.SigmaMin, d.SigmaMax = new(0.002), new(80.0)
			return d
		}
	}
	for name, c := range map[string]struct {
		sampler   func(steps int) Sampler
		tolerance float64 // with 64 steps
	}{
		"edm":                  {func(steps int) Sampler { d := NewEDM(); d.Steps = steps; return d }, 5e-3},
		"edm by the ablation":  {ablation("heun", "edm", "linear", "none", 1), 5e-3},
		"midpoint":             {ablation("heun", "edm", "linear", "none", 0.5), 5e-3},
		"vp":                   {ablation("euler", "vp", "vp", "vp", 1), 0.1},
		"vp, Heun":             {ablation("heun", "vp", "vp", "vp", 1), 0.02},
		"ve":                   {ablation("heun", "ve", "ve", "none", 1), 0.1},
		"iddpm":                {ablation("heun", "iddpm", "linear", "none", 1), 0.02},
		"our steps, vp":        {ablation("heun", "edm", "vp", "vp", 1), 5e-3},
		"our steps, vp scaled": {ablation("heun", "edm", "linear", "vp", 1), 5e-3},
	} {
		run := func(steps int) float64 {
			s := c.sampler(steps)
			schedule := scheduleOf(t, s, levels)
			p := &Predictor{Denoiser: g.along(levels.Path, XStart, nil), Schedule: schedule, Predicts: XStart}
			got, err := s.Sample(t.Context(), p, x, nil)
			if err != nil {
				t.Fatal(name, err)
			}
			first := schedule.Level(schedule.Timestep(schedule.Len() - 1))
			want := each(x, func(v float64) float64 {
				return g.mean + (v*first-g.mean)*g.sd/math.Sqrt(g.sd*g.sd+first*first)
			})
			return far(got.Data, want.Data)
		}
		few, many := run(16), run(64)
		if many > c.tolerance || many > few/3 {
			t.Errorf("%s: distance %.2g with 16 steps, %.2g with 64, want at most %.2g", name, few, many, c.tolerance)
		}
	}
}

// Networks that predict something else are sampled from alike.
func TestEDMParametrizations(t *testing.T) {
	g := gaussian{0.2, 0.5}
	x := start(t, 6, 2, 1, 4)
	var want []float32
	for _, kind := range []Parametrization{XStart, Epsilon, V, Score} {
		d := NewEDM()
		p := &Predictor{Denoiser: g.along(levels.Path, kind, nil), Schedule: scheduleOf(t, d, levels), Predicts: kind}
		got, err := d.Sample(t.Context(), p, x, nil)
		if err != nil {
			t.Fatal(kind, err)
		}
		if want == nil {
			want = got.Data
		} else if d := far(got.Data, want); d > 2e-5 {
			t.Errorf("%s: distance %.2g", kind, d)
		}
	}
}

// Noise is added within [S_min, S_max] alone, and levels are cut to the network's and
// rounded to those that it knows. With as much noise as EDM adds, images still have
// the data's mean and variance.
func TestEDMChurn(t *testing.T) {
	g := gaussian{0.2, 0.5}
	d := NewEDM()
	d.Steps, d.SMin, d.SMax = 40, 0.05, new(50.0)
	d.SChurn = 10
	var times []float64
	p := &Predictor{Denoiser: g.along(levels.Path, XStart, &times), Schedule: scheduleOf(t, d, levels), Predicts: XStart}
	x := start(t, 7, 200, 1, 10)
	got, err := d.Sample(t.Context(), p, x, Keyed{7, numbers(200)})
	if err != nil {
		t.Fatal(err)
	}
	mean, square := 0.0, 0.0
	for _, v := range got.Data {
		mean, square = mean+float64(v), square+float64(v)*float64(v)
	}
	n := float64(len(got.Data))
	if mean, sd := mean/n, math.Sqrt(square/n-mean*mean/n/n); math.Abs(mean-g.mean) > 0.02 || math.Abs(sd-g.sd) > 0.02 {
		t.Errorf("mean %.3f, standard deviation %.3f, want %g and %g", mean, sd, g.mean, g.sd)
	}
	grid := rhoSpaced(80, 0.002, 7, 40)
	for i, sigma := range grid {
		want := sigma
		if sigma >= 0.05 && sigma <= 50 {
			want *= 1.25
		}
		if first := times[2*i]; math.Abs(first-want) > 1e-12*want {
			t.Errorf("step %d at %g calls at %g, want %g", i, sigma, first, want)
		}
	}
	if len(times) != 79 {
		t.Errorf("%d calls, want 79", len(times))
	}

	whole := ScheduleConfig{Path: NoiseLevels{Min: 1, Max: 30, Round: math.Round}}
	d = NewEDM()
	d.Steps, d.SChurn = 4, 1
	s := scheduleOf(t, d, whole)
	for i := range s.Len() {
		if v := s.Timestep(i).Value; v != math.Round(v) || v < 1 || v > 38 {
			t.Errorf("call %d at %g", i, v)
		}
	}
	if s.InitNoiseSigma() != 30 {
		t.Errorf("begins at %g", s.InitNoiseSigma())
	}
}

func TestEDMRefused(t *testing.T) {
	d, a := NewEDM(), NewEDMAblation()
	a.Disc, a.SigmaMin, a.SigmaMax = "iddpm", new(0.0021), new(0.0022)
	other := NewEDM()
	other.SigmaMax = 0.5
	for _, c := range []struct {
		sampler Sampler
		config  ScheduleConfig
		want    string
	}{
		{d, DefaultSchedule(), "edm: the network is told one of a number of timesteps; expected a network that is told noise levels"},
		{&DDIM{Steps: 5}, levels, "is told the time itself (noise levels, as EDM's), not one of a number of timesteps; the samplers for it: edm or edm_ablation"},
		{&Euler{Steps: 5}, levels, "the samplers for it: edm"}, {&PNDM{Steps: 5}, levels, "the samplers for it: edm"},
		{&DDPM{Steps: 5}, levels, "the samplers for it: edm"}, {&DPMSolver2M{Steps: 5}, levels, "the samplers for it: edm"},
		{other, ScheduleConfig{Path: NoiseLevels{Min: 1, Max: 2}}, "supports noise levels from 1 to 2, none of which"},
		{a, levels, "disc iddpm has no noise level from 0.0021 to 0.0022"},
	} {
		if _, err := c.sampler.Schedule(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%T: %v lacks %q", c.sampler, err, c.want)
		}
	}
	wrong := &EDMAblation{Steps: 1, SigmaMin: new(2.0), SigmaMax: new(1.0), Solver: "rk4", Disc: "x", NoiseSchedule: "y", Scaling: "z", Alpha: 2}
	for _, want := range []string{"steps is 1", "sigma_min is 2 and sigma_max 1", `solver is "rk4"`, `disc is "x"`, `schedule is "y"`, `scaling is "z"`, "alpha is 2", "rho is 0", "epsilon_s is 0", "M is 0"} {
		if err := wrong.Validate(); !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	for _, want := range []string{"steps is 0", "sigma_min is 0", "rho is 0"} {
		if err := (&EDM{}).Validate(); !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if NewEDM().Validate() != nil || NewEDMAblation().Validate() != nil {
		t.Error("the defaults are wrong")
	}
}

// A batch of other images, or another size of it, changes no bit of an image.
func TestEDMBatchInvariance(t *testing.T) {
	g := gaussian{0.2, 0.5}
	d := NewEDM()
	d.Steps, d.SChurn = 5, 2
	run := func(images ...int) tensor.Tensor {
		k := Keyed{3, images}
		x := tensor.New(len(images), 1, 4, 4)
		if err := k.Fill(-1, x); err != nil {
			t.Fatal(err)
		}
		p := &Predictor{Denoiser: g.along(levels.Path, XStart, nil), Schedule: scheduleOf(t, d, levels), Predicts: XStart}
		out, err := d.Sample(t.Context(), p, x, k)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	all, one := run(0, 1, 2, 3), run(2)
	if far(one.Data, all.Row(2)) != 0 {
		t.Error("image 2 differs alone")
	}
}
