package eval

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// A caseTensor is an array of io.safetensors.
type caseTensor struct {
	Shape  []int
	Values []float64
	Ints   bool
}

func readSafetensors(t *testing.T, path string) map[string]caseTensor {
	t.Helper()
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
		c := caseTensor{Shape: e.Shape, Ints: e.Dtype[0] == 'I'}
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

// A tolerance of case.yaml: a bare number is relative.
type tolerance struct {
	Relative, Absolute float64
	NaN                bool `yaml:"nan"`
}

func (t *tolerance) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&t.Relative)
	}
	type plain tolerance
	return n.Decode((*plain)(t))
}

type caseFile struct {
	Tolerance struct {
		Relative  float64
		PerTensor map[string]tolerance `yaml:"per_tensor"`
	}
}

func readCase(t *testing.T, dir string) (caseFile, map[string]caseTensor) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "case.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c caseFile
	if err := yaml.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c, readSafetensors(t, filepath.Join(dir, "io.safetensors"))
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
	dirs, err := filepath.Glob("testdata/metrics-*")
	if err != nil || len(dirs) < 5 {
		t.Fatalf("%d cases: %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			c, tensors := readCase(t, dir)
			in := map[string]CaseArray{}
			var want []string
			for name, v := range tensors {
				if strings.HasPrefix(name, "out.") {
					want = append(want, name)
					continue
				}
				a := CaseArray{Shape: v.Shape}
				for _, x := range v.Values {
					if v.Ints {
						a.Int = append(a.Int, int64(x))
					} else {
						a.Float = append(a.Float, float32(x))
					}
				}
				in[name] = a
			}
			slices.Sort(want)
			got, err := CaseOutputs(t.Context(), in, want, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range want {
				c.compare(t, name, got[name], tensors[name].Values)
			}
		})
	}
}

// NumPy's sums of every array of the .npz files, in every layout.
func TestNPZCase(t *testing.T) {
	const dir = "testdata/stats-npz"
	c, tensors := readCase(t, dir)
	got, err := NPZOutputs(dir, slices.Collect(maps.Keys(tensors)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(tensors) || len(got) < 100 {
		t.Errorf("%d arrays, want %d", len(got), len(tensors))
	}
	for name, want := range tensors {
		c.compare(t, name, got[name], want.Values)
	}
	if _, err := NPZOutputs(dir, []string{"out.adm_stored.none.sum", "out.x"}); err == nil {
		t.Error("arrays that do not exist were read")
	}
}

// Faults of a case are errors that name the array.
func TestCaseFaults(t *testing.T) {
	rows := CaseArray{Shape: []int{4, 1}, Float: []float32{0, 1, 2, 3}}
	in := func(extra map[string]CaseArray) map[string]CaseArray {
		m := map[string]CaseArray{"in.reference": rows, "in.generated": rows}
		maps.Copy(m, extra)
		return m
	}
	for want, c := range map[string]struct {
		in   map[string]CaseArray
		name string
	}{
		"in.reference: expected":          {map[string]CaseArray{}, "out.fid.exact"},
		"in.generated: expected":          {map[string]CaseArray{"in.reference": rows}, "out.fid.exact"},
		"in.kid.generated: expected":      {in(nil), "out.kid.subsets"},
		"index 4 of 4 images":             {in(map[string]CaseArray{"in.kid.generated": {Shape: []int{1, 2}, Int: []int64{0, 4}}}), "out.kid.subsets"},
		"0 subsets of":                    {in(map[string]CaseArray{"in.kid.generated": {Shape: []int{0, 2}}, "in.kid.reference": {Shape: []int{0, 2}}}), "out.kid.subsets"},
		"0 indices of 4 images":           {in(nil), "out.is.torch_fidelity"},
		"splits of 0 images":              {in(nil), "out.is.adm.split0"},
		"no logits":                       {in(nil), "out.is.adm"},
		"a subset of 3, 2 indices":        {in(map[string]CaseArray{"in.subsets.sizes": {Int: []int64{3}}, "in.subsets.indices": {Int: []int64{0, 1}}}), "out.fid_infinity"},
		"needs 1 ≤ k < 4 images, k is [4": {in(nil), "out.density.k4"},
		"value out of range":              {in(nil), "out.density.k99999999999999999999"},
	} {
		_, err := CaseOutputs(t.Context(), c.in, []string{c.name}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", c.name, err, want)
		}
	}
	for _, name := range []string{"out.fid.other", "out.precision.other", "out.adm.other", "out.kid.other", "out.is.other", "out.fid_infinity.other", "out.other"} {
		got, err := CaseOutputs(t.Context(), in(map[string]CaseArray{"in.subsets.sizes": {Int: []int64{2, 3}}, "in.subsets.indices": {Int: []int64{0, 1, 1, 2, 3}}}), []string{name}, nil)
		if len(got) != 0 || err != nil {
			t.Errorf("%s: got %v, %v, want nothing", name, got, err)
		}
	}
}
