package refcase

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/ort"

	"gopkg.in/yaml.v3"
)

// A metricTolerance of case.yaml: a bare number is relative.
type metricTolerance struct {
	Relative, Absolute float64
	NaN                bool `yaml:"nan"`
}

func (t *metricTolerance) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&t.Relative)
	}
	type plain metricTolerance
	return n.Decode((*plain)(t))
}

type caseFile struct {
	Tolerance struct {
		Relative  float64
		PerTensor map[string]metricTolerance `yaml:"per_tensor"`
	}
}

// readCase reads case.yaml and the arrays of io.safetensors.
func readCase(t *testing.T, dir string) (c caseFile, in map[string]ort.Array, out map[string][]float64) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "case.yaml"))
	if err == nil {
		err = yaml.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	file, err := checkpoint.Open(filepath.Join(dir, "io.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	in, out = map[string]ort.Array{}, map[string][]float64{}
	for name, tensor := range file.Tensors {
		a := ort.Array{Shape: tensor.Shape}
		switch {
		case strings.HasPrefix(name, "out."):
			out[name], err = tensor.Float64()
		case tensor.DType == checkpoint.F32:
			var v []float32
			v, err = tensor.Float32()
			a.Data = slices.Clone(v) // of a file that is closed
		default:
			a.Data, err = tensor.Int64()
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.HasPrefix(name, "out.") {
			in[name] = a
		}
	}
	return c, in, out
}

// compare reports where got leaves the tolerance around want.
func (c caseFile) compare(t *testing.T, name string, got, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", name, len(got), len(want))
		return
	}
	tol, ok := c.Tolerance.PerTensor[name]
	if !ok {
		tol.Relative = c.Tolerance.Relative
	}
	largest, worst := 0.0, 0.0
	for i := range want {
		largest = max(largest, math.Abs(want[i]))
		worst = max(worst, math.Abs(got[i]-want[i]))
	}
	limit := tol.Absolute
	if tol.Relative > 0 {
		limit = max(limit, tol.Relative*largest)
	}
	if !(worst <= limit) {
		t.Errorf("%s: off by %.3g, tolerance %.3g (got %v, want %v)", name, worst, limit, got[:min(4, len(got))], want[:min(4, len(want))])
	}
	t.Logf("%-34s off by %.2e, tolerance %.2e", name, worst, limit)
}

// Every number of the peers in the shared cases, at the tolerance of the case.
func TestCases(t *testing.T) {
	dirs, err := filepath.Glob("../../eval/testdata/[cm]*-*") // clip-score-, cmmd-, metrics-
	if err != nil || len(dirs) < 7 {
		t.Fatalf("%d cases: %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			c, in, want := readCase(t, dir)
			names := slices.Sorted(maps.Keys(want))
			got, err := metricOutputs(t.Context(), in, names, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				c.compare(t, name, got[name], want[name])
			}
		})
	}
}

// NumPy's sums of every array of the .npz files, in every layout.
func TestNPZCase(t *testing.T) {
	const dir = "../../eval/testdata/stats-npz"
	c, _, want := readCase(t, dir)
	got, err := npzOutputs(dir, slices.Collect(maps.Keys(want)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || len(got) < 100 {
		t.Errorf("%d arrays, want %d", len(got), len(want))
	}
	for name, values := range want {
		c.compare(t, name, got[name], values)
	}
	if _, err := npzOutputs(dir, []string{"out.adm_stored.none.sum", "out.x"}); err == nil {
		t.Error("arrays that do not exist were read")
	}
}

// A case of logits alone is one of the Inception Score.
func TestLogitsAlone(t *testing.T) {
	const dir = "../../eval/testdata/metrics-small"
	c, in, want := readCase(t, dir)
	alone := map[string]ort.Array{"in.logits": in["in.logits"], "in.permutation": in["in.permutation"]}
	n := 0
	for name := range want {
		if !strings.HasPrefix(name, "out.is.") {
			continue
		}
		n++
		got, err := metricOutputs(t.Context(), alone, []string{name}, nil)
		if err != nil {
			t.Error(err)
		}
		c.compare(t, name, got[name], want[name])
	}
	if n < 3 {
		t.Errorf("%d outputs of the Inception Score", n)
	}
}

// Faults of a case are errors that name the array.
func TestCaseFaults(t *testing.T) {
	rows := ort.Array{Shape: []int{4, 1}, Data: []float32{0, 1, 2, 3}}
	in := func(extra map[string]ort.Array) map[string]ort.Array {
		m := map[string]ort.Array{"in.reference": rows, "in.generated": rows}
		maps.Copy(m, extra)
		return m
	}
	for want, c := range map[string]struct {
		in   map[string]ort.Array
		name string
	}{
		"in.reference is missing":         {map[string]ort.Array{"in.generated": rows}, "out.fid.exact"},
		"in.generated is missing":         {map[string]ort.Array{"in.reference": rows}, "out.fid.exact"},
		"in.reference: expected":          {map[string]ort.Array{"in.reference": {Shape: []int{4}, Data: []float32{0, 1, 2, 3}}}, "out.fid.exact"},
		"in.logits is missing":            {map[string]ort.Array{}, "out.is.torch_fidelity"},
		"in.logits: expected":             {in(map[string]ort.Array{"in.logits": {Shape: []int{3, 1}, Data: []float32{0, 1, 2}}}), "out.is.adm"},
		"in.kid.generated: expected":      {in(nil), "out.kid.subsets"},
		"index 4 of 4 images":             {in(map[string]ort.Array{"in.kid.generated": {Shape: []int{1, 2}, Data: []int64{0, 4}}}), "out.kid.subsets"},
		"0 subsets of":                    {in(map[string]ort.Array{"in.kid.generated": {Shape: []int{0, 2}}, "in.kid.reference": {Shape: []int{0, 2}}}), "out.kid.subsets"},
		"0 indices of 4 images":           {in(nil), "out.is.torch_fidelity"},
		"splits of 0 images":              {in(nil), "out.is.adm.split0"},
		"no logits":                       {in(nil), "out.is.adm"},
		"a subset of 3, 2 indices":        {in(map[string]ort.Array{"in.subsets.sizes": {Data: []int64{3}}, "in.subsets.indices": {Data: []int64{0, 1}}}), "out.fid_infinity"},
		"needs 1 ≤ k < 4 images, k is [4": {in(nil), "out.density.k4"},
		"value out of range":              {in(nil), "out.density.k99999999999999999999"},
	} {
		_, err := metricOutputs(t.Context(), c.in, []string{c.name}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", c.name, err, want)
		}
	}
	for _, name := range []string{"out.fid.other", "out.precision.other", "out.adm.other", "out.kid.other", "out.is.other", "out.fid_infinity.other", "out.other"} {
		got, err := metricOutputs(t.Context(), in(map[string]ort.Array{"in.subsets.sizes": {Data: []int64{2, 3}}, "in.subsets.indices": {Data: []int64{0, 1, 1, 2, 3}}}), []string{name}, nil)
		if len(got) != 0 || err != nil {
			t.Errorf("%s: got %v, %v, want nothing", name, got, err)
		}
	}
}

// An embedding of zeros is NaN in the reference, and is so here; other sets of the case
// are computed.
func TestEmbeddingOfZeros(t *testing.T) {
	c, in, want := readCase(t, "../../eval/testdata/clip-score-1")
	zeros := in["in.image_embeds"]
	broken := slices.Clone(zeros.Data.([]float32))
	clear(broken[:zeros.Shape[1]])
	in["in.image_embeds"] = ort.Array{Shape: zeros.Shape, Data: broken}
	got, err := metricOutputs(t.Context(), in, slices.Sorted(maps.Keys(want)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"out.clip_score.torchmetrics", "out.clip_score.jmhessel", "out.cosine"} {
		if !math.IsNaN(got[name][0]) {
			t.Errorf("%s is %v", name, got[name][0])
		}
	}
	for _, name := range []string{"out.clip_score.torchmetrics.negative", "out.cosine.negative"} {
		c.compare(t, name, got[name], want[name])
	}
	delete(in, "in.text_embeds")
	if _, err := metricOutputs(t.Context(), in, []string{"out.clip_score.jmhessel"}, nil); err == nil || !strings.Contains(err.Error(), "in.text_embeds is missing") {
		t.Error(err)
	}
}
