package main

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// nestedCheckpoint writes a torch.save of {"model": weights, "ema": {"decay": 1,
// "shadow": weights}} with the weights of a file that holds them alone.
func nestedCheckpoint(t *testing.T, from, to string) {
	t.Helper()
	r, err := zip.OpenReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range r.File {
		in, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Name, "/data.pkl") {
			body := string(data[2 : len(data)-1]) // without protocol and stop
			key := func(k string) string { return "X" + string([]byte{byte(len(k)), 0, 0, 0}) + k }
			data = []byte("\x80\x02}(" + key("model") + body + key("ema") + "}(" + key("decay") + "K\x01" + key("shadow") + body + "uu.")
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.Name, Method: zip.Store})
		if err == nil {
			_, err = f.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tiny.Write(t, to, out.String())
}

// What is chosen among several sets of weights, and what is accepted and changes
// nothing, is said once, and stands in the result. Another choice is another run.
func TestNotesOfNetworks(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "nested.pt")
	nestedCheckpoint(t, filepath.Join(tiny.Root(), "models/pretrained/adm-cond.pt"), path)
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
