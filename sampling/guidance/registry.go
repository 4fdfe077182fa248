// Package guidance holds the corrections that a sampler adds to a network's
// prediction. In goes one step, (x_t, t), of which a guidance may ask the
// network's prediction there and elsewhere; out comes what is to be added to ε
// or the score that the sampler is to follow.
package guidance

import (
	"sagbench/configs"
	"sagbench/sampling"
)

// Registry holds the guidances by the name that an experiment gives them, each
// with its defaults.
var Registry = configs.Registry[sampling.Guidance]{
	"cfg": func() sampling.Guidance { return NewCFG() },
	"sag": func() sampling.Guidance { return NewSAG() },
}

// A contrast is a guidance that asks for the prediction under ∅, which others
// may want to share.
type contrast interface {
	sampling.Guidance
	// Contrasts tells whether the guidance is on in a step.
	Contrasts(s *sampling.Step) bool
}

// contrasts tells whether a guidance of the step contrasts the condition with ∅.
func contrasts(s *sampling.Step) bool {
	for _, g := range s.Guidances() {
		if c, ok := g.(contrast); ok && c.Contrasts(s) {
			return true
		}
	}
	return false
}
