package sampling

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// maxDiffusionSteps bounds the tables, so that a mistyped flag is an error and
// not an exhausted memory.
const maxDiffusionSteps = 1_000_000

// ScheduleConfig names a diffusion process by the official flags.
type ScheduleConfig struct {
	DiffusionSteps    int    `yaml:"diffusion_steps" min:"1" max:"1000000" doc:"timesteps T of the process the network was trained on"`
	NoiseSchedule     string `yaml:"noise_schedule" doc:"β table: linear (Ho et al.) or cosine (Improved DDPM; squaredcos_cap_v2 in DiT's code)"`
	TimestepRespacing string `yaml:"timestep_respacing" doc:"timesteps that sampling visits: a count (250), ddim and a count (ddim25), counts per section (10,10,20), or empty for all"`
	RescaleTimesteps  bool   `yaml:"rescale_timesteps" doc:"the network receives t·1000/diffusion_steps instead of t"`
	SigmaSmall        bool   `yaml:"sigma_small" doc:"without a learned variance: σ² is the posterior's variance (true) or β (false)"`

	// Scheduler, where not nil, describes the process in place of the flags, of
	// which then only TimestepRespacing counts.
	Scheduler *SchedulerConfig `yaml:"-"`

	// Path, where not nil, is a process in continuous time in place of all of these.
	Path Path `yaml:"-"`
}

// DefaultSchedule is the official default: 1000 linear steps, all visited.
func DefaultSchedule() ScheduleConfig {
	return ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear"}
}

// Diffusion is c itself: what embeds a ScheduleConfig, such as a family's flags,
// tells its process by this method.
func (c ScheduleConfig) Diffusion() ScheduleConfig { return c }

// Validate tells everything that is wrong with the flags.
func (c ScheduleConfig) Validate() error {
	_, err := NewSchedule(c)
	return err
}

// A Schedule is a diffusion process q(x_t | x_0) = N(√ᾱ_t x_0, (1−ᾱ_t) I) on
// the timesteps that a sampler visits, or on the times of a Path. It is the only owner of β and ᾱ. Index i
// counts the visited steps, 0 … Len()-1; tables are float64. A step goes from
// ᾱ_i to AlphaBarPrev(i), which is ᾱ_{i-1} as a rule and always where the
// schedule was made from the official flags.
//
// Source: guided_diffusion gaussian_diffusion.py GaussianDiffusion and
// respace.py SpacedDiffusion; Ho et al. 2020, equations 4, 6 and 7.
type Schedule struct {
	config    ScheduleConfig
	timesteps []Timestep
	trained   []float64 // ᾱ of the original timesteps
	original  []float64 // the original timestep of each step

	beta                 []float64
	alphaBar             []float64
	alphaBarPrev         []float64
	posteriorVariance    []float64
	posteriorLogVariance []float64 // clipped: entry 0 is entry 1, as the posterior's variance is 0 there
	posteriorMean1       []float64 // of x_0
	posteriorMean2       []float64 // of x_t

	sigmas         []float64 // σ in the order of the loop, of samplers that work with σ
	initNoiseSigma float64   // standard deviation of x_T in the sampler's own terms
}

// NewSchedule makes the tables for the timesteps of TimestepRespacing. Its
// error names every flag at fault.
func NewSchedule(c ScheduleConfig) (*Schedule, error) {
	p, err := c.process()
	if p.steps() == 0 && (c.DiffusionSteps < 1 || c.DiffusionSteps > maxDiffusionSteps) {
		return nil, fmt.Errorf("sampling: schedule: %w", err)
	}
	kept, errSpace := spaceTimesteps(p.config.DiffusionSteps, c.TimestepRespacing)
	if err := errors.Join(err, errSpace); err != nil {
		return nil, fmt.Errorf("sampling: schedule: %w", err)
	}
	s := p.schedule()
	last := 1.0
	for _, t := range kept {
		s.add(&p, float64(t))
		s.beta = append(s.beta, 1-p.alphaBar[t]/last)
		last = p.alphaBar[t]
	}
	bar := 1.0
	for _, b := range s.beta {
		s.alphaBarPrev = append(s.alphaBarPrev, bar)
		bar = float64(bar * (1 - b))
		s.alphaBar = append(s.alphaBar, bar)
	}
	s.derive()
	return s, nil
}

// A stop is a timestep that a sampler visits.
type stop struct {
	time     float64 // on the scale of the original timesteps
	alphaBar float64
	next     float64 // ᾱ of the state to which the step goes
}

// visiting makes the tables for stops in the order of the loop.
func (p *process) visiting(stops []stop) *Schedule {
	s := p.schedule()
	for _, v := range slices.Backward(stops) {
		s.add(p, v.time)
		s.alphaBar = append(s.alphaBar, v.alphaBar)
		s.alphaBarPrev = append(s.alphaBarPrev, v.next)
		s.beta = append(s.beta, 1-v.alphaBar/v.next)
	}
	s.derive()
	return s
}

// schedule is one without steps.
func (p *process) schedule() *Schedule {
	return &Schedule{config: p.config, trained: p.alphaBar, initNoiseSigma: 1}
}

// add appends the next step up.
func (s *Schedule) add(p *process, time float64) {
	s.timesteps = append(s.timesteps, Timestep{Index: len(s.timesteps), Value: p.config.networkTime(time)})
	s.original = append(s.original, time)
}

// networkTime is what the network receives for the original timestep t; the
// rescaling is a float32 product, as in respace.py _WrappedModel.
func (c ScheduleConfig) networkTime(t float64) float64 {
	if !c.RescaleTimesteps {
		return t
	}
	return float64(float32(t) * float32(1000/float64(c.DiffusionSteps)))
}

// derive fills the tables that follow from β and ᾱ.
func (s *Schedule) derive() {
	for i, b := range s.beta {
		bar, prev := s.alphaBar[i], s.alphaBarPrev[i]
		s.posteriorVariance = append(s.posteriorVariance, b*(1-prev)/(1-bar))
		s.posteriorMean1 = append(s.posteriorMean1, b*math.Sqrt(prev)/(1-bar))
		s.posteriorMean2 = append(s.posteriorMean2, (1-prev)*math.Sqrt(1-b)/(1-bar))
	}
	for i := range s.beta {
		s.posteriorLogVariance = append(s.posteriorLogVariance, math.Log(s.clippedVariance(i)))
	}
}

// clippedVariance is the posterior's variance, at step 0 that of step 1. The
// official code has no one-step process; here its only step gets β. diffusers'
// DDPMScheduler clips it at 1e-20.
func (s *Schedule) clippedVariance(i int) float64 {
	switch {
	case s.config.Scheduler != nil:
		return max(s.posteriorVariance[i], 1e-20)
	case i > 0:
		return s.posteriorVariance[i]
	case s.Len() > 1:
		return s.posteriorVariance[1]
	}
	return s.beta[0]
}

// Config is what the schedule was made from.
func (s *Schedule) Config() ScheduleConfig { return s.config }

// Continuous reports whether the process has a Path: its steps are then the calls
// of the network, and have no β.
func (s *Schedule) Continuous() bool { return s.config.Path != nil }

// Coefficients are those at a timestep of the schedule, or at any time of a process
// in continuous time.
func (s *Schedule) Coefficients(t Timestep) Coefficients {
	if s.Continuous() {
		return s.config.Path.At(t.Value).coefficients()
	}
	return s.At(t.Index)
}

// Length is what a state in the terms of the sampler's path is longer than x_t: 1
// but for processes in continuous time.
func (s *Schedule) Length(t Timestep) float64 {
	if s.Continuous() {
		return s.config.Path.At(t.Value).Length()
	}
	return 1
}

// Level is the noise level at a timestep, σ = √((1−ᾱ)/ᾱ): the noise on x_0 in a
// state x_0 + σ ε; infinite where no signal is left.
func (s *Schedule) Level(t Timestep) float64 {
	if s.Continuous() {
		at := s.config.Path.At(t.Value)
		return math.Abs(at.Sigma / at.Alpha)
	}
	return s.Sigma(t.Index)
}

// Len is the number of steps that sampling takes, or of calls along a Path.
func (s *Schedule) Len() int { return len(s.timesteps) }

// Timestep is step i with what the network receives there.
func (s *Schedule) Timestep(i int) Timestep { return s.timesteps[i] }

// Beta is β_i of the respaced process.
func (s *Schedule) Beta(i int) float64 { return s.beta[i] }

// AlphaBar is ᾱ_i; AlphaBar(-1) is that of the state after the last step: 1,
// except where a scheduler_config.json ends before x_0.
func (s *Schedule) AlphaBar(i int) float64 {
	if i < 0 {
		return s.alphaBarPrev[0]
	}
	return s.alphaBar[i]
}

// AlphaBarPrev is ᾱ of the state to which step i goes.
func (s *Schedule) AlphaBarPrev(i int) float64 { return s.alphaBarPrev[i] }

// TrainedAlphaBar is ᾱ of the original timestep t, 0 … T−1.
func (s *Schedule) TrainedAlphaBar(t int) float64 { return s.trained[t] }

// TrainedSteps is T, the number of original timesteps.
func (s *Schedule) TrainedSteps() int { return len(s.trained) }

// Sigma is σ_i = √((1−ᾱ_i)/ᾱ_i), the noise on x_0 in a state x_0 + σ_i ε;
// Sigma(-1) is that after the last step.
func (s *Schedule) Sigma(i int) float64 {
	bar := s.AlphaBar(i)
	return math.Sqrt((1 - bar) / bar)
}

// Sigmas is σ in the order of the loop, the last one that of the final state,
// of a schedule that was chosen by σ; nil of others.
func (s *Schedule) Sigmas() []float64 { return s.sigmas }

// InitNoiseSigma is the standard deviation of x_T as the sampler keeps it: 1,
// except where its states are x_0 + σ ε.
func (s *Schedule) InitNoiseSigma() float64 { return s.initNoiseSigma }

// PosteriorVariance is the variance of q(x_{i-1} | x_i, x_0); 0 at step 0.
func (s *Schedule) PosteriorVariance(i int) float64 { return s.posteriorVariance[i] }

// PosteriorLogVariance is the logarithm of PosteriorVariance, at step 0 that
// of step 1: the lower end of the learned range.
func (s *Schedule) PosteriorLogVariance(i int) float64 { return s.posteriorLogVariance[i] }

// FixedVariance is σ² and its logarithm at step i for a network that learned
// none: "fixed small" (the posterior's variance) or "fixed large" (β, at step
// 0 of the official schedules the posterior's variance of step 1).
func (s *Schedule) FixedVariance(i int) (variance, logVariance float64) {
	switch {
	case s.config.SigmaSmall:
		return s.posteriorVariance[i], s.posteriorLogVariance[i]
	case i == 0 && s.config.Scheduler == nil:
		return s.clippedVariance(0), s.posteriorLogVariance[0]
	}
	return s.beta[i], math.Log(s.beta[i])
}

// noisy tells whether ancestral sampling adds noise in step i: in all but the
// last one, for diffusers in all but that at timestep 0.
func (s *Schedule) noisy(i int) bool {
	if s.config.Scheduler != nil {
		return s.original[i] > 0
	}
	return i > 0
}

// spaceTimesteps is the ascending original timesteps that a respacing of a
// process of the given number of steps keeps. Source: respace.py
// space_timesteps, round half to even and running float64 sum included.
func spaceTimesteps(steps int, respacing string) ([]int, error) {
	if respacing == "" {
		respacing = strconv.Itoa(steps)
	}
	if count, ok := strings.CutPrefix(respacing, "ddim"); ok {
		return strideTimesteps(steps, count)
	}
	sections := strings.Split(respacing, ",")
	if len(sections) > steps {
		return nil, fmt.Errorf("timestep_respacing %q has %d sections, more than the %d diffusion_steps", respacing, len(sections), steps)
	}
	var kept []int
	start := 0
	for i, section := range sections {
		count, err := strconv.Atoi(strings.TrimSpace(section))
		if err != nil || count < 0 {
			return nil, fmt.Errorf("timestep_respacing %q: section %q is not a count; expected one such as 250, ddim25 or 10,10,20", respacing, section)
		}
		size := steps / len(sections)
		if i < steps%len(sections) {
			size++
		}
		if count > size {
			return nil, fmt.Errorf("timestep_respacing %q asks for %d steps of a section that has %d (%d diffusion_steps in %d equal sections)", respacing, count, size, steps, len(sections))
		}
		stride := 1.0
		if count > 1 {
			stride = float64(size-1) / float64(count-1)
		}
		at := 0.0
		for range count {
			kept = append(kept, start+int(math.RoundToEven(at)))
			at += stride
		}
		start += size
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("timestep_respacing %q keeps no step, expected at least one", respacing)
	}
	return kept, nil
}

// strideTimesteps is 0, k, 2k, … below steps, with the smallest stride k that
// makes exactly the wanted count.
func strideTimesteps(steps int, wanted string) ([]int, error) {
	count, err := strconv.Atoi(strings.TrimSpace(wanted))
	if err != nil || count < 1 {
		return nil, fmt.Errorf("timestep_respacing %q: expected ddim and a positive count, such as ddim25", "ddim"+wanted)
	}
	below, above := 0, 0 // the counts nearest to the wanted one that a stride makes
	for stride := 1; stride < steps; stride++ {
		n := (steps-1)/stride + 1
		if n > count {
			above = n
			continue
		}
		if n < count {
			below = n
			break
		}
		var kept []int
		for t := 0; t < steps; t += stride {
			kept = append(kept, t)
		}
		return kept, nil
	}
	return nil, fmt.Errorf("timestep_respacing \"ddim%d\": no integer stride makes exactly %d steps of %d; the nearest counts that one makes: %s", count, count, steps, nearest(below, above))
}

func nearest(below, above int) string {
	switch {
	case below == 0 && above == 0:
		return "none"
	case below == 0:
		return strconv.Itoa(above)
	case above == 0:
		return strconv.Itoa(below)
	}
	return fmt.Sprintf("%d and %d", below, above)
}
