package guidance

import (
	"context"
	"errors"
	"fmt"

	"sagbench/sampling"
)

// ClassifierFree is common to the guidances that contrast the prediction under
// the condition, c, with that under ∅, u: where u comes from. Beside a network
// that was trained without ∅, as those of ADM and IDDPM are, u is the prediction
// of another, unconditional one.
type ClassifierFree struct {
	Model    sampling.Ref `yaml:"model" doc:"the network that predicts under ∅ in place of one that was trained without it: the model block of an unconditional network of the same diffusion process; absent: the guided network itself"`
	Contrast `yaml:",inline"`

	null sampling.Denoiser
}

// inSpace is the contrast of a method that was made for a parametrization.
func inSpace(space sampling.Parametrization) ClassifierFree {
	return ClassifierFree{Contrast: Contrast{Space: string(space)}}
}

// A contrast is a guidance that asks for the prediction under ∅, which other
// guidances may use as well.
type contrast interface {
	sampling.Wanter
	sampling.Networked
	// on tells whether the guidance asks for the prediction under ∅ in a step.
	on(s *sampling.Step) bool
}

// contrasts tells whether a guidance of the step contrasts the condition with
// the guided network's ∅.
func contrasts(s *sampling.Step) bool {
	for _, g := range s.Guidances() {
		if c, ok := g.(contrast); ok && c.on(s) && c.Network().IsZero() {
			return true
		}
	}
	return false
}

// nullOf is the guided network's ∅ where g asks for it.
func nullOf(g contrast, s *sampling.Step) []sampling.Cond {
	if !g.on(s) || !g.Network().IsZero() || s.Null().IsZero() {
		return nil
	}
	return []sampling.Cond{s.Null()}
}

// Network implements sampling.Networked.
func (g *ClassifierFree) Network() *sampling.Ref { return &g.Model }

// Attach implements sampling.Networked for a denoiser that predicts under ∅.
func (g *ClassifierFree) Attach(ctx context.Context, network any) error {
	d, err := denoiserOf(network)
	if err != nil {
		return err
	}
	null, err := nullFor(ctx, network, 1)
	if err != nil {
		return err
	}
	if c, ok := network.(interface{ Classes() int }); ok && c.Classes() > 0 && null.IsZero() {
		return fmt.Errorf("this network needs one of %d classes and knows no ∅; expected an unconditional one", c.Classes())
	}
	g.null = d
	return nil
}

// denoiserOf is the network as a denoiser.
func denoiserOf(network any) (sampling.Denoiser, error) {
	d, ok := network.(sampling.Denoiser)
	if !ok {
		return nil, errors.New("expected a network that predicts ε, as the guided one does")
	}
	return d, nil
}

// nullFor is what stands for ∅ in a network, for n images; zero where the network
// was trained without it.
func nullFor(ctx context.Context, network any, n int) (sampling.Cond, error) {
	if u, ok := network.(interface {
		Null(ctx context.Context, n int) (sampling.Cond, error)
	}); ok {
		return u.Null(ctx, n)
	}
	return sampling.Cond{}, nil
}

// delta is the correction of the guidance of the given name by its rule; where it
// is off, nothing, without any network call.
func (g *ClassifierFree) delta(ctx context.Context, s *sampling.Step, name string, on bool, r rule) (sampling.Delta, error) {
	switch {
	case !on:
		return sampling.Delta{}, nil
	case s.Cond().IsZero():
		return sampling.Delta{}, fmt.Errorf("guidance: %s: the network takes no condition, so there is nothing to contrast with ∅; sag needs none, nor does autoguidance", name)
	case g.Model.IsZero() && s.Null().IsZero():
		return sampling.Delta{}, fmt.Errorf("guidance: %s: the network has no null condition: it was trained without one, as ADM, IDDPM and DiT of class_dropout_prob 0 are; name an unconditional network that predicts in its place: %[1]s: {model: {family: …, checkpoint: …}}", name)
	}
	return g.against(ctx, s, func() (sampling.Prediction, error) {
		if g.null == nil {
			return s.Predict(ctx, s.Null())
		}
		null, err := nullFor(ctx, g.null, s.X.Rows())
		if err != nil {
			return sampling.Prediction{}, err
		}
		return s.PredictBy(ctx, g.null, null)
	}, r)
}
