package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/eval"
	"sagbench/eval/images"
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
	if ref.Pool != nil && ref.Pool.D() != x.net.Width() {
		return nil, report, fmt.Errorf("%s: its statistics are of %d features, the Inception network has %d: they were made with another network", path, ref.Pool.D(), x.net.Width())
	}
	notes, err := ref.Agree(x.name, x.sha256, string(x.resize), x.side())
	if err != nil {
		return nil, report, err
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
	f.Notes = slices.Concat(ref.Warnings, notes)
	for _, line := range report.Notes() {
		f.Notes = append(f.Notes, path+": "+line)
	}
	for i, n := range f.Notes {
		p.note("note: " + n)
		f.Notes[i] = strings.ReplaceAll(n, path, filepath.Base(path))
	}
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
	if f, ok := cachedFeatures(cached, key, want); ok {
		return f, images.Report{Decoded: f.N}, nil
	}
	p.stage("features of "+filepath.Base(ref.Path), "images", 0, ref.Images.N)
	defer p.end()
	f, report, err := x.features(ctx, source{ref.Path, ref.Images.N, ref.Images.Images()}, opt, want, p.add)
	if err != nil {
		return nil, report, err
	}
	if cached == "" || len(report.Broken) > 0 {
		return f, report, nil
	}
	if now, err := images.Hash(ref.Path); err != nil || now != contentSHA256 {
		return nil, report, errors.Join(err, fmt.Errorf("%s: changed while it was read", ref.Path))
	}
	if err := keepFeatures(cached, key, f); err != nil {
		p.note(fmt.Sprintf("the features of %s are not kept for the next time: %v", ref.Path, err))
	}
	return f, report, nil
}
