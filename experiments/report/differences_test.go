package report

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/experiments/store"
)

// A table says in what its rows differ beyond the sweep that it shows, and nothing
// where labels or the sweep tell it.
func TestDifferencesBeyondTheSweep(t *testing.T) {
	row := func(label, scale, config string) *store.Metrics {
		m := scored("e", 0, label, scale, 1, 2, 3)
		m.Config, m.Versions = []byte(config), map[string]string{"sagbench": "1"}
		return m
	}
	const seed0, seed7 = `{"seed":0,"label":"a","guidance":{"sag":{"scale":0,"sigma":1}}}`, `{"seed":7,"label":"b","guidance":{"sag":{"scale":0.5,"sigma":1}}}`
	newer := row("", "0.5", seed0)
	newer.Versions["sagbench"] = "2"
	for want, rows := range map[string][]*store.Metrics{
		"the sweep: seed (0, 7)":                {row("", "0", seed0), row("", "0.5", seed7)},
		"the sweep: version of sagbench (1, 2)": {row("", "0", seed0), newer},
		"the sweep: guidance.sag.sigma (1, 2)":  {row("", "0", seed0), row("", "0.5", strings.Replace(seed0, `"sigma":1`, `"sigma":2`, 1))},
		"":                                      {row("x", "0", seed0), row("y", "0.5", seed7), row("y", "0", strings.Replace(seed7, "0.5", "0", 1))},
	} {
		found := strings.Join(differencesOf(rows), "\n")
		if !strings.HasSuffix(found, want) || want == "" && found != "" {
			t.Errorf("%q, want %q", found, want)
		}
		var table strings.Builder
		if err := tableFormats["terminal"](&table, rows, TableOptions{}); err != nil || !strings.Contains(strings.Join(strings.Fields(table.String()), " "), found) {
			t.Errorf("%v: not in the table:\n%s", err, &table)
		}
	}
	steps := scored("e", 0, "", "", 1, 2, 3)
	steps.Settings = []store.Setting{{Path: "sampler.ddpm.steps", Value: "5"}}
	steps.Config = []byte(`{"model":{"timestep_respacing":"5"},"sampler":{"ddpm":{"steps":5}}}`)
	more := *steps
	more.Settings = []store.Setting{{Path: "sampler.ddpm.steps", Value: "9"}}
	more.Config = []byte(`{"model":{"timestep_respacing":"9"},"sampler":{"ddpm":{"steps":9}}}`)
	if found := differencesOf([]*store.Metrics{steps, &more}); len(found) > 0 {
		t.Errorf("what follows from the sweep is no difference: %q", found)
	}
}

// stepped is a row of so many steps at a scale, which no sweep chose.
func stepped(row int, scale, steps string) *store.Metrics {
	m := scored("e", row, "a", scale, float64(row), 2, 3)
	m.Config = []byte(`{"seed":0,"model":{"family":"adm","timestep_respacing":"` + steps + `"},"sampler":{"ddpm":{"steps":` + steps + `}},"metrics":[{"fid":{}}],"guidance":{"sag":{"scale":` + scale + `}}}`)
	return m
}

// Rows that differ beyond the sweep are told apart in tables by columns, in plots by
// curves, in grids by lines of their labels; by run ids where it is by too much.
func TestRowsApart(t *testing.T) {
	rows := []*store.Metrics{stepped(0, "0", "4"), stepped(1, "0.5", "4"), stepped(2, "0", "8"), stepped(3, "0.5", "8")}
	table := newTable(rows, false)
	var titles []string
	for _, c := range table.columns {
		titles = append(titles, c.title)
	}
	if got := strings.Join(titles, " "); got != "model s steps FID IS Precision images" || table.groups[0].rows[2][2].text != "8" {
		t.Errorf("columns %s, steps of the third row %q", got, table.groups[0].rows[2][2].text)
	}
	var csv strings.Builder
	if err := tableFormats["csv"](&csv, rows, TableOptions{}); err != nil || !strings.HasPrefix(csv.String(), "experiment,label,guidance.sag.scale,sampler.ddpm.steps,fid,") {
		t.Errorf("%v\n%s", err, &csv)
	}
	figures, err := figuresOf(rows)
	if err != nil {
		t.Fatal(err)
	}
	if c := figures[0].curves; len(c) != 2 || c[0].label != "a steps=4" || c[1].label != "a steps=8" || len(c[1].points) != 2 {
		t.Errorf("curves %+v", c)
	}
	var out strings.Builder
	if err := (Plots{Formats: []string{"svg"}, Size: usualSize}).each(&out, t.TempDir(), rows); err != nil || !strings.Contains(out.String(), "sampler.ddpm.steps (4, 8)") {
		t.Errorf("%v\n%s", err, &out)
	}
	named := namesApart(rows, drawn)
	if got := strings.Join(gridLabel(rows[3], named[rows[3]]), "|"); got != "a|s = 0.5|steps = 8" {
		t.Errorf("label %s", got)
	}

	rows[1].Config = []byte(strings.Replace(string(rows[1].Config), `"metrics":[{"fid":{}}]`, `"metrics":[]`, 1))
	if got := namesApart(rows[:2], drawn); len(got[rows[0]]) > 0 {
		t.Errorf("what draws nothing names a picture: %v", got)
	}
	rows[2].Config = []byte(`{"seed":1,"model":{"family":"dit","size":2},"sampler":{"ddim":{}},"guidance":{"sag":{"scale":0}}}`)
	rows[2].Versions, rows[0].Versions = map[string]string{"sagbench": "2"}, map[string]string{"sagbench": "1"}
	named = namesApart([]*store.Metrics{rows[0], rows[2]}, settled)
	if got := titleApart(rows[2], named); got != "a s=0 run="+rows[2].Run {
		t.Errorf("four settings: %s", got)
	}
	rows[2].Settings = rows[1].Settings
	if _, err := figuresOf([]*store.Metrics{rows[0], rows[2]}); err == nil || !strings.Contains(err.Error(), `rows of the label "a" differ in `) {
		t.Errorf("a line through rows that differ in much: %v", err)
	}
	same := []*store.Metrics{stepped(0, "0", "4"), stepped(1, "0.5", "4"), stepped(2, "0", "4")}
	if _, err := figuresOf(same); err == nil || !strings.Contains(err.Error(), "runs aaaaaaaaaa and cccccccccc are both") {
		t.Errorf("rows that nothing tells apart: %v", err)
	}
	guided := stepped(1, "0.5", "4")
	guided.Config = []byte(strings.Replace(string(guided.Config), `"sag":`, `"cfg":{"scale":3},"sag":`, 1))
	if got := titleApart(guided, namesApart([]*store.Metrics{stepped(0, "0", "4"), guided}, settled)); got != "a s=0.5 guidance=cfg + sag" {
		t.Errorf("another guidance: %s", got)
	}
}

// Plots of metrics, and of a sweep, that are gone do not stay beside the new table;
// other files do.
func TestStalePlots(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "e")
	rows := []*store.Metrics{scored("e", 0, "", "0", 1, 2, 3), scored("e", 1, "", "0.5", 2, 3, 4)}
	there := func() (names string) {
		t.Helper()
		entries, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "table.") {
				names += e.Name() + " "
			}
		}
		return names
	}
	if err := Experiment(t.Context(), io.Discard, folder, rows, false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "mine.png"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := there(); got != "fid.png fid.svg is.png is.svg mine.png precision.png precision.svg report.html " {
		t.Errorf("plots of three metrics: %s", got)
	}
	for _, m := range rows {
		m.Scores = m.Scores[:1]
	}
	if err := Experiment(t.Context(), io.Discard, folder, rows, false); err != nil {
		t.Fatal(err)
	}
	if got := there(); got != "fid.png fid.svg mine.png report.html " {
		t.Errorf("plots of one metric: %s", got)
	}
	if err := Experiment(t.Context(), io.Discard, folder, rows[:1], false); err != nil {
		t.Fatal(err)
	}
	if got := there(); got != "mine.png report.html " {
		t.Errorf("plots of one row: %s", got)
	}
}
