package main

import (
	"path/filepath"
	"strings"
	"testing"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// A precision other than float32 is another run, and stands in its result, its notes
// and below the table; use_fp16 is one. What the device lacks is refused before a
// network is opened.
func TestPrecision(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	draw := func(results string, args ...string) (found []*store.Metrics, p *process) {
		p = succeed(t, append([]string{"run", file, "samples=2", "sampler.ddpm.steps=1", "metrics=[fid]", "--results", results}, args...)...)
		found, err := store.FindMetrics(results)
		if err != nil {
			t.Fatal(err)
		}
		return found, p
	}
	notes := func(m *store.Metrics) string { return strings.Join(m.Notes, "\n") }
	plain, _ := draw(t.TempDir())
	exact, _ := draw(t.TempDir(), "--precision", "float32", "model.use_fp16=true")
	results := t.TempDir()
	half, p := draw(results, "model.use_fp16=true")
	asked, _ := draw(t.TempDir(), "--precision", "float16")
	overruled, note := "adm-cond.pt: computes in float32, as was asked for, where a flag of its authors' says float16", "adm-cond.pt: computes in float16 on cpu, where "
	for i, m := range plain {
		if e := exact[i]; e.Run != m.Run || e.Inputs.Samples != m.Inputs.Samples || e.Precision != "" || !strings.Contains(notes(e), overruled) {
			t.Errorf("float32 instead of use_fp16: run %s, %q, notes %q", e.Run, e.Precision, e.Notes)
		}
		if h := half[i]; h.Run == m.Run || h.Inputs.Samples == m.Inputs.Samples || h.Precision != "float16" || !strings.Contains(notes(h), note) {
			t.Errorf("use_fp16: run %s, %q, notes %q", h.Run, h.Precision, h.Notes)
		}
		if a := asked[i]; a.Run != half[i].Run || a.Inputs.Samples != half[i].Inputs.Samples {
			t.Errorf("--precision float16 draws run %s, use_fp16 run %s", a.Run, half[i].Run)
		}
	}
	if strings.Count(p.stderr.String(), note) != 1 || !strings.Contains(p.stdout.String(), "precision: float16\n") {
		t.Errorf("%s\n%s", &p.stderr, &p.stdout)
	}
	before := tiny.Tree(t, results)
	draw(results, "model.use_fp16=true")
	tiny.Same(t, tiny.Tree(t, results), before)

	// Images of another device, which this process only scores, were not computed here.
	results = t.TempDir()
	succeed(t, "sample", file, "samples=2", "sampler.ddpm.steps=1", "metrics=[]", "sweep=null", "--precision", "float16", "--results", results)
	folders, err := filepath.Glob(filepath.Join(results, "tiny", "*-*"))
	if err != nil || len(folders) != 1 {
		t.Fatal(folders, err)
	}
	if err := store.AddPlacements(folders[0], []store.Placement{{Graph: "0123456789", Device: "cuda:0", Precision: "float16", Nodes: map[string]int{"CUDAExecutionProvider": 300}}}); err != nil {
		t.Fatal(err)
	}
	elsewhere, _ := draw(results, "sweep=null", "--precision", "float16")
	if all := notes(elsewhere[0]); strings.Contains(all, "on cpu") || !strings.Contains(all, "drawn on cuda:0, float16: nodes 300 on CUDAExecutionProvider") {
		t.Errorf("drawn on cuda:0: notes %q", elsewhere[0].Notes)
	}
	for want, args := range map[string][]string{
		"device cpu computes in no tf32, but in float32, bfloat16, float16; --precision NAME": {"--precision", "tf32"},
		`precision is "fp16", expected float32, tf32, bfloat16, float16`:                      {"model.precision=fp16"},
		`--precision is "half", expected float32, tf32`:                                       {"--precision", "half"},
	} {
		results := t.TempDir()
		message, status := failed(t, append([]string{"run", file, "--results", results}, args...)...)
		drawn, _ := filepath.Glob(filepath.Join(results, "*", "*"))
		if status != statusMisuse || !strings.Contains(message, want) || len(drawn) > 0 {
			t.Errorf("%q: exit status %d, %s; drew %q", args, status, message, drawn)
		}
	}
}
