package run

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sagbench/experiments/plan"
	"sagbench/internal/tiny"
	"sagbench/models/ort"
)

func miniature(t *testing.T, overrides ...string) *plan.Experiment {
	t.Helper()
	e, err := plan.Load(filepath.Join(tiny.Root(), "configs/table1-fashion.yaml"), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The trial runs every network of the experiment and reports what does not fit.
func TestTrial(t *testing.T) {
	e := miniature(t, "samples=4", "batch=2")
	f, err := e.Forecast(t.Context(), t.TempDir(), func(r *plan.Row) int { return r.Index / 4 * 4 })
	if err != nil {
		t.Fatal(err)
	}
	if err := timeForecast(t.Context(), f, ort.Options{}); err != nil {
		t.Fatal(err)
	}
	if !f.Timed {
		t.Error("no trial")
	}
	for i, p := range f.Rows[:4] {
		if p.Time <= 0 || p.Time > time.Minute {
			t.Errorf("row %d takes %v", i, p.Time)
		}
	}
	if f.Rows[4].Time != 0 {
		t.Error("a row that is done takes time")
	}
	e = miniature(t, "model.num_channels=96")
	if f, err = e.Forecast(t.Context(), t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	if err := timeForecast(t.Context(), f, ort.Options{}); err == nil || !strings.Contains(err.Error(), "adm-uncond.pt") {
		t.Error(err)
	}
}
