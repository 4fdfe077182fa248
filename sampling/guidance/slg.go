package guidance

import (
	"context"

	"sagbench/sampling"
)

var _ sampling.Perturber = (*SLG)(nil)

// SLG is skip-layer guidance: away from what the network predicts without some of
// its blocks. With ε' the prediction of that network,
//
//	Δε = s (ε − ε')
//
// Blocks are what is added to a residual stream: the transformer blocks of DiT
// and Stable Diffusion, the attention blocks of ADM and IDDPM.
//
// Scale is s as in Stability AI's slg scale and in diffusers'
// skip_layer_guidance_scale beside classifier-free guidance; without that, the
// latter is 1 + s. Both guide only from 1 % to 20 % of the steps, which on 1000
// timesteps is about start: 990, stop: 800.
//
// Sources: Stability-AI/sd3.5 sd3_impls.py SkipLayerCFGDenoiser; diffusers
// SkipLayerGuidance, whose scale is the default; Hyung et al. 2024
// (arXiv:2411.18664) for video.
type SLG struct {
	Perturbed `yaml:",inline"`
}

// NewSLG is SLG with diffusers' scale; the layers are still to be named.
func NewSLG() *SLG { return &SLG{Perturbed{Scale: 2.8}} }

// Validate tells everything that is wrong with the options.
func (g *SLG) Validate() error {
	return g.check("slg", nil)
}

// Perturbation skips the layers.
func (g *SLG) Perturbation() sampling.Perturbation {
	return sampling.Perturb(sampling.SkippedBlock, 0, g.Layers)
}

// Wants is the prediction of the perturbed network.
func (g *SLG) Wants(s *sampling.Step) []sampling.Cond { return g.wants(s, g.Perturbation()) }

// Delta is s (ε_c − ε'_c); where the guidance is off, nothing, without any pass.
func (g *SLG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	return g.away(ctx, s, g.Perturbation())
}
