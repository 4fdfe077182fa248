package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// What is chosen among several sets of weights, and what is accepted and changes
// nothing, is said once, and stands in the result. Another choice is another run.
func TestNotesOfNetworks(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "nested.pt")
	tiny.Nest(t, filepath.Join(tiny.Root(), "models/pretrained/adm-cond.pt"), path)
	file := tiny.Experiment(t, folder, "MODELS/adm-cond.pt", path)
	idle := "dropout: of training"
	ids := map[string]bool{}
	for _, c := range []struct{ weights, used, other string }{
		{"", "ema.shadow", "model"}, {"ema.shadow", "ema.shadow", "model"}, {"model", "model", "ema.shadow"},
	} {
		results := t.TempDir()
		args := []string{"run", file, "samples=2", "sampler.ddpm.steps=1", "metrics=[fid]", "model.dropout=0.1", "--results", results}
		if c.weights != "" {
			args = append(args, "model.weights="+c.weights)
		}
		note := fmt.Sprintf("nested.pt: its weights %q are used; it also holds %s,", c.used, c.other)
		said := succeed(t, args...).stderr.String()
		for _, n := range []string{note, idle} {
			if strings.Count(said, "note: "+n) != 1 {
				t.Errorf("weights %q: %q is not said once\n%s", c.weights, n, said)
			}
		}
		found, err := store.FindMetrics(results)
		if err != nil || len(found) != 2 {
			t.Fatalf("%d results, %v", len(found), err)
		}
		for _, m := range found {
			all := strings.Join(m.Notes, "\n")
			if !strings.Contains(all, note) || !strings.Contains(all, idle) {
				t.Errorf("weights %q: notes of the result: %q", c.weights, m.Notes)
			}
			ids[m.Run] = true
		}
		before := tiny.Tree(t, results)
		succeed(t, args...)
		tiny.Same(t, tiny.Tree(t, results), before)
		if c.weights != "" {
			continue
		}
		succeed(t, append(args, "model.dropout=0")...) // the same images
		after, err := store.FindMetrics(results)
		if err != nil || len(after) != 2 {
			t.Fatalf("%d results, %v", len(after), err)
		}
		if all := strings.Join(after[0].Notes, "\n"); after[0].Run != found[0].Run || strings.Contains(all, idle) || !strings.Contains(all, note) {
			t.Errorf("weights %q, without dropout: run %s, notes %q", c.weights, after[0].Run, after[0].Notes)
		}
	}
	if len(ids) != 4 {
		t.Errorf("%d runs of two rows with two sets of weights", len(ids))
	}
	if message := fail(t, "run", file, "model.weights=raw"); !strings.Contains(message, `holds no weights "raw"; it holds ema.shadow, model`) {
		t.Error(message)
	}
	if said := succeed(t, "inspect", path).stdout.String(); !strings.Contains(said, `weights under "ema.shadow"; other sets, for weights: in the model block: model`) {
		t.Error(said)
	}
}

// The text of prompts that is cut off is said once, and stands in the result.
func TestCutPrompts(t *testing.T) {
	folder, results := t.TempDir(), t.TempDir()
	file := filepath.Join(folder, "long.yaml")
	words := strings.Repeat("bag ", 80) + "Ende"
	pretrained := filepath.Join(tiny.Root(), "models/pretrained")
	tiny.Write(t, file, fmt.Sprintf(`name: long
samples: 2
model: {family: sd, checkpoint: %s/sd}
sampler: {ddpm: {steps: 1}}
guidance: {cfg: {scale: 3}}
prompts: [%s, a coat]
reference: %s
inception: {checkpoint: %[1]s/inception.pt, input_size: 107}
metrics: [fid]
sweep: {guidance.cfg.scale: [2, 3]}
`, pretrained, words, tiny.Reference()))
	said := succeed(t, "run", file, "--results", results).stderr.String()
	found, err := store.FindMetrics(results)
	if err != nil || len(found) != 2 {
		t.Fatalf("%d results, %v", len(found), err)
	}
	if strings.Count(said, "1 of 2 prompts are longer than the ") != 1 || !strings.Contains(said, ` bag ende"`) {
		t.Error(said)
	}
	for _, m := range found {
		if !strings.Contains(strings.Join(m.Notes, "\n"), "1 of 2 prompts are longer than the ") {
			t.Errorf("notes of the result: %q", m.Notes)
		}
	}
}

// A feature network takes the set of weights that is asked for, and the result says
// which one it was. Features of one set are not those of another.
func TestWeightsOfFeatureNetworks(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "nested.pt")
	tiny.Nest(t, filepath.Join(tiny.Root(), "models/pretrained/inception.pt"), path)
	evaluate := func(more ...string) store.Evaluation {
		return evaluated(t, append([]string{tiny.Reference(), tiny.Reference(), "--metrics", "fid,is", "--inception", path, "--input-size", "107"}, more...)...)
	}
	plain, ema, model := evaluate(), evaluate("--weights", "ema.shadow"), evaluate("--weights", "model")
	for _, c := range []struct {
		e           store.Evaluation
		used, other string
		set         string // in the JSON
	}{{plain, "ema.shadow", "model", `"ema.shadow"`}, {ema, "ema.shadow", "model", `"ema.shadow"`}, {model, "model", "ema.shadow", `"model"`}} {
		note := fmt.Sprintf("nested.pt: its weights %q are used; it also holds %s,", c.used, c.other)
		if !strings.Contains(strings.Join(c.e.Notes, "\n"), note) || string(c.e.Inputs["network"].Network["weights"]) != c.set {
			t.Errorf("%s: notes %q, network %s", c.used, c.e.Notes, c.e.Inputs["network"].Network)
		}
		if c.e.Scores[0].Value != plain.Scores[0].Value {
			t.Errorf("%s: FID %g, of the same weights %g", c.used, c.e.Scores[0].Value, plain.Scores[0].Value)
		}
	}
	if message := fail(t, append(evalArgs(), "--weights", "raw")...); !strings.Contains(message, `holds no weights "raw"`) {
		t.Error(message)
	}

	file := tiny.Experiment(t, folder, "MODELS/inception.pt", path, "sweep:", "#", "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]", "steps: 2", "steps: 1")
	results, evaluations := t.TempDir(), map[string]bool{}
	for range 2 {
		for _, weights := range []string{"", "inception.weights=model"} {
			args := []string{"run", file, "samples=2", "--results", results}
			if weights != "" {
				args = append(args, weights)
			}
			succeed(t, args...)
			found, err := store.FindMetrics(results)
			if err != nil || len(found) != 1 {
				t.Fatal(found, err)
			}
			evaluations[found[0].Evaluation] = true
			if said := succeed(t, "verify", results).stdout.String(); !strings.HasPrefix(said, "ok") {
				t.Error(said)
			}
		}
	}
	if len(evaluations) != 2 {
		t.Errorf("%d evaluations with two sets of weights", len(evaluations))
	}
}
