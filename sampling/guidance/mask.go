package guidance

import (
	"fmt"
	"math"
)

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
	some := false
	for y, r := range m.rows {
		row, cells := dst[y*len(m.columns):][:len(m.columns)], attention[r*m.gridWidth:][:m.gridWidth]
		for x, c := range m.columns {
			above := cells[c] > threshold
			row[x] = above
			some = some || above
		}
	}
	return some
}
