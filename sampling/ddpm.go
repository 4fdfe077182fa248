package sampling

import (
	"context"
	"fmt"
	"strconv"

	"sagbench/models/tensor"
)

var _ Sampler = (*DDPM)(nil)

// DDPM is ancestral sampling. With ε the guided prediction, g the guidances'
// Score, z_i ~ N(0, I), for i = Len()-1 … 0:
//
//	x̂0      = clip(√(1/ᾱ_i) x_i − √(1/ᾱ_i − 1) ε)
//	μ       = √ᾱ_{i-1} β_i/(1−ᾱ_i) x̂0 + √α_i (1−ᾱ_{i-1})/(1−ᾱ_i) x_i
//	log σ²  = (v+1)/2 log β_i + (1−v)/2 log β̃_i   (learned range), or fixed
//	x_{i-1} = μ + σ² g + σ z_i                     (z_0 = 0)
//
// Sources: Ho et al. 2020, algorithm 2 and equation 7; Nichol and Dhariwal
// 2021, equation 15; Dhariwal and Nichol 2021, algorithm 1 (σ² g);
// gaussian_diffusion.py p_sample and condition_mean.
type DDPM struct {
	Steps int `yaml:"steps" doc:"denoising steps, spread evenly over the network's timesteps"`
}

// Validate tells whether the number of steps can be one.
func (d *DDPM) Validate() error {
	if d.Steps < 1 {
		return fmt.Errorf("ddpm: steps is %d, expected at least 1", d.Steps)
	}
	return nil
}

// Respacing is the number of steps: one section of equally spaced timesteps.
func (d *DDPM) Respacing() string { return strconv.Itoa(d.Steps) }

// Sample takes x_T to x_0 over all steps of p.Schedule.
func (d *DDPM) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, noise Noise) (tensor.Tensor, error) {
	z := xT.Like()
	return p.walk(ctx, xT, func(k, i int, x tensor.Tensor, guided Prediction, score tensor.Tensor) error {
		if err := noise.Fill(k, z); err != nil {
			return err
		}
		c := p.Schedule.At(i)
		EachImage(x.Rows(), func(n int) {
			x, v, g := x.Row(n), rowOf(guided.Var, n), rowOf(score, n)
			c.posteriorMeans(x, guided.Eps.Row(n), p.ClipDenoised)
			if g != nil {
				c.shift(x, v, g)
			}
			if i > 0 {
				c.addNoise(x, v, z.Row(n))
			}
		})
		return nil
	})
}

// posteriorMeans replaces x_i by μ(x̂0, x_i).
func (c *Coefficients) posteriorMeans(x, eps []float32, clip bool) {
	eps = eps[:len(x)]
	for j, xj := range x {
		x0 := c.XStart(xj, eps[j])
		if clip {
			x0 = Clip(x0)
		}
		x[j] = c.PosteriorMean(x0, xj)
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
