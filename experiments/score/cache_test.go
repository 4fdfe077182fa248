package score

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models/cache"
	"sagbench/models/features"
	"sagbench/models/ort"
)

// Features come from the cache only for the very content that they are of, and
// only whole.
func TestCache(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "data.npz")
	if err := tiny.WriteReference(path, 6); err != nil {
		t.Fatal(err)
	}
	network := plan.NewFeatureNetwork(features.Networks[0], eval.Protocol{})
	network.Flags, network.Weights.Path = &features.Inception{InputSize: 107}, filepath.Join(tiny.Root(), "models/pretrained/inception.pt")
	x, err := newExtractor(network, store.Hashes{}, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	want := eval.Parts{Pool: true, Stats: true}
	features := func() ([]float32, string) {
		t.Helper()
		sum, err := images.Hash(path)
		if err != nil {
			t.Fatal(err)
		}
		f, _, err := x.reference(t.Context(), path, sum, images.Options{}, want, human.NewProgress(os.Stderr))
		if err != nil {
			t.Fatal(err)
		}
		key, err := x.featuresKey(sum)
		if err != nil {
			t.Fatal(err)
		}
		kept, damaged := cache.Features.Find(cacheKey(key, want))
		if kept == "" || damaged {
			t.Fatal("the features were not kept")
		}
		return f.Pool, kept
	}
	first, cached := features()
	whole, err := os.ReadFile(cached)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := images.Hash(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x.featuresKey(sum)
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(folder, "notes"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	progress := human.NewProgress(said)
	r := rand.New(rand.NewPCG(13, 3))
	for range 200 {
		flipped := bytes.Clone(whole)
		at := r.IntN(len(flipped))
		flipped[at] ^= byte(1 + r.IntN(255))
		if err := os.WriteFile(cached, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, ok := cachedFeatures(key, want, path, progress); ok {
			t.Fatalf("byte %d was flipped: the features are used", at)
		}
	}
	if notes, err := os.ReadFile(said.Name()); err != nil || strings.Count(string(notes), "damaged; they are computed anew") != 200 {
		t.Errorf("%d bytes of notes, %v", len(notes), err)
	}
	for what, data := range map[string][]byte{"cut off": whole[:len(whole)-100], "empty": nil} {
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
	if err := tiny.WriteImages(path, pixels, 6, 32, 32); err != nil {
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
	if _, _, err := x.reference(t.Context(), path, "hash of something else", images.Options{}, want, human.NewProgress(os.Stderr)); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("a file that changed after it was hashed: %v", err)
	}
}
