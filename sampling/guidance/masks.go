package guidance

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// The masks that SAG can blur under. selfAttention is the method's; the others
// are what it is compared with.
const (
	selfAttention = "self_attention"
	noMask        = "none"
	randomMask    = "random"
	squareMask    = "square"
	highFrequency = "high_frequency"
)

// A maskKind is a way to choose the pixels that are blurred.
type maskKind struct {
	mapped bool // it needs the attention map
	// draws is how many random numbers an image needs whose map has that many
	// positions; nil for none.
	draws func(positions int) int
	// choose sets w.mask, and tells whether it holds anywhere.
	choose func(d *degrader, w *workspace, im *entry) bool
}

// maskKinds are the masks by their name.
var maskKinds = map[string]maskKind{
	selfAttention: {mapped: true, choose: func(d *degrader, w *workspace, im *entry) bool {
		return d.masker.mask(w.mask, im.attention, d.threshold)
	}},
	noMask: {choose: func(_ *degrader, w *workspace, _ *entry) bool {
		for j := range w.mask {
			w.mask[j] = true
		}
		return true
	}},
	randomMask:    {mapped: true, draws: func(positions int) int { return positions }, choose: chooseRandom},
	squareMask:    {mapped: true, draws: func(int) int { return 2 }, choose: chooseSquare},
	highFrequency: {choose: chooseHighFrequency},
}

// random are random numbers for the step's images, [N,draws]; the zero tensor
// where the mask needs none.
func (k *maskKind) random(s *sampling.Step, positions int) (tensor.Tensor, error) {
	if k.draws == nil {
		return tensor.Tensor{}, nil
	}
	u := tensor.New(s.X.Rows(), k.draws(positions))
	return u, s.Random(u)
}

// chooseRandom masks as many positions of the layer as the self-attention mask,
// any of them: those of the smallest random numbers.
func chooseRandom(d *degrader, w *workspace, im *entry) bool {
	count := 0
	order := make([]int, len(im.attention))
	for i, mass := range im.attention {
		order[i] = i
		if mass > d.threshold {
			count++
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(im.random[a], im.random[b]) })
	chosen := make([]float32, len(order))
	for _, i := range order[:count] {
		chosen[i] = 1
	}
	return d.masker.mask(w.mask, chosen, 0)
}

// chooseSquare masks as many pixels as the self-attention mask: a square at a
// random place, whose last row is cut to the number; a rectangle where the image
// is narrower than the square.
func chooseSquare(d *degrader, w *workspace, im *entry) bool {
	d.masker.mask(w.mask, im.attention, d.threshold)
	area := 0
	for j, masked := range w.mask {
		if masked {
			area++
		}
		w.mask[j] = false
	}
	if area == 0 {
		return false
	}
	height, width := d.blur.vertical.n, d.blur.horizontal.n
	side := int(math.Ceil(math.Sqrt(float64(area))))
	columns := max(min(side, width), divideUp(area, height))
	top, left := oneOf(im.random[0], height-divideUp(area, columns)+1), oneOf(im.random[1], width-columns+1)
	for k := range area {
		w.mask[(top+k/columns)*width+left+k%columns] = true
	}
	return true
}

// oneOf is one of 0 … n-1 for a number on [0,1).
func oneOf(u float32, n int) int { return int(float64(u) * float64(n)) }

// divideUp is a/b, rounded up.
func divideUp(a, b int) int { return (a + b - 1) / b }

// chooseHighFrequency masks the pixels where what the blur takes from x̂0, all
// channels together, has more than ψ times the image's mean energy.
func chooseHighFrequency(d *degrader, w *workspace, im *entry) bool {
	energy := make([]float64, len(w.mask))
	for j := range w.mask {
		w.mask[j] = true
	}
	d.blur.need(w)
	total := 0.0
	for c := 0; c < len(im.x); c += len(energy) {
		d.predicted(w, im.x[c:], im.output[c:])
		d.blur.blur(w)
		for j, x0 := range w.xStart {
			e := float64(x0 - w.blurred[j])
			energy[j] += float64(e * e)
			total += float64(e * e)
		}
	}
	threshold, anywhere := float64(d.threshold)*total/float64(len(energy)), false
	for j, e := range energy {
		w.mask[j] = e > threshold
		anywhere = anywhere || w.mask[j]
	}
	return anywhere
}

// A masker enlarges a layer's positions to the image's pixels.
type masker struct {
	gridHeight, gridWidth int
	rows                  []int // [H] → row of the grid
	columns               []int // [W] → column of the grid
}

// newMasker finds the grid of a layer with the given number of positions in an
// image of H×W pixels, and each pixel's position in it by nearest neighbours.
func newMasker(positions, height, width int) (masker, error) {
	h, w, err := grid(positions, height, width)
	if err != nil {
		return masker{}, err
	}
	return masker{h, w, nearest(h, height), nearest(w, width)}, nil
}

// positions is the number of the layer's positions.
func (m *masker) positions() int { return m.gridHeight * m.gridWidth }

// grid is the rows and columns of an attention map: in the image's proportion,
// or what halving the image, rounding up, leads to.
func grid(positions, height, width int) (h, w int, err error) {
	h = int(math.Round(math.Sqrt(float64(positions) * float64(height) / float64(width))))
	if h > 0 && positions%h == 0 && h*width == positions/h*height {
		return h, positions / h, nil
	}
	for h, w = height, width; ; h, w = (h+1)/2, (w+1)/2 {
		if h*w == positions {
			return h, w, nil
		}
		if h*w < positions || h*w <= 1 {
			return 0, 0, fmt.Errorf("its attention map has %d positions, which are no grid in the proportion of the %d×%d image", positions, height, width)
		}
	}
}

// nearest is the source index of each target index, as torch's
// interpolate(mode="nearest") finds it: floor of a float32 product.
func nearest(from, to int) []int {
	scale := float32(from) / float32(to)
	index := make([]int, to)
	for i := range index {
		index[i] = min(int(float32(i)*scale), from-1)
	}
	return index
}

// mask sets dst, [H·W], where the position's attention is above the threshold,
// and tells whether it is anywhere.
func (m masker) mask(dst []bool, attention []float32, threshold float32) bool {
	anywhere := false
	for y, r := range m.rows {
		row, cells := dst[y*len(m.columns):][:len(m.columns)], attention[r*m.gridWidth:][:m.gridWidth]
		for x, c := range m.columns {
			above := cells[c] > threshold
			row[x] = above
			anywhere = anywhere || above
		}
	}
	return anywhere
}
