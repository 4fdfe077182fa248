package sampling

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"sagbench/models/tensor"
)

var _ Sampler = (*DDIM)(nil)

// DDIM is the implicit sampler. With ε the guided prediction, g the
// guidances' Score, z ~ N(0, I), for i = Len()-1 … 0:
//
//	x̂0      = clip(√(1/ᾱ_i) x_i − √(1/ᾱ_i − 1) ε)
//	ε       = (√(1/ᾱ_i) x_i − x̂0) / √(1/ᾱ_i − 1)
//	ε, x̂0   = ε − √(1−ᾱ_i) g, √(1/ᾱ_i) x_i − √(1/ᾱ_i − 1) ε     (where there is a g; not clipped again)
//	σ       = η √((1−ᾱ_{i-1})/(1−ᾱ_i)) √(1 − ᾱ_i/ᾱ_{i-1})
//	x_{i-1} = √ᾱ_{i-1} x̂0 + √(1−ᾱ_{i-1}−σ²) ε + σ z              (z_0 = 0)
//
// Sources: Song et al. 2021, equations 12 and 16; Dhariwal and Nichol 2021,
// algorithm 2 (g); gaussian_diffusion.py ddim_sample and condition_score, whose
// scalars are float32 as they are here.
type DDIM struct {
	Steps int     `yaml:"steps" doc:"denoising steps; diffusion_steps must have an integer stride that makes as many"`
	Eta   float64 `yaml:"eta" doc:"noise added in a step: 0 none (deterministic), 1 as much as DDPM"`
}

// Validate tells everything that is wrong with the options.
func (d *DDIM) Validate() error {
	if d.Steps < 1 {
		return fmt.Errorf("ddim: steps is %d, expected at least 1", d.Steps)
	}
	if !(d.Eta >= 0 && d.Eta <= 1) {
		return fmt.Errorf("ddim: eta is %g, expected 0 (deterministic) to 1 (as much noise as DDPM)", d.Eta)
	}
	return nil
}

// Respacing is the number of steps with the DDIM paper's integer stride.
func (d *DDIM) Respacing() string { return "ddim" + strconv.Itoa(d.Steps) }

// Sample takes x_T to x_0 over all steps of p.Schedule. With Eta 0 no noise is
// asked for, and the Noise may be nil.
func (d *DDIM) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, noise Noise) (tensor.Tensor, error) {
	z := xT.Like()
	return p.walk(ctx, xT, func(k, i int, x tensor.Tensor, guided Prediction, score tensor.Tensor) error {
		if d.Eta > 0 {
			if err := noise.Fill(k, z); err != nil {
				return err
			}
		}
		c := p.Schedule.At(i)
		toXStart, toEps, sigma := c.ddim(d.Eta)
		sqrt1mBar := sqrt32(1 - c.AlphaBar) // in float32, as condition_score has it
		EachImage(x.Rows(), func(n int) {
			x, eps, g, z := x.Row(n), guided.Eps.Row(n), rowOf(score, n), z.Row(n)
			for j, xj := range x {
				x0 := c.XStart(xj, eps[j])
				if p.ClipDenoised {
					x0 = Clip(x0)
				}
				if g != nil {
					x0 = c.XStart(xj, c.Eps(xj, x0)-float32(sqrt1mBar*g[j]))
				}
				x[j] = float32(x0*toXStart) + float32(toEps*c.Eps(xj, x0)) + float32(sigma*z[j])
			}
		})
		return nil
	})
}

// ddim is equation 12's coefficients of x̂0, ε and z at this step.
func (c *Coefficients) ddim(eta float64) (toXStart, toEps, sigma float32) {
	bar, prev := c.AlphaBar, c.AlphaBarPrev
	sigma = float32(float32(eta)*sqrt32((1-prev)/(1-bar))) * sqrt32(1-bar/prev)
	// rounding can carry the difference below 0 where it vanishes
	return sqrt32(prev), sqrt32(max(0, 1-prev-float32(sigma*sigma))), sigma
}

func sqrt32(v float32) float32 { return float32(math.Sqrt(float64(v))) }
