package sampling

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"sagbench/sampling/tensor"
)

// The known answers that the authors of Philox publish (Random123, kat_vectors).
func TestPhiloxKnownAnswers(t *testing.T) {
	for _, k := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, [2]uint32{0xffffffff, 0xffffffff}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		s := stream{k.key, k.counter}
		a, b, c, d := s.next()
		if got := [4]uint32{a, b, c, d}; got != k.want {
			t.Errorf("Philox(%x, %x) = %x, want %x", k.counter, k.key, got, k.want)
		}
	}
}

// The bits of the normals must be these on every machine; computed with
// Python's math.log, math.cos and math.sin from a Philox of its own.
func TestKeyedGolden(t *testing.T) {
	for _, c := range []struct {
		seed        uint64
		image, step int
		want        []uint32
	}{
		{0, 0, -1, []uint32{0x3f7dbb33, 0xbf6cb6b0, 0xbf1e1b9f, 0xbef6d1b2, 0xbe1d5357, 0x3e392a6d}},
		{0x123456789abcdef, 7, 0, []uint32{0x3e08b42c, 0x3f3ad325, 0x3f2200d0, 0xbd1d7097, 0x3fdd7b57, 0x3e7dec0a}},
		{42, 1<<33 + 5, 249, []uint32{0xbfc258f3, 0x3dea4df4, 0xbe4c50ca, 0x3db4cb29, 0xbeb57274, 0xbf5406ca}},
	} {
		dst := tensor.New(1, 6)
		if err := (Keyed{c.seed, []int{c.image}}).Fill(c.step, dst); err != nil {
			t.Fatal(err)
		}
		for i, v := range dst.Data {
			if math.Float32bits(v) != c.want[i] {
				t.Errorf("seed %#x image %d step %d: normal %d is %g (%#x), want %g", c.seed, c.image, c.step, i, v, math.Float32bits(v), math.Float32frombits(c.want[i]))
			}
		}
	}
}

func TestLabelGolden(t *testing.T) {
	var ten, thousand []int64
	for i := range 12 {
		ten = append(ten, Label(0, i, 10))
	}
	for i := range 5 {
		thousand = append(thousand, Label(99, i, 1000))
	}
	if want := []int64{0, 0, 6, 5, 2, 1, 8, 1, 6, 2, 0, 4}; !slices.Equal(ten, want) {
		t.Errorf("of 10: %v, want %v", ten, want)
	}
	if want := []int64{586, 682, 511, 809, 458}; !slices.Equal(thousand, want) {
		t.Errorf("of 1000: %v, want %v", thousand, want)
	}
	if Label(3, 4, 1) != 0 || Label(3, 4, 0) != 0 {
		t.Error("without a choice the label is not 0")
	}
}

func TestLabelUniform(t *testing.T) {
	const classes, n = 10, 20000
	var count [classes]int
	for i := range n {
		count[Label(7, i, classes)]++
	}
	chi2 := 0.0
	for _, c := range count {
		d := float64(c) - n/classes
		chi2 += d * d / (n / classes)
	}
	if chi2 > 27.9 { // 9 degrees of freedom, p = 0.001
		t.Errorf("χ² of %v is %g", count, chi2)
	}
}

func TestNoiseStatistics(t *testing.T) {
	const images, size = 64, 3 * 32 * 32
	dst := tensor.New(images, 3, 32, 32)
	if err := (Keyed{1, numbers(images)}).Fill(3, dst); err != nil {
		t.Fatal(err)
	}
	n := float64(len(dst.Data))
	var m [5]float64
	for _, v := range dst.Data {
		for p, q := 1, float64(v); p <= 4; p, q = p+1, q*float64(v) {
			m[p] += q / n
		}
	}
	// standard errors of the raw moments: √(1, 2, 15, 96)/√n
	for p, want := range []float64{1: 0, 2: 1, 3: 0, 4: 3} {
		if p > 0 && math.Abs(m[p]-want) > 4*math.Sqrt([]float64{0, 1, 2, 15, 96}[p]/n) {
			t.Errorf("moment %d is %g, want %g", p, m[p], want)
		}
	}
	sorted := slices.Sorted(slices.Values(dst.Data))
	distance := 0.0
	for i, v := range sorted {
		distance = max(distance, math.Abs(float64(i)/n-0.5*math.Erfc(-float64(v)/math.Sqrt2)))
	}
	if distance > 1.95/math.Sqrt(n) { // Kolmogorov–Smirnov, p = 0.001
		t.Errorf("the distribution is %g from the normal one", distance)
	}
	// neighbours in a row, the two of one radius, the same place of neighbouring images
	for _, lag := range []int{1, 2, 3, 4, size} {
		c := 0.0
		for i := lag; i < len(dst.Data); i++ {
			c += float64(dst.Data[i]) * float64(dst.Data[i-lag]) / n
		}
		if math.Abs(c) > 4/math.Sqrt(n) {
			t.Errorf("correlation at distance %d is %g", lag, c)
		}
	}
}

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// An image's noise depends neither on its batch nor on its place there; the
// last block of a row is cut, not shared.
func TestKeyedBatchInvariance(t *testing.T) {
	all := tensor.New(9, 3, 5, 1)
	if err := (Keyed{5, numbers(9)}).Fill(2, all); err != nil {
		t.Fatal(err)
	}
	some := tensor.New(3, 3, 5, 1)
	if err := (Keyed{5, []int{8, 0, 4}}).Fill(2, some); err != nil {
		t.Fatal(err)
	}
	for i, image := range []int{8, 0, 4} {
		if !slices.Equal(some.Row(i), all.Row(image)) {
			t.Errorf("image %d: %v in a batch of 3, %v in one of 9", image, some.Row(i), all.Row(image))
		}
	}
	if slices.Equal(all.Row(0)[:8], all.Row(1)[:8]) {
		t.Error("two images have the same noise")
	}
}

func TestNoiseErrors(t *testing.T) {
	start, steps := tensor.New(2, 3, 4, 4), tensor.New(5, 2, 3, 4, 4)
	start.Data[7], steps.Data[4*96+1] = 3, 4
	recorded := Recorded{Start: start, Steps: steps}
	dst := tensor.New(2, 3, 4, 4)
	if err := recorded.Fill(-1, dst); err != nil || dst.Data[7] != 3 {
		t.Errorf("x_T: %v, %v", dst.Data[:8], err)
	}
	if err := recorded.Fill(4, dst); err != nil || dst.Data[1] != 4 {
		t.Errorf("last step: %v, %v", dst.Data[:8], err)
	}
	for _, c := range []struct {
		noise Noise
		step  int
		dst   tensor.Tensor
		want  string
	}{
		{recorded, 5, dst, "noise of step 5, but 5 steps were recorded"},
		{recorded, -2, dst, "noise of step -2"},
		{recorded, 0, tensor.New(1, 3, 4, 4), "step 0 was recorded with shape [2 3 4 4], expected [1 3 4 4]"},
		{recorded, -1, tensor.New(2, 3, 4), "x_T was recorded with shape [2 3 4 4]"},
		{Recorded{}, -1, dst, "no x_T"},
		{Recorded{}, 0, dst, "0 steps were recorded"},
		{Keyed{1, []int{1}}, 0, dst, "shape [2 3 4 4] for 1 images"},
		{Keyed{1, []int{1, -1}}, 0, dst, "image -1"},
		{Keyed{1, []int{1, 2}}, -2, dst, "step -2"},
		{Keyed{1, nil}, 0, tensor.Tensor{}, "shape [] for 0 images"},
	} {
		if err := c.noise.Fill(c.step, c.dst); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%T step %d: %v lacks %q", c.noise, c.step, err, c.want)
		}
	}
}

// Uniform numbers lie in [0,1), have its moments, belong to an image and a step,
// and are not those of the noise.
func TestUniform(t *testing.T) {
	k := Keyed{Seed: 3, Images: []int{0, 5}}
	u := tensor.New(2, 10_000)
	if err := k.Uniform(4, u); err != nil {
		t.Fatal(err)
	}
	mean, square := 0.0, 0.0
	for _, v := range u.Data {
		if v < 0 || v >= 1 {
			t.Fatalf("%g is not in [0,1)", v)
		}
		mean, square = mean+float64(v)/20_000, square+float64(v)*float64(v)/20_000
	}
	if math.Abs(mean-0.5) > 0.01 || math.Abs(square-1.0/3) > 0.01 {
		t.Errorf("mean %g, mean square %g", mean, square)
	}
	alone, other := tensor.New(1, 7), tensor.New(1, 7)
	if err := errors.Join(Keyed{3, []int{5}}.Uniform(4, alone), Keyed{3, []int{5}}.Uniform(5, other)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(alone.Data, u.Row(1)[:7]) || slices.Equal(other.Data, alone.Data) {
		t.Errorf("image 5 alone: %v and at another step %v, in a batch %v", alone.Data, other.Data, u.Row(1)[:7])
	}
	for _, err := range []error{k.Uniform(-1, u), k.Uniform(0, alone), (&Step{predictor: &Predictor{}}).Random(u)} {
		if err == nil {
			t.Error("no error")
		}
	}
}
