package sampling

import (
	"context"
	"math"
	"strconv"

	"sagbench/sampling/tensor"
)

var _ Sampler = (*DDIM)(nil)

// DDIM is the implicit sampler. With ε the guided prediction, g the
// guidances' Score, z ~ N(0, I), for i = Len()-1 … 0, and ᾱ' of the state to
// which the step goes:
//
//	x̂0    = clip(√(1/ᾱ_i) x_i − √(1/ᾱ_i − 1) ε)
//	ε     = (√(1/ᾱ_i) x_i − x̂0) / √(1/ᾱ_i − 1)                (not in diffusers)
//	ε, x̂0 = ε − √(1−ᾱ_i) g, √(1/ᾱ_i) x_i − √(1/ᾱ_i − 1) ε     (where there is a g; not clipped again)
//	σ     = η √((1−ᾱ')/(1−ᾱ_i)) √(1 − ᾱ_i/ᾱ')
//	x'    = √ᾱ' x̂0 + √(1−ᾱ'−σ²) ε + σ z
//
// The official schedules end at ᾱ' = 1, where σ = 0; those of diffusers at
// ᾱ_0 of the process, unless set_alpha_to_one. Sources: Song et al. 2021,
// equations 12 and 16; Dhariwal and Nichol 2021, algorithm 2 (g);
// gaussian_diffusion.py ddim_sample and condition_score, whose scalars are
// float32 as they are here; diffusers DDIMScheduler.
type DDIM struct {
	Steps         int     `yaml:"steps" min:"0" max:"10000" doc:"denoising steps; with the official flags diffusion_steps must have an integer stride that makes as many"`
	Eta           float64 `yaml:"eta" min:"0" max:"1" doc:"noise added in a step: 0 none (deterministic), 1 as much as DDPM"`
	Spacing       `yaml:",inline"`
	SetAlphaToOne *bool `yaml:"set_alpha_to_one" doc:"the last step goes to x_0 (true) or to timestep 0 (false); absent for the checkpoint's own"`
	UseClipped    *bool `yaml:"use_clipped_model_output" doc:"ε is derived again from the clipped x̂0; absent: true with the official flags, false with a scheduler_config.json"`
}

// Validate tells everything that is wrong with the options.
func (d *DDIM) Validate() error {
	var f Faults
	f.steps(d.Steps)
	f.When(!(d.Eta >= 0 && d.Eta <= 1), "eta is %g, expected 0 (deterministic) to 1 (as much noise as DDPM)", d.Eta)
	return f.Join()
}

// Schedule is the DDIM paper's integer stride by the official flags, or the
// timesteps of diffusers' DDIMScheduler.
func (d *DDIM) Schedule(c ScheduleConfig) (*Schedule, error) {
	if c.Scheduler == nil && d.Spacing.unset() && d.SetAlphaToOne == nil {
		return respaced("ddim", c, "ddim"+strconv.Itoa(d.Steps))
	}
	p, err := c.processFor("ddim")
	if err != nil {
		return nil, err
	}
	if err := refuse("ddim", option{"thresholding", p.from.Thresholding}); err != nil {
		return nil, err
	}
	return p.strided("ddim", d.spacer(&p, "leading"), d.Steps, chosen(d.SetAlphaToOne, p.from.SetAlphaToOne, true))
}

// Sample takes x_T to x_0 over all steps of p.Schedule. With Eta 0 no noise is
// asked for, and the Noise may be nil.
func (d *DDIM) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, noise Noise) (tensor.Tensor, error) {
	z, xStart, eps := xT.Like(), xT.Like(), xT.Like()
	return p.walk(ctx, xT, loop{next: func(v *visit) error {
		if d.Eta > 0 {
			if err := noise.Fill(v.k, z); err != nil {
				return err
			}
		}
		c := p.Schedule.At(v.i)
		toXStart, toEps, sigma := c.ddim(d.Eta)
		EachImage(z.Rows(), func(n int) {
			x, x0, e, z := v.x.Row(n), xStart.Row(n), eps.Row(n), z.Row(n)
			c.Split(p.Predicts, x, v.guided.Eps.Row(n), x0, e)
			d.settle(p, &c, x, x0, e, RowOf(v.score, n))
			for j, x0 := range x0 {
				x[j] = float32(x0*toXStart) + float32(toEps*e[j]) + float32(sigma*z[j])
			}
		})
		return nil
	}})
}

// settle clips x̂0 of an image, makes ε agree with it and follows the score g,
// nil where there is none.
func (d *DDIM) settle(p *Predictor, c *Coefficients, x, xStart, eps, g []float32) {
	limit := p.limit()
	for j, x0 := range xStart {
		xStart[j] = max(-limit, min(x0, limit))
	}
	if or(d.UseClipped, p.Schedule.config.Scheduler == nil) || g != nil {
		for j, x0 := range xStart {
			eps[j] = c.Eps(x[j], x0)
		}
	}
	if g != nil {
		sqrt1mBar := sqrt32(1 - c.AlphaBar) // in float32, as condition_score has it
		for j, xj := range x {
			xStart[j] = c.XStart(xj, eps[j]-float32(sqrt1mBar*g[j]))
			eps[j] = c.Eps(xj, xStart[j])
		}
	}
}

// ddim is equation 12's coefficients of x̂0, ε and z at this step.
func (c *Coefficients) ddim(eta float64) (toXStart, toEps, sigma float32) {
	bar, prev := c.AlphaBar, c.AlphaBarPrev
	sigma = float32(float32(eta)*sqrt32((1-prev)/(1-bar))) * sqrt32(1-bar/prev)
	// rounding can carry the difference below 0 where it vanishes
	return sqrt32(prev), sqrt32(max(0, 1-prev-float32(sigma*sigma))), sigma
}

func sqrt32(v float32) float32 { return float32(math.Sqrt(float64(v))) }
