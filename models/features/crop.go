package features

// centrePIL is what CLIP's image processors do to a PIL image: bytesPIL to a short side of
// the network's size, the long side int(size·long/short), and of that the centre's
// square. half is how the offset of the crop is rounded, which differs:
// (over)//2 in transformers (image_transforms.py center_crop), int(round(over/2)) in
// torchvision (transforms/functional.py center_crop). Only the pixels of the
// square are computed.
type centrePIL struct{ half func(over int) int }

func (k centrePIL) plane(dst []float32, size int, src []float32, h, w int) {
	high, wide := size, size
	if h <= w {
		wide = size * w / h
	} else {
		high = size * h / w
	}
	windowPIL(dst, size, src, h, w, high, wide, k.half(high-size), k.half(wide-size))
}

// squarePIL crops the centre's square of the original image, with offsets rounded
// down, and then does what bytesPIL does: google-research cmmd/io_util.py
// _center_crop_and_resize.
type squarePIL struct{}

func (squarePIL) plane(dst []float32, size int, src []float32, h, w int) {
	if side := min(h, w); side < max(h, w) {
		square := make([]float32, side*side)
		for y := range side {
			copy(square[y*side:][:side], src[((h-side)/2+y)*w+(w-side)/2:])
		}
		src, h, w = square, side, side
	}
	bytesPIL{}.plane(dst, size, src, h, w)
}

// windowPIL is the window [size,size] at (top,left) of what bytesPIL would make of src
// [h,w] at [high,wide].
func windowPIL(dst []float32, size int, src []float32, h, w, high, wide, top, left int) {
	rows := windowTaps(h, high, top, size)
	first, end := rows[0].first, rows[size-1].first+len(rows[size-1].weights)
	narrow := make([]float32, (end-first)*size) // rows first to end at the width of the window
	across := windowTaps(w, wide, left, size)
	for y := first; y < end; y++ {
		line, out := src[y*w:][:w], narrow[(y-first)*size:][:size]
		if w == wide {
			copy(out, line[left:])
			continue
		}
		for x, t := range across {
			sum := int32(1) << (pilBits - 1)
			for j, v := range line[t.first:][:len(t.weights)] {
				sum += int32(v) * t.weights[j]
			}
			out[x] = pilByte(sum)
		}
	}
	if h == high {
		copy(dst, narrow)
		return
	}
	sums := make([]int32, size)
	for y, t := range rows {
		for x := range sums {
			sums[x] = 1 << (pilBits - 1)
		}
		for j, weight := range t.weights {
			for x, v := range narrow[(t.first-first+j)*size:][:size] {
				sums[x] += int32(v) * weight
			}
		}
		for x, sum := range sums {
			dst[y*size+x] = pilByte(sum)
		}
	}
}

// pilByte is a sum of weighted bytes as a byte.
func pilByte(sum int32) float32 { return float32(min(max(sum>>pilBits, 0), 255)) }

// windowTaps are pilTaps from in to out pixels, those of size pixels from one on. An
// axis that keeps its length has each pixel as it is.
func windowTaps(in, out, from, size int) []tap[int32] {
	if in != out {
		return pilTaps(in, out)[from:][:size]
	}
	taps := make([]tap[int32], size)
	for i := range taps {
		taps[i] = tap[int32]{from + i, []int32{1 << pilBits}}
	}
	return taps
}
