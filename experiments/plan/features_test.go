package plan

import (
	"path/filepath"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models/checkpoint"
	"sagbench/models/features"
	"sagbench/models/onnx"
)

func named(t *testing.T, protocol, list string) (eval.Protocol, []configs.Named[eval.Metric]) {
	t.Helper()
	p, err := eval.ProtocolOf(protocol)
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := ParseMetrics(p, list)
	if err != nil {
		t.Fatal(err)
	}
	return p, chosen
}

func TestDescribeProtocol(t *testing.T) {
	for _, c := range []struct {
		protocol string
		resize   features.Resize
		metrics  string
		want     string
	}{
		{"adm", features.TF, "fid, is, precision", "adm"},
		{"adm", features.TF, "fid, is: {splits: 10}", "adm with is.splits=10"},
		{"adm", features.Torch, "fid: {mean: float64}", "adm with resize=torch, fid.mean=float64"},
		{"torch-fidelity", features.TF, "is, kid: {subset_size: 100}", "torch-fidelity with kid.subset_size=100"},
		{"pytorch-fid", features.Torch, "fid", "pytorch-fid"},
	} {
		p, chosen := named(t, c.protocol, c.metrics)
		if found, err := DescribeProtocol(p, FeatureNetwork{Network: features.Networks[0], NetworkBlock: NetworkBlock{Resize: c.resize}}, chosen); err != nil || found != c.want {
			t.Errorf("%s: %q, %v, expected %q", c.metrics, found, err, c.want)
		}
	}
	p, chosen := named(t, "pytorch-fid", "fid, kid")
	if notes := ForeignMetrics(p, chosen); len(notes) != 1 || !strings.HasPrefix(notes[0], "kid: not a metric of pytorch-fid") {
		t.Errorf("%q", notes)
	}
}

// The key protocol of an experiment sets the resize and the options that the
// file leaves open, and no run id.
func TestProtocolOfAnExperiment(t *testing.T) {
	id := ""
	for _, c := range []struct {
		settings []string
		resize   features.Resize
		splits   int
		want     string
	}{
		{nil, features.TF, 0, "adm"},
		{[]string{"protocol=torch-fidelity"}, features.TF, 10, "torch-fidelity"},
		{[]string{"protocol=pytorch-fid"}, features.Torch, 0, "pytorch-fid"},
		{[]string{"protocol=pytorch-fid", "inception.resize=clean", "metrics=[is: {splits: 3}]"}, features.Clean, 3, "pytorch-fid with resize=clean, is.splits=3"},
	} {
		e, err := Load(filepath.Join(tiny.Root(), "configs/table1-fashion.yaml"), c.settings)
		if err != nil {
			t.Fatal(err)
		}
		r := e.Rows[0]
		if r.FeatureNetworks["inception"].Resize != c.resize {
			t.Errorf("%v: resize %s, expected %s", c.settings, r.FeatureNetworks["inception"].Resize, c.resize)
		}
		for _, m := range r.Metrics {
			if is, ok := m.Value.(*eval.InceptionScore); ok && is.Splits != c.splits {
				t.Errorf("%v: %d splits, expected %d", c.settings, is.Splits, c.splits)
			}
		}
		if found, err := DescribeProtocol(r.Protocol, r.FeatureNetworks["inception"], r.Metrics); err != nil || found != c.want {
			t.Errorf("%v: %q, %v", c.settings, found, err)
		}
		found, err := r.RunID("x")
		if err != nil || id != "" && found != id {
			t.Errorf("%v: run %s, %v; %s under another protocol", c.settings, found, err, id)
		}
		id = found
	}
	for _, c := range []string{"protocol=tf-fid", "bootstrap=10"} {
		if _, err := Load(filepath.Join(tiny.Root(), "configs/table1-fashion.yaml"), []string{c}); err == nil || !strings.Contains(err.Error(), c[:strings.Index(c, "=")]+" is") {
			t.Errorf("%s: %v", c, err)
		}
	}
}

// The weights beside an .onnx file belong to what tells its features apart.
func TestHashOfGraphWithData(t *testing.T) {
	folder := t.TempDir()
	data := filepath.Join(folder, "weights")
	hash := func(content string) string {
		t.Helper()
		tiny.Write(t, data, content)
		sd := checkpoint.StateDict{"w": {File: data, DType: checkpoint.F32, Shape: []int{32, 32}, Size: 4096}}
		g, err := onnx.Build(sd, func(m *onnx.Module) {
			m.Output("y", m.MatMul(m.Input("x", checkpoint.F32, 1, 32), m.Param("w", 32, 32)))
		})
		if err != nil {
			t.Fatal(err)
		}
		last := features.Networks[len(features.Networks)-1]
		n := NewFeatureNetwork(last, eval.Protocol{})
		n.Weights.Path = filepath.Join(folder, "graph"+last.Suffix)
		tiny.Write(t, n.Weights.Path, string(g.Proto))
		sum, err := n.Hash(store.Hashes{})
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	first := hash(strings.Repeat("a", 4096))
	if other := hash(strings.Repeat("b", 4096)); other == first {
		t.Error("other weights have the same hash")
	}
	if again := hash(strings.Repeat("a", 4096)); again != first {
		t.Error("the same weights have another hash")
	}
}
