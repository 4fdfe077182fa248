package sampling

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// Labels are a function of the seed and of the image's number, whatever else is drawn.
func TestLabels(t *testing.T) {
	classes := func(l Labels, n, k int) string {
		var all []int64
		for i := range n {
			all = append(all, l.Of(7, i, k))
		}
		return strings.Trim(fmt.Sprint(all), "[]")
	}
	var random []int64
	for i := range 8 {
		random = append(random, Label(7, i, 10))
	}
	for _, c := range []struct {
		labels Labels
		want   string
	}{
		{Labels{}, strings.Trim(fmt.Sprint(random), "[]")},
		{Labels{Balanced: true}, "0 1 2 3 4 5 6 7"},
		{Labels{IDs: []int64{7, 3, 3}}, "7 3 3 7 3 3 7 3"},
		{Labels{Counts: []ClassCount{{2, 4}, {9, 4}}}, "2 9 2 9 9 2 9 2"},
		{Labels{Counts: []ClassCount{{5, 8}}}, "5 5 5 5 5 5 5 5"},
	} {
		if got := classes(c.labels, 8, 10); got != c.want {
			t.Errorf("%+v: %s, want %s", c.labels, got, c.want)
		}
	}
	if got := classes(Labels{Balanced: true}, 5, 3); got != "0 1 2 0 1" {
		t.Errorf("5 images of 3 classes: %s", got)
	}
}

// Every beginning of a set with so many images of each class has about these
// proportions, and the whole set has them exactly; beyond it, it begins again.
func TestCountedLabels(t *testing.T) {
	for _, l := range []Labels{
		{Counts: []ClassCount{{0, 1}, {1, 1}}},
		{Counts: []ClassCount{{0, 50}, {1, 30}, {2, 19}, {6, 1}}},
		{Counts: []ClassCount{{3, 1000}, {4, 1}, {5, 499}}},
		{Counts: []ClassCount{{0, 61}, {1, 28}}}, // a prime number of images
	} {
		n, have := l.Total(), map[int64]int{}
		for i := range n {
			have[l.Of(1, i, 10)]++
			for _, c := range l.Counts {
				want := float64(i+1) * float64(c.Images) / float64(n)
				if got := float64(have[c.Class]); math.Abs(got-want) > 4 {
					t.Fatalf("%v: of the first %d images %g are of class %d, want about %g", l.Counts, i+1, got, c.Class, want)
				}
			}
			if l.Of(1, i, 10) != l.Of(2, i+n, 10) {
				t.Errorf("%v: image %d and image %d have different classes", l.Counts, i, i+n)
			}
		}
		for _, c := range l.Counts {
			if have[c.Class] != c.Images {
				t.Errorf("%v: %d images of class %d", l.Counts, have[c.Class], c.Class)
			}
		}
		counts := l.PerClass(1, n, 10)
		for _, c := range l.Counts {
			if counts[c.Class] != c.Images {
				t.Errorf("%v: counted %v", l.Counts, counts)
			}
		}
	}
}

func TestLabelsOfNoClass(t *testing.T) {
	for _, l := range []Labels{{IDs: []int64{0, 10}}, {IDs: []int64{-1}}, {Counts: []ClassCount{{10, 1}}}} {
		if err := l.Check(10); err == nil || !strings.Contains(err.Error(), "0 to 9") {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for _, l := range []Labels{{}, {Balanced: true}, {IDs: []int64{0, 9}}, {Counts: []ClassCount{{9, 1}}}} {
		if err := l.Check(10); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestDescribeCounts(t *testing.T) {
	for _, c := range []struct {
		counts []int
		want   string
	}{
		{nil, "no images"},
		{[]int{0, 0, 4}, "4 of class 2"},
		{[]int{2, 2, 2, 1, 1}, "2 of each of classes 0 to 2, 1 of each of classes 3 to 4"},
		{[]int{3, 0, 3, 3, 0, 1}, "3 of each of classes 0 and 2 to 3, 1 of class 5"},
		{slices.Repeat([]int{5}, 1000), "5 of each of classes 0 to 999"},
		{slices.Repeat([]int{5, 6, 0}, 20), "40 classes of 5 to 6 images, 20 of none"},
		{slices.Repeat([]int{5, 0}, 20), "20 classes of 5 images each, 20 of none"},
	} {
		if got := DescribeCounts(c.counts); got != c.want {
			t.Errorf("%v: %q, want %q", c.counts, got, c.want)
		}
	}
}

// Choices are uniform, those of one place independent of those of the next and of labels.
func TestChoice(t *testing.T) {
	const n, k = 60_000, 6
	var counts [k]float64
	var pairs [k * k]float64
	same := 0
	for i := range n {
		c := Choice(11, i, k)
		counts[c]++
		pairs[c*k+Choice(11, i+1, k)]++
		if int64(c) == Label(11, i, k) {
			same++
		}
	}
	chi2 := func(counts []float64) (sum float64) {
		want := float64(n) / float64(len(counts))
		for _, c := range counts {
			sum += (c - want) * (c - want) / want
		}
		return sum
	}
	if v := chi2(counts[:]); v > 20.5 { // 0.999 of 5 degrees of freedom
		t.Errorf("χ² is %.1f: %v", v, counts)
	}
	if v := chi2(pairs[:]); v > 66.6 { // 0.999 of 35
		t.Errorf("χ² of pairs is %.1f: %v", v, pairs)
	}
	if z := (float64(same) - n/k) / math.Sqrt(n*5/36.); math.Abs(z) > 4 {
		t.Errorf("%d of %d choices are the labels", same, n)
	}
	var golden []int
	for i := range 8 {
		golden = append(golden, Choice(3, i, 1000))
	}
	if got := fmt.Sprint(golden, Choice(3, 0, 1), Choice(3, 5, 0)); got != choiceGolden {
		t.Errorf("%s, want %s: sets that were drawn before would be others", got, choiceGolden)
	}
}

const choiceGolden = "[551 67 805 731 633 250 961 822] 0 0"
