package eval

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The statistic has mean 0 and variance 1 over permutations.
func TestClassOrderUnderPermutation(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	var z []float64
	for range 4000 {
		classes := make([]int, 60)
		for i := range classes {
			classes[i] = i * i % 7
		}
		r.Shuffle(len(classes), func(i, j int) { classes[i], classes[j] = classes[j], classes[i] })
		z = append(z, classOrder(classes))
	}
	mean, std := meanStd(z)
	near(t, "mean", mean, 0, 0.06)
	near(t, "standard deviation", std, 1, 0.05)
	for _, classes := range [][]int{{}, {1}, {1, 1, 1, 1}, {0, 1, 2, 3}} {
		near(t, "where the order says nothing", classOrder(classes), 0, 0)
	}
}

// Images sorted by class have a low IS in splits of the file order; both
// readings are there, with a warning. In random order there is one and none.
func TestSortedImages(t *testing.T) {
	const classes, each = 10, 40
	sorted := &Features{Source: "samples.npz", N: classes * each}
	r := rand.New(rand.NewPCG(2, 9))
	row := func(c int) []float32 {
		out := make([]float32, classes)
		for i := range out {
			out[i] = float32(r.NormFloat64())
		}
		out[c] += 8
		return out
	}
	for i := range sorted.N {
		sorted.Logits = append(sorted.Logits, row(i/each)...)
	}
	m := &InceptionScore{SplitSize: 100}
	scores, err := m.Score(t.Context(), nil, sorted)
	if err != nil {
		t.Fatal(err)
	}
	if len(scores) != 2 || len(scores[0].Warnings) != 1 || !strings.Contains(scores[0].Warnings[0], "sorted") {
		t.Fatalf("sorted images: %+v", scores)
	}
	if scores[0].Value > 4 || scores[1].Value < 7 {
		t.Errorf("sorted images: IS %.2f in file order, %.2f permuted", scores[0].Value, scores[1].Value)
	}
	shuffled := &Features{N: sorted.N}
	for _, i := range r.Perm(sorted.N) {
		shuffled.Logits = append(shuffled.Logits, sorted.Logits[i*classes:(i+1)*classes]...)
	}
	for what, f := range map[string]*Features{"random order": shuffled, "one split": sorted} {
		m := *m
		if what == "one split" {
			m.SplitSize = 400
		}
		if scores, err = m.Score(t.Context(), nil, f); err != nil || len(scores) != 1 || slices.ContainsFunc(scores[0].Warnings, func(w string) bool { return strings.Contains(w, "sorted") }) {
			t.Errorf("%s: %+v, %v", what, scores, err)
		}
	}
}

// A probability of exactly 0, the softmax of −∞, adds 0·log 0 = 0; logits without
// probabilities are an error that names the image.
func TestProbabilityOfZero(t *testing.T) {
	none := float32(math.Inf(-1))
	f := &Features{Source: "samples.npz", N: 4, Logits: []float32{ // of the last class for no image
		1, 2, none, none,
		2, 1, none, none,
		none, none, 5, none,
		0, 0, 0, none,
	}}
	rest := &Features{N: 4, Logits: slices.Clone(f.Logits)}
	for i, v := range rest.Logits { // e^−500 is as good as 0
		rest.Logits[i] = max(v, -500)
	}
	m := &InceptionScore{SplitSize: 5000}
	report, err := Evaluate(t.Context(), &Features{}, f, m)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "IS", report.Scores[0].Value, value(t, m, nil, rest).Value, 1e-12)
	for _, bad := range [][]float32{{none, none, none, none}, {0, float32(math.NaN()), 0, 0}, {0, float32(math.Inf(1)), 0, 0}} {
		damaged := &Features{Source: "samples.npz", N: 4, Logits: slices.Concat(f.Logits[:4], bad, f.Logits[8:])}
		if _, err := Evaluate(t.Context(), &Features{}, damaged, m); err == nil || !strings.Contains(err.Error(), "samples.npz: no probabilities follow from the class logits of image 1 ") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
