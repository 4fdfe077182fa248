package guidance

import (
	"context"
	"math"

	"sagbench/sampling"
)

var _ contrast = (*TCFG)(nil)

// TCFG is tangential classifier-free guidance: what the unconditional prediction
// says beside the direction that both predictions share is left out. With c and
// u the two predictions of ε and v₁ the first right singular vector of the
// matrix of the two rows c and u:
//
//	u' = ⟨u,v₁⟩ v₁
//	Δ  = (s − 1) (c − u'),  so that  ε = u' + s (c − u')
//
// The 2×2 matrix of their products has the eigenvector (cos θ, sin θ) of its
// larger eigenvalue, tan 2θ = 2⟨c,u⟩/(‖c‖²−‖u‖²), which gives u' in closed form,
// u' = sin θ (cos θ c + sin θ u).
//
// Scale is s as in CFG and diffusers' guidance_scale: 1 leaves c; the original
// formulation's is s − 1.
//
// Sources: Kwon et al. 2025 (arXiv:2503.18137); diffusers
// TangentialClassifierFreeGuidance, of which scale is the default and which
// works on the network's output (space: output).
type TCFG struct {
	Scale          float64 `yaml:"scale" min:"-10000" max:"10000" doc:"s: 1 switches the guidance off, without a second network call"`
	ClassifierFree `yaml:",inline"`
}

// NewTCFG is TCFG of ε, which is the score but for a factor.
func NewTCFG() *TCFG {
	return &TCFG{Scale: 7.5, ClassifierFree: inSpace(sampling.Epsilon)}
}

// Validate tells everything that is wrong with the options.
func (g *TCFG) Validate() error {
	return g.check("tcfg", func(f *sampling.Faults) { checkScale(f, g.Scale) })
}

// on implements contrast.
func (g *TCFG) on(s *sampling.Step) bool { return g.Scale != 1 && g.within(s) }

// Wants is ∅ where the guidance is on.
func (g *TCFG) Wants(s *sampling.Step) []sampling.Cond { return nullOf(g, s) }

// Delta is (s − 1)(c − u'); where the guidance is off, nothing, without any
// network call.
func (g *TCFG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	return g.delta(ctx, s, "tcfg", g.on(s), func(_ int, d, c, u []float32) {
		ofC, ofU := aligned(c, u)
		for j := range d {
			d[j] = float32((g.Scale - 1) * (float64((1-ofC)*float64(c[j])) - float64(ofU*float64(u[j]))))
		}
	})
}

// aligned is u' as a combination of c and u.
func aligned(c, u []float32) (ofC, ofU float64) {
	difference, twice := dot(c, c)-dot(u, u), 2*dot(c, u)
	length := math.Sqrt(float64(difference*difference) + float64(twice*twice))
	if length == 0 {
		return 0, 1 // two perpendicular predictions of one length share no direction
	}
	return twice / length / 2, (1 - difference/length) / 2 // sin θ cos θ, sin² θ
}
