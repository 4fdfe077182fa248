package guidance

import (
	"math"

	"sagbench/sampling"
)

// An Interval is the noise levels that are guided, σ = √((1−ᾱ)/ᾱ) in (σ_lo, σ_hi],
// the noise on x_0 whatever the network is told of it. Source: Kynkäänniemi et al.
// 2024 (arXiv:2404.07724), equation 6.
type Interval struct {
	SigmaLo *float64 `yaml:"sigma_lo" min:"0" max:"1000000" doc:"guide only at noise levels σ = √((1−ᾱ)/ᾱ) above this; absent to the last step"`
	SigmaHi *float64 `yaml:"sigma_hi" min:"0" max:"1000000" doc:"guide only at noise levels of at most this; absent from the first step"`
}

// ends are σ_lo and σ_hi.
func (i *Interval) ends() (lo, hi float64) {
	lo, hi = -1, math.Inf(1)
	if i.SigmaLo != nil {
		lo = *i.SigmaLo
	}
	if i.SigmaHi != nil {
		hi = *i.SigmaHi
	}
	return lo, hi
}

// holds tells whether the step is one of the interval's.
func (i *Interval) holds(s *sampling.Step) bool {
	lo, hi := i.ends()
	level := s.Schedule().Level(s.T)
	return level > lo && level <= hi
}

// check notes what is wrong with the ends.
func (i *Interval) check(f *sampling.Faults) {
	lo, hi := i.ends()
	f.When(!(lo < hi), "sigma_lo is %g and sigma_hi %g, expected noise levels, sigma_lo the lower one", lo, hi)
}
