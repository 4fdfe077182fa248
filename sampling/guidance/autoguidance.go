package guidance

import (
	"context"

	"sagbench/sampling"
)

var _ sampling.Networked = (*Autoguidance)(nil)

// Autoguidance is guidance by a worse version of the network, one that was
// trained for a shorter time or is smaller: along the difference of the two at
// the same condition. With ε the network's prediction and ε_w the worse one's:
//
//	Δε = (s − 1) (ε − ε_w),  so that  ε = ε_w + s (ε − ε_w)
//
// Where the worse network is an unconditional one, this is classifier-free
// guidance of two networks.
//
// Scale is s as the paper's w and diffusers' guidance_scale: 1 is off; with
// use_original_formulation it is s − 1 there. diffusers' AutoGuidance makes the
// worse network of the same weights, by leaving layers out; that is skip-layer
// guidance here.
//
// Source: Karras et al. 2024 (arXiv:2406.02507), equation 3.
type Autoguidance struct {
	Scale    float64      `yaml:"scale" min:"-10000" max:"10000" doc:"s: 1 switches the guidance off, without a call of the worse network"`
	Model    sampling.Ref `yaml:"model" doc:"the worse network: its model block, of the same diffusion process"`
	Contrast `yaml:",inline"`

	worse sampling.Denoiser
}

// NewAutoguidance is autoguidance at a scale in the middle of the paper's; the
// worse network is still to be named.
func NewAutoguidance() *Autoguidance { return &Autoguidance{Scale: 2} }

// Validate tells everything that is wrong with the options.
func (g *Autoguidance) Validate() error {
	return g.check("autoguidance", func(f *sampling.Faults) {
		checkScale(f, g.Scale)
		f.When(g.Model.IsZero(), "model is missing: name the worse network, with its family, checkpoint and flags")
	})
}

// Network implements sampling.Networked.
func (g *Autoguidance) Network() *sampling.Ref { return &g.Model }

// Attach implements sampling.Networked for a denoiser.
func (g *Autoguidance) Attach(_ context.Context, network any) (err error) {
	g.worse, err = denoiserOf(network)
	return err
}

// Delta is (s − 1)(ε − ε_w); where the guidance is off, nothing, without any
// network call.
func (g *Autoguidance) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	if g.Scale == 1 || !g.within(s) {
		return sampling.Delta{}, nil
	}
	worse := func() (sampling.Prediction, error) { return s.PredictBy(ctx, g.worse, s.Cond()) }
	return g.against(ctx, s, worse, along(g.Scale-1))
}
