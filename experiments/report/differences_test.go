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
		if err := tableFormats["terminal"](&table, rows, ""); err != nil || !strings.Contains(strings.Join(strings.Fields(table.String()), " "), found) {
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
	if err := Experiment(io.Discard, folder, rows); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "mine.png"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := there(); got != "fid.png fid.svg is.png is.svg mine.png precision.png precision.svg " {
		t.Errorf("plots of three metrics: %s", got)
	}
	for _, m := range rows {
		m.Scores = m.Scores[:1]
	}
	if err := Experiment(io.Discard, folder, rows); err != nil {
		t.Fatal(err)
	}
	if got := there(); got != "fid.png fid.svg mine.png " {
		t.Errorf("plots of one metric: %s", got)
	}
	if err := Experiment(io.Discard, folder, rows[:1]); err != nil {
		t.Fatal(err)
	}
	if got := there(); got != "mine.png " {
		t.Errorf("plots of one row: %s", got)
	}
}
