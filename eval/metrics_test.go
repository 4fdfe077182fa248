package eval

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/eval/linalg"
	"sagbench/eval/neighbours"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: got %v, want %v ± %g", what, got, want, tolerance)
	}
}

func value(t *testing.T, m Metric, ref, gen *Features) Score {
	t.Helper()
	s, err := m.Score(t.Context(), ref, gen)
	if err != nil {
		t.Fatal(err)
	}
	return s[0]
}

// Four reference images in the corners of a unit square, a generated one in
// the middle, one far off, two on a corner.
func TestBallsByHand(t *testing.T) {
	ref := &Features{N: 4, D: 2, Pool: []float32{0, 0, 1, 0, 0, 1, 1, 1}}
	gen := &Features{N: 4, D: 2, Pool: []float32{0.5, 0.5, 9, 9, 0, 0, 0, 0}}
	// k = 1: reference radii² 1; generated radii² 0.5, 144.5, 0, 0.
	for _, d := range []neighbours.Distance{neighbours.DistanceF32, neighbours.DistanceFP16, neighbours.DistanceADM} {
		near(t, "precision "+string(d), value(t, &Precision{K: 1, Distance: d}, ref, gen).Value, 3./4, 0)
		// (0.5,0.5) reaches all four corners: 0.5 ≤ 0.5.
		near(t, "recall "+string(d), value(t, &Recall{K: 1, Distance: d}, ref, gen).Value, 1, 0)
	}
	near(t, "prdc precision", value(t, &PRDCPrecision{K: 1}, ref, gen).Value, 3./4, 0)
	// Strictly, 0.5 < 0.5 fails; the far one's ball, 144.5, holds (1,1) alone at 128.
	near(t, "prdc recall", value(t, &PRDCRecall{K: 1}, ref, gen).Value, 1./4, 0)
	// Middle: inside 4 balls; each copy of (0,0): inside its own alone, (1,0) being at 1 < 1.
	near(t, "density", value(t, &Density{K: 1}, ref, gen).Value, 6./4, 0)
	near(t, "coverage", value(t, &Coverage{K: 1}, ref, gen).Value, 1, 0)
}

// The third nearest of identical images is at 0: ≤ holds, < does not.
func TestIdenticalImages(t *testing.T) {
	f := &Features{N: 8, D: 3, Pool: make([]float32, 24)}
	near(t, "precision", value(t, &Precision{K: 3, Distance: neighbours.DistanceADM}, f, f).Value, 1, 0)
	near(t, "recall", value(t, &Recall{K: 3, Distance: neighbours.DistanceADM}, f, f).Value, 1, 0)
	near(t, "density", value(t, &Density{K: 3}, f, f).Value, 0, 0)
	near(t, "coverage", value(t, &Coverage{K: 3}, f, f).Value, 0, 0)
}

// Two images of each class with certainty: IS is the number of classes; all
// of one class: 1. Short last splits weigh as much as whole ones.
func TestInceptionScoreClosedForm(t *testing.T) {
	const k = 5
	logits := make([]float32, 2*k*k)
	for i := range 2 * k {
		logits[i*k+i%k] = 1000 // the others' probability is 0 also in float64
	}
	gen := &Features{N: 2 * k, Logits: logits}
	near(t, "one split", value(t, &InceptionScore{SplitSize: 5000}, nil, gen).Value, k, 1e-12)
	// Splits of 3, 3, 3 and 1: 3, 3, 3 and 1 classes.
	s := value(t, &InceptionScore{SplitSize: 3}, nil, gen)
	near(t, "splits of 3", s.Value, 10./4, 1e-12)
	if len(s.Warnings) != 1 {
		t.Errorf("warnings %q, want one about the short split", s.Warnings)
	}
	s = value(t, &InceptionScore{Splits: 2}, nil, gen)
	near(t, "two splits", s.Value, k, 1e-12)
	near(t, "their deviation", s.Std, 0, 1e-12)
	shuffled := value(t, &InceptionScore{Splits: 1, Shuffle: true}, nil, gen)
	near(t, "one split, shuffled", shuffled.Value, k, 1e-12)
	gen = &Features{N: 4, Logits: []float32{9, 0, 9, 0, 9, 0, 9, 0}}
	near(t, "one class", value(t, &InceptionScore{SplitSize: 5000}, nil, gen).Value, 1, 1e-12)
}

// Logits from features and the class weight are those given directly.
func TestLogitsFromWeight(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	const n, d, k = 600, 12, 7
	pool, weight, logits := normals(r, n*d), normals(r, k*d), make([]float32, n*k)
	if err := (linalg.Gonum{}).Mul32(logits, pool, weight, n, k, d); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*InceptionScore{{SplitSize: 250}, {Splits: 10, Shuffle: true}} {
		a := value(t, m, nil, &Features{N: n, Logits: logits})
		b := value(t, m, nil, &Features{N: n, D: d, Pool: pool, ClassWeight: weight})
		near(t, "IS", a.Value, b.Value, 1e-6)
		near(t, "std", a.Std, b.Std, 1e-6)
	}
}

func normals(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func TestKIDAgainstDoubleLoop(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	const d = 6
	x := &Features{N: 1203, D: d, Pool: normals(r, 1203*d)}
	y := &Features{N: 57, D: d, Pool: normals(r, 57*d)}
	kernel := func(a, b []float32) float64 {
		sum := 0.0
		for i := range a {
			sum += float64(a[i]) * float64(b[i])
		}
		return math.Pow(sum/d+1, 3)
	}
	mean := func(a, b *Features, itself bool) float64 {
		sum, pairs := 0.0, 0.0
		for i := range a.N {
			for j := range b.N {
				if !itself || i != j {
					sum += kernel(a.Pool[i*d:(i+1)*d], b.Pool[j*d:(j+1)*d])
					pairs++
				}
			}
		}
		return sum / pairs
	}
	want := mean(x, x, true) + mean(y, y, true) - 2*mean(x, y, false)
	near(t, "KID", value(t, &KID{}, y, x).Value, want, 1e-12)
	s := value(t, &KID{Subsets: 3, SubsetSize: 57, Seed: 1}, y, y)
	if s.Std > 1e-12 || s.Value >= 0 {
		t.Errorf("three subsets of all images: %v ± %v, want one negative value", s.Value, s.Std)
	}
	if _, err := (&KID{Subsets: 3, SubsetSize: 58}).Score(t.Context(), x, y); err == nil {
		t.Error("subsets larger than the set were drawn")
	}
}

// RandomState(2020) as torch-fidelity uses it: in.permutation and in.kid.* of
// the case come from NumPy.
func TestRandomState(t *testing.T) {
	in := readCase(t, "testdata/metrics-small")
	equal := func(what string, got []int, want []float64) {
		for i, v := range want {
			if got[i] != int(v) {
				t.Fatalf("%s[%d]: got %d, want %v", what, i, got[i], v)
			}
		}
	}
	equal("permutation", newRandomState(2020).permutation(700), in["in.permutation"].Values)
	r := newRandomState(2020)
	for i := range 100 {
		equal("generated", r.permutation(700)[:100], in["in.kid.generated"].Values[i*100:(i+1)*100])
		equal("reference", r.permutation(500)[:100], in["in.kid.reference"].Values[i*100:(i+1)*100])
	}
}

// The metric itself, with the seed of the case: torch-fidelity's own numbers.
func TestKIDSeed(t *testing.T) {
	in := readCase(t, "testdata/metrics-small")
	ref, gen := caseFeatures(in["in.reference"]), caseFeatures(in["in.generated"])
	s := value(t, &KID{Subsets: 100, SubsetSize: 100, Seed: 2020}, ref, gen)
	near(t, "kid.subsets", s.Value, in["out.kid.subsets"].Values[0], 4e-11)
	near(t, "kid.subsets.std", s.Std, in["out.kid.subsets.std"].Values[0], 4e-11)
	gen.Logits = caseFeatures(in["in.logits"]).Pool
	s = value(t, &InceptionScore{Splits: 10, Shuffle: true}, ref, gen)
	near(t, "is.torch_fidelity", s.Value, in["out.is.torch_fidelity"].Values[0], 1e-9)
	near(t, "is.torch_fidelity.std", s.Std, in["out.is.torch_fidelity.std"].Values[0], 1e-9)
}

// A caseTensor is an array of a reference case's io.safetensors.
type caseTensor struct {
	Shape  []int
	Values []float64
}

func readCase(t *testing.T, dir string) map[string]caseTensor {
	t.Helper()
	path := filepath.Join(dir, "io.safetensors")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := binary.LittleEndian.Uint64(data)
	var entries map[string]struct {
		Dtype   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(data[8:8+size], &entries); err != nil {
		t.Fatal(err)
	}
	out := map[string]caseTensor{}
	for name, e := range entries {
		if e.Shape == nil {
			continue // __metadata__
		}
		raw := data[8+int(size)+e.Offsets[0] : 8+int(size)+e.Offsets[1]]
		c := caseTensor{Shape: e.Shape}
		width := map[string]int{"F32": 4, "I32": 4, "F64": 8, "I64": 8}[e.Dtype]
		for ; len(raw) > 0; raw = raw[width:] {
			switch e.Dtype {
			case "F32":
				c.Values = append(c.Values, float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))))
			case "F64":
				c.Values = append(c.Values, math.Float64frombits(binary.LittleEndian.Uint64(raw)))
			case "I32":
				c.Values = append(c.Values, float64(int32(binary.LittleEndian.Uint32(raw))))
			case "I64":
				c.Values = append(c.Values, float64(int64(binary.LittleEndian.Uint64(raw))))
			default:
				t.Fatalf("%s: dtype %q", path, e.Dtype)
			}
		}
		out[name] = c
	}
	return out
}

func caseFeatures(c caseTensor) *Features {
	f := &Features{N: c.Shape[0], D: c.Shape[1]}
	for _, v := range c.Values {
		f.Pool = append(f.Pool, float32(v))
	}
	return f
}

// FID of samples of one distribution falls as 1/N; extrapolated it is near 0.
func TestFIDInfinity(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	const d = 8
	ref := &Features{N: 20000, D: d, Pool: normals(r, 20000*d)}
	gen := &Features{N: 3000, D: d, Pool: normals(r, 3000*d)}
	s := value(t, &FIDInfinity{Points: 15, Smallest: 5000, Seed: 1}, ref, gen)
	if fid := value(t, &FID{Mean: MeanFloat64}, ref, gen).Value; math.Abs(s.Value) > fid/2 {
		t.Errorf("FID∞ %v, FID of all images %v: expected at most half", s.Value, fid)
	}
	if len(s.Warnings) > 0 {
		t.Errorf("subsets of 300 images and more in 8 dimensions: %q", s.Warnings)
	}
	few := value(t, &FIDInfinity{Points: 15, Smallest: 5000, Seed: 1}, ref, &Features{N: 80, D: d, Pool: gen.Pool[:80*d]})
	if len(few.Warnings) != 1 || !strings.Contains(few.Warnings[0], "subsets of 8 images on, in 8 dimensions") {
		t.Errorf("subsets of 8 images in 8 dimensions: %q", few.Warnings)
	}
	a, b, err := line([]float64{1, 2, 4}, []float64{3, 5, 9})
	near(t, "intercept", a, 1, 1e-14)
	near(t, "slope", b, 2, 1e-14)
	if err != nil {
		t.Error(err)
	}
	if _, _, err := line([]float64{2, 2}, []float64{1, 1}); err == nil {
		t.Error("a line through one point was found")
	}
}

func TestEvaluateReports(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	ref := &Features{Source: "ref.npz", N: 40, D: 50, Pool: normals(r, 2000)}
	gen := &Features{Source: "gen.npz", N: 30, D: 50, Pool: normals(r, 1500)}
	report, err := Evaluate(t.Context(), ref, gen, Metrics["fid"](), Metrics["sfid"](), Metrics["is"](), Metrics["precision"]())
	for _, want := range []string{"sfid: ref.npz has no spatial statistics", "mu_s and sigma_s", "is: gen.npz has no logits"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
	if len(report.Scores) != 2 || report.Scores[0].Name != "fid" || report.Scores[1].Name != "precision" {
		t.Errorf("scores %+v, want fid and precision", report.Scores)
	}
	warned := strings.Join(report.Warnings, "\n")
	for _, want := range []string{"ref.npz: 40 images in 50 dimensions", "gen.npz: 30 images in 50", "ref.npz: 40 reference images"} {
		if !strings.Contains(warned, want) {
			t.Errorf("warnings %q, want one that says %q", warned, want)
		}
	}
	gen.Pool[7*50+3] = float32(math.NaN())
	_, err = Evaluate(t.Context(), ref, gen, Metrics["fid"]())
	var fault *NotFiniteError
	if !errors.As(err, &fault) || fault.Image != 7 || fault.Dim != 3 {
		t.Errorf("NaN in image 7: %v", err)
	}
	other := &Features{Source: "other", N: 40, D: 25, Pool: normals(r, 1000)}
	for _, name := range []string{"fid", "precision", "kid"} {
		if _, err := Evaluate(t.Context(), ref, other, Metrics[name]()); err == nil || !strings.Contains(err.Error(), "different networks") {
			t.Errorf("%s of 50 and 25 dimensions: %v", name, err)
		}
	}
}

// Every metric has a column, and says what it lacks when it is given nothing.
func TestMetricsTable(t *testing.T) {
	empty := &Features{Source: "empty.npz"}
	titles := map[string]bool{}
	for name, make := range Metrics {
		m := make()
		c := m.Column()
		if c.Name != name || titles[c.Title] || c.Direction != Higher && c.Direction != Lower {
			t.Errorf("%s: column %+v", name, c)
		}
		titles[c.Title] = true
		if v, ok := m.(interface{ Validate() error }); !ok || v.Validate() != nil {
			t.Errorf("%s: the default options are not valid", name)
		}
		if _, err := Evaluate(t.Context(), empty, empty, m); err == nil || !strings.Contains(err.Error(), "empty.npz") {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
	for _, m := range []interface{ Validate() error }{
		&FID{}, &SpatialFID{Mean: "float16"}, &InceptionScore{}, &Precision{K: 0, Distance: neighbours.DistanceF32}, &Recall{K: 1, Distance: "f64"},
		&Density{}, &Coverage{}, &PRDCPrecision{}, &PRDCRecall{}, &KID{Subsets: 1}, &FIDInfinity{Points: 1, Smallest: 2},
	} {
		if m.Validate() == nil {
			t.Errorf("%+v is accepted", m)
		}
	}
}

// A cancelled context ends what takes long, with the context's own error.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := rand.New(rand.NewPCG(7, 7))
	f := &Features{N: 40, D: 4, Pool: normals(r, 160), Logits: normals(r, 400)}
	for _, name := range []string{"is", "precision", "density", "fid_infinity"} {
		if _, err := Evaluate(ctx, f, f, Metrics[name]()); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, f := range map[string]*Features{
		"pool":    {N: 2, D: 2, Pool: make([]float32, 3)},
		"stats":   {Stats: &Stats{Mean: make([]float64, 2), Cov: make([]float64, 3)}},
		"differ":  {N: 1, D: 3, Pool: make([]float32, 3), Stats: &Stats{Mean: make([]float64, 1), Cov: make([]float64, 1)}},
		"logits":  {N: 2, Logits: make([]float32, 3)},
		"weight":  {N: 1, D: 2, Pool: make([]float32, 2), ClassWeight: make([]float32, 3)},
		"nothing": {Logits: []float32{1}},
	} {
		if f.Validate() == nil {
			t.Errorf("%s: features that do not fit are accepted", name)
		}
	}
}

func TestSpatialFID(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	s, err := StatsOf(normals(r, 300), 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &Features{Spatial: s}
	near(t, "sFID of a set to itself", value(t, &SpatialFID{Mean: MeanFloat32}, f, f).Value, 0, 1e-12)
}
