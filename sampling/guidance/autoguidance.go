package guidance

import (
	"context"
	"errors"

	"sagbench/configs"
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
	Scale    float64       `yaml:"scale" doc:"s: 1 switches the guidance off, without a call of the worse network"`
	Model    configs.Block `yaml:"model" doc:"the worse network: its model block, of the same diffusion process"`
	Contrast `yaml:",inline"`

	worse sampling.Denoiser
}

// NewAutoguidance is autoguidance at a scale in the middle of the paper's; the
// worse network is still to be named.
func NewAutoguidance() *Autoguidance { return &Autoguidance{Scale: 2} }

// Validate tells everything that is wrong with the options.
func (g *Autoguidance) Validate() error {
	f := faults{name: "autoguidance"}
	checkScale(&f, g.Scale)
	f.when(g.Model.IsNull(), "model is missing: name the worse network, with its family, checkpoint and flags")
	g.check(&f)
	return f.join()
}

// Network implements sampling.Networked.
func (g *Autoguidance) Network() configs.Block { return g.Model }

// Attach implements sampling.Networked for a denoiser.
func (g *Autoguidance) Attach(network any) error {
	d, ok := network.(sampling.Denoiser)
	if !ok {
		return errors.New("expected a network that predicts ε, as the guided one does")
	}
	g.worse = d
	return nil
}

// Delta is (s − 1)(ε − ε_w); where the guidance is off, nothing, without any
// network call.
func (g *Autoguidance) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	if g.Scale == 1 || !g.within(s) {
		return sampling.Delta{}, nil
	}
	better, err := s.Predict(ctx, s.Cond())
	if err != nil {
		return sampling.Delta{}, err
	}
	worse, err := s.PredictBy(ctx, g.worse, s.Cond())
	if err != nil {
		return sampling.Delta{}, err
	}
	return g.between(s, better.Eps, worse.Eps, along(g.Scale-1))
}
