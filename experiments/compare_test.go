package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/eval"
)

// drawnRow writes a row of an experiment with one metric and its draws.
func drawnRow(t *testing.T, folder string, row int, scale string, value float64, draws []float64) *Metrics {
	t.Helper()
	m := &Metrics{
		Format: metricsFormat, Experiment: "e", Run: fmt.Sprint(row), Row: row, Label: "ADM", Settings: []Setting{{"guidance.sag.scale", scale}},
		Samples: 100, Bootstrap: len(draws), Evaluation: "same",
		Scores: []Score{{Name: "fid", Title: "FID", Value: value, Direction: lowerIsBetter, Decimals: 2}},
		Config: []byte("{}"),
	}
	m.folder = filepath.Join(folder, m.Run)
	r := &replicates{names: []string{"fid"}, values: map[string][]float64{"fid": draws}}
	if err := r.write(m.folder); err != nil {
		t.Fatal(err)
	}
	if err := m.write(m.folder); err != nil {
		t.Fatal(err)
	}
	return m
}

// Three rows with the same large noise: one is 1 better in every draw, one
// differs by noise of its own.
func TestCompare(t *testing.T) {
	folder := t.TempDir()
	base, better, alike := make([]float64, 100), make([]float64, 100), make([]float64, 100)
	for b := range base {
		base[b] = 20 + float64(b*37%100)/10
		better[b] = base[b] - 1 + float64(b%3-1)/100
		alike[b] = base[b] + float64(b*53%100-50)/100
	}
	drawnRow(t, folder, 0, "0", 25, base)
	drawnRow(t, folder, 1, "0.5", 24, better)
	drawnRow(t, folder, 2, "0.8", 25.1, alike)
	rows, err := findMetrics(folder)
	if err != nil {
		t.Fatal(err)
	}
	found, err := compareRows(rows, "", nil)
	if err != nil || len(found) != 2 {
		t.Fatalf("%+v, %v", found, err)
	}
	if d := found[0]; d.verdict() != "better" || d.value != -1 || d.interval.Half() > 0.02 {
		t.Errorf("%+v: %s", d, d.verdict())
	}
	if d := found[1]; d.verdict() != "no difference seen" {
		t.Errorf("%+v: %s", d, d.verdict())
	}
	for _, name := range []string{"ADM s=0.5", "2"} {
		found, err = compareRows(rows, name, []string{"fid"})
		if err != nil || len(found) != 2 || found[0].verdict() != "worse" || found[0].value != 1 {
			t.Errorf("baseline %q: %+v, %v", name, found, err)
		}
	}
	var out strings.Builder
	if err := printDifferences(&out, found); err != nil || !strings.Contains(out.String(), "+1.000") || !strings.Contains(out.String(), "worse") {
		t.Errorf("%v:\n%s", err, out.String())
	}
	out.Reset()
	if err := differencesCSV(&out, found); err != nil || !strings.Contains(out.String(), "\ne,ADM s=0,ADM s=0.5,fid,25,1,") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func TestCompareRefuses(t *testing.T) {
	folder := t.TempDir()
	draws := make([]float64, eval.MinReplicates)
	a, b := drawnRow(t, folder, 0, "0", 25, draws), drawnRow(t, folder, 1, "1", 25, draws)
	other := *b
	for what, change := range map[string]func(*Metrics){
		"bootstrap=200":      func(m *Metrics) { m.Bootstrap = 0 },
		"no pairs":           func(m *Metrics) { m.Samples = 50 },
		"in different ways":  func(m *Metrics) { m.Evaluation = "another" },
		"expected the names": func(m *Metrics) { m.Bootstrap, a.Bootstrap = 41, 41 },
	} {
		change(&other)
		if _, err := compareRows([]*Metrics{a, &other}, "", nil); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		other, a.Bootstrap = *b, eval.MinReplicates
	}
	if _, err := compareRows([]*Metrics{a, b}, "s=7", nil); err == nil || !strings.Contains(err.Error(), `1: "ADM s=0"`) {
		t.Errorf("unknown baseline: %v", err)
	}
	if _, err := compareRows([]*Metrics{a, b}, "", []string{"kid"}); err == nil || !strings.Contains(err.Error(), "known: fid") {
		t.Errorf("unknown metric: %v", err)
	}
	if _, err := compareRows([]*Metrics{a}, "", nil); err == nil {
		t.Error("one row alone")
	}
	two := &replicates{names: []string{"fid", "fid"}, values: map[string][]float64{"fid": draws}}
	if err := two.write(b.folder); err != nil {
		t.Fatal(err)
	}
	if _, err := compareRows([]*Metrics{a, b}, "", nil); err == nil || !strings.Contains(err.Error(), "two columns") {
		t.Errorf("a column twice: %v", err)
	}
	b = drawnRow(t, folder, 1, "1", 25, draws)
	path := filepath.Join(b.folder, bootstrapFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte("fid\nNaN\n"), data[6:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := compareRows([]*Metrics{a, b}, "", nil); err == nil || !strings.Contains(err.Error(), "is no number") {
		t.Errorf("a damaged file: %v", err)
	}
}

// A table shows half of the interval behind ±, and both ends to programs.
func TestTableOfIntervals(t *testing.T) {
	m := drawnRow(t, t.TempDir(), 0, "0", 25, make([]float64, 40))
	m.Scores[0].Interval = &eval.Interval{Low: 24, High: 25.5}
	m.Protocol = "torch-fidelity with is.splits=5"
	for format, want := range map[string][]string{
		"markdown": {"25.00 ± 0.75", "from 40 draws", "protocol: torch-fidelity with is.splits=5"},
		"latex":    {`25.00 $\pm$ 0.75`, `$\pm$: half the width of the 95 \% interval`},
		"csv":      {"fid,fid_low,fid_high", "25,24,25.5"},
	} {
		var out strings.Builder
		if err := tableFormats[format](&out, []*Metrics{m}, ""); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s lacks %q:\n%s", format, w, out.String())
			}
		}
	}
}

// Whatever is in the file, it is read whole or refused.
func FuzzReplicates(f *testing.F) {
	for _, seed := range []string{"fid,is\n1,2\n3,4\n", "fid\n1\nNaN\n", "fid,fid\n1,2\n3,4\n", "\"", "", "fid\n1e999\n2\n", "a,b\n1\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, bootstrapFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := readReplicates(folder, 2)
		if err != nil {
			return
		}
		for _, name := range r.names {
			if v := r.values[name]; len(v) != 2 || v[0]-v[0] != 0 || v[1]-v[1] != 0 {
				t.Errorf("%s: %v", name, v)
			}
		}
	})
}
