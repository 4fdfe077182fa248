package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sagbench/eval"
	"sagbench/eval/npz"
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
	f.Source, f.ClassWeight, f.Products = path, x.classWeight, x.products
	if ref.Pool != nil {
		f.Stats = ref.Pool
	}
	if ref.Spatial != nil {
		f.Spatial = ref.Spatial
	}
	return f, nil
}

// referenceImages are the features of the file's images, from the cache if they
// are there.
func (x *extractor) referenceImages(ctx context.Context, ref *eval.Reference, path, contentSHA256 string, want parts, keep bool, p *progress) (*eval.Features, error) {
	cached := ""
	if keep {
		cached = x.cachePath(contentSHA256, want)
	}
	if f, err := readFeatures(cached, x.net.Width()); err == nil {
		return f, nil
	}
	p.stage("features of "+filepath.Base(path), "images", 0, ref.Images.N)
	defer p.end()
	f, err := x.features(ctx, path, ref.Images.N, streamOf(ref.Images, path), want, p.add)
	if err != nil {
		return nil, err
	}
	if cached != "" && os.MkdirAll(filepath.Dir(cached), 0o755) == nil {
		if err := writeFeatures(cached, f); err != nil {
			p.note(fmt.Sprintf("the features of %s are not kept for the next time: %v", path, err))
		}
	}
	return f, nil
}

// cachePath names the file that keeps features of images of the given content;
// "" if the user has no cache folder.
func (x *extractor) cachePath(contentSHA256 string, want parts) string {
	folder, err := os.UserCacheDir()
	runtime, errRuntime := ort.RuntimeVersion()
	if errors.Join(err, errRuntime) != nil {
		return ""
	}
	key := sha256.Sum256(fmt.Appendf(nil, "features 1 %s %s %s %v", contentSHA256, x.key(), runtime, want))
	return filepath.Join(folder, "sagbench", "features", fmt.Sprintf("%x.npz", key[:16]))
}

// writeFeatures keeps features in an .npz file: pool [N,D], mu, mu_32, sigma,
// and the same of spatial features with _s.
func writeFeatures(path string, f *eval.Features) error {
	w, err := npz.Create(path)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := writeArray(w, "count", []int64{int64(f.N)}, 1); err != nil {
		return err
	}
	if f.Pool != nil {
		if err := writeArray(w, "pool", f.Pool, f.N, f.D); err != nil {
			return err
		}
	}
	if err := errors.Join(writeStats(w, "", f.Stats), writeStats(w, "_s", f.Spatial)); err != nil {
		return err
	}
	return w.Commit()
}

func writeStats(w *npz.Writer, suffix string, s *eval.Stats) error {
	if s == nil {
		return nil
	}
	d := s.D()
	err := writeArray(w, "mu"+suffix, s.Mean, d)
	if err == nil {
		err = writeArray(w, "mu32"+suffix, s.Mean32, d)
	}
	if err == nil {
		err = writeArray(w, "sigma"+suffix, s.Cov, d, d)
	}
	if err == nil && s.Rows != nil {
		err = writeArray(w, "rows"+suffix, s.Rows, s.N, d)
	}
	return err
}

func writeArray[T npz.Number](w *npz.Writer, name string, values []T, shape ...int) error {
	var d npz.Dtype
	switch any(values).(type) {
	case []int64:
		d = npz.Int64
	case []float32:
		d = npz.Float32
	case []float64:
		d = npz.Float64
	}
	a, err := w.Array(name, d, shape...)
	if err != nil {
		return err
	}
	return npz.WriteRows(a, values)
}

// readFeatures reads what writeFeatures wrote; an error means that it has to be
// computed anew.
func readFeatures(path string, d int) (*eval.Features, error) {
	file, err := npz.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	count, err := readArrayOf[int64](file, "count")
	if err != nil || len(count) != 1 {
		return nil, errors.Join(errors.New("no count"), err)
	}
	f := &eval.Features{N: int(count[0]), D: d}
	if file.Has("pool") {
		if f.Pool, err = readArrayOf[float32](file, "pool"); err != nil {
			return nil, err
		}
	}
	if f.Stats, err = readCachedStats(file, "", f.N); err != nil {
		return nil, err
	}
	if f.Spatial, err = readCachedStats(file, "_s", f.N); err != nil {
		return nil, err
	}
	return f, f.Validate()
}

func readCachedStats(file *npz.File, suffix string, n int) (*eval.Stats, error) {
	if !file.Has("mu" + suffix) {
		return nil, nil
	}
	s := &eval.Stats{N: n}
	var errs [4]error
	s.Mean, errs[0] = readArrayOf[float64](file, "mu"+suffix)
	s.Mean32, errs[1] = readArrayOf[float32](file, "mu32"+suffix)
	s.Cov, errs[2] = readArrayOf[float64](file, "sigma"+suffix)
	if file.Has("rows" + suffix) {
		s.Rows, errs[3] = readArrayOf[float32](file, "rows"+suffix)
	}
	return s, errors.Join(errs[:]...)
}

// largestArray is no bound: a file cannot claim more than it holds.
const largestArray = 1 << 40

func readArrayOf[T npz.Number](file *npz.File, name string) ([]T, error) {
	a, err := file.Array(name)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return npz.ReadAll[T](a, largestArray)
}
