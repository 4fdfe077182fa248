package guidance

import (
	"context"

	"sagbench/sampling"
)

var _ contrast = (*CFGZeroStar)(nil)

// CFGZeroStar is CFG-Zero*: classifier-free guidance against the best multiple
// of the unconditional prediction, after first steps that do not move. With c
// and u the conditional and the unconditional velocity, ε − x_0:
//
//	a = ⟨c,u⟩ / ‖u‖²
//	Δ = (s − 1) (c − a u),  so that the guided velocity is  a u + s (c − a u)
//	Δ = −c                  in the first ZeroInitSteps steps: velocity 0
//
// The method is one of flow matching. The velocity of a diffusion at x_t is that
// of the straight path through x_t/(√ᾱ+√(1−ᾱ)), where 0 means that ε = x̂0 are
// both this state. diffusers applies it to the network's output whatever that
// is (space: output).
//
// Scale is s as in CFG: 1 is off but for the first steps. The paper's ω and
// diffusers' guidance_scale are s.
//
// Sources: Fan et al. 2025 (arXiv:2503.18886), section 4;
// diffusers ClassifierFreeZeroStarGuidance, of which scale and
// zero_init_steps are the defaults.
type CFGZeroStar struct {
	Scale          float64 `yaml:"scale" min:"-10000" max:"10000" doc:"s: 1 switches the guidance off but for zero_init_steps, without a second network call"`
	ZeroInitSteps  int     `yaml:"zero_init_steps" min:"0" max:"1000000" doc:"the first steps whose velocity is 0; 0 for none (the paper: the first 4 %)"`
	ClassifierFree `yaml:",inline"`
}

// NewCFGZeroStar is CFG-Zero* of the velocity.
func NewCFGZeroStar() *CFGZeroStar {
	return &CFGZeroStar{Scale: 7.5, ZeroInitSteps: 1, ClassifierFree: inSpace(sampling.Velocity)}
}

// Validate tells everything that is wrong with the options.
func (g *CFGZeroStar) Validate() error {
	return g.check("cfg_zero_star", func(f *sampling.Faults) {
		checkScale(f, g.Scale)
		f.When(g.ZeroInitSteps < 0, "zero_init_steps is %d, expected a number of steps, or 0 for none", g.ZeroInitSteps)
	})
}

// initial tells whether the step is one of the first, whose velocity is 0.
func (g *CFGZeroStar) initial(s *sampling.Step) bool { return taken(s) < g.ZeroInitSteps }

// on implements contrast.
func (g *CFGZeroStar) on(s *sampling.Step) bool {
	return g.Scale != 1 && g.within(s) && !g.initial(s)
}

// Wants is ∅ where the guidance is on.
func (g *CFGZeroStar) Wants(s *sampling.Step) []sampling.Cond { return nullOf(g, s) }

// Delta is (s − 1)(c − a u), or −c in the first steps; where the guidance is
// off, nothing, without any network call.
func (g *CFGZeroStar) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	if g.initial(s) { // takes the conditional prediction back
		conditional := func() (sampling.Prediction, error) { return s.Predict(ctx, s.Cond()) }
		return g.against(ctx, s, conditional, func(_ int, d, c, _ []float32) {
			for j := range d {
				d[j] = -c[j]
			}
		})
	}
	return g.delta(ctx, s, "cfg_zero_star", g.on(s), func(_ int, d, c, u []float32) {
		a := dot(c, u) / (dot(u, u) + 1e-8) // as diffusers keeps it from dividing by 0
		for j := range d {
			d[j] = float32((g.Scale - 1) * (float64(c[j]) - float64(a*float64(u[j]))))
		}
	})
}
