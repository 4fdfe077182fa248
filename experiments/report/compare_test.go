package report

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval"
	"sagbench/experiments/store"
)

// drawnRow writes a row of an experiment with one metric and its draws.
func drawnRow(t *testing.T, folder string, row int, scale string, value float64, draws []float64) *store.Metrics {
	t.Helper()
	m := &store.Metrics{
		Format: store.MetricsFormat, Experiment: "e", Run: fmt.Sprint(row), Row: row, Label: "ADM", Settings: []store.Setting{{Path: "guidance.sag.scale", Value: scale}},
		Samples: 100, Bootstrap: len(draws), Evaluation: "same",
		Scores: []store.Score{{Name: "fid", Title: "FID", Value: value, Direction: store.LowerIsBetter, Decimals: 2}},
		Config: []byte("{}"),
	}
	m.Folder = filepath.Join(folder, m.Run)
	r := &store.Replicates{Names: []string{"fid"}, Values: map[string][]float64{"fid": draws}}
	if err := r.Write(m.Folder); err != nil {
		t.Fatal(err)
	}
	if err := m.Write(m.Folder); err != nil {
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
	rows, err := store.FindMetrics(folder)
	if err != nil {
		t.Fatal(err)
	}
	found, err := compareRows(rows, DifferenceOptions{})
	if err != nil || len(found) != 2 {
		t.Fatalf("%+v, %v", found, err)
	}
	if d := found[0]; d.verdict() != "better" || d.value != -1 || d.interval.Half() > 0.02 {
		t.Errorf("%+v: %s", d, d.verdict())
	}
	if d := found[1]; d.verdict() != "no difference seen" {
		t.Errorf("%+v: %s", d, d.verdict())
	}
	found, err = compareRows(rows, DifferenceOptions{Baseline: "ADM, s = 0", Rows: []string{"3"}})
	if err != nil || len(found) != 1 || found[0].row != "ADM s=0.8" || found[0].baseline != "ADM s=0" {
		t.Errorf("row 3 alone: %+v, %v", found, err)
	}
	if _, err := compareRows(rows, DifferenceOptions{Rows: []string{"4"}}); err == nil || !strings.Contains(err.Error(), `--rows: there is no row "4"; there are 1: ADM s=0; 2: `) {
		t.Error(err)
	}
	for _, name := range []string{"ADM s=0.5", "2"} {
		found, err = compareRows(rows, DifferenceOptions{Baseline: name, Metrics: []string{"fid"}})
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

// Where each row has a label of its own, rows are compared with the first one that the
// same network drew.
func TestCompareGuidances(t *testing.T) {
	folder := t.TempDir()
	draws := make([]float64, eval.MinReplicates)
	var rows []*store.Metrics
	for i, c := range []struct{ label, network string }{{"DiT", "d"}, {"DiT cfg", "d"}, {"ADM", "a"}, {"DiT pag", "d"}, {"ADM cfg", "a"}} {
		m := drawnRow(t, folder, i, fmt.Sprint(i), 20+float64(i), draws)
		m.Label, m.Settings, m.Inputs.Checkpoint.SHA256 = c.label, nil, c.network
		rows = append(rows, m)
	}
	found, err := compareRows(rows, DifferenceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range found {
		got = append(got, fmt.Sprintf("%s − %s = %g", d.row, d.baseline, d.value))
	}
	if want := []string{"DiT cfg − DiT = 1", "DiT pag − DiT = 3", "ADM cfg − ADM = 2"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCompareRefuses(t *testing.T) {
	folder := t.TempDir()
	draws := make([]float64, eval.MinReplicates)
	a, b := drawnRow(t, folder, 0, "0", 25, draws), drawnRow(t, folder, 1, "1", 25, draws)
	other := *b
	for what, change := range map[string]func(*store.Metrics){
		"bootstrap=200":      func(m *store.Metrics) { m.Bootstrap = 0 },
		"no pairs":           func(m *store.Metrics) { m.Samples = 50 },
		"in different ways":  func(m *store.Metrics) { m.Evaluation = "another" },
		"expected the names": func(m *store.Metrics) { m.Bootstrap, a.Bootstrap = 41, 41 },
	} {
		change(&other)
		if _, err := compareRows([]*store.Metrics{a, &other}, DifferenceOptions{}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		other, a.Bootstrap = *b, eval.MinReplicates
	}
	if _, err := compareRows([]*store.Metrics{a, b}, DifferenceOptions{Baseline: "s=7"}); err == nil || !strings.Contains(err.Error(), `1: "ADM s=0"`) {
		t.Errorf("unknown baseline: %v", err)
	}
	if _, err := compareRows([]*store.Metrics{a, b}, DifferenceOptions{Metrics: []string{"kid"}}); err == nil || !strings.Contains(err.Error(), "known: fid") {
		t.Errorf("unknown metric: %v", err)
	}
	if _, err := compareRows([]*store.Metrics{a}, DifferenceOptions{}); err == nil {
		t.Error("one row alone")
	}
	two := &store.Replicates{Names: []string{"fid", "fid"}, Values: map[string][]float64{"fid": draws}}
	if err := two.Write(b.Folder); err != nil {
		t.Fatal(err)
	}
	if _, err := compareRows([]*store.Metrics{a, b}, DifferenceOptions{}); err == nil || !strings.Contains(err.Error(), "two columns") {
		t.Errorf("a column twice: %v", err)
	}
	b = drawnRow(t, folder, 1, "1", 25, draws)
	path := filepath.Join(b.Folder, store.BootstrapFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte("fid\nNaN\n"), data[6:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := compareRows([]*store.Metrics{a, b}, DifferenceOptions{}); err == nil || !strings.Contains(err.Error(), "is no number") {
		t.Errorf("a damaged file: %v", err)
	}
}

// Rows of other seeds are of other noise, and are no pairs.
func TestCompareSeeds(t *testing.T) {
	folder, noise := t.TempDir(), normal(4, 100)
	var rows []*store.Metrics
	for i, seed := range []string{"0", "0", "7"} {
		m := drawnRow(t, folder, i, fmt.Sprint(i), 25, noise)
		m.Config = []byte(`{"seed":` + seed + `}`)
		rows = append(rows, m)
	}
	found, err := compareRows(rows, DifferenceOptions{})
	if err != nil || len(found) != 2 {
		t.Fatal(found, err)
	}
	if d := found[0]; d.pairs != byNoise || d.spread != 0 {
		t.Errorf("one seed: %+v", d)
	}
	if d := found[1]; d.pairs != "" || math.Abs(d.spread-math.Hypot(d.own, d.theirs)) > 1e-12 || d.interval.Half() < 2 || !strings.Contains(d.sentence(), ", unpaired, ") {
		t.Errorf("two seeds: %s, %+v", d.sentence(), d)
	}
}

// A table shows half of the interval behind ±, and both ends to programs.
func TestTableOfIntervals(t *testing.T) {
	m := drawnRow(t, t.TempDir(), 0, "0", 25, make([]float64, 40))
	m.Scores[0].Interval = &eval.Interval{Low: 24, High: 25.5}
	m.Protocol = "torch-fidelity with is.splits=5"
	for format, want := range map[string][]string{
		"markdown": {"25.00 ± 0.75", "from 40 draws", "protocol: torch-fidelity with is.splits=5"},
		"latex":    {`25.00\,$\pm$\,0.75`, `$\pm$: half the width of the 95 \% interval`},
		"csv":      {"fid,fid_low,fid_high", "25,24,25.5"},
	} {
		var out strings.Builder
		if err := tableFormats[format](&out, []*store.Metrics{m}, TableOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s lacks %q:\n%s", format, w, out.String())
			}
		}
	}
}

// A difference or an end of an interval that has a sign shows a digit.
func TestTellingDigits(t *testing.T) {
	for want, v := range map[string]float64{"0.000": 0, "-3.1e-05": -0.0000312, "-0.001": -0.0005001, "0.00049": 0.00049, "1e-17": 1e-17, "-12.346": -12.3456} {
		if got := telling(v, 3); got != want {
			t.Errorf("%g: %s, want %s", v, got, want)
		}
	}
	if got := telling(math.Copysign(0, -1), 2); got != "0.00" {
		t.Errorf("-0: %s", got)
	}
	folder := t.TempDir()
	base, own := make([]float64, 100), make([]float64, 100)
	for b := range base {
		base[b] = float64(b)
		own[b] = base[b] - 0.0000312 + float64(b%3-1)/1e8
	}
	drawnRow(t, folder, 0, "0", 25, base)
	drawnRow(t, folder, 1, "0.5", 25-0.0000312, own)
	var out strings.Builder
	if err := Differences(&out, []string{folder}, DifferenceOptions{Format: "terminal"}); err != nil || !strings.Contains(out.String(), " -3.1e-05 │ -3.1e-05 … -3.1e-05 │ better") {
		t.Errorf("%v\n%s", err, &out)
	}
}

// Rows that nothing but a setting outside of the sweep tells apart are called by it.
func TestCompareRowsApart(t *testing.T) {
	folder := t.TempDir()
	var rows []*store.Metrics
	for i, steps := range []string{"4", "8"} {
		m := drawnRow(t, folder, i, "0", 25, make([]float64, eval.MinReplicates))
		m.Row, m.Config = 0, []byte(`{"sampler":{"ddpm":{"steps":`+steps+`}},"model":{"timestep_respacing":"`+steps+`"}}`)
		if err := m.Write(m.Folder); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, m)
	}
	var out strings.Builder
	if err := Differences(&out, []string{folder}, DifferenceOptions{Format: "terminal"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ADM s=0 steps=8 │ ADM s=0 steps=4", "differ in more than the sweep: sampler.ddpm.steps (4, 8)\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	for _, name := range []string{"ADM s=0", "1"} {
		if _, err := compareRows(rows, DifferenceOptions{Baseline: name}); err == nil || !strings.Contains(err.Error(), `e has several rows "`+name+`"; it has 1: "ADM s=0 steps=4"; 1: "ADM s=0 steps=8"`) {
			t.Errorf("baseline %q: %v", name, err)
		}
	}
	if found, err := compareRows(rows, DifferenceOptions{Baseline: "ADM s=0 steps=8"}); err != nil || len(found) != 1 || found[0].row != "ADM s=0 steps=4" {
		t.Errorf("%+v, %v", found, err)
	}
}
