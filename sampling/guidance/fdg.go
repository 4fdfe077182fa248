package guidance

import (
	"context"
	"fmt"
	"slices"

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
	Scales          []float64 `yaml:"scales" min:"-10000" max:"10000" doc:"s of each band, the highest frequencies first; 1 leaves a band as the condition has it"`
	ParallelWeights []float64 `yaml:"parallel_weights" min:"-10000" max:"10000" doc:"w of each band: what is kept of the part along the conditional prediction; absent for all of it"`
	ClassifierFree  `yaml:",inline"`
}

// NewFDG is FDG of two bands, with more guidance of the higher frequencies.
func NewFDG() *FDG { return &FDG{Scales: []float64{10, 5}} }

// Validate tells everything that is wrong with the options.
func (g *FDG) Validate() error {
	return g.check("fdg", func(f *sampling.Faults) {
		f.When(len(g.Scales) == 0, "scales is empty, expected a scale for each band, the highest frequencies first")
		for _, v := range g.Scales {
			checkScale(f, v)
		}
		n := len(g.ParallelWeights)
		f.When(n != 0 && n != len(g.Scales), "parallel_weights has %d numbers, expected %d, as many as scales, or none", n, len(g.Scales))
		for _, v := range g.ParallelWeights {
			f.When(!finite(v), "parallel_weights holds %g, expected finite numbers (0 to 1)", v)
		}
	})
}

// on implements contrast.
func (g *FDG) on(s *sampling.Step) bool {
	return slices.ContainsFunc(g.Scales, func(v float64) bool { return v != 1 }) && g.within(s)
}

// Wants is ∅ where the guidance is on.
func (g *FDG) Wants(s *sampling.Step) []sampling.Cond { return nullOf(g, s) }

// Delta is the image of the bands' corrections; where the guidance is off,
// nothing, without any network call.
func (g *FDG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	height, width := s.X.Shape[2], s.X.Shape[3]
	if halvings := len(g.Scales) - 1; g.on(s) && (height%(1<<halvings) != 0 || width%(1<<halvings) != 0) {
		return sampling.Delta{}, fmt.Errorf("guidance: fdg: %d scales halve the %d×%d image %d times, which is no whole number of pixels; give fewer scales", len(g.Scales), height, width, halvings)
	}
	return g.delta(ctx, s, "fdg", g.on(s), func(_ int, d, c, u []float32) {
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

// A pyramid is an image as a sum of frequency bands, the highest first, each of
// half the height and width of the one before; the last is a small image.
// Source: kornia geometry.transform build_laplacian_pyramid, pyrdown and pyrup.
type pyramid []band

// A band is planes of H×W pixels, [C,H,W].
type band struct {
	planes        []float32
	height, width int
}

// newPyramid takes an image [C,H,W] apart into n bands; 2ⁿ⁻¹ divides H and W.
func newPyramid(image []float32, height, width, n int) pyramid {
	var p pyramid
	rest := band{append([]float32(nil), image...), height, width}
	for range n - 1 {
		smaller := rest.down()
		for j, v := range smaller.up().planes {
			rest.planes[j] -= v
		}
		p, rest = append(p, rest), smaller
	}
	return append(p, rest)
}

// image is the image whose bands p has; p is left undefined.
func (p pyramid) image() []float32 {
	rest := p[len(p)-1]
	for k := len(p) - 2; k >= 0; k-- {
		for j, v := range rest.up().planes {
			p[k].planes[j] += v
		}
		rest = p[k]
	}
	return rest.planes
}

// down is the blurred image at half the size: bilinear, so the mean of 2×2.
func (b band) down() band {
	fine := b.blurred()
	out := band{make([]float32, len(b.planes)/4), b.height / 2, b.width / 2}
	for i := range len(out.planes) / out.width {
		first := fine.planes[2*i*b.width:][:b.width]
		second := fine.planes[(2*i+1)*b.width:][:b.width]
		for x := range out.width {
			out.planes[i*out.width+x] = (first[2*x] + first[2*x+1] + second[2*x] + second[2*x+1]) / 4
		}
	}
	return out
}

// up is the image at twice the size, bilinear, blurred.
func (b band) up() band {
	out := band{make([]float32, 4*len(b.planes)), 2 * b.height, 2 * b.width}
	size := b.height * b.width
	for p := range len(b.planes) / size {
		from, to := b.planes[p*size:][:size], out.planes[4*p*size:][:4*size]
		for y := range out.height {
			y0, y1 := neighbours(y, b.height)
			near, far := from[y0*b.width:][:b.width], from[y1*b.width:][:b.width]
			for x := range out.width {
				x0, x1 := neighbours(x, b.width)
				to[y*out.width+x] = mix(mix(near[x0], near[x1]), mix(far[x0], far[x1]))
			}
		}
	}
	return out.blurred()
}

// neighbours are the pixel of n that covers half-size pixel i, and the one that
// is next nearest to it, which the edge repeats.
func neighbours(i, n int) (near, far int) {
	near = i / 2
	if i%2 == 0 {
		return near, max(near-1, 0)
	}
	return near, min(near+1, n-1)
}

// mix weighs the nearer of two pixels as bilinear enlargement by 2 does.
func mix(near, far float32) float32 { return float32(0.75*near) + float32(0.25*far) }

// binomial is the kernel of the pyramid's blur, over 16.
var binomial = [5]float32{1, 4, 6, 4, 1}

// blurred is the band under the binomial kernel, reflected at the edges.
func (b band) blurred() band {
	rows := make([]float32, len(b.planes))
	for i := 0; i < len(rows); i += b.width {
		for x := range b.width {
			for k, w := range binomial {
				rows[i+x] += float32(w / 16 * b.planes[i+reflect(x+k-2, b.width)])
			}
		}
	}
	out := make([]float32, len(b.planes))
	size := b.height * b.width
	for p := 0; p < len(out); p += size {
		for y := range b.height {
			for k, w := range binomial {
				from := rows[p+reflect(y+k-2, b.height)*b.width:][:b.width]
				for x, v := range from {
					out[p+y*b.width+x] += float32(w / 16 * v)
				}
			}
		}
	}
	return band{out, b.height, b.width}
}
