package models

import (
	"fmt"
	"math"

	"sagbench/models/tensor"
)

// PIL is torchvision's Resize of a PIL image, which dgm-eval reads DINOv2's
// images with: bicubic with antialiasing, rounded to bytes.
const PIL Resize = "pil"

// resizedPixels are images as [N,3,size,size] in [0,255].
func resizedPixels(r Resize, images Images, size int) (tensor.Tensor, error) {
	if r != PIL {
		return tensor.Tensor{}, fmt.Errorf("models: resize %q: known is %s", r, PIL)
	}
	small := pilResize(images, size, size)
	x, plane := tensor.New(images.N, 3, size, size), size*size
	for i := range images.N * plane {
		for c := range 3 {
			x.Data[(i/plane*3+c)*plane+i%plane] = float32(small.Pixels[3*i+c])
		}
	}
	return x, nil
}

// pilBits is the number of fractional bits of the weights: Pillow
// src/libImaging/Resample.c PRECISION_BITS.
const pilBits = 32 - 8 - 2

// pilResize is Image.resize((width, height), BICUBIC) of Pillow on RGB images
// [N,H,W,3] → [N,height,width,3], to the bit: antialiased, weights in fixed
// point, first along rows and then along columns, each pass rounded and clipped
// to bytes (Resample.c ImagingResampleInner, Pillow 10.4). An axis that has its
// length already is left alone. It is what torchvision's Resize does to a PIL
// image. Pillow 13 begins with the columns where an image is taller than wide,
// which moves some bytes.
func pilResize(images Images, height, width int) Images {
	src := images.Pixels
	h := images.Height
	if images.Width != width {
		taps := pilTaps(images.Width, width)
		dst := make([]uint8, images.N*h*width*3)
		for row := range images.N * h {
			pilRow(dst[row*width*3:(row+1)*width*3], src[row*images.Width*3:], taps)
		}
		src = dst
	}
	if h != height {
		taps, stride := pilTaps(h, height), width*3
		dst := make([]uint8, images.N*height*stride)
		for i := range images.N {
			for y, t := range taps {
				pilColumns(dst[(i*height+y)*stride:][:stride], src[(i*h+t.first)*stride:], t.weights)
			}
		}
		src = dst
	}
	return Images{N: images.N, Height: height, Width: width, Pixels: src}
}

// pilRow resamples one row of pixels.
func pilRow(dst, src []uint8, taps []pilTap) {
	for x, t := range taps {
		p := src[3*t.first:]
		r, g, b := int32(1<<(pilBits-1)), int32(1<<(pilBits-1)), int32(1<<(pilBits-1))
		for j, w := range t.weights {
			r += int32(p[3*j]) * w
			g += int32(p[3*j+1]) * w
			b += int32(p[3*j+2]) * w
		}
		dst[3*x], dst[3*x+1], dst[3*x+2] = pilByte(r), pilByte(g), pilByte(b)
	}
}

// pilColumns adds rows of pixels, which lie one after the other.
func pilColumns(dst, src []uint8, weights []int32) {
	for x := range dst {
		sum := int32(1 << (pilBits - 1))
		for j, w := range weights {
			sum += int32(src[j*len(dst)+x]) * w
		}
		dst[x] = pilByte(sum)
	}
}

func pilByte(sum int32) uint8 { return uint8(min(max(sum>>pilBits, 0), 255)) }

// A pilTap is what one pixel of the result is made of.
type pilTap struct {
	first   int // of the source
	weights []int32
}

// pilTaps is precompute_coeffs and normalize_coeffs_8bpc for BICUBIC.
func pilTaps(in, out int) []pilTap {
	scale := float64(in) / float64(out)
	widen := max(scale, 1)
	support := 2 * widen
	taps := make([]pilTap, out)
	for i := range taps {
		center := (float64(i) + 0.5) * scale
		first := max(int(center-support+0.5), 0)
		end := min(int(center+support+0.5), in)
		weights, sum := make([]float64, end-first), 0.0
		for j := range weights {
			weights[j] = bicubic((float64(first+j) - center + 0.5) * (1 / widen))
			sum += weights[j]
		}
		taps[i] = pilTap{first, make([]int32, len(weights))}
		for j, w := range weights {
			taps[i].weights[j] = int32(w/sum*(1<<pilBits) + math.Copysign(0.5, w/sum))
		}
	}
	return taps
}
