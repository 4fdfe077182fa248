package guidance

import (
	"context"

	"sagbench/sampling"
)

var _ sampling.Perturber = (*PAG)(nil)

// PAG is perturbed-attention guidance: away from what the network predicts when
// some self-attention layers have the identity for a map, softmax(qkᵀ/√d) → I, so
// that what a position shows is kept and how positions go together is not. With ε'
// the prediction of that network,
//
//	Δε = s (ε − ε')
//
// Scale is s as the paper has it and diffusers' pag_scale. The official
// guide_scale is 1 + s, and so is perturbed_guidance_scale of diffusers' guider
// without classifier-free guidance; with it, that is s.
//
// Sources: Ahn et al. 2024 (arXiv:2403.17377), equation 11;
// sunovivid/Perturbed-Attention-Guidance gaussian_diffusion.py, whose layers of
// ADM 256×256 are input_blocks.14.1, 16.1, 17.1 and middle_block.1; diffusers
// pag_utils.py and PerturbedAttentionGuidance, whose layer of Stable Diffusion is
// that of the middle block.
type PAG struct {
	Perturbed `yaml:",inline"`
}

// NewPAG is PAG with the scale of the paper and of diffusers; the layers are
// still to be named.
func NewPAG() *PAG { return &PAG{Perturbed{Scale: 3}} }

// Validate tells everything that is wrong with the options.
func (g *PAG) Validate() error {
	return g.check("pag", nil)
}

// Perturbation is identity attention in the layers.
func (g *PAG) Perturbation() sampling.Perturbation {
	return sampling.Perturb(sampling.IdentityAttention, 0, g.Layers)
}

// Wants is the prediction of the perturbed network.
func (g *PAG) Wants(s *sampling.Step) []sampling.Cond { return g.wants(s, g.Perturbation()) }

// Delta is s (ε_c − ε'_c); where the guidance is off, nothing, without any pass.
func (g *PAG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	return g.away(ctx, s, g.Perturbation())
}
