package sampling

import (
	"context"
	"fmt"
	"strconv"

	"sagbench/sampling/tensor"
)

var _ Sampler = (*DDPM)(nil)

// DDPM is ancestral sampling. With ε the guided prediction, g the guidances'
// Score, z_i ~ N(0, I), for i = Len()-1 … 0:
//
//	x̂0      = clip(√(1/ᾱ_i) x_i − √(1/ᾱ_i − 1) ε)
//	μ       = √ᾱ_{i-1} β_i/(1−ᾱ_i) x̂0 + √α_i (1−ᾱ_{i-1})/(1−ᾱ_i) x_i
//	log σ²  = (v+1)/2 log β_i + (1−v)/2 log β̃_i   (learned range), or fixed
//	x_{i-1} = μ + σ² g + σ z_i                     (z = 0 at the end)
//
// Sources: Ho et al. 2020, algorithm 2 and equation 7; Nichol and Dhariwal
// 2021, equation 15; Dhariwal and Nichol 2021, algorithm 1 (σ² g);
// gaussian_diffusion.py p_sample and condition_mean.
type DDPM struct {
	Steps   int `yaml:"steps" min:"0" max:"10000" doc:"denoising steps, spread evenly over the network's timesteps"`
	Spacing `yaml:",inline"`
}

// Validate tells whether the number of steps can be one.
func (d *DDPM) Validate() error {
	var f Faults
	f.steps(d.Steps)
	return f.Join()
}

// Schedule is one section of equally spaced timesteps by the official flags, or
// those of diffusers' DDPMScheduler.
func (d *DDPM) Schedule(c ScheduleConfig) (*Schedule, error) {
	if c.Scheduler == nil && d.Spacing.unset() {
		return respaced("ddpm", c, strconv.Itoa(d.Steps))
	}
	p, err := c.processFor("ddpm")
	if err != nil {
		return nil, err
	}
	if err := refuse("ddpm", option{"thresholding", p.from.Thresholding}); err != nil {
		return nil, err
	}
	if c.Scheduler != nil {
		switch variance := or(p.from.VarianceType, "fixed_small"); variance {
		case "fixed_small", "fixed_small_log": // which diffusers clips alike
			p.config.SigmaSmall = true
		case "fixed_large", "learned_range":
		default:
			return nil, fmt.Errorf("sampling: ddpm: scheduler config: variance_type is %q, expected fixed_small, fixed_small_log, fixed_large or learned_range", variance)
		}
	}
	return p.chained("ddpm", d.spacer(&p, "leading"), d.Steps)
}

// Sample takes x_T to x_0 over all steps of p.Schedule.
func (d *DDPM) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, noise Noise) (tensor.Tensor, error) {
	z, xStart, eps := xT.Like(), xT.Like(), xT.Like()
	return p.walk(ctx, xT, loop{next: func(v *visit) error {
		if err := noise.Fill(v.k, z); err != nil {
			return err
		}
		c, limit := p.Schedule.At(v.i), p.limit()
		EachImage(z.Rows(), func(n int) {
			x, learned, g := v.x.Row(n), RowOf(v.guided.Var, n), RowOf(v.score, n)
			c.Split(p.Predicts, x, v.guided.Eps.Row(n), xStart.Row(n), eps.Row(n))
			c.posteriorMeans(x, xStart.Row(n), limit)
			if g != nil {
				c.shift(x, learned, g)
			}
			if p.Schedule.noisy(v.i) {
				c.addNoise(x, learned, z.Row(n))
			}
		})
		return nil
	}})
}

// posteriorMeans replaces x_i by μ(x̂0, x_i), x̂0 limited to ±limit.
func (c *Coefficients) posteriorMeans(x, xStart []float32, limit float32) {
	xStart = xStart[:len(x)]
	for j, xj := range x {
		x[j] = c.PosteriorMean(max(-limit, min(xStart[j], limit)), xj)
	}
}

// shift adds σ² g to x; v is nil where σ is fixed.
func (c *Coefficients) shift(x, v, g []float32) {
	variance := c.fixed
	for j := range x {
		if v != nil {
			variance = exp32(c.LearnedLogVariance(v[j]))
		}
		x[j] += float32(variance * g[j])
	}
}

// addNoise adds σ z to x; v is nil where σ is fixed.
func (c *Coefficients) addNoise(x, v, z []float32) {
	sigma := exp32(0.5 * c.fixedLog)
	for j, zj := range z[:len(x)] {
		if v != nil {
			sigma = exp32(0.5 * c.LearnedLogVariance(v[j]))
		}
		x[j] += float32(sigma * zj)
	}
}
