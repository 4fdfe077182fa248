package features

import (
	"crypto/sha256"
	"fmt"
	"math"
	"testing"

	"sagbench/models"
)

// TestPILResize compares with Pillow 10.4.0's
// Image.fromarray(image).resize((224, 224), Image.BICUBIC), by sha256, on images
// of a linear congruential generator.
func TestPILResize(t *testing.T) {
	for _, c := range []struct {
		height, width int
		sum           string
	}{
		{32, 32, "6d25d19c56a9847d"},
		{64, 48, "4c5ecacdfbda5917"},
		{224, 224, "656c4935ee43649b"},
		{224, 300, "32dd7c859a57dbad"},
		{256, 256, "f4209e84908be074"},
		{375, 500, "fdb932a68504d78c"},
		{1, 1, "21d1a1a8a3ffffbc"},
		{1000, 31, "7909b3d3b5d22a85"},
		{1024, 768, "626ca6ce4a7cfe50"},
	} {
		x, err := resizedPixels(PIL, congruential(1, c.height, c.width), 224)
		if err != nil {
			t.Fatal(err)
		}
		out, err := models.ImagesOf(x, func(v float32) float32 { return v }, "")
		if err != nil {
			t.Fatal(err)
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(out.Pixels))[:16]; sum != c.sum {
			t.Errorf("%d×%d: sha256 %s, Pillow's result has %s", c.height, c.width, sum, c.sum)
		}
	}
}

// TestEDM2Resize compares with torch 2.15.0's interpolate(size=(224, 224),
// mode="bicubic", antialias=True) on the same images.
func TestEDM2Resize(t *testing.T) {
	for _, c := range []struct {
		height, width int
		at            map[[3]int]float64 // channel, row, column
		sum           float64
	}{
		{32, 40, map[[3]int]float64{{0, 0, 0}: 34.0826, {1, 3, 100}: 137.1789, {2, 120, 7}: 117.8564, {0, 223, 223}: 165.2767}, 19061152.972},
		{300, 256, map[[3]int]float64{{0, 0, 0}: 113.8122, {1, 3, 100}: 89.165, {2, 120, 7}: 64.5963, {0, 223, 223}: 196.5552}, 19186157.617},
	} {
		x, err := resizedPixels(EDM2, congruential(1, c.height, c.width), 224)
		if err != nil {
			t.Fatal(err)
		}
		for p, want := range c.at {
			if got := float64(x.Data[(p[0]*224+p[1])*224+p[2]]); math.Abs(got-want) > 2e-4 {
				t.Errorf("%d×%d: %v is %.4f, torch has %.4f", c.height, c.width, p, got, want)
			}
		}
		sum := 0.0
		for _, v := range x.Data {
			sum += float64(v)
		}
		if math.Abs(sum-c.sum) > 1 {
			t.Errorf("%d×%d: the sum is %.3f, torch has %.3f", c.height, c.width, sum, c.sum)
		}
	}
}

// congruential are images whose bytes are the top bytes of x ← 1664525·x +
// 1013904223 mod 2³² from x = 1.
func congruential(n, height, width int) models.Images {
	im := models.Images{N: n, Height: height, Width: width, Pixels: make([]uint8, n*height*width*3)}
	x := uint32(1)
	for i := range im.Pixels {
		x = 1664525*x + 1013904223
		im.Pixels[i] = uint8(x >> 24)
	}
	return im
}
