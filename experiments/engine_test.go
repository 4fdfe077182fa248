package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/sampling"
)

func TestJobs(t *testing.T) {
	for _, c := range []struct {
		missing []span
		batch   int
		want    []span
	}{
		{nil, 4, nil},
		{[]span{{0, 10}}, 4, []span{{0, 4}, {4, 8}, {8, 10}}},
		{[]span{{3, 5}, {6, 9}}, 4, []span{{3, 4}, {4, 5}, {6, 8}, {8, 9}}},
		{[]span{{5, 6}}, 64, []span{{5, 6}}},
		{[]span{{0, 3}}, 1, []span{{0, 1}, {1, 2}, {2, 3}}},
	} {
		if got := jobs(c.missing, c.batch); !slices.Equal(got, c.want) {
			t.Errorf("jobs(%v, %d) = %v, want %v", c.missing, c.batch, got, c.want)
		}
	}
}

func TestMissing(t *testing.T) {
	s := &store{shards: []shard{{span: span{2, 4}}, {span: span{3, 6}}, {span: span{9, 12}}}}
	for samples, want := range map[int][]span{
		2: {{0, 2}}, 4: {{0, 2}}, 8: {{0, 2}, {6, 8}}, 10: {{0, 2}, {6, 9}}, 20: {{0, 2}, {6, 9}, {12, 20}},
	} {
		if got := s.missing(samples); !slices.Equal(got, want) {
			t.Errorf("of %d images %v are missing, want %v", samples, got, want)
		}
	}
	if got := s.done(10); got != 5 {
		t.Errorf("%d of 10 images are there, want 5", got)
	}
}

// images are n images of 2×1 pixels that hold their number.
func images(from, to int) []uint8 {
	var out []uint8
	for i := from; i < to; i++ {
		out = append(out, slices.Repeat([]uint8{uint8(i)}, 6)...)
	}
	return out
}

// The store reads images in order whatever the files are that hold them.
func TestStore(t *testing.T) {
	ctx := context.Background()
	s := &store{folder: filepath.Join(t.TempDir(), "samples"), height: 2, width: 1, classes: 10, seed: 5}
	for _, at := range []span{{0, 3}, {3, 4}, {7, 12}} {
		if err := s.put(at, images(at.from, at.to)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(s.missing(12)), "[{4 7}]"; got != want {
		t.Fatalf("missing %s, want %s", got, want)
	}
	if err := s.each(ctx, 12, 5, func(models.Images) error { return nil }); err == nil {
		t.Error("images that are not there were read")
	}
	if err := s.put(span{2, 9}, images(2, 9)); err != nil { // overlaps both neighbours
		t.Fatal(err)
	}
	check := func(samples int) {
		t.Helper()
		var got []uint8
		err := s.each(ctx, samples, 5, func(im models.Images) error {
			if want := min(5, samples-len(got)/6); im.N != want {
				t.Errorf("a batch of %d, want %d", im.N, want)
			}
			got = append(got, im.Pixels...)
			return nil
		})
		if err != nil || !slices.Equal(got, images(0, samples)) {
			t.Errorf("%d images: %v, %v", samples, got, err)
		}
	}
	check(12)
	check(7)
	if err := s.merge(ctx, 10); err != nil {
		t.Fatal(err)
	}
	check(12) // the shard that reaches beyond 10 is kept
	if got := names(t, s.folder); !slices.Equal(got, []string{"000007-000011.npz", "samples_10x2x1x3.npz"}) {
		t.Errorf("files %v", got)
	}
	if err := s.merge(ctx, 12); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s.folder); !slices.Equal(got, []string{"samples_12x2x1x3.npz"}) {
		t.Errorf("files %v", got)
	}
	fresh := &store{folder: s.folder, classes: -1}
	var notes []string
	if err := fresh.scan(12, true, func(n string) { notes = append(notes, n) }); err != nil || len(notes) > 0 || fresh.done(12) != 12 {
		t.Errorf("%v, %v, %d images", err, notes, fresh.done(12))
	}
	for what, c := range map[string]store{
		"labels of another seed": {folder: s.folder, classes: 10, seed: 6},
		"no labels":              {folder: s.folder, classes: 0},
		"images of another size": {folder: s.folder, classes: -1, height: 1, width: 2},
	} {
		notes = nil
		if err := c.scan(12, false, func(n string) { notes = append(notes, n) }); err != nil || len(notes) != 1 || c.done(12) != 0 {
			t.Errorf("%s: %v, notes %v", what, err, notes)
		}
	}
}

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// loadTiny reads the tiny experiment with replacements.
func loadTiny(t *testing.T, replacements ...string) *experiment {
	t.Helper()
	e, err := loadExperiment(tiny(t, t.TempDir(), replacements...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Run ids are written into folders and into papers: they may change only with
// samplingVersion.
func TestRunID(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	id := func(replacements ...string) string {
		t.Helper()
		got, err := loadTiny(t, append(replacements, "sweep:", "#")...).rows[0].runID(sum)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	golden := "fac6698936"
	if got := id(); got != golden {
		t.Errorf("run id %s, want %s", got, golden)
	}
	for _, same := range [][]string{
		{"samples: 8", "samples: 80"}, {"batch: 2", "batch: 3"}, {"name: tiny", "name: other"},
		{"recall]", "kid]"}, {"input_size: 107", "input_size: 299"}, {"REFERENCE", "other.npz"},
		{"MODELS/adm-cond.pt", "other.pt"}, {"image_size: 32", "image_size: 32, timestep_respacing: 2"},
		{"scale: 0.5,", "scale: 0.50, heads: 0,"}, {"image_size: 32", "image_size: 32, use_fp16: true, dropout: 0.1"},
	} {
		if got := id(same...); got != golden {
			t.Errorf("%v changes the run id to %s", same, got)
		}
	}
	seen := map[string]bool{golden: true}
	for _, other := range [][]string{
		{"seed: 3", "seed: 4"}, {"num_channels: 64", "num_channels: 32"}, {"steps: 2", "steps: 3"},
		{"{ddpm: {steps: 2}}", "{ddim: {steps: 2}}"}, {"{ddpm: {steps: 2}}", "{ddim: {steps: 2, eta: 1}}"},
		{"scale: 0.5", "scale: 0.6"}, {"scale: 0.5", "scale: 0"}, {"guidance:", "#"},
		{"scale: 0.5,", "scale: 0.5, clip: false,"}, {"scale: 0.5,", "scale: 0.5, start: 0,"}, // other than absent
		{"{ddpm: {steps: 2}}", "{ddim: {steps: 2, set_alpha_to_one: false}}"}, {"{ddpm: {steps: 2}}", "{pndm: {steps: 2}}"},
		{"image_size: 32", `image_size: 32, timestep_respacing: "1,1"`},
	} {
		got := id(other...)
		if seen[got] {
			t.Errorf("%v has a run id that was there before, %s", other, got)
		}
		seen[got] = true
	}
	r := loadTiny(t).rows[0]
	if got, err := r.runID(strings.Repeat("cd", 32)); err != nil || got == golden {
		t.Errorf("another checkpoint has the run id %s, %v", got, err)
	}
}

func TestFolderNames(t *testing.T) {
	r := &row{label: "ImageNet 256×256 (uncond.)", settings: []configs.Setting{
		{Path: "guidance.sag.scale", Value: "0.5"}, {Path: "sampler.ddim.steps", Value: "25"}, {Path: "a.b.steps", Value: "x/y"}}}
	if got, want := r.folderOf("0123456789"), "ImageNet-256-256-uncond.-s=0.5-ddim.steps=25-b.steps=x-y-0123456789"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := (&row{}).folderOf("0123456789"), "run-0123456789"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestPublished(t *testing.T) {
	e := loadTiny(t, "metrics:", "published: {fid: [26.21, 20.31], is: [null, 45.3]}\nmetrics:")
	want := []map[string]float64{{"fid": 26.21}, {"fid": 20.31, "is": 45.3}}
	for i, r := range e.rows {
		if fmt.Sprint(r.published) != fmt.Sprint(want[i]) {
			t.Errorf("row %d: %v, want %v", i, r.published, want[i])
		}
	}
	file := tiny(t, t.TempDir(), "metrics:", "published: {fid: [26.21, 20.31]}\nmetrics:")
	e, err := loadExperiment(file, []string{"guidance.sag.scale=0.3"}) // not the authors' row
	if err != nil || len(e.rows) != 1 || len(e.rows[0].published) != 0 {
		t.Errorf("%v, %v", e, err)
	}
}

func TestInputPaths(t *testing.T) {
	folder := t.TempDir()
	write(t, filepath.Join(folder, "beside.pt"), "")
	t.Setenv("SAGBENCH_TEST_FOLDER", "/data")
	b, err := configs.Parse(filepath.Join(folder, "x.yaml"), []byte(
		`{beside: beside.pt, elsewhere: none.pt, absolute: /a.pt, set: "${SAGBENCH_TEST_FOLDER}/a.pt", unset: "${SAGBENCH_TEST_NOT_SET}/a.pt"}`))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"beside": filepath.Join(folder, "beside.pt"), "elsewhere": "none.pt", "absolute": "/a.pt", "set": "/data/a.pt",
		"unset": "${SAGBENCH_TEST_NOT_SET}/a.pt", "nowhere": "",
	} {
		got := pathAt(b, key)
		if got.Path != want || (key == "unset") != (len(got.Unset) == 1) {
			t.Errorf("%s: %+v, want %s", key, got, want)
		}
	}
}

// run.yaml is an experiment file: read again it is the same run.
func TestRunDocument(t *testing.T) {
	for _, sampler := range []string{"{ddpm: {steps: 2}}", "{ddim: {steps: 2, eta: 0.00001}}"} {
		r := loadTiny(t, "{ddpm: {steps: 2}}", sampler, "metrics:", "published: {fid: [1, 2]}\nmetrics:").rows[1]
		data, err := r.document()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "run.yaml")
		write(t, path, string(data))
		again, err := loadExperiment(path, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		id1, err1 := r.runID("")
		id2, err2 := again.rows[0].runID("")
		if err1 != nil || err2 != nil || id1 != id2 {
			t.Errorf("run ids %s and %s, %v, %v\n%s", id1, id2, err1, err2, data)
		}
		if got := again.rows[0]; got.Samples != 8 || got.published["fid"] != 2 || len(got.metrics) != 5 {
			t.Errorf("read again: %+v", got)
		}
	}
}

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	p := &progress{w: &out, now: func() time.Time { return now }, warned: map[string]bool{}}
	p.stage("row 1/2 s=0", "images", 100, 500)
	for range 10 {
		now = now.Add(10 * time.Second)
		p.working(8)
		p.add(20)
	}
	want := "row 1/2 s=0: 140/500 images, 1.6 images/s, 3m40s left\n" +
		"row 1/2 s=0: 200/500 images, 1.8 images/s, 2m42s left\n" +
		"row 1/2 s=0: 260/500 images, 1.9 images/s, 2m04s left\n"
	if out.String() != want {
		t.Errorf("%s, want\n%s", &out, want)
	}
	now = now.Add(time.Hour)
	p.stage("row 2/2", "images", 0, 50_000)
	now = now.Add(1000 * time.Second)
	p.working(16)
	if line := p.line(); line != "row 2/2: 0/50000 images, 1m02s for one, 36d3h left" {
		t.Errorf("%q", line)
	}
	out.Reset()
	p.warn("biased")
	p.warn("biased")
	if out.String() != "warning: biased\n" {
		t.Errorf("%q", &out)
	}
}

// Labels lie beside the images that they belong to.
func TestLabelsOfTheStore(t *testing.T) {
	s := &store{seed: 7, classes: 10}
	for i, label := range s.labels(span{100, 120}) {
		if want := sampling.Label(7, 100+i, 10); label != want {
			t.Errorf("image %d has label %d, want %d", 100+i, label, want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	got := commandLine([]string{"run", "a.yaml", "sweep.guidance.sag.scale=[0, 1]", "it's"})
	if want := `sagbench run a.yaml 'sweep.guidance.sag.scale=[0, 1]' 'it'\''s'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
