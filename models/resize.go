package models

import (
	"math"

	"sagbench/models/onnx"
)

// A Resize names how an evaluator brings images to the network's input size
// and range.
type Resize string

const (
	TF    Resize = "tf"    // TensorFlow 1 bilinear, (x−128)/128: ADM's evaluator, torch-fidelity
	Torch Resize = "torch" // torch bilinear, 2x−1 for x in [0,1]: pytorch-fid
	Clean Resize = "clean" // PIL bicubic with antialiasing, (x−128)/128: clean-fid
)

// Resizes holds the preprocessings by name.
var Resizes = map[Resize]resizer{
	TF:    {kernel: asymmetricBilinear, scale: 1.0 / 128, shift: -1, divisor: 1},
	Torch: {kernel: halfPixelBilinear, scale: 2, shift: -1, divisor: 255},
	Clean: {kernel: antialiasedBicubic, clip: true, scale: 1.0 / 128, shift: -1, divisor: 1},
}

// A resizer is separable interpolation: every output pixel of an axis is a
// weighted sum of input pixels. The image is divided by divisor before, and
// mapped to the network's range by scale and shift after the interpolation.
type resizer struct {
	kernel                func(in, out int) []float32 // [out,in] weights
	clip                  bool                        // to [0,255], as bicubic overshoots
	divisor, scale, shift float32
}

// apply takes images [N,3,H,W] in [0,255] to the network's input [N,3,S,S], and
// to the resized image [N,S,S,3] before the network's range.
func (r resizer) apply(m *onnx.Module, x onnx.Value, size int) (input, resized onnx.Value) {
	if r.divisor != 1 {
		x = m.Div(x, m.Scalar(r.divisor))
	}
	height, width := x.Dim(2), x.Dim(3)
	if width != size {
		x = m.MatMul(x, m.Const(transposed(r.kernel(width, size), size, width), width, size))
	}
	if height != size {
		x = m.MatMul(m.Const(r.kernel(height, size), size, height), x)
	}
	if r.clip {
		x = m.Clip(x, 0, 255)
	}
	input = m.Add(m.Mul(x, m.Scalar(r.scale)), m.Scalar(r.shift))
	return input, m.Transpose(x, 0, 2, 3, 1)
}

func transposed(a []float32, rows, columns int) []float32 {
	t := make([]float32, len(a))
	for i := range rows {
		for j := range columns {
			t[j*rows+i] = a[i*columns+j]
		}
	}
	return t
}

// bilinear weights the two neighbours of each output pixel's source position.
func bilinear(in, out int, source func(i int) float32) []float32 {
	w := make([]float32, out*in)
	for i := range out {
		src := source(i)
		lo := min(int(src), in-1)
		frac := src - float32(lo)
		w[i*in+lo] += 1 - frac
		w[i*in+min(lo+1, in-1)] += frac
	}
	return w
}

// asymmetricBilinear is TensorFlow 1's ResizeBilinear with align_corners and
// half_pixel_centers off: the source of output pixel i is i·in/out.
func asymmetricBilinear(in, out int) []float32 {
	scale := float32(in) / float32(out)
	return bilinear(in, out, func(i int) float32 { return float32(i) * scale })
}

// halfPixelBilinear is torch's interpolate(mode="bilinear",
// align_corners=False) without antialiasing.
func halfPixelBilinear(in, out int) []float32 {
	scale := float32(in) / float32(out)
	return bilinear(in, out, func(i int) float32 { return max(scale*(float32(i)+0.5)-0.5, 0) })
}

// antialiasedBicubic is PIL's BICUBIC: the Keys kernel with a = −0.5, widened
// by the ratio where it shrinks. Pillow src/libImaging/Resample.c precompute_coeffs.
func antialiasedBicubic(in, out int) []float32 {
	ratio := float64(in) / float64(out)
	widen := max(ratio, 1)
	support := 2 * widen
	w := make([]float32, out*in)
	for i := range out {
		center := (float64(i) + 0.5) * ratio
		lo := max(int(center-support+0.5), 0)
		hi := min(int(center+support+0.5), in)
		sum := 0.0
		taps := make([]float64, hi-lo)
		for j := range taps {
			taps[j] = bicubic((float64(lo+j) - center + 0.5) / widen)
			sum += taps[j]
		}
		for j, t := range taps {
			w[i*in+lo+j] = float32(t / sum)
		}
	}
	return w
}

func bicubic(x float64) float64 {
	const a = -0.5
	switch x = math.Abs(x); {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}
