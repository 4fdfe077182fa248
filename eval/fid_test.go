package eval

import (
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// gaussian is N(mean, Q·diag(variance)·Qᵀ).
func gaussian(mean, variance []float64, q *mat.Dense) *Stats {
	d := len(mean)
	var t, c mat.Dense
	t.Mul(q, mat.NewDiagDense(d, variance))
	c.Mul(&t, q.T())
	s := &Stats{N: 1 << 20, Mean: mean, Cov: make([]float64, d*d)}
	for i := range d {
		for j := range d {
			s.Cov[i*d+j] = (c.At(i, j) + c.At(j, i)) / 2
		}
	}
	return s
}

func rotation(r *rand.Rand, d int) *mat.Dense {
	a := mat.NewDense(d, d, nil)
	for i := range d {
		for j := range d {
			a.Set(i, j, r.NormFloat64())
		}
	}
	var qr mat.QR
	qr.Factorize(a)
	var q mat.Dense
	qr.QTo(&q)
	return &q
}

// Covariances with common axes: d² = |μ₁−μ₂|² + Σ(√λ₁−√λ₂)², also where some
// variances are zero on one side or both.
func TestFrechetClosedForm(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, d := range []int{1, 2, 33, 150} {
		for _, zeros := range []string{"", "first", "both", "disjoint"} {
			q := rotation(r, d)
			m1, m2, v1, v2 := make([]float64, d), make([]float64, d), make([]float64, d), make([]float64, d)
			want, scale := 0.0, 0.0
			for i := range d {
				m1[i], m2[i] = r.NormFloat64(), r.NormFloat64()
				v1[i], v2[i] = math.Exp(3*r.NormFloat64()), math.Exp(3*r.NormFloat64())
				if zeros == "first" && i%3 == 0 || zeros == "both" && i%2 == 0 || zeros == "disjoint" && i%2 == 0 {
					v1[i] = 0
				}
				if zeros == "both" && i%2 == 0 || zeros == "disjoint" && i%2 == 1 {
					v2[i] = 0
				}
				want += (m1[i]-m2[i])*(m1[i]-m2[i]) + math.Pow(math.Sqrt(v1[i])-math.Sqrt(v2[i]), 2)
				scale += v1[i] + v2[i]
			}
			f, err := FrechetDistance(gaussian(m1, v1, q), gaussian(m2, v2, q), MeanFloat64, nil)
			if err != nil {
				t.Fatal(err)
			}
			// A null space of rounded numbers leaves √2⁻⁵³ of the largest.
			tolerance := 1e-11 * scale
			if zeros != "" {
				tolerance = 1e-7 * scale
			}
			near(t, zeros+" "+f.Route, f.Distance, want, tolerance)
		}
	}
}

// The same distance by every route: features, statistics alone, swapped.
func TestRoutesAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	const d = 40
	for _, n := range [][2]int{{300, 200}, {30, 300}, {300, 25}, {20, 30}, {41, 41}, {40, 40}} {
		a, b := sample(t, r, n[0], d), sample(t, r, n[1], d)
		want, err := FrechetDistance(a, b, MeanFloat64, nil)
		if err != nil {
			t.Fatal(err)
		}
		few := n[0] <= d || n[1] <= d
		if strings.Contains(want.Route, "nuclear") != few {
			t.Errorf("%v images in %d dimensions took the route %q", n, d, want.Route)
		}
		bare := func(s *Stats) *Stats { c := *s; c.Rows = nil; return &c }
		for _, pair := range [][2]*Stats{{b, a}, {bare(a), bare(b)}, {bare(b), a}, {b, bare(a)}} {
			got, err := FrechetDistance(pair[0], pair[1], MeanFloat64, nil)
			if err != nil {
				t.Fatal(err)
			}
			near(t, got.Route, got.Distance, want.Distance, 1e-10*want.Traces)
		}
		same, err := FrechetDistance(a, bare(a), MeanFloat64, nil)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "of a set to itself", same.Distance, 0, 1e-12*want.Traces)
	}
}

func sample(t *testing.T, r *rand.Rand, n, d int) *Stats {
	t.Helper()
	x := make([]float32, n*d)
	for i := range n {
		previous := 0.0
		for j := range d {
			previous = 0.8*previous + r.NormFloat64()
			x[i*d+j] = float32(previous * math.Exp(-float64(j)/6))
		}
	}
	s, err := StatsOf(x, d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A covariance that rounding made indefinite stands between the other's factors.
func TestIndefiniteCovariance(t *testing.T) {
	a := &Stats{Mean: []float64{0, 0, 0}, Cov: []float64{1, 0, 0, 0, 4, 0, 0, 0, 9}}
	b := &Stats{Mean: []float64{0, 0, 0}, Cov: []float64{1, 1.1, 0, 1.1, 1, 0, 0, 0, 1}} // eigenvalues 2.1, −0.1, 1
	for _, pair := range [][2]*Stats{{a, b}, {b, a}} {
		f, err := FrechetDistance(pair[0], pair[1], MeanFloat64, nil)
		if err != nil {
			t.Fatal(err)
		}
		// Eigenvalues of the product: (5 ± √(25+16·0.21·… ))/2 of [[1,1.1],[4.4,4]], and 9.
		plus := (5 + math.Sqrt(25+4*(4.84-4))) / 2
		near(t, f.Route, f.Root, math.Sqrt(plus)+3, 1e-12)
		if !strings.Contains(f.Route, "indefinite") {
			t.Errorf("route %q", f.Route)
		}
	}
	if f, err := FrechetDistance(b, b, MeanFloat64, nil); err != nil || math.IsNaN(f.Distance) {
		t.Errorf("of an indefinite covariance to itself: %v, %v", f.Distance, err)
	}
}

// NumPy's mean (to the bit) and covariance of the case's features, however the
// rows arrive, and without cancellation far from zero.
func TestAccumulatorAgainstNumPy(t *testing.T) {
	for name, want := range map[string]struct {
		mean       uint32
		sum, trace float64
	}{
		"small":    {0x8429b92b, 22.5549420330533, 14.049203623571824},
		"overflow": {0x55f55494, 10762.755064375795, 5973.378112512163},
	} {
		in := readCase(t, "testdata/metrics-"+name)
		f := caseFeatures(in["in.generated"])
		s, err := StatsOf(f.Pool, f.D, nil)
		if err != nil {
			t.Fatal(err)
		}
		var raw []byte
		for _, v := range s.Mean32 {
			bits := math.Float32bits(v)
			raw = append(raw, byte(bits), byte(bits>>8), byte(bits>>16), byte(bits>>24))
		}
		if got := crc32.ChecksumIEEE(raw); got != want.mean {
			t.Errorf("%s: float32 mean has CRC %x, want %x", name, got, want.mean)
		}
		sum := 0.0
		for _, v := range s.Cov {
			sum += v
		}
		near(t, name+" sum", sum, want.sum, 1e-12*want.sum)
		near(t, name+" trace", s.trace(), want.trace, 1e-12*want.trace)
	}
}

func TestAccumulatorBatches(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	const n, d = 2*batchRows + 77, 3
	x := normals(r, n*d)
	for i := range x {
		x[i] += 1e4 // the squares are 10⁸ times the variance
	}
	whole, err := StatsOf(x, d, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := NewAccumulator(d, nil)
	for rest := x; len(rest) > 0; {
		part := min(len(rest), d*(1+r.IntN(500)))
		if err := a.Add(rest[:part]); err != nil {
			t.Fatal(err)
		}
		rest = rest[part:]
	}
	s, err := a.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole.Cov {
		if s.Cov[i] != whole.Cov[i] {
			t.Errorf("covariance %d depends on the batches: %v, %v", i, s.Cov[i], whole.Cov[i])
		}
	}
	for i := range d { // by definition, in two passes
		for j := range d {
			sum := 0.0
			for k := range n {
				sum += (float64(x[k*d+i]) - s.Mean[i]) * (float64(x[k*d+j]) - s.Mean[j])
			}
			near(t, "covariance", s.Cov[i*d+j], sum/(n-1), 1e-13)
		}
	}
	if s.Rows != nil || s.N != n {
		t.Errorf("%d rows kept of %d", len(s.Rows)/d, s.N)
	}
}

func TestAccumulatorRefuses(t *testing.T) {
	a := NewAccumulator(2, nil)
	if _, err := a.Stats(); err == nil {
		t.Error("statistics of nothing")
	}
	if err := a.Add([]float32{1, 2, 3}); err == nil {
		t.Error("half a row was accepted")
	}
	if err := a.Add([]float32{1, 2, 3, 4}); err != nil {
		t.Error(err)
	}
	err := a.Add([]float32{1, float32(math.Inf(1))})
	if fault, ok := err.(*NotFiniteError); !ok || fault.Image != 2 || fault.Dim != 1 {
		t.Errorf("infinite feature of image 2: %v", err)
	}
}

// The mean of float32 features is taken in float32 where both sets have it.
func TestMeanTypes(t *testing.T) {
	a := &Stats{Mean: []float64{1.00000001}, Mean32: []float32{1}, Cov: []float64{1}}
	b := &Stats{Mean: []float64{3}, Cov: []float64{1}}
	near(t, "float64", meanDistance(a, b, MeanFloat64), 1.99999999*1.99999999, 1e-15)
	near(t, "float32", meanDistance(a, b, MeanFloat32), 4, 0)
	near(t, "float32, swapped", meanDistance(b, a, MeanFloat32), 4, 0)
	b.Mean32 = []float32{3}
	near(t, "both float32", meanDistance(a, b, MeanFloat32), 4, 0)
	if _, err := FrechetDistance(a, &Stats{Mean: []float64{1, 2}}, MeanFloat64, nil); err == nil {
		t.Error("1 and 2 dimensions were compared")
	}
}

// With fewer images than dimensions the warning tells the bias. Of sets of one
// distribution the whole distance is bias, or nearly.
func TestBiasOfFewImages(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	ref, gen := gaussians(r, 4000, 40, 0), gaussians(r, 38, 40, 0)
	scores, err := (&FID{Mean: MeanFloat64}).Score(t.Context(), ref, gen)
	if err != nil || len(scores[0].Warnings) != 1 {
		t.Fatalf("%+v, %v", scores, err)
	}
	var bias float64
	_, after, _ := strings.Cut(scores[0].Warnings[0], "by roughly ")
	if _, err := fmt.Sscanf(after, "%g,", &bias); err != nil {
		t.Fatalf("no bias in %q", scores[0].Warnings[0])
	}
	if v := scores[0].Value; bias < v/2 || bias > 1.5*v {
		t.Errorf("FID %.3f of 38 images of the same distribution, said to be too high by %.3f", v, bias)
	}
}
