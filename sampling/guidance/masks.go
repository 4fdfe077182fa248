package guidance

import (
	"cmp"
	"math"
	"slices"

	"sagbench/models/tensor"
	"sagbench/sampling"
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
	// draws is how many random numbers an image needs, of a map with so many
	// positions; nil for none.
	draws func(positions int) int
	// choose sets w.mask, and tells whether it holds anywhere.
	choose func(d *degrader, w *workspace, im *degraded) bool
}

// maskKinds are the masks by their name.
var maskKinds = map[string]maskKind{
	selfAttention: {mapped: true, choose: func(d *degrader, w *workspace, im *degraded) bool {
		return d.masker.mask(w.mask, im.attention, d.threshold)
	}},
	noMask: {choose: func(_ *degrader, w *workspace, _ *degraded) bool {
		for j := range w.mask {
			w.mask[j] = true
		}
		return true
	}},
	randomMask:    {mapped: true, draws: func(positions int) int { return positions }, choose: chooseRandom},
	squareMask:    {mapped: true, draws: func(int) int { return 2 }, choose: chooseSquare},
	highFrequency: {choose: chooseHighFrequency},
}

// drawn are the random numbers of the step's images, [N,draws]; the zero tensor
// where the mask needs none.
func (k *maskKind) drawn(s *sampling.Step, positions int) (tensor.Tensor, error) {
	if k.draws == nil {
		return tensor.Tensor{}, nil
	}
	u := tensor.New(s.X.Rows(), k.draws(positions))
	return u, s.Random(u)
}

// chooseRandom masks as many positions of the layer as the self-attention mask,
// any of them: those of the smallest random numbers.
func chooseRandom(d *degrader, w *workspace, im *degraded) bool {
	count := 0
	order := make([]int, len(im.attention))
	for i, mass := range im.attention {
		order[i] = i
		if mass > d.threshold {
			count++
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(im.drawn[a], im.drawn[b]) })
	chosen := make([]float32, len(order))
	for _, i := range order[:count] {
		chosen[i] = 1
	}
	return d.masker.mask(w.mask, chosen, 0)
}

// chooseSquare masks as many pixels as the self-attention mask: a square at a
// random place, whose last row is cut to the number; a rectangle where the image
// is narrower than the square.
func chooseSquare(d *degrader, w *workspace, im *degraded) bool {
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
	columns := max(min(side, width), over(area, height))
	top, left := pick(im.drawn[0], height-over(area, columns)+1), pick(im.drawn[1], width-columns+1)
	for k := range area {
		w.mask[(top+k/columns)*width+left+k%columns] = true
	}
	return true
}

// pick is one of 0 … n-1 for a number on [0,1).
func pick(u float32, n int) int { return int(float64(u) * float64(n)) }

// over is a/b, rounded up.
func over(a, b int) int { return (a + b - 1) / b }

// chooseHighFrequency masks the pixels where what the blur takes from x̂0, all
// channels together, has more than ψ times the image's mean energy.
func chooseHighFrequency(d *degrader, w *workspace, im *degraded) bool {
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
	threshold, some := float64(d.threshold)*total/float64(len(energy)), false
	for j, e := range energy {
		w.mask[j] = e > threshold
		some = some || w.mask[j]
	}
	return some
}
