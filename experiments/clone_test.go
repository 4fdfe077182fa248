package main

import (
	"os"
	"path/filepath"
	"testing"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// Where metrics.json lies without images, as in a clone of the repository, a run draws
// them and scores what it drew: the scores that were there are of other files, which
// may have been drawn on a processor that rounds otherwise. table reads them as they
// are.
func TestScoresWithoutImages(t *testing.T) {
	folder := t.TempDir()
	drawn, clone := filepath.Join(folder, "drawn"), filepath.Join(folder, "clone")
	file := tiny.Experiment(t, folder, "sweep: {guidance.sag.scale: [0, 0.5]}", "bootstrap: 40")
	succeed(t, "run", file, "--results", drawn)
	want := tiny.Tree(t, drawn)
	metrics, err := filepath.Glob(filepath.Join(drawn, "*/*", store.MetricsFile))
	if err != nil || len(metrics) != 1 {
		t.Fatal(metrics, err)
	}
	committed := func(from, edited string) {
		for _, name := range []string{store.MetricsFile, store.BootstrapFile} {
			path := filepath.Join(clone, "tiny", filepath.Base(filepath.Dir(from)), name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			copyFile(t, filepath.Join(filepath.Dir(from), name), path)
		}
		if edited == "" {
			return
		}
		m, err := store.ReadMetrics(from)
		if err != nil {
			t.Fatal(err)
		}
		m.Scores[0].Value, m.Inputs.Samples.SHA256 = 1, edited
		if err := m.Write(filepath.Join(clone, "tiny", filepath.Base(filepath.Dir(from)))); err != nil {
			t.Fatal(err)
		}
	}

	committed(metrics[0], "")
	if got, want := succeed(t, "table", clone).stdout.String(), succeed(t, "table", drawn).stdout.String(); got != want {
		t.Errorf("the table without images is\n%s, want\n%s", got, want)
	}
	committed(metrics[0], "of images of another processor")
	succeed(t, "run", file, "--results", clone)
	tiny.Same(t, tiny.Tree(t, clone), want)

	// Killed after the images were put into one file, before they were scored.
	committed(metrics[0], "of images of another processor")
	samples, err := filepath.Glob(filepath.Join(clone, "*/*/samples/*.npz"))
	if err != nil || len(samples) != 1 {
		t.Fatal(samples, err)
	}
	older(t, filepath.Join(clone, "tiny", filepath.Base(filepath.Dir(metrics[0])), store.MetricsFile), samples[0])
	succeed(t, "run", file, "--results", clone)
	tiny.Same(t, tiny.Tree(t, clone), want)
}

// older makes a file older than another one.
func older(t *testing.T, path, than string) {
	t.Helper()
	info, err := os.Stat(than)
	if err != nil {
		t.Fatal(err)
	}
	then := info.ModTime().Add(-1e9)
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
}
