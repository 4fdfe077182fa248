package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/sampling"
)

func TestMissing(t *testing.T) {
	s := &Images{shards: []shard{{Span: Span{2, 4}}, {Span: Span{3, 6}}, {Span: Span{9, 12}}}}
	for samples, want := range map[int][]Span{
		2: {{0, 2}}, 4: {{0, 2}}, 8: {{0, 2}, {6, 8}}, 10: {{0, 2}, {6, 9}}, 20: {{0, 2}, {6, 9}, {12, 20}},
	} {
		if got := s.Missing(samples); !slices.Equal(got, want) {
			t.Errorf("of %d images %v are missing, want %v", samples, got, want)
		}
	}
	if got := s.Done(10); got != 5 {
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
	s := &Images{Folder: filepath.Join(t.TempDir(), "samples"), Height: 2, Width: 1, Classes: 10, Seed: 5}
	for _, at := range []Span{{0, 3}, {3, 4}, {7, 12}} {
		if err := s.Put(at, numbered(at.From, at.To)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(s.Missing(12)), "[{4 7}]"; got != want {
		t.Fatalf("missing %s, want %s", got, want)
	}
	if err := s.Each(ctx, Span{0, 12}, func([]uint8) error { return nil }); err == nil {
		t.Error("images that are not there were read")
	}
	if err := s.Put(Span{2, 9}, numbered(2, 9)); err != nil { // overlaps both neighbours
		t.Fatal(err)
	}
	check := func(want Span) {
		t.Helper()
		var got []uint8
		err := s.Each(ctx, want, func(pixels []uint8) error {
			got = append(got, pixels...)
			return nil
		})
		if err != nil || !slices.Equal(got, numbered(want.From, want.To)) {
			t.Errorf("images %v: %v, %v", want, got, err)
		}
	}
	check(Span{0, 12})
	check(Span{0, 7})
	check(Span{5, 10})
	if err := s.Merge(ctx, 10); err != nil {
		t.Fatal(err)
	}
	check(Span{0, 12}) // the shard that reaches beyond 10 is kept
	if got := names(t, s.Folder); !slices.Equal(got, []string{"000007-000011.npz", "samples_10x2x1x3.npz"}) {
		t.Errorf("files %v", got)
	}
	if err := s.Merge(ctx, 12); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s.Folder); !slices.Equal(got, []string{"samples_12x2x1x3.npz"}) {
		t.Errorf("files %v", got)
	}
	fresh := &Images{Folder: s.Folder, Classes: -1}
	var notes []string
	if err := fresh.Scan(12, true, func(n string) { notes = append(notes, n) }); err != nil || len(notes) > 0 || fresh.Done(12) != 12 {
		t.Errorf("%v, %v, %d images", err, notes, fresh.Done(12))
	}
	for what, c := range map[string]Images{
		"labels of another seed": {Folder: s.Folder, Classes: 10, Seed: 6},
		"no labels":              {Folder: s.Folder, Classes: 0},
		"images of another size": {Folder: s.Folder, Classes: -1, Height: 1, Width: 2},
	} {
		notes = nil
		if err := c.Scan(12, false, func(n string) { notes = append(notes, n) }); err != nil || len(notes) != 1 || c.Done(12) != 0 {
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

// Labels lie beside the images that they belong to.
func TestLabelsOfTheStore(t *testing.T) {
	s := &Images{Seed: 7, Classes: 10}
	for i, label := range s.labels(Span{100, 120}) {
		if want := sampling.Label(7, 100+i, 10); label != want {
			t.Errorf("image %d has label %d, want %d", 100+i, label, want)
		}
	}
}
