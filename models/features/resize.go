package features

import (
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"sagbench/models"
	"sagbench/sampling/tensor"
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

	CLIPCrop   Resize = "clip"   // as PIL until the short side fits, then the centre: transformers' CLIPImageProcessor on PIL images
	OpenAICrop Resize = "openai" // the same with the crop's offset rounded half to even: openai/CLIP, OpenCLIP, clipscore
	CMMDCrop   Resize = "cmmd"   // the centre's square first, then as PIL: google-research/cmmd
)

// Resizes holds the preprocessings by name.
var Resizes = map[Resize]resizer{
	TF:    {resample: bilinear{asymmetric, lerp}, divisor: 1, scale: 1.0 / 128, shift: -1},
	Torch: {resample: bilinear{halfPixel, weigh}, divisor: 255, scale: 2, shift: -1},
	Clean: {resample: bicubicPIL[float64]{clip: true}, divisor: 1, scale: 1.0 / 128, shift: -1},
	PIL:   {resample: bytesPIL{}, divisor: 1, scale: 1.0 / 128, shift: -1},
	EDM2:  {resample: bicubicPIL[float32]{}, divisor: 1, scale: 1.0 / 128, shift: -1},

	CLIPCrop:   {resample: centrePIL{half: func(over int) int { return over / 2 }}, divisor: 1, scale: 1.0 / 128, shift: -1},
	OpenAICrop: {resample: centrePIL{half: func(over int) int { return int(math.RoundToEven(float64(over) / 2)) }}, divisor: 1, scale: 1.0 / 128, shift: -1},
	CMMDCrop:   {resample: squarePIL{}, divisor: 1, scale: 1.0 / 128, shift: -1},
}

// ResizeNames lists the preprocessings, for messages and the settings' docs.
const ResizeNames = "tf, torch, clean, pil, edm2, clip, openai or cmmd"

// resizerOf is what brings images to a network.
func resizerOf(r Resize, images models.Images) (resizer, error) {
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
func resizedPixels(r Resize, images models.Images, size int) (tensor.Tensor, error) {
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
func (r resizer) resized(images models.Images, size int) []float32 {
	return r.each(images, size, func([]float32) {})
}

// input is what the network looks at, [N,3,size,size].
func (r resizer) input(images models.Images, size int) []float32 {
	return r.each(images, size, func(plane []float32) {
		for i, v := range plane {
			plane[i] = float32(v*r.scale) + r.shift
		}
	})
}

// each resizes the images, several at once, and calls finish with each plane while
// it is in the processor's cache.
func (r resizer) each(images models.Images, size int, finish func(plane []float32)) []float32 {
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
	narrow, held := make([]float32, 2*size), [2]int{-1, -1} // the last two lines, which stay in the processor's cache
	line := func(y int) []float32 {                         // of the source, at the width of the result
		out := narrow[y%2*size:][:size]
		if held[y%2] != y {
			in := src[y*w:][:w]
			for x, t := range columns {
				left[x], right[x] = in[t.lo], in[t.hi]
			}
			k.mix(out, left, right, across)
			held[y%2] = y
		}
		return out
	}
	for y, t := range rows {
		for x := range down {
			down[x] = t.frac
		}
		k.mix(dst[y*size:][:size], line(t.lo), line(t.hi), down)
	}
}

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
type bicubicPIL[T float32 | float64] struct{ clip bool }

func (k bicubicPIL[T]) plane(dst []float32, size int, src []float32, h, w int) {
	resampled(dst, size, src, h, w, bicubicTaps[T], 0, func(sum float64) float32 { return float32(sum) })
	if !k.clip {
		return
	}
	for i, v := range dst {
		dst[i] = min(max(v, 0), 255)
	}
}

// resampled brings src [h,w] to dst [size,size] by weighted sums, first along the
// rows and then along the columns; an axis that has its length already is left
// alone. Sums begin at start, and finish makes values of them.
func resampled[W int32 | float64](dst []float32, size int, src []float32, h, w int, taps func(in, out int) []tap[W], start W, finish func(W) float32) {
	if w != size {
		narrow := make([]float32, h*size)
		columns := taps(w, size)
		for y := range h {
			line, out := src[y*w:][:w], narrow[y*size:][:size]
			for x, t := range columns {
				sum := start
				for j, v := range line[t.first:][:len(t.weights)] {
					sum += W(W(v) * t.weights[j])
				}
				out[x] = finish(sum)
			}
		}
		src = narrow
	}
	if h == size {
		copy(dst, src)
		return
	}
	sums := make([]W, size)
	for y, t := range taps(h, size) {
		for x := range sums {
			sums[x] = start
		}
		for j, weight := range t.weights {
			for x, v := range src[(t.first+j)*size:][:size] {
				sums[x] += W(W(v) * weight)
			}
		}
		for x, sum := range sums {
			dst[y*size+x] = finish(sum)
		}
	}
}

// A tap is the pixels of the source that one of the result is made of.
type tap[W int32 | float64] struct {
	first   int
	weights []W
}

// bicubicTaps is precompute_coeffs, or in float32 torch's
// compute_index_ranges_weights: the Keys kernel with a = −0.5, widened by the
// ratio where it shrinks.
func bicubicTaps[T float32 | float64](in, out int) []tap[float64] {
	ratio := T(in) / T(out)
	widen := max(ratio, 1)
	support := 2 * widen
	taps := make([]tap[float64], out)
	for i := range taps {
		center := T(float64(ratio) * (float64(i) + 0.5))
		first := max(int(float64(center-support)+0.5), 0)
		end := min(int(float64(center+support)+0.5), in)
		weights, sum := make([]T, end-first), T(0)
		for j := range weights {
			weights[j] = bicubic(T((float64(T(first+j)-center) + 0.5) * float64(1/widen)))
			sum += weights[j]
		}
		taps[i] = tap[float64]{first, make([]float64, len(weights))}
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

// bytesPIL is Image.resize(BICUBIC) of Pillow on an image of bytes, to the bit:
// antialiased, weights in fixed point, first along the rows and then along the
// columns, each pass rounded and clipped to bytes (Pillow 10.4
// src/libImaging/Resample.c ImagingResampleInner). An axis that has its length
// already is left alone. It is what torchvision's Resize does to a PIL image.
// Pillow 13 begins with the columns where an image is taller than wide, which
// moves some bytes.
type bytesPIL struct{}

// pilBits is the number of fractional bits of a weight: PRECISION_BITS.
const pilBits = 32 - 8 - 2

func (bytesPIL) plane(dst []float32, size int, src []float32, h, w int) {
	resampled(dst, size, src, h, w, pilTaps, 1<<(pilBits-1), func(sum int32) float32 { return float32(min(max(sum>>pilBits, 0), 255)) })
}

// pilTaps is normalize_coeffs_8bpc.
func pilTaps(in, out int) []tap[int32] {
	taps := make([]tap[int32], out)
	for i, t := range bicubicTaps[float64](in, out) {
		taps[i] = tap[int32]{t.first, make([]int32, len(t.weights))}
		for j, w := range t.weights {
			taps[i].weights[j] = int32(math.Copysign(0.5, w) + float64(w*(1<<pilBits)))
		}
	}
	return taps
}

// A PixelRange names the range in which a network takes pixels.
type PixelRange string

// The ranges, for v in [0,255].
const (
	ByteRange     PixelRange = "byte"     // v
	UnitRange     PixelRange = "unit"     // v/255
	SignedRange   PixelRange = "signed"   // 2·(v/255) − 1
	ImageNetRange PixelRange = "imagenet" // (v/255 − mean)/std, a channel its own
)

// The mean and the standard deviation of ImageNet's channels in [0,1] that
// torchvision names.
var imageNetMean, imageNetStd = [3]float32{0.485, 0.456, 0.406}, [3]float32{0.229, 0.224, 0.225}

// pixelRanges map v in [0,255] of a channel, in float32 and in torch's order.
var pixelRanges = map[PixelRange]func(v float32, channel int) float32{
	ByteRange:   func(v float32, _ int) float32 { return v },
	UnitRange:   func(v float32, _ int) float32 { return v / 255 },
	SignedRange: func(v float32, _ int) float32 { return float32(2*float32(v/255)) - 1 },
	ImageNetRange: func(v float32, channel int) float32 {
		return float32(float32(v/255)-imageNetMean[channel]) / imageNetStd[channel]
	},
}

// apply maps images [N,3,H,W] in [0,255].
func (p PixelRange) apply(x tensor.Tensor) {
	f, plane := pixelRanges[p], x.RowLen()/3
	for i, v := range x.Data {
		x.Data[i] = f(v, i/plane%3)
	}
}
