package main

import (
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/models"
)

func named(t *testing.T, protocol, list string) (eval.Protocol, []configs.Named[eval.Metric]) {
	t.Helper()
	p, err := eval.ProtocolOf(protocol)
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := parseMetrics(p, list)
	if err != nil {
		t.Fatal(err)
	}
	return p, chosen
}

func TestDescribeProtocol(t *testing.T) {
	for _, c := range []struct {
		protocol string
		resize   models.Resize
		metrics  string
		want     string
	}{
		{"adm", models.TF, "fid, is, precision", "adm"},
		{"adm", models.TF, "fid, is: {splits: 10}", "adm with is.splits=10"},
		{"adm", models.Torch, "fid: {mean: float64}", "adm with resize=torch, fid.mean=float64"},
		{"torch-fidelity", models.TF, "is, kid: {subset_size: 100}", "torch-fidelity with kid.subset_size=100"},
		{"pytorch-fid", models.Torch, "fid", "pytorch-fid"},
	} {
		p, chosen := named(t, c.protocol, c.metrics)
		if found, err := describeProtocol(p, featureNetwork{name: "inception", resize: c.resize}, chosen); err != nil || found != c.want {
			t.Errorf("%s: %q, %v, expected %q", c.metrics, found, err, c.want)
		}
	}
	p, chosen := named(t, "pytorch-fid", "fid, kid")
	if notes := foreign(p, chosen); len(notes) != 1 || !strings.HasPrefix(notes[0], "kid: not a metric of pytorch-fid") {
		t.Errorf("%q", notes)
	}
}

// The key protocol of an experiment sets the resize and the options that the
// file leaves open, and no run id.
func TestProtocolOfAnExperiment(t *testing.T) {
	id := ""
	for _, c := range []struct {
		settings []string
		resize   models.Resize
		splits   int
		want     string
	}{
		{nil, models.TF, 0, "adm"},
		{[]string{"protocol=torch-fidelity"}, models.TF, 10, "torch-fidelity"},
		{[]string{"protocol=pytorch-fid"}, models.Torch, 0, "pytorch-fid"},
		{[]string{"protocol=pytorch-fid", "inception.resize=clean", "metrics=[is: {splits: 3}]"}, models.Clean, 3, "pytorch-fid with resize=clean, is.splits=3"},
	} {
		e, err := loadExperiment("../configs/table1-fashion.yaml", c.settings)
		if err != nil {
			t.Fatal(err)
		}
		r := e.rows[0]
		if r.Inception.Resize != c.resize {
			t.Errorf("%v: resize %s, expected %s", c.settings, r.Inception.Resize, c.resize)
		}
		for _, m := range r.metrics {
			if is, ok := m.Value.(*eval.InceptionScore); ok && is.Splits != c.splits {
				t.Errorf("%v: %d splits, expected %d", c.settings, is.Splits, c.splits)
			}
		}
		if found, err := describeProtocol(r.protocol, r.featureNetworks()["inception"], r.metrics); err != nil || found != c.want {
			t.Errorf("%v: %q, %v", c.settings, found, err)
		}
		found, err := r.runID("x")
		if err != nil || id != "" && found != id {
			t.Errorf("%v: run %s, %v; %s under another protocol", c.settings, found, err, id)
		}
		id = found
	}
	for _, c := range []string{"protocol=tf-fid", "bootstrap=10"} {
		if _, err := loadExperiment("../configs/table1-fashion.yaml", []string{c}); err == nil || !strings.Contains(err.Error(), c[:strings.Index(c, "=")]+" is") {
			t.Errorf("%s: %v", c, err)
		}
	}
}
