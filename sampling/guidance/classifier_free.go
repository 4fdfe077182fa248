package guidance

import (
	"context"
	"errors"
	"fmt"

	"sagbench/configs"
	"sagbench/sampling"
)

// ClassifierFree is what the guidances share that contrast the prediction under
// the condition, c, with that under ∅, u: how u is come by. A network that was
// trained without ∅, as those of ADM and IDDPM are, takes u from an
// unconditional one of its own.
type ClassifierFree struct {
	Model    configs.Block `yaml:"model" doc:"the network that predicts under ∅ in place of one that was trained without it: the model block of an unconditional network of the same diffusion process; absent: the guided network itself"`
	Contrast `yaml:",inline"`

	null sampling.Denoiser
}

// inSpace is the contrast of a method that was made for a parametrization.
func inSpace(space sampling.Parametrization) ClassifierFree {
	return ClassifierFree{Contrast: Contrast{Space: string(space)}}
}

// A contrast is a guidance that asks for the prediction under ∅, which others
// may want to share.
type contrast interface {
	sampling.Wanter
	sampling.Networked
	// on tells whether the guidance asks for ∅ in a step.
	on(s *sampling.Step) bool
}

// contrasts tells whether a guidance of the step contrasts the condition with
// the guided network's ∅.
func contrasts(s *sampling.Step) bool {
	for _, g := range s.Guidances() {
		if c, ok := g.(contrast); ok && c.on(s) && c.Network().IsNull() {
			return true
		}
	}
	return false
}

// nullOf is the guided network's ∅ where g asks for it.
func nullOf(g contrast, s *sampling.Step) []sampling.Cond {
	if !g.on(s) || !g.Network().IsNull() || s.Null().IsZero() {
		return nil
	}
	return []sampling.Cond{s.Null()}
}

// Network implements sampling.Networked.
func (g *ClassifierFree) Network() configs.Block { return g.Model }

// nullable is a network that knows ∅: what it is for n images, zero where it was
// trained without.
type nullable interface {
	Null(n int) (sampling.Cond, error)
}

// Attach implements sampling.Networked for a denoiser that predicts under ∅.
func (g *ClassifierFree) Attach(network any) error {
	d, ok := network.(sampling.Denoiser)
	if !ok {
		return errors.New("expected a network that predicts ε, as the guided one does")
	}
	null, err := nullFor(network, 1)
	if err != nil {
		return err
	}
	if c, ok := network.(interface{ Classes() int }); ok && c.Classes() > 0 && null.IsZero() {
		return fmt.Errorf("this network needs one of %d classes and knows no ∅; expected an unconditional one", c.Classes())
	}
	g.null = d
	return nil
}

// nullFor is ∅ of a network for n images.
func nullFor(network any, n int) (sampling.Cond, error) {
	if u, ok := network.(nullable); ok {
		return u.Null(n)
	}
	return sampling.Cond{}, nil
}

// free is the correction of classifier-free guidance.
func (g *ClassifierFree) free(ctx context.Context, s *sampling.Step, name string, r rule) (sampling.Delta, error) {
	switch {
	case s.Cond().IsZero():
		return sampling.Delta{}, fmt.Errorf("guidance: %s: the network takes no condition, so there is nothing to contrast with ∅; sag needs none, nor does autoguidance", name)
	case g.Model.IsNull() && s.Null().IsZero():
		return sampling.Delta{}, fmt.Errorf("guidance: %s: the network has no null condition: it was trained without one, as ADM, IDDPM and DiT of class_dropout_prob 0 are; name an unconditional network that predicts in its place: %[1]s: {model: {family: …, checkpoint: …}}", name)
	}
	conditional, err := s.Predict(ctx, s.Cond())
	if err != nil {
		return sampling.Delta{}, err
	}
	null, err := g.underNull(ctx, s)
	if err != nil {
		return sampling.Delta{}, err
	}
	return g.between(s, conditional.Eps, null.Eps, r)
}

// underNull is the prediction under ∅.
func (g *ClassifierFree) underNull(ctx context.Context, s *sampling.Step) (sampling.Prediction, error) {
	if g.null == nil {
		return s.Predict(ctx, s.Null())
	}
	null, err := nullFor(g.null, s.X.Rows())
	if err != nil {
		return sampling.Prediction{}, err
	}
	return s.PredictBy(ctx, g.null, null)
}
