package sampling

import (
	"fmt"
	"math"
)

// A process is the diffusion that a network was trained on: ᾱ of its T original
// timesteps, and how the network is told the time.
type process struct {
	config   ScheduleConfig
	from     SchedulerConfig // empty where flags describe the process
	alphaBar []float64       // [T]
}

// process reads the flags, or the scheduler_config.json in their place. Its
// error names everything that is wrong with them.
func (c ScheduleConfig) process() (process, error) {
	p := process{config: c}
	if c.Path != nil {
		return p, fmt.Errorf("the network is told the time itself (%s), not one of a number of timesteps; the samplers for it: %s", c.Path, c.Path.Samplers())
	}
	if c.Scheduler != nil {
		p.from = *c.Scheduler
		if err := p.from.Validate(); err != nil {
			return p, err
		}
		p.config.DiffusionSteps = or(p.from.NumTrainTimesteps, 1000)
		p.alphaBar = p.from.alphaBar(p.config.DiffusionSteps)
		return p, nil
	}
	if c.DiffusionSteps < 1 || c.DiffusionSteps > maxDiffusionSteps {
		return p, fmt.Errorf("diffusion_steps is %d, expected 1 to %d (1000 for most checkpoints, 4000 for Improved DDPM)", c.DiffusionSteps, maxDiffusionSteps)
	}
	betas, err := namedBetas(c.NoiseSchedule, c.DiffusionSteps)
	if err != nil {
		return p, err
	}
	bar := 1.0
	for _, b := range betas {
		bar *= 1 - b
		p.alphaBar = append(p.alphaBar, bar)
	}
	return p, nil
}

// steps is T.
func (p *process) steps() int { return len(p.alphaBar) }

// sigmas is σ = √((1−ᾱ)/ᾱ) of the original timesteps, ascending, as float32 has
// it; where the terminal SNR is zero the last one is 2¹², as diffusers'
// schedulers that work with σ put 2⁻²⁴ for that ᾱ.
func (p *process) sigmas() []float64 {
	out := make([]float64, p.steps())
	for t, bar := range p.alphaBar {
		if out[t] = float64(sqrt32((1 - float32(bar)) / float32(bar))); bar == 0 {
			out[t] = 0x1p12
		}
	}
	return out
}

// namedBetas is β of the original process by the official flags. Source:
// gaussian_diffusion.py get_named_beta_schedule and betas_for_alpha_bar.
func namedBetas(name string, steps int) ([]float64, error) {
	switch name {
	case "linear":
		scale := 1000 / float64(steps)
		first, last := float64(scale*0.0001), float64(scale*0.02)
		if last > 1 {
			return nil, fmt.Errorf("diffusion_steps is %d: the linear noise_schedule ends with β = 20/%d, above 1; expected at least 20 steps, or noise_schedule cosine", steps, steps)
		}
		return linspace(first, last, steps), nil
	case "cosine", "squaredcos_cap_v2":
		return cosineBetas(steps), nil
	}
	return nil, fmt.Errorf("noise_schedule is %q, expected linear or cosine", name)
}

// cosineBetas is the β of ᾱ(t) = cos²((t + 0.008)/1.008 · π/2), at most 0.999
// (Nichol and Dhariwal 2021, equation 17).
func cosineBetas(steps int) []float64 {
	alphaBar := func(t float64) float64 {
		c := math.Cos((t + 0.008) / 1.008 * math.Pi / 2)
		return c * c
	}
	betas := make([]float64, steps)
	for i := range betas {
		from, to := float64(i)/float64(steps), float64(i+1)/float64(steps)
		betas[i] = min(1-alphaBar(to)/alphaBar(from), 0.999)
	}
	return betas
}

// alphaBar is the table of a valid scheduler_config.json: as diffusers has it,
// in float32 but for the product, so that 1 − ᾱ near 0 is the same number.
// Source: diffusers, the constructors of its schedulers.
func (c *SchedulerConfig) alphaBar(steps int) []float64 {
	alphas := make([]float32, steps)
	for t, beta := range c.betas(steps) {
		alphas[t] = 1 - beta
	}
	if or(c.RescaleBetasZeroSNR, false) && steps > 1 {
		zeroTerminalSNR(alphas)
	}
	return product32(alphas)
}

// product32 is the cumulative product, rounded to float32.
func product32(alphas []float32) []float64 {
	out, bar := make([]float64, len(alphas)), 1.0
	for t, a := range alphas {
		bar *= float64(a)
		out[t] = float64(float32(bar))
	}
	return out
}

func (c *SchedulerConfig) betas(steps int) []float32 {
	betas := make([]float32, steps)
	if c.TrainedBetas != nil {
		for t, beta := range c.TrainedBetas {
			betas[t] = float32(beta)
		}
		return betas
	}
	first, last := or(c.BetaStart, 0.0001), or(c.BetaEnd, 0.02)
	switch or(c.BetaSchedule, "linear") {
	case "linear":
		linspace32(betas, first, last)
	case "scaled_linear":
		linspace32(betas, math.Sqrt(first), math.Sqrt(last))
		for t, root := range betas {
			betas[t] = root * root
		}
	case "squaredcos_cap_v2":
		for t, beta := range cosineBetas(steps) {
			betas[t] = float32(beta)
		}
	}
	return betas
}

// linspace32 is torch's linspace: from both ends to the middle, a fused
// multiply-add of float32 numbers.
func linspace32(out []float32, first, last float64) {
	n := len(out)
	if n == 1 {
		out[0] = float32(first)
		return
	}
	low, high := float64(float32(first)), float64(float32(last))
	stride := float64((float32(last) - float32(first)) / float32(n-1))
	for i := range out {
		if i < n/2 {
			out[i] = float32(low + float64(stride*float64(i)))
		} else {
			out[i] = float32(high - float64(stride*float64(n-1-i)))
		}
	}
}

// zeroTerminalSNR replaces α by those that shift and scale √ᾱ so that the last
// one is 0 and the first stays (Lin et al. 2023, algorithm 1).
func zeroTerminalSNR(alphas []float32) {
	bars, n := product32(alphas), len(alphas)
	first, last := sqrt32(float32(bars[0])), sqrt32(float32(bars[n-1]))
	before := float32(1)
	for t, bar := range bars {
		root := (sqrt32(float32(bar)) - last) * (first / (first - last))
		now := float32(root * root)
		alphas[t] = 1 - (1 - now/before)
		before = now
	}
}

// linspace is n numbers from first to last at equal distances, the last one
// exact; one number is first.
func linspace(first, last float64, n int) []float64 {
	out := make([]float64, n)
	stride := 0.0
	if n > 1 {
		stride = (last - first) / float64(n-1)
	}
	for i := range out {
		out[i] = float64(float64(i)*stride) + first
	}
	if n > 1 {
		out[n-1] = last
	}
	return out
}
