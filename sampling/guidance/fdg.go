package guidance

import (
	"context"
	"fmt"

	"sagbench/sampling"
)

var _ contrast = (*FDG)(nil)

// FDG is frequency-decoupled guidance: classifier-free guidance with a scale for
// each band of a Laplacian pyramid. With c_k and u_k the bands of the conditional
// and the unconditional prediction, s_k and w_k a band's scale and weight:
//
//	D_k = c_k − u_k − (1 − w_k) ⟨c_k−u_k,c_k⟩/‖c_k‖² c_k
//	Δ   = the image of the pyramid (s_k − 1) D_k
//
// A pyramid of n scales halves the image n − 1 times, which has to divide it.
//
// Scales are s_k as in CFG and the paper's w: 1 is off; diffusers' original
// formulation's are s_k − 1. Where weights are not 1, diffusers without
// use_original_formulation adds s_k D_k to u_k, which is something else.
//
// Sources: Sadat et al. 2025 (arXiv:2506.19713), algorithm 2, on kornia's
// build_laplacian_pyramid; diffusers FrequencyDecoupledGuidance, of which
// scales are the defaults.
type FDG struct {
	Scales          []float64 `yaml:"scales" doc:"s of each band, the highest frequencies first; 1 leaves a band as the condition has it"`
	ParallelWeights []float64 `yaml:"parallel_weights" doc:"w of each band: what is kept of the part along the conditional prediction; absent for all of it"`
	ClassifierFree  `yaml:",inline"`
}

// NewFDG is FDG of two bands, with more guidance of the higher frequencies.
func NewFDG() *FDG { return &FDG{Scales: []float64{10, 5}} }

// Validate tells everything that is wrong with the options.
func (g *FDG) Validate() error {
	f := faults{name: "fdg"}
	f.when(len(g.Scales) == 0, "scales is empty, expected a scale for each band, the highest frequencies first")
	for _, v := range g.Scales {
		checkScale(&f, v)
	}
	n := len(g.ParallelWeights)
	f.when(n != 0 && n != len(g.Scales), "parallel_weights has %d numbers, expected %d, as many as scales, or none", n, len(g.Scales))
	for _, v := range g.ParallelWeights {
		f.when(!finite(v), "parallel_weights holds %g, expected finite numbers (0 to 1)", v)
	}
	g.check(&f)
	return f.join()
}

// on implements contrast.
func (g *FDG) on(s *sampling.Step) bool {
	for _, v := range g.Scales {
		if v != 1 {
			return g.within(s)
		}
	}
	return false
}

// Wants is ∅ where the guidance is on.
func (g *FDG) Wants(s *sampling.Step) []sampling.Cond { return nullOf(g, s) }

// Delta is the image of the bands' corrections; where the guidance is off,
// nothing, without any network call.
func (g *FDG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	if !g.on(s) {
		return sampling.Delta{}, nil
	}
	height, width := s.X.Shape[2], s.X.Shape[3]
	if halvings := len(g.Scales) - 1; height%(1<<halvings) != 0 || width%(1<<halvings) != 0 {
		return sampling.Delta{}, fmt.Errorf("guidance: fdg: %d scales halve the %d×%d image %d times, which is no whole number of pixels; give fewer scales", len(g.Scales), height, width, halvings)
	}
	return g.free(ctx, s, "fdg", func(_ int, d, c, u []float32) {
		for j := range d {
			d[j] = c[j] - u[j]
		}
		bands := newPyramid(d, height, width, len(g.Scales))
		if len(g.ParallelWeights) > 0 {
			of := newPyramid(c, height, width, len(g.Scales))
			for k, w := range g.ParallelWeights {
				dampAlong(bands[k].planes, of[k].planes, w)
			}
		}
		for k, v := range g.Scales {
			scale(bands[k].planes, v-1)
		}
		copy(d, bands.image())
	})
}
