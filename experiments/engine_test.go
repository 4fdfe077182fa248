package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

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

// numbered are n images of 2×1 pixels that hold their number.
func numbered(from, to int) []uint8 {
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
		if err := s.put(at, numbered(at.from, at.to)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(s.missing(12)), "[{4 7}]"; got != want {
		t.Fatalf("missing %s, want %s", got, want)
	}
	if err := s.each(ctx, 12, 5, func(models.Images) error { return nil }); err == nil {
		t.Error("images that are not there were read")
	}
	if err := s.put(span{2, 9}, numbered(2, 9)); err != nil { // overlaps both neighbours
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
		if err != nil || !slices.Equal(got, numbered(0, samples)) {
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
