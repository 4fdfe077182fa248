package eval

import "context"

// FDDINOv2 is the Fréchet distance on features of DINOv2 ViT-L/14, its class
// token after the last LayerNorm (Stein et al., "Exposing flaws of generative
// model evaluation metrics and their unfair treatment of diffusion models",
// arXiv 2306.04675; dgm-eval metrics/fd.py). See FID for the formula; dgm-eval
// takes means in float64.
type FDDINOv2 FID

var (
	_ Resampler = (*FDDINOv2)(nil)
	_ OnNetwork = (*FDDINOv2)(nil)
)

// Validate implements the check after decoding.
func (m *FDDINOv2) Validate() error { return (*FID)(m).Validate() }

// Column implements Metric.
func (*FDDINOv2) Column() Column { return Column{"fd_dinov2", "FD-DINOv2", Lower, 2} }

// Network implements OnNetwork.
func (*FDDINOv2) Network() string { return "dinov2" }

// Score implements Metric.
func (m *FDDINOv2) Score(_ context.Context, ref, gen *Features) ([]Score, error) {
	return (*FID)(m).scoreOfPools(m.Column(), ref, gen)
}

// Replicates implements Resampler; see FID.
func (m *FDDINOv2) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return (*FID)(m).Replicates(ctx, ref, gen, d)
}
