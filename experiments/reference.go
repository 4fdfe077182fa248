package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/models/ort"
)

// reference is what the metrics need of a reference batch or of samples:
// statistics that the file holds are taken from it, as ADM's evaluator does;
// everything else is computed from its images. With keep set that goes to the
// user's cache folder under the hash of all that it depends on.
func (x *extractor) reference(ctx context.Context, path, contentSHA256 string, opt images.Options, want parts, keep bool, p *progress) (*eval.Features, images.Report, error) {
	var report images.Report
	ref, err := eval.ReadReference(ctx, path, opt)
	if err != nil {
		return nil, report, err
	}
	defer ref.Close()
	for _, w := range ref.Warnings {
		p.warn(w)
	}
	if ref.Pool != nil && ref.Pool.D() != x.net.Width() {
		return nil, report, fmt.Errorf("%s: its statistics are of %d features, the Inception network has %d: they were made with another network", path, ref.Pool.D(), x.net.Width())
	}
	compute := want
	compute.stats = want.stats && ref.Pool == nil
	compute.spatial = want.spatial && ref.Spatial == nil
	f := &eval.Features{D: x.net.Width()}
	if compute != (parts{}) && ref.Images != nil {
		if f, report, err = x.referenceImages(ctx, ref, contentSHA256, opt, compute, keep, p); err != nil {
			return nil, report, err
		}
	}
	if ref.Pool != nil {
		f.Stats = ref.Pool
	}
	if ref.Spatial != nil {
		f.Spatial = ref.Spatial
	}
	x.complete(f, path)
	return f, report, nil
}

// referenceImages are the features of the images, from the cache if they are
// there.
func (x *extractor) referenceImages(ctx context.Context, ref *eval.Reference, contentSHA256 string, opt images.Options, want parts, keep bool, p *progress) (*eval.Features, images.Report, error) {
	var report images.Report
	key, err := x.featuresKey(contentSHA256)
	if err != nil {
		return nil, report, err
	}
	cached := ""
	if keep {
		cached = cachePath(key, want)
	}
	if f, ok := readFeatures(cached, key, want); ok {
		return f, images.Report{Decoded: f.N}, nil
	}
	p.stage("features of "+filepath.Base(ref.Path), "images", 0, ref.Images.N)
	defer p.end()
	f, report, err := x.features(ctx, source{ref.Path, ref.Images.N, ref.Images.Images()}, opt, want, p.add)
	if err != nil {
		return nil, report, err
	}
	for _, line := range report.Notes() {
		p.note(fmt.Sprintf("%s: %s", ref.Path, line))
	}
	if cached != "" && len(report.Broken) == 0 && os.MkdirAll(filepath.Dir(cached), 0o755) == nil {
		if err := writeFeatures(cached, key, f); err != nil {
			p.note(fmt.Sprintf("the features of %s are not kept for the next time: %v", ref.Path, err))
		}
	}
	return f, report, nil
}

// featuresKey is a hash of what features of images depend on, the images being
// given by a hash or an id of theirs.
func (x *extractor) featuresKey(images string) ([]byte, error) {
	runtime, err := ort.RuntimeVersion()
	key := sha256.Sum256(fmt.Appendf(nil, "features 2 %s %s %s", images, x.key(), runtime))
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
