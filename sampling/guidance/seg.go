package guidance

import (
	"context"

	"sagbench/sampling"
)

var _ sampling.Perturber = (*SEG)(nil)

// SEG is smoothed energy guidance: away from what the network predicts when the
// queries of some self-attention layers are blurred over the image, which smooths
// the energy that attention descends. With ε' the prediction of that network,
//
//	q' = G q,  Δε = s (ε − ε')
//
// G is a Gaussian blur of blur_sigma positions of the layer, with a kernel that
// is 6σ wide and odd, but no wider than the layer's image, and reflection at its
// ends; above 9999 it is the mean over the image.
//
// Scale is s as in the paper (γ), in the official seg_scale, and in diffusers'
// seg_guidance_scale beside classifier-free guidance; without that,
// seg_guidance_scale is 1 + s. (Diffusers' hook of 2025 swaps the two cases of
// σ: it blurs by a finite one as if it were infinite. The official code is
// followed here.)
//
// Sources: Hong 2024 (arXiv:2408.00760); SusungHong/SEG-SDXL pipeline_seg.py
// SEGCFGSelfAttnProcessor; diffusers SmoothedEnergyGuidance.
type SEG struct {
	BlurSigma float64 `yaml:"blur_sigma" min:"0" max:"1000000000" doc:"standard deviation of the blur of the queries, in positions of the layer; above 9999 they are their mean"`
	Perturbed `yaml:",inline"`
}

// NewSEG is SEG with the official scale and blur, the mean; the layers are still
// to be named.
func NewSEG() *SEG { return &SEG{BlurSigma: 9999999, Perturbed: Perturbed{Scale: 3}} }

// Validate tells everything that is wrong with the options.
func (g *SEG) Validate() error {
	return g.check("seg", func(f *sampling.Faults) {
		f.When(!finite(g.BlurSigma) || g.BlurSigma <= 0, "blur_sigma is %g, expected a positive number of positions (above 9999: the mean of the queries)", g.BlurSigma)
	})
}

// Perturbation is the blur of the layers' queries.
func (g *SEG) Perturbation() sampling.Perturbation {
	return sampling.Perturb(sampling.BlurredQueries, g.BlurSigma, g.Layers)
}

// Wants is the prediction of the perturbed network.
func (g *SEG) Wants(s *sampling.Step) []sampling.Cond { return g.wants(s, g.Perturbation()) }

// Delta is s (ε_c − ε'_c); where the guidance is off, nothing, without any pass.
func (g *SEG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	return g.away(ctx, s, g.Perturbation())
}
