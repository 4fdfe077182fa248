package sampling

import (
	"math"
	"strings"
	"testing"

	"sagbench/internal/fuzzing"
	"sagbench/sampling/tensor"
)

// As Stable Diffusion 1.5 and 2.1 publish it, keys of other classes included.
const (
	published15 = `{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
		"beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
		"trained_betas": null, "clip_sample": false}`
	published21 = `{"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
		"beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000, "prediction_type": "v_prediction",
		"set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null}`
)

func parsed(t *testing.T, json string) *SchedulerConfig {
	t.Helper()
	c, err := ParseSchedulerConfig([]byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPublishedSchedulers(t *testing.T) {
	for _, c := range []struct {
		json, sampler string
		predicts      Parametrization
	}{{published15, "pndm", Epsilon}, {published21, "ddim", V}} {
		config := parsed(t, c.json)
		if config.Sampler() != c.sampler || config.Predicts() != c.predicts || config.ClipDenoised() {
			t.Errorf("%s: sampler %s, predicts %s, clips: %v", config.ClassName, config.Sampler(), config.Predicts(), config.ClipDenoised())
		}
		// any sampler takes it: what it does not say is as the sampler's class has it
		for _, w := range []struct {
			sampler     Sampler
			first, last float64 // timesteps
			end         bool    // at x_0
		}{
			{&DDPM{Steps: 50}, 981, 1, true},
			{&DDIM{Steps: 50}, 981, 1, false},
			{&DDIM{Steps: 50, SetAlphaToOne: new(true), Spacing: Spacing{StepsOffset: new(0)}}, 980, 0, true},
			{&PNDM{Steps: 50}, 981, 1, false},
			{&DPMSolver2M{Steps: 20}, 999, 50, true},
			{&DPMSolver2M{Steps: 20, Spacing: Spacing{TimestepSpacing: "leading"}, FinalSigmas: "sigma_min"}, 941, 48, false},
			{&Euler{Steps: 30}, 999, 0, true},
			{&Euler{Steps: 30, Spacing: Spacing{TimestepSpacing: "leading"}}, 958, 1, true},
		} {
			s := scheduleOf(t, w.sampler, ScheduleConfig{Scheduler: config})
			first, last := s.Timestep(s.Len()-1).Value, s.Timestep(0).Value
			if first != w.first || last != w.last || (s.AlphaBar(-1) == 1) != w.end {
				t.Errorf("%T: t = %g to %g, ends at ᾱ = %g, want %g to %g, at x_0: %v", w.sampler, first, last, s.AlphaBar(-1), w.first, w.last, w.end)
			}
		}
	}
}

func TestSchedulerConfigErrors(t *testing.T) {
	long := strings.Repeat(`{"a":`, 5)
	for _, c := range []struct{ json, want string }{
		{``, "expected a JSON object"},
		{`[]`, "expected a JSON object"},
		{`null`, ""},
		{`{}`, ""},
		{long, "expected a JSON object"},
		{`{"beta_strat": 1}`, `unknown field "beta_strat"; known: _class_name, algorithm_type`},
		{`{"_class_name": "FlowMatchEulerDiscreteScheduler"}`, `_class_name is "FlowMatchEulerDiscreteScheduler", which is not supported; supported: DDIMScheduler, DDPMScheduler, DEIS`},
		{`{"_class_name": 3}`, "_class_name is 3, expected text"},
		{`{"beta_start": "low", "steps_offset": 1.5, "clip_sample": 1, "trained_betas": [1, "x"]}`, "beta_start is \"low\", expected a number\nclip_sample is 1, expected true or false\nsteps_offset is 1.5, expected a whole number\ntrained_betas is [1, \"x\"], expected a list of numbers"},
		{`{"beta_start": 0, "beta_end": 1.5}`, "beta_start is 0, expected a number between 0 and 1\nbeta_end is 1.5"},
		{`{"beta_start": NaN}`, `beta_start is "NaN", expected a number`},
		{`{"beta_schedule": "sigmoid"}`, `beta_schedule is "sigmoid", expected one of: linear, scaled_linear, squaredcos_cap_v2`},
		{`{"prediction_type": "flow_prediction"}`, `prediction_type is "flow_prediction", expected one of: epsilon`},
		{`{"timestep_spacing": "karras"}`, `timestep_spacing is "karras", expected one of: leading`},
		{`{"num_train_timesteps": 0}`, "num_train_timesteps is 0, expected 1 to"},
		{`{"num_train_timesteps": 3, "trained_betas": [0.1, 0, 2]}`, "trained_betas[1] is 0, expected a number above 0 and at most 1\ntrained_betas[2] is 2"},
		{`{"trained_betas": [0.1]}`, "trained_betas has 1 values, expected 1000"},
		{`{"steps_offset": -1}`, "steps_offset is -1, expected 0 to 999"},
		{`{"clip_sample_range": 0}`, "clip_sample_range is 0"},
		{`{"lambda_min_clipped": -Infinity, "flow_shift": 1.0, "_diffusers_version": "NaN and \"Infinity\""}`, ""},
		{`{"lambda_min_clipped": NaN}`, `lambda_min_clipped is "NaN", expected a number`},
	} {
		_, err := ParseSchedulerConfig([]byte(c.json))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.json, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v lacks %q", c.json, err, c.want)
		}
	}
	// what a sampler cannot honour, it refuses by name; another sampler may not read it
	for _, c := range []struct {
		json, want string
		sampler    Sampler
		other      Sampler
	}{
		{`{"thresholding": true}`, "ddim: scheduler config: thresholding is true, which this sampler does not do", &DDIM{Steps: 5}, &Euler{Steps: 5}},
		{`{"thresholding": true}`, "ddpm: scheduler config: thresholding", &DDPM{Steps: 5}, &PNDM{Steps: 5}},
		{`{"thresholding": true, "use_flow_sigmas": true}`, "thresholding is true, which this sampler does not do\nsampling: dpm_solver_2m: scheduler config: use_flow_sigmas", &DPMSolver2M{Steps: 5}, &PNDM{Steps: 5}},
		{`{"algorithm_type": "dpmsolver", "solver_order": 3}`, "algorithm_type is \"dpmsolver\", expected dpmsolver++ or sde-dpmsolver++; the sampler's own algorithm_type overrides it\nsampling: dpm_solver_2m: scheduler config: solver_order is 3, expected 1 or 2", &DPMSolver2M{Steps: 5}, &DDIM{Steps: 5}},
		{`{"timestep_type": "continuous"}`, `timestep_type is "continuous", expected discrete`, &Euler{Steps: 5}, &DDIM{Steps: 5}},
		{`{"variance_type": "learned"}`, `variance_type is "learned", expected fixed_small, fixed_small_log, fixed_large or learned_range`, &DDPM{Steps: 5}, &DDIM{Steps: 5}},
		{`{"_class_name": "PNDMScheduler"}`, "skip_prk_steps is false, so it starts with Runge-Kutta steps", &PNDM{Steps: 5}, &DDIM{Steps: 5}},
		{`{"skip_prk_steps": false}`, "skip_prk_steps is false", &PNDM{Steps: 5}, &DDIM{Steps: 5}},
		{`{"prediction_type": "sample"}`, "prediction_type is sample, expected epsilon or v_prediction", &PNDM{Steps: 5}, &DDIM{Steps: 5}},
		{`{"num_train_timesteps": 4}`, "5 steps of a process that has 4", &DDIM{Steps: 5}, &DDIM{Steps: 4}},
		{`{"num_train_timesteps": 5}`, "5 steps of a process that has 5; take at most 4", &DPMSolver2M{Steps: 5}, &DDIM{Steps: 5}},
	} {
		config := ScheduleConfig{Scheduler: parsed(t, c.json)}
		if _, err := c.sampler.Schedule(config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v lacks %q", c.json, err, c.want)
		}
		if _, err := c.other.Schedule(config); err != nil {
			t.Errorf("%s: %T: %v", c.json, c.other, err)
		}
	}
	taken := DefaultSchedule()
	taken.TimestepRespacing = "20"
	for _, sampler := range []Sampler{&PNDM{Steps: 20}, &Euler{Steps: 20}, &DPMSolver2M{Steps: 20}} {
		if _, err := sampler.Schedule(taken); err == nil || !strings.Contains(err.Error(), `timestep_respacing is "20", but here the sampler chooses`) {
			t.Errorf("%T: %v", sampler, err)
		}
	}
	for _, sampler := range []Sampler{&DDPM{Steps: 25}, &DDIM{Steps: 25}} {
		if _, err := sampler.Schedule(taken); err == nil || !strings.Contains(err.Error(), `timestep_respacing "20" keeps 20 steps, but the sampler dd`) {
			t.Errorf("%T: %v", sampler, err)
		}
	}
	if s, err := (&DDIM{Steps: 20}).Schedule(taken); err != nil || s.Timestep(19).Value != 999 { // the flag's timesteps, not the stride's
		t.Errorf("%v", err)
	}
}

// At a zero SNR the state is noise alone: x̂0 comes from v or x_0, and a network
// that predicts ε has no answer.
func TestZeroTerminalSNR(t *testing.T) {
	config := parsed(t, `{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}`)
	for _, sampler := range every(8) {
		s := scheduleOf(t, sampler, ScheduleConfig{Scheduler: config})
		x := start(t, 51, 1, 1, 4)
		p := &Predictor{Schedule: s, Predicts: V, Denoiser: denoise(func(x tensor.Tensor, at Timestep, _ Cond) (Prediction, error) {
			bar := s.AlphaBar(at.Index) // of x_0 = 0.5
			return Prediction{Eps: each(x, func(v float64) float64 {
				return math.Sqrt(bar)*(v-math.Sqrt(bar)*0.5)/math.Sqrt(1-bar) - math.Sqrt(1-bar)*0.5
			})}, nil
		})}
		got, err := sampler.Sample(t.Context(), p, x, Keyed{51, numbers(1)})
		if err != nil {
			t.Fatalf("%T: %v", sampler, err)
		}
		want := each(got, func(float64) float64 { return 0.5 })
		if d := far(got.Data, want.Data); d > 0.02 && s.AlphaBar(-1) == 1 {
			t.Errorf("%T: distance %.2g from the only image", sampler, d)
		}
		p.Predicts = Epsilon
		_, err = sampler.Sample(t.Context(), p, x, Keyed{51, numbers(1)})
		if zero := s.AlphaBar(7) == 0; zero != (err != nil) || err != nil && !strings.Contains(err.Error(), "step 7 (t = 999) has no signal left (rescale_betas_zero_snr)") {
			t.Errorf("%T: %v", sampler, err)
		}
	}
}

func FuzzParseSchedulerConfig(f *testing.F) {
	for _, seed := range []string{published15, published21, `{"lambda_min_clipped": -Infinity}`, `{"a":"\"NaN"}`, `{"num_train_timesteps": 2, "trained_betas": [0.1, 1]}`, "{", `"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c *SchedulerConfig
		var err error
		fuzzing.Bounded(t, len(data), 512, func() { c, err = ParseSchedulerConfig(data) })
		if err != nil || or(c.NumTrainTimesteps, 1000) > 5000 {
			return
		}
		for _, sampler := range every(3) {
			s, err := sampler.Schedule(ScheduleConfig{Scheduler: c})
			if err == nil && (s.Len() < 1 || s.Len() > 3) {
				t.Errorf("%T: %d steps", sampler, s.Len())
			}
		}
	})
}
