package sampling

import (
	"errors"
	"fmt"
	"math"
)

// maxDiffusionSteps bounds the tables, so that a mistyped flag is an error and
// not an exhausted memory.
const maxDiffusionSteps = 1_000_000

// ScheduleConfig names a diffusion process by the official flags.
type ScheduleConfig struct {
	DiffusionSteps    int    `yaml:"diffusion_steps" doc:"timesteps T of the process the network was trained on"`
	NoiseSchedule     string `yaml:"noise_schedule" doc:"β table: linear (Ho et al.) or cosine (Improved DDPM)"`
	TimestepRespacing string `yaml:"timestep_respacing" doc:"timesteps that sampling visits: a count (250), ddim and a count (ddim25), counts per section (10,10,20), or empty for all"`
	RescaleTimesteps  bool   `yaml:"rescale_timesteps" doc:"the network receives t·1000/diffusion_steps instead of t"`
	SigmaSmall        bool   `yaml:"sigma_small" doc:"without a learned variance: σ² is the posterior's variance (true) or β (false)"`

	// BetaStart and BetaEnd, where a checkpoint describes its own process, are
	// the ends of its β table: linear, or scaled_linear (√β is linear).
	BetaStart, BetaEnd float64 `yaml:"-"`
}

// DefaultSchedule is the official default: 1000 linear steps, all visited.
func DefaultSchedule() ScheduleConfig {
	return ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear"}
}

// Validate tells everything that is wrong with the flags.
func (c ScheduleConfig) Validate() error {
	_, err := NewSchedule(c)
	return err
}

// A Schedule is a diffusion process q(x_t | x_0) = N(√ᾱ_t x_0, (1−ᾱ_t) I) on
// the timesteps that a respacing keeps. It is the only owner of β and ᾱ. Index
// i counts the kept steps, 0 … Len()-1; tables are float64.
//
// Source: guided_diffusion gaussian_diffusion.py GaussianDiffusion and
// respace.py SpacedDiffusion; Ho et al. 2020, equations 4, 6 and 7.
type Schedule struct {
	config    ScheduleConfig
	timesteps []Timestep

	beta                 []float64
	alphaBar             []float64
	posteriorVariance    []float64
	posteriorLogVariance []float64 // clipped: entry 0 is entry 1, as the posterior's variance is 0 there
	posteriorMean1       []float64 // of x_0
	posteriorMean2       []float64 // of x_t
}

// NewSchedule makes the tables. Its error names every flag at fault.
func NewSchedule(c ScheduleConfig) (*Schedule, error) {
	if c.DiffusionSteps < 1 || c.DiffusionSteps > maxDiffusionSteps {
		return nil, fmt.Errorf("sampling: schedule: diffusion_steps is %d, expected 1 to %d (1000 for most checkpoints, 4000 for Improved DDPM)", c.DiffusionSteps, maxDiffusionSteps)
	}
	betas, err := c.betas()
	kept, errSpace := spaceTimesteps(c.DiffusionSteps, c.TimestepRespacing)
	if err := errors.Join(err, errSpace); err != nil {
		return nil, fmt.Errorf("sampling: schedule: %w", err)
	}
	s := &Schedule{config: c}
	alphaBar, last, k := 1.0, 1.0, 0
	for t, beta := range betas {
		alphaBar *= 1 - beta
		if k == len(kept) || t != kept[k] {
			continue
		}
		s.beta = append(s.beta, 1-alphaBar/last)
		s.timesteps = append(s.timesteps, Timestep{Index: k, Value: c.networkTime(t)})
		last = alphaBar
		k++
	}
	s.derive()
	return s, nil
}

// networkTime is what the network receives for the original timestep t; the
// rescaling is a float32 product, as in respace.py _WrappedModel.
func (c ScheduleConfig) networkTime(t int) float64 {
	if !c.RescaleTimesteps {
		return float64(t)
	}
	return float64(float32(t) * float32(1000/float64(c.DiffusionSteps)))
}

// derive fills the tables that follow from beta.
func (s *Schedule) derive() {
	bar := 1.0
	for _, b := range s.beta {
		prev := bar
		bar = float64(bar * (1 - b))
		s.alphaBar = append(s.alphaBar, bar)
		s.posteriorVariance = append(s.posteriorVariance, b*(1-prev)/(1-bar))
		s.posteriorMean1 = append(s.posteriorMean1, b*math.Sqrt(prev)/(1-bar))
		s.posteriorMean2 = append(s.posteriorMean2, (1-prev)*math.Sqrt(1-b)/(1-bar))
	}
	for i := range s.beta {
		s.posteriorLogVariance = append(s.posteriorLogVariance, math.Log(s.clippedVariance(i)))
	}
}

// clippedVariance is the posterior's variance, at step 0 that of step 1. The
// official code has no one-step process; here its only step gets β.
func (s *Schedule) clippedVariance(i int) float64 {
	switch {
	case i > 0:
		return s.posteriorVariance[i]
	case s.Len() > 1:
		return s.posteriorVariance[1]
	}
	return s.beta[0]
}

// Config is what the schedule was made from.
func (s *Schedule) Config() ScheduleConfig { return s.config }

// Len is the number of steps that sampling takes.
func (s *Schedule) Len() int { return len(s.beta) }

// Timestep is step i with what the network receives there.
func (s *Schedule) Timestep(i int) Timestep { return s.timesteps[i] }

// Beta is β_i of the respaced process.
func (s *Schedule) Beta(i int) float64 { return s.beta[i] }

// AlphaBar is ᾱ_i; AlphaBar(-1), the state after the last step, is 1.
func (s *Schedule) AlphaBar(i int) float64 {
	if i < 0 {
		return 1
	}
	return s.alphaBar[i]
}

// PosteriorVariance is the variance of q(x_{i-1} | x_i, x_0); 0 at step 0.
func (s *Schedule) PosteriorVariance(i int) float64 { return s.posteriorVariance[i] }

// PosteriorLogVariance is the logarithm of PosteriorVariance, at step 0 that
// of step 1: the lower end of the learned range.
func (s *Schedule) PosteriorLogVariance(i int) float64 { return s.posteriorLogVariance[i] }

// FixedVariance is σ² and its logarithm at step i for a network that learned
// none: "fixed small" (the posterior's variance) or "fixed large" (β, at step
// 0 the posterior's variance of step 1).
func (s *Schedule) FixedVariance(i int) (variance, logVariance float64) {
	switch {
	case s.config.SigmaSmall:
		return s.posteriorVariance[i], s.posteriorLogVariance[i]
	case i == 0:
		return s.clippedVariance(0), s.posteriorLogVariance[0]
	}
	return s.beta[i], math.Log(s.beta[i])
}

// betas is β of the original process.
func (c ScheduleConfig) betas() ([]float64, error) {
	switch {
	case c.BetaEnd == 0 || c.NoiseSchedule == "cosine":
		return namedBetas(c.NoiseSchedule, c.DiffusionSteps)
	case c.NoiseSchedule == "linear":
		return linspace(c.BetaStart, c.BetaEnd, c.DiffusionSteps), nil
	case c.NoiseSchedule == "scaled_linear":
		betas := linspace(math.Sqrt(c.BetaStart), math.Sqrt(c.BetaEnd), c.DiffusionSteps)
		for i, b := range betas {
			betas[i] = b * b
		}
		return betas, nil
	}
	return nil, fmt.Errorf("noise_schedule is %q, expected linear, scaled_linear or cosine", c.NoiseSchedule)
}

// linspace is n numbers from first to last at equal distances.
func linspace(first, last float64, n int) []float64 {
	x := make([]float64, n)
	stride := (last - first) / float64(n-1)
	for i := range x {
		x[i] = float64(float64(i)*stride) + first
	}
	x[n-1] = last
	return x
}

// namedBetas is β of the original process. Source: gaussian_diffusion.py
// get_named_beta_schedule and betas_for_alpha_bar.
func namedBetas(name string, steps int) ([]float64, error) {
	switch name {
	case "linear":
		scale := 1000 / float64(steps)
		first, last := float64(scale*0.0001), float64(scale*0.02)
		if last > 1 {
			return nil, fmt.Errorf("diffusion_steps is %d: the linear noise_schedule ends with β = 20/%d, above 1; expected at least 20 steps, or noise_schedule cosine", steps, steps)
		}
		return linspace(first, last, steps), nil
	case "cosine":
		betas := make([]float64, steps)
		alphaBar := func(t float64) float64 {
			c := math.Cos((t + 0.008) / 1.008 * math.Pi / 2)
			return c * c
		}
		for i := range betas {
			from, to := float64(i)/float64(steps), float64(i+1)/float64(steps)
			betas[i] = min(1-alphaBar(to)/alphaBar(from), 0.999)
		}
		return betas, nil
	}
	return nil, fmt.Errorf("noise_schedule is %q, expected linear or cosine", name)
}
