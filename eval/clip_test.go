package eval

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// embeddings are n random rows of d values.
func embeddings(n, d int, seed uint64) *Features {
	r := rand.New(rand.NewPCG(seed, 0))
	f := &Features{Source: "set", Network: "clip", N: n, D: d}
	for range n * d {
		f.Pool = append(f.Pool, float32(r.NormFloat64()+0.3))
	}
	return f
}

// naiveCMMD is the definition, pair by pair, of the images that lists name.
func naiveCMMD(x, y *Features, xs, ys []int) float64 {
	unit := func(f *Features, i int) []float64 {
		row, sum := make([]float64, f.D), 0.0
		for j, v := range f.Pool[i*f.D : (i+1)*f.D] {
			row[j] = float64(v)
			sum += row[j] * row[j]
		}
		for j := range row {
			row[j] /= math.Sqrt(sum)
		}
		return row
	}
	mean := func(a *Features, as []int, b *Features, bs []int) float64 {
		sum := 0.0
		for _, i := range as {
			for _, j := range bs {
				d2, u, v := 0.0, unit(a, i), unit(b, j)
				for k := range u {
					d2 += (u[k] - v[k]) * (u[k] - v[k])
				}
				sum += math.Exp(-d2 / 200)
			}
		}
		return sum / float64(len(as)*len(bs))
	}
	return 1000 * (mean(x, xs, x, xs) + mean(y, ys, y, ys) - 2*mean(x, xs, y, ys))
}

func first(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestCMMD(t *testing.T) {
	ref, gen := embeddings(70, 6, 1), embeddings(45, 6, 2)
	value := func(m *CMMD) Score {
		s, err := m.Score(t.Context(), ref, gen)
		if err != nil {
			t.Fatal(err)
		}
		return s[0]
	}
	if got, want := value(&CMMD{}).Value, naiveCMMD(gen, ref, first(45), first(70)); math.Abs(got-want) > 1e-9 {
		t.Errorf("CMMD is %g, want %g", got, want)
	}
	dropped := value(&CMMD{DropRemainder: true})
	if want := naiveCMMD(gen, ref, first(32), first(64)); math.Abs(dropped.Value-want) > 1e-9 || dropped.Note != "without the last 13 samples and 6 of the reference, which fill no batch of 32" {
		t.Errorf("without remainders it is %+v, want %g", dropped, want)
	}
	same, err := (&CMMD{}).Score(t.Context(), gen, gen)
	if err != nil || same[0].Value < 0 || same[0].Value > 1e-12 {
		t.Errorf("of a set with itself it is %+v, %v", same, err)
	}
	if _, err := (&CMMD{DropRemainder: true}).Score(t.Context(), ref, embeddings(31, 6, 3)); err == nil || !strings.Contains(err.Error(), "CMMD needs at least 32 of each") {
		t.Error(err)
	}
	zero := embeddings(4, 6, 4)
	clear(zero.Pool[12:18])
	if _, err := (&CMMD{}).Score(t.Context(), ref, zero); err == nil || !strings.Contains(err.Error(), "image 2 is all zeros") {
		t.Error(err)
	}
}

// Replicates are the scores of the sets that were drawn.
func TestCLIPReplicates(t *testing.T) {
	ref, gen := embeddings(40, 5, 5), embeddings(30, 5, 6)
	gen.Texts = embeddings(30, 5, 7).Pool
	d, err := NewDraws(30, 40, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []Metric{&CMMD{}, &CLIPScore{Definition: TorchMetrics}, &CLIPScore{Definition: JMHessel}} {
		values, err := Replicates(t.Context(), m, ref, gen, d)
		if err != nil {
			t.Fatal(err)
		}
		for b, list := range d.index[:5] {
			drawn := &Features{N: 30, D: 5}
			for _, i := range list {
				drawn.Pool = append(drawn.Pool, gen.Pool[i*5:(i+1)*5]...)
				drawn.Texts = append(drawn.Texts, gen.Texts[i*5:(i+1)*5]...)
			}
			s, err := m.Score(t.Context(), ref, drawn)
			if err != nil || math.Abs(s[0].Value-values[b]) > 1e-9 {
				t.Errorf("%s of draw %d is %v, the set itself has %+v, %v", m.Column().Name, b, values[b], s, err)
			}
		}
	}
}

// The two definitions clamp at other places.
func TestCLIPScoreDefinitions(t *testing.T) {
	set := func(cosines ...float64) *Features {
		f := &Features{Source: "set", N: len(cosines), D: 2}
		for _, c := range cosines {
			f.Pool = append(f.Pool, 3, 0)
			f.Texts = append(f.Texts, float32(c), float32(math.Sqrt(1-c*c)))
		}
		return f
	}
	for _, c := range []struct {
		definition string
		cosines    []float64
		want       float64
	}{
		{TorchMetrics, []float64{0.5, -0.25}, 12.5}, {TorchMetrics, []float64{-0.5, 0.25}, 0},
		{JMHessel, []float64{0.5, -0.25}, 0.625}, {JMHessel, []float64{-0.5, 0.25}, 0.3125},
	} {
		s, err := (&CLIPScore{Definition: c.definition}).Score(t.Context(), nil, set(c.cosines...))
		if err != nil || math.Abs(s[0].Value-c.want) > 1e-6 || !strings.Contains(s[0].Note, "1 of 2 cosines are negative") {
			t.Errorf("%s of %v: %+v, %v, want %g", c.definition, c.cosines, s, err, c.want)
		}
	}
	lacking, short, zero := set(0.1), set(0.1, 0.2), set(0.1, 0.2)
	lacking.Texts, short.Texts = nil, short.Texts[:2]
	clear(zero.Texts[2:])
	for want, f := range map[string]*Features{"there are no captions": lacking, "4 values of embeddings of images, 2 of captions": short, "the embedding of the caption of image 1 is all zeros": zero} {
		if _, err := (&CLIPScore{Definition: JMHessel}).Score(t.Context(), nil, f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	half, err := set(0.5, 0.25, -0.5).Subset([]int{1})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := (&CLIPScore{Definition: TorchMetrics}).Score(t.Context(), nil, half); err != nil || math.Abs(s[0].Value-25) > 1e-5 {
		t.Errorf("of one image of three: %+v, %v", s, err)
	}
	if err := (&CLIPScore{}).Validate(); err == nil {
		t.Error("a definition without a name is accepted")
	}
}
