package score

import (
	"bytes"
	"errors"
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
	x, err := newExtractor(t.Context(), network, store.Hashes{}, ort.Options{})
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
		key := keyOf(t, x, path)
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
	key := keyOf(t, x, path)
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
		if _, _, ok := cachedFeatures(key, want, path, images.Options{}, progress); ok {
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
	pixels[0] = 1 // which are not in the cache
	if err := tiny.WriteImages(path, pixels, 6, 32, 32); err != nil {
		t.Fatal(err)
	}
	if _, _, err := x.reference(t.Context(), path, "hash of something else", images.Options{}, want, human.NewProgress(os.Stderr)); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("a file that changed after it was hashed: %v", err)
	}
}

// keyOf is what features of the images at a path are kept under.
func keyOf(t *testing.T, x *Extractor, path string) []byte {
	t.Helper()
	ref, err := eval.ReadReference(t.Context(), path, images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	content, err := ref.Images.Content(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x.featuresKey(setKey(content))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A network that is replaced once it was hashed computes nothing that is kept under
// the hash: neither features nor its optimised graph.
func TestNetworkReplaced(t *testing.T) {
	folder := t.TempDir()
	path, weights := filepath.Join(folder, "data.npz"), filepath.Join(folder, "inception.pt")
	data, err := os.ReadFile(filepath.Join(tiny.Root(), "models/pretrained/inception.pt"))
	if err != nil {
		t.Fatal(err)
	}
	tiny.Write(t, weights, string(data))
	if err := tiny.WriteReference(path, 6); err != nil {
		t.Fatal(err)
	}
	runtimes, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "sagbench", "onnxruntime-*"))
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(t.TempDir(), "sagbench")
	for _, r := range runtimes {
		if err := errors.Join(os.MkdirAll(cache, 0o755), os.Symlink(r, filepath.Join(cache, filepath.Base(r)))); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_CACHE_HOME", filepath.Dir(cache))
	network := plan.NewFeatureNetwork(features.Networks[0], eval.Protocol{})
	network.Flags, network.Weights.Path = &features.Inception{InputSize: 107}, weights
	h := store.Hashes{}
	x, err := newExtractor(t.Context(), network, h, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	sum, err := h.Of(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	tiny.Write(t, weights+".new", string(data))
	if err := os.Rename(weights+".new", weights); err != nil {
		t.Fatal(err)
	}
	_, _, err = x.reference(t.Context(), path, sum, images.Options{}, eval.Parts{Stats: true}, human.NewProgress(os.Stderr))
	if err == nil || !strings.Contains(err.Error(), weights+": changed since") {
		t.Errorf("features of a network that was replaced: %v", err)
	}
	for _, kind := range []string{"graphs/*.onnx", "features/*.npz"} {
		if kept, err := filepath.Glob(filepath.Join(cache, kind)); err != nil || len(kept) > 0 {
			t.Errorf("kept: %v, %v", kept, err)
		}
	}
}

// What a result says of the device and the versions is true: features of another
// device are other features, a device that is not there computes nothing, not even
// what is in the cache, and statistics made by other versions are said to be.
func TestDeviceAndVersionsAreTrue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.npz")
	if err := tiny.WriteReference(path, 6); err != nil {
		t.Fatal(err)
	}
	network := plan.NewFeatureNetwork(features.Networks[0], eval.Protocol{})
	network.Flags, network.Weights.Path = &features.Inception{InputSize: 107}, filepath.Join(tiny.Root(), "models/pretrained/inception.pt")
	protocol, err := eval.ProtocolOf(eval.DefaultProtocol)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := plan.ParseMetrics(protocol, "fid")
	if err != nil {
		t.Fatal(err)
	}
	task := Task{Protocol: protocol, Main: "inception", Reference: path, Samples: []string{path}, Metrics: metrics}
	task.Comparisons = plan.ComparisonsOf(metrics, map[string]plan.FeatureNetwork{"inception": network}, "inception")
	p := human.NewProgress(os.Stderr)
	if _, err := task.Run(t.Context(), ort.Options{}, p); err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{"cuda:99", "gpu"} {
		if e, err := task.Run(t.Context(), ort.Options{Device: device}, p); err == nil || e != nil || !strings.Contains(err.Error(), device) {
			t.Errorf("%s with features in the cache: %v, %v", device, e, err)
		}
	}

	x, err := newExtractor(t.Context(), network, store.Hashes{}, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	here, err := x.featuresKey("images")
	if err != nil {
		t.Fatal(err)
	}
	other := *x
	other.options.Device = "cuda:0"
	if there, err := other.featuresKey("images"); err != nil || bytes.Equal(here, there) {
		t.Errorf("features of cpu and cuda:0 have one key (%v)", err)
	}
	if v, err := Versions(other.options); err != nil || v["kernels"] != "" {
		t.Errorf("kernels of the processor on a GPU: %v, %v", v, err)
	}

	made, err := Versions(x.options)
	if err != nil {
		t.Fatal(err)
	}
	ref := &eval.Reference{Path: "ref.npz", Pool: &eval.Stats{Mean: make([]float64, x.Net.Width())}, Provenance: &eval.Provenance{
		Network: "inception", SHA256: x.sha256, Resize: string(x.Resize), InputSize: 107, Versions: made,
	}}
	if notes, err := x.agree(ref, ""); err != nil || len(notes) > 0 {
		t.Errorf("statistics of this very program: %q, %v", notes, err)
	}
	made["onnxruntime"] = "1.2.3"
	if notes, err := x.agree(ref, ""); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "made with onnxruntime 1.2.3 (here ") {
		t.Errorf("statistics of another ONNX Runtime: %q, %v", notes, err)
	}

	// Without provenance the layout tells of the input size.
	ref.Provenance, ref.Spatial = nil, &eval.Stats{Mean: make([]float64, 175)} // 5·5·7, as of 107×107 pixels
	if notes, err := x.agree(ref, ""); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "images resized to 107×107 pixels") {
		t.Errorf("spatial features of this size: %q, %v", notes, err)
	}
	ref.Spatial.Mean = make([]float64, 2023)
	if _, err := x.agree(ref, ""); err == nil || !strings.Contains(err.Error(), "of 2023 spatial features, and images of 107×107 pixels have 175") {
		t.Errorf("spatial features of another size: %v", err)
	}
	official := *x // an official network at another size than its authors'
	official.UsualWidth, official.UsualSide = x.Net.Width(), 106
	ref.Spatial.Mean = make([]float64, 175)
	if _, err := official.agree(ref, ""); err == nil || !strings.Contains(err.Error(), "of images of 106×106 pixels; these are of 107×107") {
		t.Errorf("ADM's layout at another size: %v", err)
	}
	ref.Spatial = nil
	if notes, err := official.agree(ref, ""); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "107×107") {
		t.Errorf("a mean and a covariance alone: %q, %v", notes, err)
	}
}
