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
	notes, err := x.agree(ref)
	if err != nil {
		return nil, report, err
	}
	compute := want.of(x)
	compute.stats = want.stats && ref.Pool == nil
	compute.spatial = want.spatial && ref.Spatial == nil
	f := &eval.Features{D: x.net.Width()}
	if compute != (parts{}) && ref.Images != nil {
		if f, report, err = x.referenceImages(ctx, ref, contentSHA256, opt, compute, keep, p); err != nil {
			return nil, report, err
		}
	}
	if !ref.Features.IsZero() {
		f.Pool, f.N = ref.Features.Data, ref.Features.Rows()
		if f.Stats, err = eval.StatsOf(f.Pool, f.D, x.products); err != nil {
			return nil, report, fmt.Errorf("%s: %w", path, err)
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

// agree checks that the statistics of a reference were made with this network.
// A file that does not say with which holds Inception's. Another network uses the
// images of a file of Inception's.
func (x *extractor) agree(ref *eval.Reference) (notes []string, err error) {
	of := "inception"
	if ref.Provenance != nil {
		of = ref.Provenance.Network
	}
	statistics := ref.Pool != nil || ref.Spatial != nil
	switch foreign := statistics && of == "inception" && x.name != of; {
	case !ref.Features.IsZero() && x.name != "inception":
		return nil, fmt.Errorf("%s: its features feats are clean-fid's, of Inception and not of %s", ref.Path, filepath.Base(x.path))
	case !ref.Features.IsZero() && ref.Features.RowLen() != x.net.Width():
		return nil, fmt.Errorf("%s: its features have %d dimensions, those of %s %d: they were made with another network", ref.Path, ref.Features.RowLen(), filepath.Base(x.path), x.net.Width())
	case foreign && ref.Images == nil:
		return nil, fmt.Errorf("%s: its statistics are not of %s, or do not say so; give the images themselves, or make a reference of them with `sagbench reference`", ref.Path, filepath.Base(x.path))
	case foreign:
		ref.Pool, ref.Spatial = nil, nil
		return []string{fmt.Sprintf("%s: its statistics are not of %s, its %d images are used", ref.Path, filepath.Base(x.path), ref.Images.N)}, nil
	}
	if notes, err = ref.Agree(x.name, x.sha256, string(x.resize), x.side()); err == nil && ref.Pool != nil && ref.Pool.D() != x.net.Width() {
		err = fmt.Errorf("%s: its statistics are of %d features, %s has %d: they were made with another network", ref.Path, ref.Pool.D(), filepath.Base(x.path), x.net.Width())
	}
	return notes, err
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
	if f, read, ok := cachedFeatures(cached, key, want); ok {
		return f, read, nil
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
	if err := keepFeatures(cached, key, f, report); err != nil {
		p.note(fmt.Sprintf("the features of %s are not kept for the next time: %v", ref.Path, err))
	}
	return f, report, nil
}
