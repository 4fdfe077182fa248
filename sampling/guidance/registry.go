// Package guidance holds the corrections that a sampler adds to a network's
// prediction. In goes one step, (x_t, t), of which a guidance may ask the
// network's prediction there and elsewhere; out comes what is to be added to ε
// or the score that the sampler is to follow.
package guidance

import "sagbench/sampling"

// Registry holds the guidances by the name that an experiment gives them, each
// with its defaults.
var Registry = map[string]func() sampling.Guidance{
	"apg":           func() sampling.Guidance { return NewAPG() },
	"autoguidance":  func() sampling.Guidance { return NewAutoguidance() },
	"cfg":           func() sampling.Guidance { return NewCFG() },
	"cfg_zero_star": func() sampling.Guidance { return NewCFGZeroStar() },
	"classifier":    func() sampling.Guidance { return NewClassifier() },
	"fdg":           func() sampling.Guidance { return NewFDG() },
	"mambo_g":       func() sampling.Guidance { return NewMAMBOG() },
	"pag":           func() sampling.Guidance { return NewPAG() },
	"sag":           func() sampling.Guidance { return NewSAG() },
	"seg":           func() sampling.Guidance { return NewSEG() },
	"slg":           func() sampling.Guidance { return NewSLG() },
	"tcfg":          func() sampling.Guidance { return NewTCFG() },
}
