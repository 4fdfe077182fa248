package main

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// edit replaces a text of a file that holds it.
func edit(t *testing.T, path, old, new string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), old) {
		t.Fatalf("%s: no %q (%v)", path, old, err)
	}
	tiny.Write(t, path, strings.Replace(string(data), old, new, 1))
}

// A changed byte in the results is found by whatever reads them, verify finds what
// nothing else reads, and a run makes anew what is damaged: the same bytes.
func TestDamagedResults(t *testing.T) {
	folder := t.TempDir()
	results := filepath.Join(folder, "results")
	run := []string{"run", tiny.Experiment(t, folder, "sweep: {guidance.sag.scale: [0, 0.5]}", "bootstrap: 40\ntrace: {images: 1, steps: 1}"), "--results", results}
	first := succeed(t, run...)
	if !strings.Contains(first.stderr.String(), "inception.pt is not the Inception network of published numbers: 256 features of images of 107×107 pixels") {
		t.Errorf("the network's size is not told: %s", &first.stderr)
	}
	want := tiny.Tree(t, results)
	succeed(t, "report", results) // the page that run has written, pictures included
	tiny.Same(t, tiny.Tree(t, results), want)
	found, err := store.FindMetrics(results)
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	m := found[0]
	if !slices.ContainsFunc(m.Notes, func(n string) bool { return strings.Contains(n, "256 features") }) {
		t.Errorf("metrics.json has the notes %q", m.Notes)
	}
	row := func(name string) string { return filepath.Join(m.Folder, name) }
	verified := succeed(t, "verify", results)
	if text := verified.stdout.String(); !strings.HasPrefix(text, "ok") || !strings.Contains(text, ": metrics.json, samples, bootstrap.csv, trace.npz, scores\n") {
		t.Errorf("verify: %s", text)
	}
	if text := succeed(t, "verify", results, "inception.checkpoint="+filepath.Join(folder, "none.pt")).stdout.String(); !strings.HasPrefix(text, "part") || !strings.Contains(text, "samples, bootstrap.csv, trace.npz; scores not computed again: ") || !strings.Contains(text, "none.pt is not there; inception.checkpoint=FILE says where it is now") {
		t.Errorf("verify without the network: %s", text)
	}
	if text := succeed(t, "verify", results, "reference="+row(filepath.Join("samples", m.Inputs.Samples.Name))).stdout.String(); !strings.Contains(text, "has another content than then") {
		t.Errorf("verify with another reference: %s", text)
	}
	flip := func(path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 4
		tiny.Write(t, path, string(data))
	}
	for _, c := range []struct {
		what  string
		spoil func()
		fault string // in the message of verify
		table bool   // reads the file
	}{
		{"a score", func() { edit(t, row(store.MetricsFile), `"value": `, `"value": 1`) }, "metrics.json: is damaged or was edited", true},
		{"a draw", func() { edit(t, row(store.BootstrapFile), "\n", "\n1") }, "bootstrap.csv: is damaged or was edited", false},
		{"a trace", func() { flip(row(store.TraceFile)) }, "trace.npz: is damaged", false},
		{"a feature", func() { flip(row("features.npz")) }, "features.npz: is damaged", false},
	} {
		c.spoil()
		if message := fail(t, "verify", results); !strings.Contains(message, c.fault) {
			t.Errorf("%s: verify says %s", c.what, message)
		}
		if c.table {
			if message := fail(t, "table", results); !strings.Contains(message, c.fault) {
				t.Errorf("%s: table says %s", c.what, message)
			}
		}
		if c.what == "a feature" { // scores that are there need none
			if err := os.Remove(row(store.MetricsFile)); err != nil {
				t.Fatal(err)
			}
		}
		if again := succeed(t, run...); c.what != "a feature" && !strings.Contains(again.stderr.String(), c.fault) {
			t.Errorf("%s: run says %s", c.what, &again.stderr)
		}
		tiny.Same(t, tiny.Tree(t, results), want)
	}
	m.Scores[0].Value += 1e-9 // under a checksum that fits
	if err := m.Write(m.Folder); err != nil {
		t.Fatal(err)
	}
	if message := fail(t, "verify", results); !strings.Contains(message, "fid is recorded as") {
		t.Errorf("another score: %s", message)
	}
	m.Scores[0].Value -= 1e-9
	if err := store.AddPlacements(m.Folder, []store.Placement{{Device: "cuda:0"}}); err != nil {
		t.Fatal(err)
	}
	if message := fail(t, "verify", results); !strings.Contains(message, "devices.json tells of other devices than metrics.json") {
		t.Errorf("other devices: %s", message)
	}
	if err := os.Remove(row(store.DevicesFile)); err != nil {
		t.Fatal(err)
	}
	flip(row(filepath.Join("samples", m.Inputs.Samples.Name)))
	if message := fail(t, "verify", results); !strings.Contains(message, m.Inputs.Samples.Name+": is damaged") {
		t.Errorf("an image: %s", message)
	}
	gone := succeed(t, append(run, "bootstrap=0", "metrics=[fid]")...)
	if text := gone.stderr.String(); !strings.Contains(text, "had intervals from 40 draws") || !strings.Contains(text, "its 8 images are computed again") {
		t.Errorf("without bootstrap: %s", text)
	}
	if text := succeed(t, "verify", results).stdout.String(); !strings.Contains(text, ": metrics.json, samples, trace.npz, scores\n") {
		t.Errorf("verify: %s", text)
	}
}

// flippedBytes is how often a byte of run.yaml is changed; with the build tag slow, 200
// times.
var flippedBytes = 10

// A changed byte of run.yaml, which verify reads the row's settings from, is found or
// changes nothing that the scores depend on. A run writes it anew, as it does tables
// and plots, which nothing reads.
func TestFlippedSettings(t *testing.T) {
	folder := t.TempDir()
	results := filepath.Join(folder, "results")
	run := []string{"run", tiny.Experiment(t, folder, "sampler: {ddpm: {steps: 2}}", "sampler: {ddpm: {steps: 1}}", "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]"), "--results", results}
	succeed(t, run...)
	want := tiny.Tree(t, results)
	dice := rand.New(rand.NewPCG(13, 9))
	flip := func(path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[dice.IntN(len(data))] ^= byte(1 + dice.IntN(255))
		tiny.Write(t, path, string(data))
	}
	settings, err := filepath.Glob(filepath.Join(results, "tiny", "*", "run.yaml"))
	if err != nil || len(settings) != 2 {
		t.Fatal(settings, err)
	}
	whole, err := os.ReadFile(settings[0])
	if err != nil {
		t.Fatal(err)
	}
	for range flippedBytes {
		flip(settings[0])
		p := program("verify", filepath.Dir(settings[0]))
		p.start(t)
		if status := p.status(t); status != 0 && (p.refusal(status) != "" && !strings.HasPrefix(p.stdout.String(), "FAIL") || !strings.Contains(p.stderr.String(), "run.yaml")) {
			t.Errorf("exit status %d\n%s%s", status, &p.stdout, &p.stderr)
		}
		tiny.Write(t, settings[0], string(whole))
	}
	for name := range want {
		if dir := filepath.Dir(name); filepath.Base(name) == "run.yaml" || dir == "tiny" {
			flip(filepath.Join(results, name))
		}
	}
	succeed(t, run...)
	tiny.Same(t, tiny.Tree(t, results), want)
}

// The embedded Inception carries the size of its images, the result says that it is
// no usual one, and that a set was compared with itself; a metric that failed is in
// the JSON with its reason.
func TestEvalTellsTheTruth(t *testing.T) {
	folder := t.TempDir()
	samples := filepath.Join(folder, "samples.npz")
	if err := tiny.WriteReference(samples, 20); err != nil {
		t.Fatal(err)
	}
	sized := evaluated(t, append([]string{tiny.Reference(), samples, "--metrics", "fid"}, embeddedInception...)...)
	own := evaluated(t, append([]string{tiny.Reference(), samples, "--metrics", "fid"}, embeddedInception[:2]...)...)
	if own.Settings.InputSize != 107 || own.Scores[0].Value != sized.Scores[0].Value || string(own.Inputs["network"].Network["input_size"]) != "107" {
		t.Errorf("without --input-size: %+v, with it %+v", own, sized)
	}
	if notes := strings.Join(own.Notes, "\n"); !strings.Contains(notes, "256 features of images of 107×107 pixels") || strings.Contains(notes, "same content") {
		t.Errorf("notes %q", own.Notes)
	}
	same := evaluated(t, append([]string{samples, samples, "--metrics", "fid"}, embeddedInception...)...)
	if !strings.Contains(strings.Join(same.Notes, "\n"), "REF and SAMPLES have the same content") {
		t.Errorf("notes %q", same.Notes)
	}
	const unlike = "samples of 16×16 pixels are compared with a reference of 32×32"
	small := evaluated(t, append([]string{tiny.Reference(), noiseImages(t, "small.npz", 6, 16, 1, 0), "--metrics", "fid"}, embeddedInception...)...)
	if !strings.Contains(strings.Join(small.Notes, "\n"), unlike) || strings.Contains(strings.Join(own.Notes, "\n"), "are compared with") {
		t.Errorf("notes %q of small images, %q of others", small.Notes, own.Notes)
	}
	statistics := filepath.Join(folder, "ref.npz")
	succeed(t, append([]string{"reference", tiny.Reference(), "-o", statistics, "--images", "0"}, embeddedInception...)...)
	out := filepath.Join(folder, "scores.json")
	for _, metrics := range []string{"fid,precision", "precision"} {
		fail(t, append([]string{"eval", statistics, samples, "--metrics", metrics, "--json", out}, embeddedInception...)...)
		var e store.Evaluation
		data, err := os.ReadFile(out)
		if err := errors.Join(err, json.Unmarshal(data, &e)); err != nil {
			t.Fatal(err)
		}
		if len(e.Failed) != 1 || e.Failed[0].Metric != "precision" || !strings.HasPrefix(e.Failed[0].Reason, "ref.npz has no features of single images") || len(e.Scores) != strings.Count(metrics, ",") {
			t.Errorf("%s: %+v", metrics, e)
		}
	}
	for want, args := range map[string][]string{
		"--network dinov2 --dinov2 FILE": {"eval", statistics, samples},
		"is given twice":                 append([]string{"eval", statistics, samples, "--metrics", "fid", "--metrics", "is"}, embeddedInception...),
		`"fid" is named twice`:           append([]string{"eval", statistics, samples, "--metrics", "fid,fid"}, embeddedInception...),
	} {
		if message := fail(t, args...); !strings.Contains(message, want) {
			t.Errorf("expected %q in: %s", want, message)
		}
	}
}

// reference tells what eval tells of the same folder; a broken image that is left
// out keeps no features from the cache; images of several sizes are refused before
// features are computed.
func TestReferenceTells(t *testing.T) {
	folder := pngFolder(t, tiny.Reference())
	tiny.Write(t, filepath.Join(folder, "scan.exr"), "no image of ours")
	tiny.Write(t, filepath.Join(folder, "broken.png"), "no image")
	job := slices.Concat([]string{"reference", folder, "-o", filepath.Join(t.TempDir(), "ref.npz"), "--skip-broken", "--force"}, embeddedInception)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cached := func() int { return len(tiny.Tree(t, filepath.Join(cache, "sagbench", "features"))) }
	before := cached()
	for range 2 {
		text := succeed(t, job...).stderr.String()
		for _, want := range []string{"files that are not read: 1 .exr", "in 48 images transparency is dropped", "1 image left out as broken: broken.png: is no PNG"} {
			if !strings.Contains(text, want) {
				t.Errorf("expected %q in: %s", want, text)
			}
		}
		if n := cached() - before; n != 1 {
			t.Errorf("%d files of features in the cache, want 1", n)
		}
	}
	if message := fail(t, slices.DeleteFunc(slices.Clone(job), func(a string) bool { return a == "--skip-broken" })...); !strings.Contains(message, "1 of 49 images broken") {
		t.Errorf("the cache hid a broken image: %s", message)
	}
	small := pngFolder(t, noiseImages(t, "small.npz", 1, 16, 1, 0))
	if err := os.Rename(filepath.Join(small, "0000.png"), filepath.Join(folder, "9999.png")); err != nil {
		t.Fatal(err)
	}
	if message := fail(t, job...); !strings.Contains(message, "0000.png has 32×32 pixels, 9999.png has 16×16") || cached() != before+1 {
		t.Errorf("images of two sizes: %s", message)
	}
	succeed(t, append(job, "--images", "0")...)
}

// The protocols of programs that do not look into subfolders do not either.
func TestProtocolReadsTheTopFolder(t *testing.T) {
	samples := filepath.Join(t.TempDir(), "samples.npz")
	if err := tiny.WriteReference(samples, 20); err != nil {
		t.Fatal(err)
	}
	folder := pngFolder(t, samples)
	if err := os.Mkdir(filepath.Join(folder, "more"), 0o755); err != nil {
		t.Fatal(err)
	}
	count := func(protocol string) (int, string) {
		e := evaluated(t, append([]string{tiny.Reference(), folder, "--metrics", "fid", "--protocol", protocol}, embeddedInception...)...)
		return e.Samples, strings.Join(e.Notes, "\n")
	}
	for _, name := range []string{"0018.png", "0019.png"} {
		if err := os.Rename(filepath.Join(folder, name), filepath.Join(folder, "more", name)); err != nil {
			t.Fatal(err)
		}
	}
	for protocol, want := range map[string]int{"adm": 20, "clean-fid": 20, "pytorch-fid": 18, "torch-fidelity": 18} { // adm and torch-fidelity share a resize, and the cache
		n, notes := count(protocol)
		if n != want || strings.Contains(notes, "2 images in subfolders left out") != (want == 18) {
			t.Errorf("%s: %d images, want %d; notes %s", protocol, n, want, notes)
		}
	}
}
