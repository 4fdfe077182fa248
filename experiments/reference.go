package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"sagbench/eval"
	"sagbench/models/ort"
)

// reference is what the metrics need of an .npz file, which may also be a file
// of samples: statistics that it holds are taken from it, as ADM's evaluator
// does; everything else is computed from its images. With keep set that goes
// to the user's cache folder under the hash of all that it depends on.
func (x *extractor) reference(ctx context.Context, path, contentSHA256 string, want parts, keep bool, p *progress) (*eval.Features, error) {
	ref, err := eval.ReadReference(path)
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	for _, w := range ref.Warnings {
		p.warn(w)
	}
	if ref.Pool != nil && ref.Pool.D() != x.net.Width() {
		return nil, fmt.Errorf("%s: its statistics are of %d features, the Inception network has %d: they were made with another network", path, ref.Pool.D(), x.net.Width())
	}
	compute := want
	compute.stats = want.stats && ref.Pool == nil
	compute.spatial = want.spatial && ref.Spatial == nil
	f := &eval.Features{D: x.net.Width()}
	if compute != (parts{}) && ref.Images != nil {
		if f, err = x.referenceImages(ctx, ref, path, contentSHA256, compute, keep, p); err != nil {
			return nil, err
		}
	}
	if ref.Pool != nil {
		f.Stats = ref.Pool
	}
	if ref.Spatial != nil {
		f.Spatial = ref.Spatial
	}
	x.complete(f, path)
	return f, nil
}

// referenceImages are the features of the file's images, from the cache if they
// are there.
func (x *extractor) referenceImages(ctx context.Context, ref *eval.Reference, path, contentSHA256 string, want parts, keep bool, p *progress) (*eval.Features, error) {
	key, err := x.featuresKey(contentSHA256)
	if err != nil {
		return nil, err
	}
	cached := ""
	if keep {
		cached = cachePath(key, want)
	}
	if f, ok := readFeatures(cached, key, want); ok {
		return f, nil
	}
	p.stage("features of "+filepath.Base(path), "images", 0, ref.Images.N)
	defer p.end()
	f, err := x.features(ctx, path, ref.Images.N, streamOf(ref.Images, path), want, p.add)
	if err != nil {
		return nil, err
	}
	if cached != "" && os.MkdirAll(filepath.Dir(cached), 0o755) == nil {
		if err := writeFeatures(cached, key, f); err != nil {
			p.note(fmt.Sprintf("the features of %s are not kept for the next time: %v", path, err))
		}
	}
	return f, nil
}

// featuresKey is a hash of what features of images depend on, the images being
// given by a hash or an id of theirs.
func (x *extractor) featuresKey(images string) ([]byte, error) {
	runtime, err := ort.RuntimeVersion()
	key := sha256.Sum256(fmt.Appendf(nil, "features 1 %s %s %s", images, x.key(), runtime))
	return key[:], err
}

// cachePath names the file that keeps features; "" if the user has no cache
// folder.
func cachePath(key []byte, want parts) string {
	folder, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	name := sha256.Sum256(fmt.Appendf(nil, "%x %v", key, want))
	return filepath.Join(folder, "sagbench", "features", fmt.Sprintf("%x.npz", name[:16]))
}
