package guidance

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// Computed with numpy as torchvision's _get_gaussian_kernel1d does, in float32.
func TestGaussian(t *testing.T) {
	for _, c := range []struct {
		width int
		sigma float64
		want  []float32 // first, second, and the two up to the centre
	}{
		{31, 3, []float32{4.955732606504171e-07, 2.4820174076012336e-06, 0.1257944405078888, 0.13298079371452332}},
		{31, 1.5, []float32{5.1297327503566394e-23, 3.227619329855847e-20, 0.21296533942222595, 0.26596152782440186}},
		{31, 9, []float32{0.012078067287802696, 0.01444579754024744, 0.048139702528715134, 0.048437777906656265}},
		{5, 0.5, []float32{0.00026386507670395076, 0.10645076632499695, 0.10645076632499695, 0.78657066822052}},
	} {
		k := gaussian(c.width, c.sigma)
		centre := c.width / 2
		for i, at := range []int{0, 1, centre - 1, centre} {
			if d := math.Abs(float64(k[at]) - float64(c.want[i])); d > 3e-7*float64(c.want[i]) {
				t.Errorf("kernel %d σ %g: weight %d is %g, want %g", c.width, c.sigma, at, k[at], c.want[i])
			}
		}
		sum := 0.0
		for i, v := range k {
			sum += float64(v)
			if v != k[len(k)-1-i] {
				t.Errorf("kernel %d σ %g is not symmetric at %d", c.width, c.sigma, i)
			}
		}
		if len(k) != c.width || math.Abs(sum-1) > 2e-7 {
			t.Errorf("kernel %d σ %g has %d weights of sum %g", c.width, c.sigma, len(k), sum)
		}
	}
}

func TestReflect(t *testing.T) {
	var got []int
	for i := -9; i <= 9; i++ {
		got = append(got, reflect(i, 4))
	}
	if want := []int{3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("reflect in 4 pixels: %v, want %v", got, want)
	}
	if reflect(-7, 1) != 0 || reflect(3, 1) != 0 || reflect(-1, 2) != 1 {
		t.Error("reflect in 1 or 2 pixels is wrong")
	}
}

// The folded operator is the plain sum over the kernel, and its output is
// transposed; groups that are not needed are left alone.
func TestAxis(t *testing.T) {
	for _, c := range []struct{ n, m, width int }{{32, 32, 31}, {7, 5, 31}, {1, 3, 5}, {2, 4, 3}, {9, 8, 1}, {64, 3, 31}, {33, 6, 31}} {
		kernel := gaussian(c.width, 2.5)
		a := newAxis(c.n, kernel)
		src, dst := make([]float32, c.n*c.m), make([]float32, c.n*c.m)
		for i := range src {
			src[i] = float32(math.Sin(float64(i * i)))
		}
		a.apply(dst, src, c.m, make([]fold, (c.n+1)/2), nil)
		for i := range c.n {
			for j := range c.m {
				want := 0.0
				for k, w := range kernel {
					want += float64(w) * float64(src[reflect(i+k-c.width/2, c.n)*c.m+j])
				}
				if got := float64(dst[j*c.n+i]); math.Abs(got-want) > 3e-7 {
					t.Fatalf("%+v: row %d column %d is %g, want %g", c, i, j, got, want)
				}
			}
		}
		again := slices.Repeat([]float32{7}, c.n*c.m)
		groups := (c.m + lanes - 1) / lanes
		needed := make([]bool, (c.n+1)/2*groups)
		needed[0] = true
		a.apply(again, src, c.m, make([]fold, (c.n+1)/2), needed)
		for j := range c.m {
			for i := range c.n {
				want := float32(7)
				if (i == 0 || i == c.n-1) && j < lanes {
					want = dst[j*c.n+i]
				}
				if again[j*c.n+i] != want {
					t.Fatalf("%+v, first group alone: row %d column %d is %g, want %g", c, i, j, again[j*c.n+i], want)
				}
			}
		}
	}
}

func TestGrid(t *testing.T) {
	for _, c := range []struct{ positions, height, width, h, w int }{
		{64, 32, 32, 8, 8}, {1024, 32, 32, 32, 32}, {1, 32, 32, 1, 1}, {32, 64, 32, 8, 4}, {96, 64, 96, 8, 12},
		{49, 28, 28, 7, 7}, {16, 25, 25, 4, 4}, {42, 25, 21, 7, 6}, {1, 5, 3, 1, 1}, {6, 5, 3, 3, 2},
	} {
		h, w, err := grid(c.positions, c.height, c.width)
		if err != nil || h != c.h || w != c.w {
			t.Errorf("%d positions in %d×%d: %d×%d, %v, want %d×%d", c.positions, c.height, c.width, h, w, err, c.h, c.w)
		}
	}
	for _, c := range []struct{ positions, height, width int }{{48, 32, 32}, {0, 8, 8}, {8, 16, 16}, {7, 5, 3}} {
		if h, w, err := grid(c.positions, c.height, c.width); err == nil {
			t.Errorf("%d positions in %d×%d are taken for %d×%d", c.positions, c.height, c.width, h, w)
		}
	}
}

// Any level of a network that halves the image, rounding up, is recognised by its
// number of positions, whatever the image's size.
func TestGridOfAnySize(t *testing.T) {
	for height := 1; height <= 128; height++ {
		for width := 1; width <= 128; width++ {
			h, w := height, width
			for level := range 5 {
				if gotH, gotW, err := grid(h*w, height, width); err != nil || gotH != h || gotW != w {
					t.Fatalf("%d×%d, halved %d times: %d×%d, %v, want %d×%d", height, width, level, gotH, gotW, err, h, w)
				}
				h, w = (h+1)/2, (w+1)/2
			}
		}
	}
}

func TestMask(t *testing.T) {
	m, err := newMasker(6, 4, 6)
	if err != nil {
		t.Fatal(err)
	}
	attention := []float32{0, 1, 2, 1.5, float32(math.NaN()), 1.0001}
	got := make([]bool, 24)
	if !m.mask(got, attention, 1) {
		t.Error("the mask is said to be empty")
	}
	rows := ""
	for i, b := range got {
		rows += map[bool]string{false: ".", true: "#"}[b]
		if i%6 == 5 {
			rows += "\n"
		}
	}
	if want := "....##\n....##\n##..##\n##..##\n"; rows != want {
		t.Errorf("mask:\n%swant:\n%s", rows, want)
	}
	if m.mask(got, attention, 2) || slices.Contains(got, true) {
		t.Error("2 is above a threshold of 2")
	}
	if got := fmt.Sprint(nearest(3, 10), nearest(5, 4)); got != "[0 0 0 0 1 1 1 2 2 2] [0 1 2 3]" {
		t.Errorf("nearest neighbours %s", got)
	}
}
