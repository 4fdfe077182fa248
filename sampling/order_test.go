package sampling

import (
	"math"
	"testing"

	"sagbench/sampling/tensor"
)

// flow is where the probability flow of Gaussian data takes x from ᾱ to ᾱ': its
// distance to the mean grows as the standard deviation.
func (g gaussian) flow(x, bar, next float64) float64 {
	return math.Sqrt(next)*g.mean + math.Sqrt(g.variance(next)/g.variance(bar))*(x-math.Sqrt(bar)*g.mean)
}

// missed is how far from the exact flow a sampler ends.
func missed(t *testing.T, sampler Sampler, kind Parametrization) float64 {
	t.Helper()
	g := gaussian{mean: 0.3, sd: 0.8}
	config := &SchedulerConfig{BetaStart: new(0.00085), BetaEnd: new(0.012), BetaSchedule: new("scaled_linear"),
		TimestepSpacing: new("leading"), SetAlphaToOne: new(false), FinalSigmasType: new("sigma_min"), SkipPRKSteps: new(true)}
	s := scheduleOf(t, sampler, ScheduleConfig{Scheduler: config})
	p := &Predictor{Schedule: s, Predicts: kind, Denoiser: denoise(func(x tensor.Tensor, at Timestep, _ Cond) (Prediction, error) {
		bar := s.AlphaBar(at.Index)
		eps := g.eps(x, bar)
		if kind == V {
			for j, e := range eps.Data {
				eps.Data[j] = float32(float64(e)/math.Sqrt(bar) - math.Sqrt(1/bar-1)*float64(x.Data[j]))
			}
		}
		return Prediction{Eps: eps}, nil
	})}
	x := start(t, 41, 1, 1, 8)
	got, err := sampler.Sample(t.Context(), p, x, nil)
	if err != nil {
		t.Fatal(err)
	}
	scale, from, to := 1.0, s.AlphaBar(s.Len()-1), s.AlphaBar(-1)
	if _, ok := sampler.(*Euler); ok { // its states are x_0 + σ ε
		scale = math.Sqrt(to)
	}
	worst := 0.0
	for j, v := range got.Data {
		worst = max(worst, math.Abs(scale*float64(v)-g.flow(float64(x.Data[j]), from, to)))
	}
	return worst
}

// The error falls with the number of steps as the method's order says: by 2 for
// the first order, by 4 for the second. PNDM's is spoilt by σ' = ∞ at t = 0, and
// in v, whose combination diffusers converts with the state of one end, it is of
// the first order.
func TestOrder(t *testing.T) {
	karras := new(true) // the grid on which λ is smooth
	for _, c := range []struct {
		name     string
		sampler  func(n int) Sampler
		kind     Parametrization
		error    float64 // largest, with 80 steps
		low, top float64 // of the ratio of errors, 40 to 80 steps
	}{
		{"ddim", func(n int) Sampler { return &DDIM{Steps: n} }, Epsilon, 0.05, 1.9, 2.2},
		{"ddim, v", func(n int) Sampler { return &DDIM{Steps: n} }, V, 0.05, 1.9, 2.2},
		{"euler", func(n int) Sampler { return &Euler{Steps: n} }, Epsilon, 0.05, 1.9, 2.2},
		{"euler, karras", func(n int) Sampler { return &Euler{Steps: n, KarrasSigmas: karras} }, Epsilon, 0.05, 1.9, 2.2},
		{"euler, karras, v", func(n int) Sampler { return &Euler{Steps: n, KarrasSigmas: karras} }, V, 0.05, 1.9, 2.2},
		{"dpm, order 1", func(n int) Sampler { return &DPMSolver2M{Steps: n, SolverOrder: new(1), KarrasSigmas: karras} }, Epsilon, 0.05, 1.9, 2.2},
		{"dpm", func(n int) Sampler { return &DPMSolver2M{Steps: n, KarrasSigmas: karras} }, Epsilon, 0.002, 3.8, 4.5},
		{"dpm, v", func(n int) Sampler { return &DPMSolver2M{Steps: n, KarrasSigmas: karras} }, V, 0.002, 3.8, 4.5},
		{"dpm, heun", func(n int) Sampler { return &DPMSolver2M{Steps: n, SolverType: "heun", KarrasSigmas: karras} }, Epsilon, 0.003, 3.8, 4.5},
		{"pndm", func(n int) Sampler { return &PNDM{Steps: n} }, Epsilon, 0.005, 2.4, 4},
		{"pndm, v", func(n int) Sampler { return &PNDM{Steps: n} }, V, 0.04, 1.9, 2.2},
	} {
		forty, eighty := missed(t, c.sampler(40), c.kind), missed(t, c.sampler(80), c.kind)
		if ratio := forty / eighty; !(eighty < c.error) || ratio < c.low || ratio > c.top {
			t.Errorf("%s: errors %.3g and %.3g with 40 and 80 steps, ratio %.2f; want below %g and a ratio from %g to %g", c.name, forty, eighty, ratio, c.error, c.low, c.top)
		}
	}
}

// One Euler step in x_0 + σ ε is one DDIM step in √ᾱ x_0 + √(1−ᾱ) ε, and one of
// DPM-Solver++ of the first order, whatever the network.
func TestSameFlow(t *testing.T) {
	config := &SchedulerConfig{TimestepSpacing: new("trailing"), SetAlphaToOne: new(true)}
	x := start(t, 42, 2, 3, 4)
	run := func(sampler Sampler, factor float64) []float32 {
		s := scheduleOf(t, sampler, ScheduleConfig{Scheduler: config})
		p := &Predictor{Schedule: s, ClipDenoised: true, Denoiser: denoise(func(x tensor.Tensor, at Timestep, _ Cond) (Prediction, error) {
			return Prediction{Eps: each(x, func(v float64) float64 { return math.Sin(2*v) + at.Value/1000 })}, nil
		})}
		out, err := sampler.Sample(t.Context(), p, each(x, func(v float64) float64 { return factor * v }), nil)
		if err != nil {
			t.Fatal(err)
		}
		return out.Data
	}
	want := run(&DDIM{Steps: 10, UseClipped: new(true)}, 1)
	if d := far(run(&DPMSolver2M{Steps: 10, SolverOrder: new(1)}, 1), want); d > 1e-5 {
		t.Errorf("dpm_solver_2m, order 1: distance %.2g", d)
	}
	s := scheduleOf(t, &Euler{Steps: 10}, ScheduleConfig{Scheduler: config})
	factor := math.Sqrt(1+s.Sigma(9)*s.Sigma(9)) / s.InitNoiseSigma() // trailing spacing starts at σ z
	if d := far(run(&Euler{Steps: 10}, factor), want); d > 1e-5 {
		t.Errorf("euler: distance %.2g", d)
	}
}
