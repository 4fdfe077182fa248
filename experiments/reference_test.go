package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sagbench/eval/images"
	"sagbench/eval/npz"
	"sagbench/models"
	"sagbench/models/ort"
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
	if err := makeReference(samples, 20); err != nil {
		t.Fatal(err)
	}
	job := slices.Concat([]string{"reference", tinyReference, "-o", out, "--images", "16"}, embeddedInception)
	succeed(t, job...)
	for i, want := range scoresOf(t, tinyReference, samples, "--metrics", "fid,sfid") {
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
		"with resize tf, these features with clean": slices.Concat([]string{"eval", out, samples, "--protocol", "clean-fid", "--metrics", "fid"}, embeddedInception),
		"with input size 107, these features with":  {"eval", out, samples, "--metrics", "fid", "--inception", "../models/pretrained/inception.pt"},
		"--images is -1":       append(job, "--force", "--images", "-1"),
		`protocol is "tf-fid"`: append(job, "--force", "--protocol", "tf-fid"),
	} {
		if message := fail(t, c...); !strings.Contains(message, what) {
			t.Errorf("expected %q in: %s", what, message)
		}
	}
}

// Features come from the cache only for the very content that they are of, and
// only whole.
func TestCache(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "data.npz")
	if err := makeReference(path, 6); err != nil {
		t.Fatal(err)
	}
	network := featureNetwork{name: "inception", flags: &models.Inception{InputSize: 107}, resize: models.TF, path: "../models/pretrained/inception.pt"}
	x, err := newExtractor(network, hashes{}, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	want := parts{pool: true, stats: true}
	features := func() ([]float32, string) {
		t.Helper()
		sum, err := images.Hash(path)
		if err != nil {
			t.Fatal(err)
		}
		f, _, err := x.reference(t.Context(), path, sum, images.Options{}, want, true, newProgress(os.Stderr))
		if err != nil {
			t.Fatal(err)
		}
		key, err := x.featuresKey(sum)
		if err != nil {
			t.Fatal(err)
		}
		return f.Pool, cachePath(key, want)
	}
	first, cached := features()
	whole, err := os.ReadFile(cached)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	for what, data := range map[string][]byte{"one bit turned": damaged, "cut off": whole[:len(whole)-100], "empty": nil} {
		if err := os.WriteFile(cached, data, 0o600); err != nil {
			t.Fatal(err)
		}
		again, _ := features()
		if now, err := os.ReadFile(cached); !slices.Equal(again, first) || err != nil || !bytes.Equal(now, whole) {
			t.Errorf("%s: other features, or the file was not made again (%v)", what, err)
		}
	}

	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pixels := make([]uint8, 6*32*32*3)
	if err := writeSamples(path, pixels, 6, 32, 32); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(path); err != nil || now.Size() != info.Size() || len(data) != int(info.Size()) {
		t.Fatal("the changed file differs in size:", err)
	}
	if other, _ := features(); slices.Equal(other, first) {
		t.Error("a file of the same size and time got the features of the old one")
	}
	if _, _, err := x.reference(t.Context(), path, "hash of something else", images.Options{}, want, true, newProgress(os.Stderr)); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("a file that changed after it was hashed: %v", err)
	}
}

func TestPruneCache(t *testing.T) {
	folder := t.TempDir()
	for i, name := range []string{"c.npz", "a.npz", "b.npz", "other.txt"} {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := pruneCache(folder, 200); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if err != nil || !slices.Equal(left, []string{"a.npz", "b.npz", "other.txt"}) {
		t.Errorf("%v, %v", left, err)
	}
}

// Rows with draws have intervals, and compare subtracts them; a second run
// finds all of it done.
func TestRunAndCompare(t *testing.T) {
	file, results := tiny(t, t.TempDir()), t.TempDir()
	args := []string{"run", file, "bootstrap=40", "samples=12", "--results", results}
	succeed(t, args...)
	before := tree(t, results)
	succeed(t, args...)
	same(t, tree(t, results), before)
	rows, err := findMetrics(results)
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	for _, m := range rows {
		for _, s := range m.Scores {
			if s.Interval == nil || s.Interval.Low > s.Value || s.Interval.High < s.Value || m.Protocol != "adm" {
				t.Errorf("%s: %s %v, interval %+v, protocol %q", m.title(), s.Name, s.Value, s.Interval, m.Protocol)
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
	samples, err := filepath.Glob(filepath.Join(rows[0].folder, "samples", "*.npz"))
	if err != nil || len(samples) != 1 {
		t.Fatal(samples, err)
	}
	scored := scoresOf(t, tinyReference, samples[0], "--bootstrap", "40", "--metrics", "fid")
	if i := rows[0].Scores[0].Interval; scored[0][3] != fmt.Sprint(i.Low) || scored[0][4] != fmt.Sprint(i.High) {
		t.Errorf("eval's interval is %v, run's %+v", scored[0], i)
	}
	if message := fail(t, slices.Concat([]string{"eval", tinyReference, tinyReference, "--bootstrap", "20"}, embeddedInception)...); !strings.Contains(message, "at least 40") {
		t.Error(message)
	}
}

// Images that somebody replaced after they were evaluated are looked at again.
func TestReplacedSamples(t *testing.T) {
	file, results := tiny(t, t.TempDir(), "sweep:", "#"), t.TempDir()
	args := []string{"run", file, "--results", results, "metrics=[fid]"}
	succeed(t, args...)
	rows, err := findMetrics(results)
	if err != nil || len(rows) != 1 || rows[0].Inputs.Samples.SHA256 == "" {
		t.Fatal(rows, err)
	}
	samples, err := filepath.Glob(filepath.Join(rows[0].folder, "samples", "*.npz"))
	if err != nil || len(samples) != 1 {
		t.Fatal(samples, err)
	}
	s := &store{folder: filepath.Dir(samples[0]), height: 32, width: 32, classes: 10, seed: 3}
	if err := s.create(shard{span{0, 8}, samples[0], true}, func(w *npz.ArrayWriter) error { return npz.WriteRows(w, make([]uint8, 8*32*32*3)) }); err != nil {
		t.Fatal(err)
	}
	succeed(t, append(args, "metrics=[fid, sfid]")...)
	again, err := findMetrics(results)
	if err != nil || len(again) != 1 || again[0].Scores[0].Value == rows[0].Scores[0].Value || again[0].Inputs.Samples == rows[0].Inputs.Samples {
		t.Errorf("%+v after the images were replaced, %v", again, err)
	}
}
