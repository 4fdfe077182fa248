package models

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"sagbench/models/tensor"
)

// A Resize names how an evaluator brings images to the network's input size
// and range.
type Resize string

const (
	TF    Resize = "tf"    // TensorFlow 1 bilinear, (x−128)/128: ADM's evaluator, torch-fidelity
	Torch Resize = "torch" // torch bilinear, 2x−1 for x in [0,1]: pytorch-fid
	Clean Resize = "clean" // PIL bicubic with antialiasing, (x−128)/128: clean-fid
	PIL   Resize = "pil"   // the same rounded to bytes, as images in files are resized: dgm-eval
	EDM2  Resize = "edm2"  // torch bicubic with antialiasing, neither clipped nor rounded: EDM2's default
)

// Resizes holds the preprocessings by name.
var Resizes = map[Resize]resizer{
	TF:    {resample: bilinear{asymmetric, lerp}, divisor: 1, scale: 1.0 / 128, shift: -1},
	Torch: {resample: bilinear{halfPixel, weigh}, divisor: 255, scale: 2, shift: -1},
	Clean: {resample: bicubicPIL{bicubicTaps[float64], true}, divisor: 1, scale: 1.0 / 128, shift: -1},
	PIL:   {resample: bytesPIL{}, divisor: 1, scale: 1.0 / 128, shift: -1},
	EDM2:  {resample: bicubicPIL{bicubicTaps[float32], false}, divisor: 1, scale: 1.0 / 128, shift: -1},
}

// resizerOf is what brings images to a network.
func resizerOf(r Resize, images Images) (resizer, error) {
	resize, ok := Resizes[r]
	if !ok {
		return resizer{}, fmt.Errorf("models: resize %q: known are %v", r, slices.Sorted(maps.Keys(Resizes)))
	}
	if images.Height < 1 || images.Width < 1 {
		return resizer{}, fmt.Errorf("models: images of %d×%d pixels", images.Height, images.Width)
	}
	return resize, nil
}

// resizedPixels are images as [N,3,size,size] in [0,255], for networks with a
// range of their own.
func resizedPixels(r Resize, images Images, size int) (tensor.Tensor, error) {
	resize, err := resizerOf(r, images)
	if err != nil {
		return tensor.Tensor{}, err
	}
	resize.divisor = 1
	return tensor.Of(resize.resized(images, size), images.N, 3, size, size), nil
}

// channelsLast turns [N,3,S,S] into [N,S,S,3].
func channelsLast(x tensor.Tensor) tensor.Tensor {
	n, size := x.Shape[0], x.Shape[2]
	out, pixels := tensor.New(n, size, size, 3), size*size
	for i, v := range x.Data {
		plane, at := i/pixels, i%pixels
		out.Data[(plane/3*pixels+at)*3+plane%3] = v
	}
	return out
}

// A resizer divides images by divisor, resamples them, and maps them to the
// network's range by scale and shift. Each does the operations of its original
// one by one in the same precision, so that the result has its bits; the
// conversions to float32 keep the compiler from fusing them.
type resizer struct {
	resample              resampler
	divisor, scale, shift float32
}

// A resampler brings one channel to another size.
type resampler interface {
	// plane resamples src [h,w] to dst [size,size].
	plane(dst []float32, size int, src []float32, h, w int)
}

// resized are images [N,3,size,size] in the range before the network's.
func (r resizer) resized(images Images, size int) []float32 {
	return r.each(images, size, func([]float32) {})
}

// input is what the network looks at, [N,3,size,size].
func (r resizer) input(images Images, size int) []float32 {
	return r.each(images, size, func(plane []float32) {
		for i, v := range plane {
			plane[i] = float32(v*r.scale) + r.shift
		}
	})
}

// each resizes the images, at once where there are several, and calls finish
// with each of their planes.
func (r resizer) each(images Images, size int, finish func(plane []float32)) []float32 {
	var level [256]float32
	for i := range level {
		level[i] = float32(i) / r.divisor
	}
	pixels := images.Height * images.Width
	out := make([]float32, images.N*3*size*size)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for n := range images.N {
		g.Go(func() error {
			src := make([]float32, pixels)
			for c := range 3 {
				in := images.Pixels[n*pixels*3+c:]
				for p := range src {
					src[p] = level[in[3*p]]
				}
				plane := out[(n*3+c)*size*size:][:size*size]
				r.resample.plane(plane, size, src, images.Height, images.Width)
				finish(plane)
			}
			return nil
		})
	}
	g.Wait()
	return out
}

// A bilinear resampler has for each pixel of the result a position in the
// source, and a way to mix the two pixels there: along the rows, then along the
// columns.
type bilinear struct {
	position func(i int, scale float32) float32
	mix      func(dst, a, b, f []float32) // f of the way from a to b
}

// asymmetric is TensorFlow 1's ResizeBilinear with align_corners and
// half_pixel_centers off.
func asymmetric(i int, scale float32) float32 { return float32(i) * scale }

// halfPixel is torch's interpolate(mode="bilinear", align_corners=False), whose
// kernels fuse the product and the sum.
func halfPixel(i int, scale float32) float32 {
	return max(float32(float64(scale)*(float64(i)+0.5)-0.5), 0)
}

// lerp is TensorFlow's compute_lerp.
func lerp(dst, a, b, f []float32) {
	for i, v := range a {
		dst[i] = v + float32((b[i]-v)*f[i])
	}
}

// weigh is torch's upsample_generic_Nd_kernel_impl.
func weigh(dst, a, b, f []float32) {
	for i, v := range a {
		dst[i] = float32(v*(1-f[i])) + float32(b[i]*f[i])
	}
}

func (k bilinear) plane(dst []float32, size int, src []float32, h, w int) {
	columns, rows := k.taps(size, w), k.taps(size, h)
	across, down := make([]float32, size), make([]float32, size)
	for x, t := range columns {
		across[x] = t.frac
	}
	left, right := make([]float32, size), make([]float32, size)
	narrow := func(r *row, y int) {
		if r.y == y {
			return
		}
		r.y = y
		line := src[y*w:][:w]
		for x, t := range columns {
			left[x], right[x] = line[t.lo], line[t.hi]
		}
		k.mix(r.values, left, right, across)
	}
	above, below := newRow(size), newRow(size)
	for y, t := range rows {
		if below.y == t.lo {
			above, below = below, above
		}
		narrow(above, t.lo)
		narrow(below, t.hi)
		for x := range down {
			down[x] = t.frac
		}
		k.mix(dst[y*size:][:size], above.values, below.values, down)
	}
}

// A row is a line of the source at the width of the result.
type row struct {
	y      int
	values []float32
}

func newRow(size int) *row { return &row{-1, make([]float32, size)} }

// A bilinearTap is the two pixels that one of the result lies between.
type bilinearTap struct {
	lo, hi int
	frac   float32
}

func (k bilinear) taps(size, in int) []bilinearTap {
	scale := float32(in) / float32(size)
	taps := make([]bilinearTap, size)
	for i := range taps {
		at := k.position(i, scale)
		lo := min(int(at), in-1)
		taps[i] = bilinearTap{lo, min(lo+1, in-1), at - float32(lo)}
	}
	return taps
}

// bicubicPIL is Image.resize(BICUBIC) of a PIL image of mode F, which clean-fid
// clips to [0,255]: antialiased, float64 sums, first along the rows
// and then along the columns, each stored as float32. Pillow
// src/libImaging/Resample.c. With taps in float32 it is torch's
// interpolate(mode="bicubic", antialias=True), but for the rounding of sums.
type bicubicPIL struct {
	taps func(in, out int) []bicubicTap
	clip bool
}

func (k bicubicPIL) plane(dst []float32, size int, src []float32, h, w int) {
	if w != size {
		narrow := make([]float32, h*size)
		taps := k.taps(w, size)
		for y := range h {
			line, out := src[y*w:][:w], narrow[y*size:][:size]
			for x, t := range taps {
				sum := 0.0
				for j, v := range line[t.first:][:len(t.weights)] {
					sum += float64(float64(v) * t.weights[j])
				}
				out[x] = float32(sum)
			}
		}
		src = narrow
	}
	if h == size {
		copy(dst, src)
	} else {
		sums := make([]float64, size)
		for y, t := range k.taps(h, size) {
			clear(sums)
			for j, weight := range t.weights {
				for x, v := range src[(t.first+j)*size:][:size] {
					sums[x] += float64(float64(v) * weight)
				}
			}
			for x, v := range sums {
				dst[y*size+x] = float32(v)
			}
		}
	}
	if !k.clip {
		return
	}
	for i, v := range dst {
		dst[i] = min(max(v, 0), 255)
	}
}

// A bicubicTap is the pixels of the source that one of the result is made of.
type bicubicTap struct {
	first   int
	weights []float64
}

// bicubicTaps is precompute_coeffs, or in float32 torch's
// compute_index_ranges_weights: the Keys kernel with a = −0.5, widened by the
// ratio where it shrinks.
func bicubicTaps[T float32 | float64](in, out int) []bicubicTap {
	ratio := T(in) / T(out)
	widen := max(ratio, 1)
	support := 2 * widen
	taps := make([]bicubicTap, out)
	for i := range taps {
		center := T(float64(ratio) * (float64(i) + 0.5))
		first := max(int(float64(center-support)+0.5), 0)
		end := min(int(float64(center+support)+0.5), in)
		weights, sum := make([]T, end-first), T(0)
		for j := range weights {
			weights[j] = bicubic(T((float64(T(first+j)-center) + 0.5) * float64(1/widen)))
			sum += weights[j]
		}
		taps[i] = bicubicTap{first, make([]float64, len(weights))}
		for j, w := range weights {
			taps[i].weights[j] = float64(w / sum)
		}
	}
	return taps
}

func bicubic[T float32 | float64](x T) T {
	const a = -0.5
	if x < 0 {
		x = -x
	}
	switch {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}
