package sampling

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A SchedulerConfig is what a diffusers scheduler_config.json says: the process
// that a network was trained on, and how its authors visit it. Which solver
// takes the steps is the experiment's choice, so what only one solver knows is
// kept as it is written; "" and nil stand for a key that is not there, whose
// default is the solver's.
type SchedulerConfig struct {
	Class string `yaml:"_class_name" doc:"diffusers' class, such as DDIMScheduler"`

	NumTrainTimesteps   int     `yaml:"num_train_timesteps" doc:"timesteps T of the process the network was trained on"`
	BetaSchedule        string  `yaml:"beta_schedule" doc:"linear | scaled_linear (√β is linear) | squaredcos_cap_v2 (Improved DDPM's cosine)"`
	BetaStart           float64 `yaml:"beta_start" doc:"first β"`
	BetaEnd             float64 `yaml:"beta_end" doc:"last β"`
	PredictionType      string  `yaml:"prediction_type" doc:"epsilon | v_prediction | sample"`
	RescaleBetasZeroSNR bool    `yaml:"rescale_betas_zero_snr" doc:"√ᾱ is shifted and scaled so that the last one is 0 (Lin et al. 2024)"`

	TimestepSpacing string   `yaml:"timestep_spacing" doc:"leading | trailing | linspace"`
	StepsOffset     int      `yaml:"steps_offset" doc:"added to the timesteps of leading spacing"`
	SetAlphaToOne   *bool    `yaml:"set_alpha_to_one" doc:"ᾱ after the last step is 1, not that of timestep 0"`
	ClipSample      *bool    `yaml:"clip_sample" doc:"clip x̂0"`
	ClipSampleRange *float64 `yaml:"clip_sample_range" doc:"to what x̂0 is clipped"`

	SkipPRKSteps      bool     `yaml:"skip_prk_steps" doc:"PNDM: no Runge-Kutta steps at the start"`
	AlgorithmType     string   `yaml:"algorithm_type" doc:"DPM-Solver: dpmsolver++ and its kin"`
	SolverType        string   `yaml:"solver_type" doc:"DPM-Solver: midpoint | heun"`
	SolverOrder       int      `yaml:"solver_order" doc:"DPM-Solver"`
	LowerOrderFinal   *bool    `yaml:"lower_order_final" doc:"DPM-Solver: the last of few steps is of first order"`
	EulerAtFinal      bool     `yaml:"euler_at_final" doc:"DPM-Solver: the last step is of first order"`
	UseKarrasSigmas   bool     `yaml:"use_karras_sigmas" doc:"noise levels of Karras et al. 2022"`
	FinalSigmasType   string   `yaml:"final_sigmas_type" doc:"zero | sigma_min"`
	InterpolationType string   `yaml:"interpolation_type" doc:"Euler: linear | log_linear"`
	TimestepType      string   `yaml:"timestep_type" doc:"Euler: discrete | continuous"`
	SigmaMin          *float64 `yaml:"sigma_min" doc:"Euler: last noise level"`
	SigmaMax          *float64 `yaml:"sigma_max" doc:"Euler: first noise level"`
	VarianceType      string   `yaml:"variance_type" doc:"DDPM: fixed_small | fixed_large | learned_range and so on"`
}

// DefaultScheduler is what the classes of diffusers have in common.
func DefaultScheduler() SchedulerConfig {
	return SchedulerConfig{NumTrainTimesteps: 1000, BetaSchedule: "linear", BetaStart: 0.0001, BetaEnd: 0.02, PredictionType: "epsilon"}
}

// StableDiffusionScheduler is the process of Stable Diffusion 1.x, whose
// single-file checkpoints do not describe it.
func StableDiffusionScheduler() SchedulerConfig {
	c, no := DefaultScheduler(), false
	c.Class, c.BetaSchedule, c.BetaStart, c.BetaEnd = "DDIMScheduler", "scaled_linear", 0.00085, 0.012
	c.TimestepSpacing, c.StepsOffset, c.ClipSample, c.SetAlphaToOne = "leading", 1, &no, &no
	return c
}

// Validate tells everything that is wrong with the process.
func (c *SchedulerConfig) Validate() error {
	var errs []error
	among := func(key, value string, known ...string) {
		if !slices.Contains(known, value) {
			errs = append(errs, fmt.Errorf("%s is %q, which is not supported; supported: %s", key, value, strings.Join(known, ", ")))
		}
	}
	among("beta_schedule", c.BetaSchedule, "linear", "scaled_linear", "squaredcos_cap_v2")
	among("prediction_type", c.PredictionType, "epsilon", "v_prediction", "sample")
	among("timestep_spacing", c.TimestepSpacing, "", "leading", "trailing", "linspace")
	if n := c.NumTrainTimesteps; n < 2 || n > maxDiffusionSteps {
		errs = append(errs, fmt.Errorf("num_train_timesteps is %d, expected 2 to %d", n, maxDiffusionSteps))
	}
	if !(0 < c.BetaStart && c.BetaStart <= c.BetaEnd && c.BetaEnd < 1) {
		errs = append(errs, fmt.Errorf("beta_start %g and beta_end %g: expected 0 < beta_start ≤ beta_end < 1", c.BetaStart, c.BetaEnd))
	}
	return errors.Join(errs...)
}

// Schedule is the process as the flags of a ScheduleConfig, all steps visited.
func (c SchedulerConfig) Schedule() ScheduleConfig {
	s := ScheduleConfig{DiffusionSteps: c.NumTrainTimesteps, NoiseSchedule: c.BetaSchedule, BetaStart: c.BetaStart, BetaEnd: c.BetaEnd}
	if c.BetaSchedule == "squaredcos_cap_v2" {
		s.NoiseSchedule = "cosine"
	}
	return s
}

// Predicts is what the network was trained to predict.
func (c SchedulerConfig) Predicts() Parametrization {
	switch c.PredictionType {
	case "v_prediction":
		return V
	case "sample":
		return XStart
	}
	return Epsilon
}
