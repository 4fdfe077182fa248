package eval

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sagbench/eval/neighbours"
)

// gaussians is a set of n images with features N(mean, 1) of d dimensions.
func gaussians(r *rand.Rand, n, d int, mean float64) *Features {
	f := &Features{N: n, D: d, Pool: make([]float32, n*d)}
	for i := range f.Pool {
		f.Pool[i] = float32(mean + r.NormFloat64())
	}
	return f
}

// at are the listed images of a set.
func (f *Features) at(list []int32) *Features {
	out := &Features{N: len(list), D: f.D, ClassWeight: f.ClassWeight}
	for _, i := range list {
		out.Pool = append(out.Pool, f.Pool[int(i)*f.D:(int(i)+1)*f.D]...)
	}
	return out
}

func draws(t *testing.T, n, count int, seed uint32) *Draws {
	t.Helper()
	d, err := NewDraws(n, count, seed)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func replicates(t *testing.T, m Metric, ref, gen *Features, d *Draws) []float64 {
	t.Helper()
	v, err := Replicates(t.Context(), m, ref, gen, d)
	if err != nil {
		t.Fatal(err)
	}
	if len(v) != d.Len() {
		t.Fatalf("%s: %d replicates of %d draws", m.Column().Name, len(v), d.Len())
	}
	return v
}

// A replicate is the metric of the images drawn. The reference's balls do not
// depend on them, so precision and density are those of the drawn set as well.
func TestReplicatesAreTheMetricOfTheDrawnImages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 7))
	ref, gen := gaussians(r, 300, 6, 0), gaussians(r, 220, 6, 0.3)
	gen.ClassWeight = gaussians(r, 5, 6, 0).Pool
	d := draws(t, gen.N, 70, 3)
	for _, m := range []Metric{
		&FID{Mean: MeanFloat32}, &FIDInfinity{Points: 4, Smallest: 50, Seed: 1}, &InceptionScore{SplitSize: 5000},
		&Precision{K: 3, Distance: neighbours.DistanceADM}, &PRDCPrecision{K: 5}, &Density{K: 5},
	} {
		found := replicates(t, m, ref, gen, d)
		for _, b := range []int{0, 1, 63, 64, 69} {
			near(t, m.Column().Name, found[b], value(t, m, ref, gen.at(d.index[b])).Value, 1e-12)
		}
		if slices.Max(found) == slices.Min(found) {
			t.Errorf("%s: all replicates are %v", m.Column().Name, found[0])
		}
	}
}

// With spatial features sFID's replicates are FID's of the same rows.
func TestSpatialReplicates(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 8))
	ref, gen := gaussians(r, 300, 6, 0), gaussians(r, 100, 6, 0.3)
	d := draws(t, gen.N, 40, 3)
	want := replicates(t, &FID{Mean: MeanFloat32}, ref, gen, d)
	for _, f := range []*Features{ref, gen} {
		f.Spatial, _ = f.poolStats()
	}
	if _, err := Replicates(t.Context(), &SpatialFID{Mean: MeanFloat32}, ref, gen, d); err == nil {
		t.Error("replicates from statistics alone")
	}
	gen.SpatialRows = gen.Pool
	if !slices.Equal(replicates(t, &SpatialFID{Mean: MeanFloat32}, ref, gen, d), want) {
		t.Error("sFID's replicates are not those of its rows")
	}
}

// Recall and coverage: with the loss of the share without each image, its ball
// or its place, counted pair by pair.
func TestShareReplicatesByDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 7))
	ref, gen := gaussians(r, 90, 3, 0), gaussians(r, 70, 3, 0.5)
	d := draws(t, gen.N, 66, 5)
	s := neighbours.NewScan(t.Context(), neighbours.DistanceF32, nil, ref.Pool, 3)
	squares := func(u, v []float32) (sum float64) {
		for x := range u {
			sum += math.Pow(float64(u[x])-float64(v[x]), 2)
		}
		return sum
	}
	for _, c := range []struct {
		m    Metric
		of   *Features
		mine func(i, j int) int // whose radius counts
	}{
		{&Recall{K: 3, Distance: neighbours.DistanceF32}, gen, func(_, j int) int { return j }},
		{&Coverage{K: 3}, ref, func(i, _ int) int { return i }},
	} {
		radii, err := s.Radii(c.of.Pool, 3)
		if err != nil {
			t.Fatal(err)
		}
		share := func(without int) float64 {
			inside := 0.0
			for i := range ref.N {
				for j := range gen.N {
					if j != without && squares(ref.Pool[i*3:i*3+3], gen.Pool[j*3:j*3+3]) <= radii[c.mine(i, j)] {
						inside++
						break
					}
				}
			}
			return inside / float64(ref.N)
		}
		whole := share(-1)
		found := replicates(t, c.m, ref, gen, d)
		for _, b := range []int{0, 40, 65} {
			want := whole
			for j := range gen.N {
				want -= whole - share(j)
			}
			for _, j := range d.index[b] {
				want += whole - share(int(j))
			}
			near(t, c.m.Column().Name, found[b], want, 1e-12)
		}
	}
}

// KID against its definition, pair by pair.
func TestKIDReplicatesByDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 7))
	ref, gen := gaussians(r, 90, 3, 0), gaussians(r, 70, 3, 0.5)
	d := draws(t, gen.N, 66, 5)
	kernel := func(a, b *Features, i, j int) float64 {
		dot := 0.0
		for x := range 3 {
			dot += float64(a.Pool[i*3+x]) * float64(b.Pool[j*3+x])
		}
		return math.Pow(dot/3+1, 3)
	}
	kid := replicates(t, &KID{}, ref, gen, d)
	for b, list := range d.index {
		var xx, yy, xy, pairs float64
		for _, i := range list {
			for _, j := range list {
				if i != j {
					xx += kernel(gen, gen, int(i), int(j))
					pairs++
				}
			}
			for j := range ref.N {
				xy += kernel(gen, ref, int(i), j)
			}
		}
		for i := range ref.N {
			for j := range ref.N {
				if i != j {
					yy += kernel(ref, ref, i, j)
				}
			}
		}
		near(t, "kid", kid[b], xx/pairs+yy/(90*89)-2*xy/(70*90), 1e-10)
	}
}

// Splits keep their images: a draw's score is the mean over splits of the
// score of those of its images that lie there.
func TestInceptionScoreReplicatesOfSplits(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 7))
	gen := gaussians(r, 60, 4, 0)
	gen.ClassWeight = gaussians(r, 7, 4, 0).Pool
	d := draws(t, gen.N, 40, 5)
	found := replicates(t, &InceptionScore{SplitSize: 25}, nil, gen, d)
	for b, list := range d.index {
		want := 0.0
		for _, part := range [][2]int32{{0, 25}, {25, 50}, {50, 60}} {
			own := slices.DeleteFunc(slices.Clone(list), func(i int32) bool { return i < part[0] || i >= part[1] })
			want += value(t, &InceptionScore{SplitSize: 100}, nil, gen.at(own)).Value / 3
		}
		near(t, "IS", found[b], want, 1e-12)
	}
}

// The interval holds, in about 95 of 100 sets, the mean of the metric over
// sets of that size, although replicates of FID and recall are biased.
func TestIntervalHoldsTheMean(t *testing.T) {
	if testing.Short() {
		t.Skip("draws 300 sets")
	}
	const n, sets, tries = 150, 200, 100
	r := rand.New(rand.NewPCG(4, 7))
	ref := gaussians(r, 400, 3, 0)
	d := draws(t, n, 100, 1)
	for _, m := range []Metric{&FID{Mean: MeanFloat64}, &KID{}, &Precision{K: 3, Distance: neighbours.DistanceF32}, &Density{K: 3}, &Recall{K: 3, Distance: neighbours.DistanceF32}, &Coverage{K: 3}} {
		mean := 0.0
		for range sets {
			mean += value(t, m, ref, gaussians(r, n, 3, 0.7)).Value / sets
		}
		held := 0
		for range tries {
			gen := gaussians(r, n, 3, 0.7)
			i := NewInterval(value(t, m, ref, gen).Value, replicates(t, m, ref, gen, d))
			if i.Low <= mean && mean <= i.High {
				held++
			}
		}
		t.Logf("%s: mean %.4f, held by %d of %d", m.Column().Name, mean, held, tries)
		if held < tries*88/100 {
			t.Errorf("%s: %d of %d intervals hold the mean", m.Column().Name, held, tries)
		}
	}
}

// Draws are a function of their arguments, and the same draws of two sets that
// are alike leave the noise that both share out of their difference.
func TestPairedDrawsShrinkTheInterval(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 7))
	ref, a := gaussians(r, 500, 4, 0), gaussians(r, 200, 4, 0.5)
	b := &Features{N: a.N, D: a.D, Pool: slices.Clone(a.Pool)}
	for i := range b.Pool {
		b.Pool[i] += float32(-0.05 + 0.01*r.NormFloat64())
	}
	m := &FID{Mean: MeanFloat64}
	paired, other := draws(t, 200, 100, 9), draws(t, 200, 100, 10)
	ra, rb := replicates(t, m, ref, a, paired), replicates(t, m, ref, b, draws(t, 200, 100, 9))
	if !slices.Equal(ra, replicates(t, m, ref, a, paired)) {
		t.Fatal("the same draws give other replicates")
	}
	difference := func(x, y []float64) Interval {
		out := make([]float64, len(x))
		for i := range out {
			out[i] = x[i] - y[i]
		}
		return NewInterval(value(t, m, ref, b).Value-value(t, m, ref, a).Value, out)
	}
	together, apart := difference(rb, ra), difference(replicates(t, m, ref, b, other), ra)
	if together.Half() > apart.Half()/3 {
		t.Errorf("paired ± %.3g, unpaired ± %.3g", together.Half(), apart.Half())
	}
	if together.High >= 0 {
		t.Errorf("b is nearer to the reference, the interval of the difference is %v", together)
	}
}

func TestIntervalByHand(t *testing.T) {
	values := make([]float64, 39)
	for i := range values {
		values[(i*7)%39] = 10 + float64(i) // 10 … 48, mean 29; the quantiles are at ranks 1 and 39
	}
	i := NewInterval(5, values)
	near(t, "low", i.Low, 5-19, 1e-12)
	near(t, "high", i.High, 5+19, 1e-12)
	near(t, "half", i.Half(), 19, 1e-12)
}

func TestDrawsRefused(t *testing.T) {
	for _, c := range [][2]int{{1, 100}, {100, 39}, {0, 0}} {
		if _, err := NewDraws(c[0], c[1], 0); err == nil {
			t.Errorf("%d draws of %d images", c[1], c[0])
		}
	}
	f := gaussians(rand.New(rand.NewPCG(1, 1)), 50, 2, 0)
	read := &Features{N: 50, D: 2, Pool: f.Pool, Stats: &Stats{Mean: []float64{0, 0}, Cov: []float64{1, 0, 0, 1}}}
	if _, err := Replicates(t.Context(), &FID{Mean: MeanFloat64}, f, read, draws(t, 50, 40, 0)); err == nil || !strings.Contains(err.Error(), "without mu and sigma") {
		t.Errorf("statistics of a file: %v", err)
	}
	if _, err := Replicates(t.Context(), &FID{Mean: MeanFloat64}, f, f, draws(t, 51, 40, 0)); err == nil {
		t.Error("draws of 51 images of a set of 50")
	}
}

// No interval reaches beyond what its metric can be.
func TestIntervalWithinBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	values := make([]float64, 100)
	for i := range values {
		values[i] = r.Float64() / 100
	}
	for m, want := range map[Metric][2]float64{
		&Recall{}: {0, 1}, &Precision{}: {0, 1}, &PRDCRecall{}: {0, 1}, &PRDCPrecision{}: {0, 1}, &Coverage{}: {0, 1},
		&Density{}: {0, math.Inf(1)}, &FID{}: {0, math.Inf(1)}, &FDDINOv2{}: {0, math.Inf(1)}, &SpatialFID{}: {0, math.Inf(1)}, &InceptionScore{}: {1, math.Inf(1)},
		&KID{}: {math.Inf(-1), math.Inf(1)}, // an unbiased estimate of 0 is negative half of the time
	} {
		plain := NewInterval(want[0], values)
		if i := IntervalOf(m, want[0], values); i.Low != max(plain.Low, want[0]) || i.High != plain.High {
			t.Errorf("%s: %v, without bounds %v", m.Column().Name, i, plain)
		}
		if i := IntervalOf(m, want[1], values); i.High != min(NewInterval(want[1], values).High, want[1]) {
			t.Errorf("%s: %v", m.Column().Name, i)
		}
	}
	if i := IntervalOf(&Recall{}, 0.0005, values); i.Low != 0 || !(i.High > 0.0005) {
		t.Errorf("recall: %v", i)
	}
}
