package features

import (
	"math/rand/v2"
	"slices"
	"testing"

	"sagbench/models"
)

// A window is the one that a resize of the whole leaves there.
func TestWindowPIL(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range [][3]int{{20, 20, 8}, {31, 20, 8}, {20, 47, 8}, {8, 13, 8}, {5, 9, 8}, {100, 8, 8}} {
		h, w, size := c[0], c[1], c[2]
		src := make([]float32, h*w)
		for i := range src {
			src[i] = float32(r.IntN(256))
		}
		high, wide := size, size
		if h <= w {
			wide = size * w / h
		} else {
			high = size * h / w
		}
		whole := make([]float32, high*wide)
		windowed(whole, src, h, w, high, wide)
		got, want := make([]float32, size*size), make([]float32, 0, size*size)
		top, left := (high-size)/2, (wide-size)/2
		for y := range size {
			want = append(want, whole[(top+y)*wide+left:][:size]...)
		}
		if (centrePIL{func(over int) int { return over / 2 }}).plane(got, size, src, h, w); !slices.Equal(got, want) {
			t.Errorf("%d×%d: the window differs from the whole", h, w)
		}
	}
}

// windowed resizes pixel by pixel, in the definition's order: rows first.
func windowed(dst, src []float32, h, w, high, wide int) {
	narrow := make([]float32, h*wide)
	for y := range h {
		for x := range wide {
			if narrow[y*wide+x] = src[y*w+min(x, w-1)]; w != wide {
				t := pilTaps(w, wide)[x]
				sum := int32(1) << (pilBits - 1)
				for j, weight := range t.weights {
					sum += int32(src[y*w+t.first+j]) * weight
				}
				narrow[y*wide+x] = float32(min(max(sum>>pilBits, 0), 255))
			}
		}
	}
	for y := range high {
		for x := range wide {
			if dst[y*wide+x] = narrow[min(y, h-1)*wide+x]; h != high {
				t := pilTaps(h, high)[y]
				sum := int32(1) << (pilBits - 1)
				for j, weight := range t.weights {
					sum += int32(narrow[(t.first+j)*wide+x]) * weight
				}
				dst[y*wide+x] = float32(min(max(sum>>pilBits, 0), 255))
			}
		}
	}
}

// Of square images all ways to crop make the same pixels, which is why their features
// are shared; offsets of others differ where transformers rounds down.
func TestCropsOfSquares(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	images := func(h, w int) models.Images {
		im := models.Images{N: 2, Height: h, Width: w}
		for range 2 * h * w * 3 {
			im.Pixels = append(im.Pixels, uint8(r.IntN(256)))
		}
		return im
	}
	for _, side := range []int{5, 16, 40} {
		square := images(side, side)
		want, err := resizedPixels(CLIPCrop, square, 16)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []Resize{OpenAICrop, CMMDCrop, PIL} {
			if got, err := resizedPixels(other, square, 16); err != nil || !slices.Equal(got.Data, want.Data) {
				t.Errorf("%s of %d×%[2]d differs from clip, %v", other, side, err)
			}
		}
	}
	wide := images(16, 19) // 3 columns too many: offset 1 or 2
	a, _ := resizedPixels(CLIPCrop, wide, 16)
	b, _ := resizedPixels(OpenAICrop, wide, 16)
	if a.Data[0] != float32(wide.Pixels[3]) || b.Data[0] != float32(wide.Pixels[6]) {
		t.Errorf("the crops begin with %v and %v, want %d and %d", a.Data[0], b.Data[0], wide.Pixels[3], wide.Pixels[6])
	}
}
