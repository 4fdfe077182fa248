package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sagbench/eval/npz"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

var embeddedInception = []string{"--inception", "../models/pretrained/inception.pt", "--input-size", "107"}

// scoresOf are the lines of eval's CSV without the head.
func scoresOf(t *testing.T, args ...string) [][]string {
	t.Helper()
	p := succeed(t, slices.Concat([]string{"eval"}, args, embeddedInception, []string{"--csv", "-"})...)
	lines, err := csv.NewReader(&p.stdout).ReadAll()
	if err != nil || len(lines) < 2 {
		t.Fatal(lines, err)
	}
	for i := range lines {
		lines[i] = lines[i][:8] // behind these the files' names and hashes
	}
	return lines[1:]
}

// nearText compares two numbers, to what two routes to a trace agree in.
func nearText(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && math.Abs(x-y) < 1e-9*y
}

// A reference file gives the scores of the data that it was made of, has the
// layout of ADM's, and is refused where other features are compared with it.
func TestReference(t *testing.T) {
	folder := t.TempDir()
	samples, out := filepath.Join(folder, "samples.npz"), filepath.Join(folder, "ref.npz")
	if err := tiny.WriteReference(samples, 20); err != nil {
		t.Fatal(err)
	}
	job := slices.Concat([]string{"reference", tiny.Reference(), "-o", out, "--images", "16"}, embeddedInception)
	succeed(t, job...)
	for i, want := range scoresOf(t, tiny.Reference(), samples, "--metrics", "fid,sfid") {
		if found := scoresOf(t, out, samples, "--metrics", "fid,sfid")[i]; !nearText(found[1], want[1]) {
			t.Errorf("%v, of the data itself %v", found, want)
		}
	}
	f, err := npz.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, shape := range map[string][]int{"mu": {256}, "sigma": {256, 256}, "mu_s": {175}, "sigma_s": {175, 175}, "arr_0": {16, 32, 32, 3}} {
		a, err := f.Array(name)
		if err != nil || !slices.Equal(a.Shape, shape) {
			t.Errorf("%s: %v, %v, expected %v", name, a, err, shape)
		}
	}
	if message := fail(t, job...); !strings.Contains(message, "--force") {
		t.Errorf("a file was replaced: %s", message)
	}
	succeed(t, append(job, "--force")...)
	for what, c := range map[string][]string{
		"with resize tf, these features with clean":       slices.Concat([]string{"eval", out, samples, "--protocol", "clean-fid", "--metrics", "fid"}, embeddedInception),
		"with input size 107, these features with":        {"eval", out, samples, "--metrics", "fid", "--inception", "../models/pretrained/inception.pt", "--input-size", "299"},
		`"--images" flag: expected a whole number from 0`: append(job, "--force", "--images", "-1"),
		`protocol is "tf-fid"`:                            append(job, "--force", "--protocol", "tf-fid"),
	} {
		if message := fail(t, c...); !strings.Contains(message, what) {
			t.Errorf("expected %q in: %s", what, message)
		}
	}
}

// Rows with draws have intervals, and compare subtracts them; a second run
// finds all of it done.
func TestRunAndCompare(t *testing.T) {
	file, results := tiny.Experiment(t, t.TempDir()), t.TempDir()
	args := []string{"run", file, "bootstrap=40", "samples=12", "--results", results}
	succeed(t, args...)
	before := tiny.Tree(t, results)
	succeed(t, args...)
	succeed(t, "report", results)
	tiny.Same(t, tiny.Tree(t, results), before)
	rows, err := store.FindMetrics(results)
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	for _, m := range rows {
		for _, s := range m.Scores {
			if s.Interval == nil || s.Interval.Low > s.Value || s.Interval.High < s.Value || m.Protocol != "adm" {
				t.Errorf("%s: %s %v, interval %+v, protocol %q", m.Title(), s.Name, s.Value, s.Interval, m.Protocol)
			}
		}
	}
	p := succeed(t, "compare", results, "--metric", "fid,precision", "--format", "csv")
	lines, err := csv.NewReader(&p.stdout).ReadAll()
	if err != nil || len(lines) != 3 || lines[1][1] != "s=0.5" || lines[1][2] != "s=0" || lines[2][3] != "precision" {
		t.Errorf("%v, %v", lines, err)
	}
	if message := fail(t, "compare", results, "--baseline", "s=9"); !strings.Contains(message, `"s=0.5"`) {
		t.Error(message)
	}
	samples, err := filepath.Glob(filepath.Join(rows[0].Folder, "samples", "*.npz"))
	if err != nil || len(samples) != 1 {
		t.Fatal(samples, err)
	}
	scored := scoresOf(t, tiny.Reference(), samples[0], "--bootstrap", "40", "--metrics", "fid")
	if i := rows[0].Scores[0].Interval; scored[0][3] != fmt.Sprint(i.Low) || scored[0][4] != fmt.Sprint(i.High) {
		t.Errorf("eval's interval is %v, run's %+v", scored[0], i)
	}
	if message := fail(t, slices.Concat([]string{"eval", tiny.Reference(), tiny.Reference(), "--bootstrap", "20"}, embeddedInception)...); !strings.Contains(message, "at least 40") {
		t.Error(message)
	}
}

// Images that somebody replaced after they were evaluated are looked at again.
func TestReplacedSamples(t *testing.T) {
	file, results := tiny.Experiment(t, t.TempDir(), "sweep:", "#"), t.TempDir()
	args := []string{"run", file, "--results", results, "metrics=[fid]"}
	succeed(t, args...)
	rows, err := store.FindMetrics(results)
	if err != nil || len(rows) != 1 || rows[0].Inputs.Samples.SHA256 == "" {
		t.Fatal(rows, err)
	}
	samples, err := filepath.Glob(filepath.Join(rows[0].Folder, "samples", "*.npz"))
	if err != nil || len(samples) != 1 {
		t.Fatal(samples, err)
	}
	s := &store.Images{Folder: filepath.Dir(samples[0]), Height: 32, Width: 32, Classes: 10, Seed: 3}
	err = s.Put(store.Span{From: 0, To: 8}, make([]uint8, 8*32*32*3))
	if err = errors.Join(err, os.Rename(filepath.Join(s.Folder, "000000-000007.npz"), samples[0])); err != nil {
		t.Fatal(err)
	}
	succeed(t, append(args, "metrics=[fid, sfid]")...)
	again, err := store.FindMetrics(results)
	if err != nil || len(again) != 1 || again[0].Scores[0].Value == rows[0].Scores[0].Value || again[0].Inputs.Samples == rows[0].Inputs.Samples {
		t.Errorf("%+v after the images were replaced, %v", again, err)
	}
}
