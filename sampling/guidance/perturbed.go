package guidance

import (
	"context"
	"slices"
	"strings"

	"sagbench/sampling"
)

// A Perturbed is common to the guidances that go away from the prediction ε' of
// the same network with some layers perturbed:
//
//	Δε = s (ε_c − ε'_c)
//
// Both predictions are conditional, also beside classifier-free guidance, which
// adds its own difference (diffusers' pag_utils.py). The perturbed images go
// through the network in the same call as the others.
type Perturbed struct {
	Scale    float64  `yaml:"scale" min:"-10000" max:"10000" doc:"s: 0 switches the guidance off, without a second pass"`
	Layers   []string `yaml:"layers" doc:"module paths of what is perturbed at once: of pag and seg self-attention layers, such as middle_block.1, blocks.13.attn or mid_block.attentions.0.transformer_blocks.0.attn1; of slg blocks, such as blocks.13"`
	Contrast `yaml:",inline"`
}

// check is Contrast.check with the options of Perturbed as well; own is nil where
// the guidance has no others.
func (g *Perturbed) check(name string, own func(f *sampling.Faults)) error {
	return g.Contrast.check(name, func(f *sampling.Faults) {
		if own != nil {
			own(f)
		}
		f.When(!finite(g.Scale), "scale is %g, expected a finite number (0 is off)", g.Scale)
		f.When(len(g.Layers) == 0, "layers is missing: name what is perturbed, such as [middle_block.1]")
		for i, layer := range g.Layers {
			f.When(layer == "" || strings.Contains(layer, ","), "layers holds %q, expected a list of module paths, such as [blocks.13, blocks.14]", layer)
			f.When(slices.Contains(g.Layers[:i], layer), "layers holds %q twice", layer)
		}
	})
}

// on tells whether the guidance is on at the step.
func (g *Perturbed) on(s *sampling.Step) bool { return g.Scale != 0 && g.within(s) }

// wants is the perturbed prediction, where the guidance is on.
func (g *Perturbed) wants(s *sampling.Step, p sampling.Perturbation) []sampling.Cond {
	if !g.on(s) {
		return nil
	}
	return []sampling.Cond{s.Cond().Under(p, s.X.Rows())}
}

// away is s (ε_c − ε'_c); where the guidance is off, nothing, without any pass.
func (g *Perturbed) away(ctx context.Context, s *sampling.Step, p sampling.Perturbation) (sampling.Delta, error) {
	if !g.on(s) {
		return sampling.Delta{}, nil
	}
	perturbed := func() (sampling.Prediction, error) { return s.Predict(ctx, s.Cond().Under(p, s.X.Rows())) }
	return g.against(ctx, s, perturbed, along(g.Scale))
}
