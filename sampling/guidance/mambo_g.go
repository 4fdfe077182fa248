package guidance

import (
	"context"
	"math"

	"sagbench/sampling"
)

var _ contrast = (*MAMBOG)(nil)

// MAMBOG is MAMBO-G, magnitude-aware mitigation for boosted guidance:
// classifier-free guidance whose scale sinks where the difference is large
// beside the prediction, as it is in the first steps. With c and u the
// conditional and the unconditional velocity, ε − x_0:
//
//	Δ = (s − 1) exp(−α ‖c−u‖/‖u‖) (c − u)
//
// Scale is s as in CFG and diffusers' guidance_scale: 1 is off; the original
// formulation's is s − 1.
//
// Sources: arXiv:2508.03442; diffusers MagnitudeAwareGuidance, of which scale
// and alpha are the defaults and which works on the network's output (space:
// output).
type MAMBOG struct {
	Scale          float64 `yaml:"scale" min:"-10000" max:"10000" doc:"s, the largest scale: 1 switches the guidance off, without a second network call"`
	Alpha          float64 `yaml:"alpha" min:"0" max:"10000" doc:"α: how fast the scale sinks with the relative difference; 0 is CFG"`
	ClassifierFree `yaml:",inline"`
}

// NewMAMBOG is MAMBO-G of the velocity.
func NewMAMBOG() *MAMBOG {
	return &MAMBOG{Scale: 10, Alpha: 8, ClassifierFree: inSpace(sampling.Velocity)}
}

// Validate tells everything that is wrong with the options.
func (g *MAMBOG) Validate() error {
	return g.check("mambo_g", func(f *sampling.Faults) {
		checkScale(f, g.Scale)
		f.When(!finite(g.Alpha) || g.Alpha < 0, "alpha is %g, expected a number from 0", g.Alpha)
	})
}

// on implements contrast.
func (g *MAMBOG) on(s *sampling.Step) bool { return g.Scale != 1 && g.within(s) }

// Wants is ∅ where the guidance is on.
func (g *MAMBOG) Wants(s *sampling.Step) []sampling.Cond { return nullOf(g, s) }

// Delta is the damped (s − 1)(c − u); where the guidance is off, nothing,
// without any network call.
func (g *MAMBOG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	return g.delta(ctx, s, "mambo_g", g.on(s), func(_ int, d, c, u []float32) {
		for j := range d {
			d[j] = c[j] - u[j]
		}
		length := norm(d)
		if length == 0 {
			return
		}
		scale(d, (g.Scale-1)*math.Exp(-g.Alpha*length/norm(u)))
	})
}
