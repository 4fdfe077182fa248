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
	"apg":           func() sampling.Guidance { return NewAPG() },
	"cfg":           func() sampling.Guidance { return NewCFG() },
	"cfg_zero_star": func() sampling.Guidance { return NewCFGZeroStar() },
	"fdg":           func() sampling.Guidance { return NewFDG() },
	"mambo_g":       func() sampling.Guidance { return NewMAMBOG() },
	"sag":           func() sampling.Guidance { return NewSAG() },
	"tcfg":          func() sampling.Guidance { return NewTCFG() },
}

// A contrast is a guidance that asks for the prediction under ∅, which others
// may want to share.
type contrast interface {
	sampling.Wanter
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

// nullOf is ∅ where g asks for it.
func nullOf(g contrast, s *sampling.Step) []sampling.Cond {
	if !g.Contrasts(s) || s.Null().IsZero() {
		return nil
	}
	return []sampling.Cond{s.Null()}
}
