package guidance

import (
	"context"

	"sagbench/sampling"
)

var _ contrast = (*CFG)(nil)

// CFG is classifier-free guidance: along the difference that the condition
// makes. With ε_c the prediction under the condition and ε_∅ that under ∅,
//
//	Δε = (s − 1) (ε_c − ε_∅),  so that  ε = ε_∅ + s (ε_c − ε_∅)
//
// A network that predicts v is guided in v, which is the same.
//
// Scale is s as in diffusers' guidance_scale and DiT's cfg_scale: 1 is off. The
// paper's w is s − 1 (diffusers' use_original_formulation).
//
// Sources: Ho and Salimans 2022 (arXiv:2207.12598), equation 6;
// facebookresearch/DiT models.py forward_with_cfg, where Channels is 3.
type CFG struct {
	Scale          float64 `yaml:"scale" min:"-10000" max:"10000" doc:"s: 1 switches the guidance off, without a second network call; 0 is the unconditional prediction"`
	ClassifierFree `yaml:",inline"`
}

// NewCFG is CFG with the scale of DiT's official sample_ddp.py, on all channels.
func NewCFG() *CFG { return &CFG{Scale: 1.5} }

// Validate tells everything that is wrong with the options.
func (g *CFG) Validate() error {
	return g.check("cfg", func(f *sampling.Faults) { checkScale(f, g.Scale) })
}

// on implements contrast.
func (g *CFG) on(s *sampling.Step) bool { return g.Scale != 1 && g.within(s) }

// Wants is ∅ where the guidance is on.
func (g *CFG) Wants(s *sampling.Step) []sampling.Cond { return nullOf(g, s) }

// Delta is (s − 1)(ε_c − ε_∅), rescaled; where the guidance is off, nothing,
// without any network call.
func (g *CFG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	return g.delta(ctx, s, "cfg", g.on(s), along(g.Scale-1))
}
