package models

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
	pixels := make([]int32, h*w)
	for i, v := range src {
		pixels[i] = int32(v)
	}
	if w != size {
		narrow, taps := make([]int32, h*size), pilTaps(w, size)
		for y := range h {
			line, out := pixels[y*w:][:w], narrow[y*size:][:size]
			for x, t := range taps {
				sum := int32(1 << (pilBits - 1))
				for j, v := range line[t.first:][:len(t.weights)] {
					sum += v * t.weights[j]
				}
				out[x] = pilByte(sum)
			}
		}
		pixels = narrow
	}
	if h != size {
		short, sums := make([]int32, size*size), make([]int32, size)
		for y, t := range pilTaps(h, size) {
			for x := range sums {
				sums[x] = 1 << (pilBits - 1)
			}
			for j, weight := range t.weights {
				for x, v := range pixels[(t.first+j)*size:][:size] {
					sums[x] += v * weight
				}
			}
			for x, sum := range sums {
				short[y*size+x] = pilByte(sum)
			}
		}
		pixels = short
	}
	for i, v := range pixels {
		dst[i] = float32(v)
	}
}

func pilByte(sum int32) int32 { return min(max(sum>>pilBits, 0), 255) }

// A pilTap is a bicubicTap in fixed point.
type pilTap struct {
	first   int
	weights []int32
}

// pilTaps is normalize_coeffs_8bpc.
func pilTaps(in, out int) []pilTap {
	taps := make([]pilTap, out)
	for i, t := range bicubicTaps[float64](in, out) {
		taps[i] = pilTap{t.first, make([]int32, len(t.weights))}
		for j, w := range t.weights {
			half := 0.5
			if w < 0 {
				half = -0.5
			}
			taps[i].weights[j] = int32(float64(w*(1<<pilBits)) + half)
		}
	}
	return taps
}
