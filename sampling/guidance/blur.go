package guidance

import "math"

// gaussian is the kernel of torchvision's GaussianBlur, [width]: the density at
// the float32 offsets from the centre, normalised, in float32.
func gaussian(width int, sigma float64) []float32 {
	kernel := make([]float32, width)
	half := float32(width-1) * 0.5
	sum := 0.0
	for i := range kernel {
		q := (float32(i) - half) / float32(sigma)
		kernel[i] = float32(math.Exp(float64(-0.5 * float32(q*q))))
		sum += float64(kernel[i])
	}
	for i := range kernel {
		kernel[i] /= float32(sum)
	}
	return kernel
}

// reflect is the index in [0, n) that position i means under reflection at the
// centres of the first and last pixel, as often as it takes: torch's reflect
// padding, which refuses to fold more than once (an image narrower than half
// the kernel).
func reflect(i, n int) int {
	if n == 1 {
		return 0
	}
	period := 2 * (n - 1)
	i = ((i % period) + period) % period
	return min(i, period-i)
}

// An axis is the blur along an axis of n pixels as a linear operator R, n×n.
// A symmetric kernel and reflection at both ends make R[i][j] =
// R[n−1−i][n−1−j], so that with u_j = x_j + x_{n−1−j} and v_j = x_j − x_{n−1−j},
// j < ⌈n/2⌉, rows i and n−1−i are E·u ± O·v: half the products.
type axis struct {
	n    int
	rows []axisRow // ⌈n/2⌉
}

type axisRow struct {
	from int // first j
	taps []tap
}

type tap struct{ even, odd float32 } // E[i][j], O[i][j]

func newAxis(n int, kernel []float32) axis {
	a := axis{n, make([]axisRow, (n+1)/2)}
	full := make([]float64, n) // row i of R
	for i := range a.rows {
		clear(full)
		for k, weight := range kernel {
			full[reflect(i+k-len(kernel)/2, n)] += float64(weight)
		}
		taps := make([]tap, len(a.rows))
		for j := range taps {
			near, far := full[j]/2, full[n-1-j]/2
			if j == n-1-j { // the middle mirrors itself: u counts it twice
				near, far = near/2, far/2
			}
			taps[j] = tap{float32(near + far), float32(near - far)}
		}
		a.rows[i] = trim(taps)
	}
	return a
}

// trim leaves out the zeros at both ends.
func trim(taps []tap) axisRow {
	from, to := 0, len(taps)
	for from < to && taps[from] == (tap{}) {
		from++
	}
	for from < to && taps[to-1] == (tap{}) {
		to--
	}
	return axisRow{from, taps[from:to]}
}

// lanes is how many columns apply works on at once.
const lanes = 4

// A fold holds u and v of one row of the image for `lanes` columns.
type fold struct{ u, v [lanes]float32 }

// apply sets dst, [m,n], to the transpose of R·src, src [n,m]; work is
// ⌈n/2⌉ long. Where needed is not nil, [⌈n/2⌉, ⌈m/lanes⌉], rows i and n−1−i are computed only for the
// groups of columns that it names.
func (a *axis) apply(dst, src []float32, m int, work []fold, needed []bool) {
	half, groups := len(a.rows), (m+lanes-1)/lanes
	for g := range groups {
		columns := min(lanes, m-g*lanes)
		folds := work[:half]
		for j := range folds {
			near, far := src[j*m+g*lanes:][:columns], src[(a.n-1-j)*m+g*lanes:][:columns]
			f := &folds[j]
			for c, v := range near {
				f.u[c], f.v[c] = v+far[c], v-far[c]
			}
		}
		for i := range a.rows {
			if needed != nil && !needed[i*groups+g] {
				continue
			}
			sum, difference := a.rows[i].dot(folds)
			for c := range columns {
				out := dst[(g*lanes+c)*a.n:][:a.n]
				out[i], out[a.n-1-i] = sum[c], difference[c]
			}
		}
	}
}

// dot is E·u + O·v and E·u − O·v.
func (r *axisRow) dot(folds []fold) (sum, difference [lanes]float32) {
	folds = folds[r.from:][:len(r.taps)]
	var e0, e1, e2, e3, o0, o1, o2, o3 float32
	for k := range r.taps {
		t, f := &r.taps[k], &folds[k]
		e0 += float32(t.even * f.u[0])
		e1 += float32(t.even * f.u[1])
		e2 += float32(t.even * f.u[2])
		e3 += float32(t.even * f.u[3])
		o0 += float32(t.odd * f.v[0])
		o1 += float32(t.odd * f.v[1])
		o2 += float32(t.odd * f.v[2])
		o3 += float32(t.odd * f.v[3])
	}
	return [lanes]float32{e0 + o0, e1 + o1, e2 + o2, e3 + o3}, [lanes]float32{e0 - o0, e1 - o1, e2 - o2, e3 - o3}
}

// A blur is the two passes of a separable Gaussian blur of H×W pixels.
type blur struct{ vertical, horizontal axis }

func newBlur(height, width, kernel int, sigma float64) blur {
	weights := gaussian(kernel, sigma)
	b := blur{vertical: newAxis(height, weights)}
	if b.horizontal = b.vertical; width != height {
		b.horizontal = newAxis(width, weights)
	}
	return b
}

// A workspace is the memory in which one image is blurred.
type workspace struct {
	xStart, upright, blurred []float32 // [H,W], [W,H], [H,W]
	eps                      []float32 // [H,W]
	mask                     []bool    // [H,W]
	needed                   []bool    // [⌈W/2⌉, ⌈H/lanes⌉]: groups that hold a masked pixel
	folds                    []fold
}

func (b *blur) newWorkspace() *workspace {
	h, w := b.vertical.n, b.horizontal.n
	return &workspace{
		xStart: make([]float32, h*w), upright: make([]float32, h*w), blurred: make([]float32, h*w),
		eps: make([]float32, h*w), mask: make([]bool, h*w), needed: make([]bool, len(b.horizontal.rows)*((h+lanes-1)/lanes)),
		folds: make([]fold, max(len(b.vertical.rows), len(b.horizontal.rows))),
	}
}

// need fills w.needed from w.mask.
func (b *blur) need(w *workspace) {
	clear(w.needed)
	height, width := b.vertical.n, b.horizontal.n
	groups := (height + lanes - 1) / lanes
	for y := range height {
		row := w.mask[y*width:][:width]
		for x, masked := range row {
			if masked {
				w.needed[min(x, width-1-x)*groups+y/lanes] = true
			}
		}
	}
}

// blur sets w.blurred to the blurred w.xStart, at least where w.needed asks.
func (b *blur) blur(w *workspace) {
	b.vertical.apply(w.upright, w.xStart, b.horizontal.n, w.folds, nil)
	b.horizontal.apply(w.blurred, w.upright, b.vertical.n, w.folds, w.needed)
}
