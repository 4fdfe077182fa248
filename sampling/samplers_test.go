package sampling

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"sagbench/sampling/tensor"
)

// The chain that facebookresearch/DiT's p_sample_loop computed, given its
// network's outputs and noise: learned-range variance, x̂0 not clipped.
func TestDDPMReference(t *testing.T) {
	r := reference(t, "sample-dit-cfg.safetensors")
	s := schedule(t, "8")
	replay := denoise(func(x tensor.Tensor, at Timestep, _ Cond) (Prediction, error) {
		output := step(r["out.model"], s.Len()-1-at.Index) // [N,2C,H,W]
		p := Prediction{Eps: x.Like(), Var: x.Like()}
		for n := range x.Rows() {
			row := output.Row(n)
			copy(p.Eps.Row(n), row)
			copy(p.Var.Row(n), row[x.RowLen():])
		}
		return p, nil
	})
	chain(t, &DDPM{Steps: 8}, &Predictor{Denoiser: replay, Schedule: s}, r, 2e-6)
}

// The chain that the SAG fork's ddim_sample_loop computed, given the ε that it
// arrived at in each step: x̂0 clipped, η = 0.
func TestDDIMReference(t *testing.T) {
	r := reference(t, "sample-ddim-sag.safetensors")
	s := schedule(t, "ddim8")
	replay := denoise(func(_ tensor.Tensor, at Timestep, _ Cond) (Prediction, error) {
		return Prediction{Eps: step(r["out.eps_guided"], s.Len()-1-at.Index).Clone()}, nil
	})
	chain(t, &DDIM{Steps: 8}, &Predictor{Denoiser: replay, Schedule: s, ClipDenoised: true}, r, 2e-6)
}

func chain(t *testing.T, sampler Sampler, p *Predictor, r map[string]tensor.Tensor, tolerance float64) {
	t.Helper()
	k := 0
	p.Trace = func(name string, at Timestep, x tensor.Tensor) {
		if name != "x" {
			return
		}
		if d := far(x.Data, r["out.x"].Row(k)); d > tolerance {
			t.Errorf("state after step %d (t = %g): distance %.2g, want at most %.2g", k, at.Value, d, tolerance)
		}
		k++
	}
	x, err := sampler.Sample(t.Context(), p, r["in.x_T"], Recorded{Start: r["in.x_T"], Steps: r["in.noise"]})
	if err != nil {
		t.Fatal(err)
	}
	if d := far(x.Data, r["out.x"].Row(k-1)); k != p.Schedule.Len() || d > tolerance {
		t.Errorf("%d steps, x_0 at distance %.2g", k, d)
	}
}

// On Gaussian data every DDIM step multiplies x − √ᾱ m by a known number, and
// infinitely many steps by sd/√V_T: the flow of the probability.
func TestDDIMGaussian(t *testing.T) {
	g := gaussian{mean: 0.3, sd: 0.25}
	x := start(t, 11, 2, 3, 4)
	for _, c := range []struct {
		respacing string
		flow      float64 // largest distance from the flow
	}{{"10", 1}, {"1000", 0.02}} {
		s := schedule(t, c.respacing)
		got, err := (&DDIM{Steps: s.Len()}).Sample(t.Context(), &Predictor{Denoiser: g.denoiser(s, false), Schedule: s}, x, nil)
		if err != nil {
			t.Fatal(err)
		}
		factor := 1.0
		for i := s.Len() - 1; i >= 0; i-- {
			bar, prev := s.AlphaBar(i), s.AlphaBar(i-1)
			factor *= (math.Sqrt(prev*bar)*g.sd*g.sd + math.Sqrt((1-prev)*(1-bar))) / g.variance(bar)
		}
		last := s.AlphaBar(s.Len() - 1)
		want := each(x, func(v float64) float64 { return g.mean + factor*(v-math.Sqrt(last)*g.mean) })
		if d := far(got.Data, want.Data); d > 2e-5 {
			t.Errorf("%d steps: distance %.2g from the closed form", s.Len(), d)
		}
		flow := g.sd / math.Sqrt(g.variance(last))
		if math.Abs(factor/flow-1) > c.flow {
			t.Errorf("%d steps: factor %g, the flow's is %g", s.Len(), factor, flow)
		}
	}
}

// With the exact ε and the exact variance of q(x_{i-1} | x_i), DDPM is the
// reverse of the diffusion: each step is the conditional normal distribution,
// and the states keep the diffusion's own mean and variance.
func TestDDPMGaussian(t *testing.T) {
	g := gaussian{mean: -0.2, sd: 0.5}
	s := schedule(t, "25")
	last := s.AlphaBar(s.Len() - 1)
	x := each(start(t, 12, 16, 3, 32), func(v float64) float64 {
		return math.Sqrt(last)*g.mean + math.Sqrt(g.variance(last))*v
	})
	noise := Keyed{12, numbers(16)}
	want, z, k := x.Clone(), x.Like(), 0
	p := &Predictor{Denoiser: g.denoiser(s, true), Schedule: s, Trace: func(name string, at Timestep, v tensor.Tensor) {
		if name != "x" {
			return
		}
		if err := noise.Fill(k, z); err != nil {
			t.Fatal(err)
		}
		k++
		mean, square := 0.0, 0.0
		for j, u := range want.Data {
			m, variance := g.posterior(s, at.Index, float64(u))
			if at.Index > 0 {
				m += math.Sqrt(variance) * float64(z.Data[j])
			}
			want.Data[j] = float32(m)
			mean, square = mean+float64(v.Data[j]), square+float64(v.Data[j])*float64(v.Data[j])
		}
		if d := far(v.Data, want.Data); d > 2e-5 {
			t.Errorf("step %d: distance %.2g from the conditional distribution", at.Index, d)
		}
		n := float64(len(v.Data))
		prev := s.AlphaBar(at.Index - 1)
		expected := g.variance(prev)
		if at.Index == 0 { // the last step goes to the mean of x_0 given x_1
			bar := s.AlphaBar(0)
			expected = bar * g.sd * g.sd * g.sd * g.sd / g.variance(bar)
		}
		mean /= n
		if math.Abs(mean-math.Sqrt(prev)*g.mean) > 4*math.Sqrt(expected/n) || math.Abs((square/n-mean*mean)/expected-1) > 4*math.Sqrt(2/n) {
			t.Errorf("step %d: mean %g, variance %g, want %g, %g", at.Index, mean, square/n-mean*mean, math.Sqrt(prev)*g.mean, expected)
		}
	}}
	if _, err := (&DDPM{Steps: 25}).Sample(t.Context(), p, x, noise); err != nil {
		t.Fatal(err)
	}
	if k != 25 {
		t.Errorf("%d states were traced, want 25", k)
	}
}

// DDIM with η = 1 is DDPM with the posterior's variance, clipping included.
func TestDDIMEtaOneIsDDPM(t *testing.T) {
	s, err := NewSchedule(ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "cosine", TimestepRespacing: "20", SigmaSmall: true})
	if err != nil {
		t.Fatal(err)
	}
	p := &Predictor{Denoiser: gaussian{0.4, 0.8}.denoiser(s, false), Schedule: s, ClipDenoised: true}
	x, noise := start(t, 13, 2, 3, 8), Keyed{13, numbers(2)}
	want, err := (&DDPM{Steps: 20}).Sample(t.Context(), p, x, noise)
	if err != nil {
		t.Fatal(err)
	}
	got, err := (&DDIM{Steps: 20, Eta: 1}).Sample(t.Context(), p, x, noise)
	if err != nil {
		t.Fatal(err)
	}
	if d := far(got.Data, want.Data); d > 1e-4 { // 1 − ᾱ is formed in float32 by one and float64 by the other
		t.Errorf("distance %.2g", d)
	}
	half, err := (&DDIM{Steps: 20, Eta: 0.5}).Sample(t.Context(), p, x, noise)
	if err != nil {
		t.Fatal(err)
	}
	if far(half.Data, want.Data) < 1e-2 {
		t.Error("η = 0.5 gives the samples of η = 1")
	}
}

// One step of each sampler under a Score, against the formulas in float64.
func TestScore(t *testing.T) {
	s := schedule(t, "ddim10")
	const i, score, eps, state = 9, 0.7, 0.25, 0.125
	x := tensor.Of([]float32{state, -state, 3, -3}, 1, 1, 2, 2)
	// only the first step counts: the trace stops the loop after it
	first := func(sampler Sampler, clip bool) []float32 {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []float32
		p := &Predictor{Schedule: s, ClipDenoised: clip,
			Denoiser: denoise(func(x tensor.Tensor, _ Timestep, _ Cond) (Prediction, error) {
				return Prediction{Eps: each(x, func(float64) float64 { return eps }), Var: each(x, func(float64) float64 { return 0.5 })}, nil
			}),
			Guidances: []Guidance{guide(func(_ context.Context, s *Step) (Delta, error) {
				return Delta{Score: each(s.X, func(v float64) float64 { return score * v })}, nil
			})},
			Trace: func(name string, _ Timestep, v tensor.Tensor) {
				if name == "x" {
					got = slices.Clone(v.Data)
					cancel()
				}
			}}
		_, err := sampler.Sample(ctx, p, x, Recorded{Steps: tensor.New(10, 1, 1, 2, 2)})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		return got
	}
	bar, prev := s.AlphaBar(i), s.AlphaBar(i-1)
	for _, clip := range []bool{false, true} {
		ddpm, ddim := make([]float32, 4), make([]float32, 4)
		for j, v := range x.Data {
			v := float64(v)
			x0 := (v - math.Sqrt(1-bar)*eps) / math.Sqrt(bar)
			if clip {
				x0 = max(-1, min(1, x0))
			}
			mean := math.Sqrt(prev)*s.Beta(i)/(1-bar)*x0 + math.Sqrt(1-s.Beta(i))*(1-prev)/(1-bar)*v
			variance := math.Exp(0.75*math.Log(s.Beta(i)) + 0.25*s.PosteriorLogVariance(i))
			ddpm[j] = float32(mean + variance*score*v)
			e := (v-math.Sqrt(bar)*x0)/math.Sqrt(1-bar) - math.Sqrt(1-bar)*score*v
			x0 = (v - math.Sqrt(1-bar)*e) / math.Sqrt(bar) // beyond ±1 although clipped before
			ddim[j] = float32(math.Sqrt(prev)*x0 + math.Sqrt(1-prev)*e)
		}
		if got := first(&DDPM{Steps: 10}, clip); far(got, ddpm) > 1e-5 {
			t.Errorf("ddpm, clip %v: %v, want %v", clip, got, ddpm)
		}
		if got := first(&DDIM{Steps: 10}, clip); far(got, ddim) > 1e-5 {
			t.Errorf("ddim, clip %v: %v, want %v", clip, got, ddim)
		}
	}
}

// An image comes out with the same bits alone, in a batch of 7 and of 64.
func TestBatchInvariance(t *testing.T) {
	for _, sampler := range every(5) {
		s := scheduleOf(t, sampler, DefaultSchedule())
		run := func(images []int) tensor.Tensor {
			noise := Keyed{3, images}
			x := tensor.New(len(images), 3, 8, 8)
			if err := noise.Fill(-1, x); err != nil {
				t.Fatal(err)
			}
			p := &Predictor{Denoiser: gaussian{0.1, 0.6}.denoiser(s, true), Schedule: s, ClipDenoised: true}
			out, err := sampler.Sample(t.Context(), p, x, noise)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		all := run(numbers(64))
		for _, images := range [][]int{{40}, {39, 40, 41, 0, 63, 2, 5}} {
			got := run(images)
			for n, image := range images {
				if !slices.Equal(got.Row(n), all.Row(image)) {
					t.Errorf("%T: image %d differs between batches of %d and 64", sampler, image, len(images))
				}
			}
		}
	}
}
