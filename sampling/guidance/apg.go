package guidance

import (
	"context"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

var _ contrast = (*APG)(nil)

// APG is adaptive projected guidance: classifier-free guidance without the part
// of the difference that points along the prediction itself, which is what
// saturates images, with a bound on its length and a momentum over the steps.
// With c and u the conditional and the unconditional prediction of x_0, and m
// of the step before, 0 at first:
//
//	m = c − u + β m
//	D = m min(1, r/‖m‖)
//	Δ = (s − 1) (D − (1 − η) ⟨D,c⟩/‖c‖² c)
//
// Norms and products are over all of an image's values. β < 0 pushes away from
// the steps before. During the first CFGSteps steps the guidance is plain CFG
// of CFGScale while m gathers, as HunyuanImage 2.1 samples.
//
// Scale is s as in CFG: 1 is off, and s − 1 is the paper's w − 1. diffusers'
// guider of guidance_scale s − 1 with use_original_formulation is the same;
// without it, it adds s D to u, and not (s − 1) D to c, which are two things
// where D is not c − u. It works on the network's output (space: output), the
// paper on x̂0.
//
// Sources: Sadat et al. 2024 (arXiv:2410.02416), algorithm 1; diffusers
// AdaptiveProjectedGuidance, of which scale and norm_threshold are the
// defaults, and AdaptiveProjectedMixGuidance.
type APG struct {
	Scale          float64 `yaml:"scale" min:"-10000" max:"10000" doc:"s: 1 switches the guidance off, without a second network call"`
	Eta            float64 `yaml:"eta" min:"-10000" max:"10000" doc:"η, what is kept of the part along the conditional prediction: 0 nothing, 1 all"`
	NormThreshold  float64 `yaml:"norm_threshold" min:"0" max:"1000000000" doc:"r: a longer difference is cut to this length; 0 for no bound (diffusers' adaptive_projected_guidance_rescale)"`
	Momentum       float64 `yaml:"momentum" min:"-1" max:"1" doc:"β: what is added of the sum of the differences of earlier steps; 0 for none"`
	CFGSteps       int     `yaml:"cfg_steps" min:"0" max:"1000000" doc:"the first steps that are guided by plain CFG while the momentum gathers; 0 for none (diffusers' start_step plus 1)"`
	CFGScale       float64 `yaml:"cfg_scale" min:"-10000" max:"10000" doc:"s of these steps"`
	ClassifierFree `yaml:",inline"`
}

// NewAPG is APG on x̂0.
func NewAPG() *APG {
	return &APG{Scale: 7.5, NormThreshold: 15, Momentum: -0.5, CFGScale: 1, ClassifierFree: inSpace(sampling.XStart)}
}

// Validate tells everything that is wrong with the options.
func (g *APG) Validate() error {
	return g.check("apg", func(f *sampling.Faults) {
		checkScale(f, g.Scale)
		f.When(!finite(g.CFGScale), "cfg_scale is %g, expected a finite number (1 is off)", g.CFGScale)
		f.When(!finite(g.Eta), "eta is %g, expected a finite number (0 to 1)", g.Eta)
		f.When(!(g.NormThreshold >= 0), "norm_threshold is %g, expected a length, or 0 for no bound", g.NormThreshold)
		f.When(!(g.Momentum > -1 && g.Momentum < 1), "momentum is %g, expected more than -1 and less than 1, so that old steps fade", g.Momentum)
		f.When(g.CFGSteps < 0, "cfg_steps is %d, expected a number of steps, or 0 for none", g.CFGSteps)
	})
}

// on implements contrast.
func (g *APG) on(s *sampling.Step) bool {
	return g.within(s) && (g.Scale != 1 || g.plain(s) && g.CFGScale != 1)
}

// plain tells whether the step is one of the first, of plain CFG.
func (g *APG) plain(s *sampling.Step) bool { return taken(s) < g.CFGSteps }

// taken is how many steps lie behind s.
func taken(s *sampling.Step) int { return s.Schedule().Len() - 1 - s.T.Index }

// Wants is ∅ where the guidance is on.
func (g *APG) Wants(s *sampling.Step) []sampling.Cond { return nullOf(g, s) }

// Delta is (s − 1) times the projected difference; where the guidance is off,
// nothing, without any network call.
func (g *APG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	average := sampling.State[tensor.Tensor](s, g)
	if average.IsZero() {
		*average = s.X.Like()
	}
	return g.delta(ctx, s, "apg", g.on(s), func(n int, d, c, u []float32) {
		m := average.Row(n)
		for j := range d {
			d[j] = c[j] - u[j]
			m[j] = float32(float32(g.Momentum)*m[j]) + d[j]
		}
		if g.plain(s) {
			scale(d, g.CFGScale-1)
			return
		}
		copy(d, m)
		if length := norm(d); g.NormThreshold > 0 && length > g.NormThreshold {
			scale(d, g.NormThreshold/length)
		}
		dampAlong(d, c, g.Eta)
		scale(d, g.Scale-1)
	})
}

// scale multiplies v by k.
func scale(v []float32, k float64) {
	for j := range v {
		v[j] = float32(float64(v[j]) * k)
	}
}

// dampAlong leaves the weight-th part of d's component along c.
func dampAlong(d, c []float32, weight float64) {
	square := dot(c, c)
	if square == 0 {
		return // no direction
	}
	along := (1 - weight) * dot(d, c) / square
	for j := range d {
		d[j] -= float32(along * float64(c[j]))
	}
}
