package models

import "math"

// positionWeights is interpolate_pos_encoding as a matrix [side²,grid²] that is
// applied to the patches' position embeddings. Networks with registers are
// published for antialiased interpolation to a size, the others for plain
// bicubic interpolation by the factor (side+0.1)/grid.
func positionWeights(grid, side int, antialias bool) []float32 {
	axis := torchBicubic(grid, side, float64(side)+0.1)
	if antialias {
		axis = make([]float32, side*grid)
		for i, t := range bicubicTaps[float32](grid, side) {
			for j, w := range t.weights {
				axis[i*grid+t.first+j] = float32(w)
			}
		}
	}
	w := make([]float32, side*side*grid*grid)
	for i := range side * side {
		for j := range grid * grid {
			w[i*grid*grid+j] = axis[i/side*grid+j/grid] * axis[i%side*grid+j%grid]
		}
	}
	return w
}

// torchBicubic is torch's interpolate(mode="bicubic", align_corners=False) by
// the factor scaled/in, as weights [out,in]: the Keys kernel with a = −0.75 and
// borders repeated, in float32 (aten UpSample.h cubic_convolution1).
func torchBicubic(in, out int, scaled float64) []float32 {
	const a = -0.75
	near := func(x float32) float32 { return ((a+2)*x-(a+3))*x*x + 1 }
	far := func(x float32) float32 { return ((a*x-5*a)*x+8*a)*x - 4*a }
	step := float32(1 / (scaled / float64(in)))
	w := make([]float32, out*in)
	for i := range out {
		source := step*(float32(i)+0.5) - 0.5
		first := math.Floor(float64(source))
		t := source - float32(first)
		for j, v := range []float32{far(t + 1), near(t), near(1 - t), far(2 - t)} {
			w[i*in+min(max(int(first)-1+j, 0), in-1)] += v
		}
	}
	return w
}
