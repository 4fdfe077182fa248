package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/eval/npz"
)

// A file of features is an .npz with pool [N,D], logits [N,K] and spatial [N,S],
// where rows were wanted, and the statistics mu, sigma, mu_s, sigma_s under the
// names that ADM's evaluator reads. Beside them lie count [1], key, a hash of what they were computed from,
// the means in float32, mu32 and mu32_s, and, where there are fewer images than
// dimensions, the rows that the statistics are of; and converted_KIND [1] counts
// images that were converted to RGB.

const convertedPrefix = "converted_"

// writeFeatures writes such a file.
func writeFeatures(path string, key []byte, f *eval.Features, converted map[images.Conversion]int) error {
	w, err := npz.Create(path)
	if err != nil {
		return err
	}
	defer w.Abort()
	err = errors.Join(writeArray(w, "key", key, len(key)), writeArray(w, "count", []int64{int64(f.N)}, 1))
	if err == nil && f.Pool != nil {
		err = writeArray(w, "pool", f.Pool, f.N, f.D)
	}
	if err == nil && f.Logits != nil {
		err = writeArray(w, "logits", f.Logits, f.N, len(f.Logits)/f.N)
	}
	if err == nil && f.SpatialRows != nil {
		err = writeArray(w, "spatial", f.SpatialRows, f.N, len(f.SpatialRows)/f.N)
	}
	if err == nil {
		err = errors.Join(writeStats(w, "", f.Stats), writeStats(w, "_s", f.Spatial))
	}
	for _, c := range slices.Sorted(maps.Keys(converted)) {
		if err == nil {
			err = writeArray(w, convertedPrefix+string(c), []int64{int64(converted[c])}, 1)
		}
	}
	if err != nil {
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
	case []uint8:
		d = npz.Uint8
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

// readFeatures reads what writeFeatures wrote. It is false where there is no
// such file, or it is damaged, of something else, or holds less than is wanted:
// the features have to be computed.
func readFeatures(path string, key []byte, want parts) (*eval.Features, map[images.Conversion]int, bool) {
	file, err := npz.Open(path)
	if err != nil {
		return nil, nil, false
	}
	defer file.Close()
	found, err := readArrayOf[uint8](file, "key")
	if err != nil || !bytes.Equal(found, key) {
		return nil, nil, false
	}
	count, err := readArrayOf[int64](file, "count")
	if err != nil || len(count) != 1 || count[0] < 1 {
		return nil, nil, false
	}
	f := &eval.Features{N: int(count[0])}
	if want.pool {
		if f.Pool, err = readArrayOf[float32](file, "pool"); err != nil {
			return nil, nil, false
		}
		f.D = len(f.Pool) / f.N
	}
	if want.stats {
		if f.Stats, err = readStats(file, "", f.N); err != nil {
			return nil, nil, false
		}
		f.D = f.Stats.D()
	}
	if want.spatial {
		if f.Spatial, err = readStats(file, "_s", f.N); err != nil {
			return nil, nil, false
		}
	}
	if want.logits {
		if f.Logits, err = readArrayOf[float32](file, "logits"); err != nil {
			return nil, nil, false
		}
	}
	if want.spatialRows {
		if f.SpatialRows, err = readArrayOf[float32](file, "spatial"); err != nil {
			return nil, nil, false
		}
	}
	converted, err := readConverted(file)
	return f, converted, err == nil && f.Validate() == nil
}

func readConverted(file *npz.File) (map[images.Conversion]int, error) {
	var converted map[images.Conversion]int
	for _, name := range file.Names() {
		kind, ok := strings.CutPrefix(name, convertedPrefix)
		if !ok {
			continue
		}
		n, err := readArrayOf[int64](file, name)
		if err != nil || len(n) != 1 {
			return nil, errors.Join(err, fmt.Errorf("%s: %s is no count", file.Path(), name))
		}
		if converted == nil {
			converted = map[images.Conversion]int{}
		}
		converted[images.Conversion(kind)] = int(n[0])
	}
	return converted, nil
}

func readStats(file *npz.File, suffix string, n int) (*eval.Stats, error) {
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

// readArrayOf reads an array that writeArray wrote, into memory of its size: the
// largest ones would not fit twice. They are stored as they are, so none is
// larger than the file.
func readArrayOf[T npz.Number](file *npz.File, name string) ([]T, error) {
	info, err := os.Stat(file.Path())
	if err != nil {
		return nil, err
	}
	a, err := file.Array(name)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	if bytes := float64(a.Rows()) * float64(a.RowLen()) * float64(a.Dtype.Size); bytes > float64(info.Size()) {
		return nil, fmt.Errorf("%s: %s claims %g bytes", file.Path(), name, bytes)
	}
	out := make([]T, a.Rows()*a.RowLen())
	n, err := npz.ReadRows(a, out)
	if err == nil && n != a.Rows() {
		err = fmt.Errorf("%s: %s ends after %d rows", file.Path(), name, n)
	}
	return out, err
}
