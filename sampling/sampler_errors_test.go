package sampling

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/sampling/tensor"
)

func TestSamplerErrors(t *testing.T) {
	s := schedule(t, "5")
	fine := gaussian{0, 1}.denoiser(s, true)
	x := tensor.New(2, 3, 4, 4)
	broken := func(change func(p *Prediction)) Denoiser {
		return denoise(func(x tensor.Tensor, at Timestep, c Cond) (Prediction, error) {
			p, err := fine.Denoise(t.Context(), x, at, c)
			if at.Index == 3 {
				change(&p)
			}
			return p, err
		})
	}
	nan := float32(math.NaN())
	for _, c := range []struct {
		p    Predictor
		x    tensor.Tensor
		want string
	}{
		{Predictor{}, tensor.New(3, 4), "no Denoiser\nthe predictor has no Schedule\nx_T has shape [3 4] (12 values), expected [N,C,H,W]"},
		{Predictor{Denoiser: fine, Schedule: s}, tensor.New(0, 3, 4, 4), "with N ≥ 1"},
		{Predictor{Denoiser: fine, Schedule: s, Cond: Cond{Labels: []int64{1}}}, x, "1 labels for a batch of 2"},
		{Predictor{Denoiser: fine, Schedule: s, Cond: Cond{Context: tensor.New(1, 77, 8)}}, x, "Context has shape [1 77 8], expected [2,L,D]"},
		{Predictor{Denoiser: fine, Schedule: s, Null: Cond{Vector: tensor.New(1, 8)}}, x, "the null condition's Vector has shape [1 8], expected [2,V]"},
		{Predictor{Denoiser: broken(func(p *Prediction) { p.Eps = tensor.Tensor{} }), Schedule: s}, x, "step 3 (t = 749): the network's prediction: no Eps"},
		{Predictor{Denoiser: broken(func(p *Prediction) { p.Var = tensor.New(2, 3) }), Schedule: s}, x, "Var has shape [2 3] (6 values), expected [2 3 4 4]"},
		{Predictor{Denoiser: broken(func(p *Prediction) { p.Attn = tensor.New(1, 4) }), Schedule: s}, x, "Attn has shape [1 4]"},
		{Predictor{Denoiser: broken(func(p *Prediction) { p.Eps.Row(1)[5] = nan }), Schedule: s}, x, "step 3 (t = 749): image 1 of the batch is not finite, from the network's output"},
		{Predictor{Denoiser: broken(func(p *Prediction) { p.Var.Row(0)[5] = nan }), Schedule: s}, x, "image 0 of the batch is not finite, from the network's learned variance"},
		{Predictor{Denoiser: broken(func(p *Prediction) { p.Attn = tensor.Of([]float32{0, 1, nan, 0}, 2, 2) }), Schedule: s}, x, "image 1 of the batch is not finite, from the network's attention map"},
		{Predictor{Denoiser: broken(func(p *Prediction) { p.Eps.Row(1)[5] = float32(math.Inf(1)) }), Schedule: s, ClipDenoised: true}, x, "step 3 (t = 749): image 1 of the batch is not finite, from the network's output"},
		{Predictor{Denoiser: broken(func(p *Prediction) { p.Eps.Data[0] = math.MaxFloat32 }), Schedule: s}, x, "from the update, which overflowed"},
		{Predictor{Denoiser: fine, Schedule: s, Guidances: []Guidance{guide(func(_ context.Context, s *Step) (Delta, error) {
			return Delta{Score: each(s.X, func(float64) float64 { return math.Inf(1) })}, nil
		})}}, x, "from a guidance's correction"},
		{Predictor{Denoiser: fine, Schedule: s, Guidances: []Guidance{guide(func(context.Context, *Step) (Delta, error) {
			return Delta{Eps: tensor.New(1)}, nil
		})}}, x, "a guidance's Eps has shape [1]"},
		{Predictor{Denoiser: fine, Schedule: s, Guidances: []Guidance{guide(func(context.Context, *Step) (Delta, error) {
			return Delta{}, errors.New("no memory")
		})}}, x, "no memory"},
	} {
		_, err := (&DDPM{Steps: 5}).Sample(t.Context(), &c.p, c.x, Keyed{1, numbers(2)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v lacks %q", err, c.want)
		}
	}
	p := &Predictor{Denoiser: fine, Schedule: s}
	for _, sampler := range []Sampler{&DDPM{Steps: 5}, &DDIM{Steps: 5, Eta: 1}} {
		if _, err := sampler.Sample(t.Context(), p, x, Keyed{1, numbers(3)}); err == nil || !strings.Contains(err.Error(), "for 3 images") {
			t.Errorf("%T with another batch's noise: %v", sampler, err)
		}
	}
}

// The context is looked at before every network call.
func TestCancel(t *testing.T) {
	for _, sampler := range every(50) {
		s := scheduleOf(t, sampler, DefaultSchedule())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		calls := 0
		p := &Predictor{Schedule: s, Denoiser: denoise(func(x tensor.Tensor, _ Timestep, _ Cond) (Prediction, error) {
			if calls++; calls == 3 {
				cancel()
			}
			return Prediction{Eps: x.Clone()}, nil
		})}
		_, err := sampler.Sample(ctx, p, tensor.New(1, 1, 2, 2), Keyed{1, numbers(1)})
		if !errors.Is(err, context.Canceled) || calls != 3 || !strings.Contains(err.Error(), "stopped before step 4") {
			t.Errorf("%T: %d calls, %v", sampler, calls, err)
		}
	}
}

func TestSamplersFromYAML(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"ddpm", "250 steps from t = 999 to 0"},
		{"{ddpm: {steps: 10}}", "10 steps from t = 999 to 0"},
		{"{ddpm: {steps: 10, timestep_spacing: leading, steps_offset: 1}}", "10 steps from t = 901 to 1"},
		{"{ddim: {steps: 50, eta: 0.5}}", "50 steps from t = 980 to 0"},
		{"ddim", "25 steps from t = 960 to 0"},
		{"{ddim: {steps: 30, timestep_spacing: trailing}}", "30 steps from t = 999 to 32"},
		{"{ddim: {steps: 7, timestep_spacing: linspace}}", "7 steps from t = 999 to 0"},
		{"pndm", "50 steps from t = 980 to 0"},
		{"{dpm_solver_2m: {steps: 10}}", "10 steps from t = 999 to 100"},
		{"{dpm_solver_2m: {steps: 10, use_karras_sigmas: true}}", "10 steps from t = 999 to 0"},
		{"{euler: {steps: 4}}", "4 steps from t = 999 to 0"},
		{"{pndm: {steps: 0}}", "steps is 0"},
		{"{dpm_solver_2m: {steps: 0, solver_order: 3, solver_type: bh2, final_sigmas_type: one}}", `final_sigmas_type is "one", expected zero or sigma_min`},
		{"{euler: {steps: 0, interpolation_type: cubic, final_sigmas_type: x}}", `interpolation_type is "cubic", expected linear or log_linear`},
		{"{ddim: {timestep_spacing: even}}", `timestep_spacing is "even", expected leading, trailing or linspace`},
		{"{pndm: {steps_offset: -1}}", "steps_offset is -1"},
		{"{pndm: {steps: 1001}}", "1001 steps of a process that has 1000; take at most 1000"},
		{"{dpm_solver_2m: {steps: 1000}}", "1000 steps of a process that has 1000; take at most 999"},
		{"{ddim: {steps: 1000, timestep_spacing: leading, steps_offset: 1}}", "begin at timestep 1000, but the last one is 999"},
		{"{ddpm: {steps: 0}}", "steps is 0, expected at least 1"},
		{"{ddim: {steps: -1}}", "steps is -1, expected at least 1"},
		{"{ddim: {eta: 1.5}}", "eta is 1.5, expected 0 (deterministic) to 1"},
		{"{ddim: {eta: -0.1}}", "eta is -0.1, expected 0"},
		{"{ddpm: {eta: 1}}", `unknown key "eta"`},
		{"heun", "ddim, ddpm"},
	} {
		b, err := configs.Parse("test.yaml", []byte("sampler: "+c.yaml))
		if err != nil {
			t.Fatal(err)
		}
		b, _ = b.At("sampler")
		_, s, err := configs.Registry[Sampler](Samplers).One(b)
		got := fmt.Sprint(err)
		if err == nil {
			var made *Schedule
			if made, err = s.Schedule(DefaultSchedule()); err != nil {
				got = err.Error()
			} else {
				got = fmt.Sprintf("%d steps from t = %g to %g", made.Len(), made.Timestep(made.Len()-1).Value, made.Timestep(0).Value)
			}
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s lacks %q", c.yaml, got, c.want)
		}
	}
}
