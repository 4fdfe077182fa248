package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/eval/npz"
	"sagbench/eval/rows"
)

// FeaturesFile names the file, in a run's folder, of the features that a network
// computed of the run's images: an evaluation that was stopped goes on from
// there, and a metric that is added later finds them.
func FeaturesFile(network string) string {
	if network == inception {
		return "features.npz"
	}
	return "features-" + network + ".npz"
}

const (
	convertedPrefix = "converted_"
	outputPrefix    = "output_"
	brokenArray     = "broken"
)

// ownArrays are the arrays of a file of features that no prefix tells. A name that
// is neither is a damaged one: zip's checksums do not cover names.
var ownArrays = []string{"key", "count", "pool", "logits", "spatial", brokenArray,
	"mu", "mu32", "sigma", "rows", "mu_s", "mu32_s", "sigma_s", "rows_s"}

// A brokenImage is an image that was left out, in the array "broken".
type brokenImage struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
	At     int    `json:"at"` // place in the set, from 0
}

// WriteFeatures writes features of images to an .npz file: pool [N,D], logits [N,K]
// and spatial [N,S], where f holds rows of them, and the statistics mu, sigma,
// mu_s, sigma_s under the names that ADM's evaluator reads. Beside them lie
// count [1], the number of images; key, a hash of all that the features depend on;
// the means in float32, mu32 and mu32_s; where there are fewer images than
// dimensions, the rows that the statistics are of; output_NAME [N,…], further
// outputs of the network; converted_KIND [1], how many images were converted to RGB
// in that way; and broken [bytes], which images were left out and why, as JSON.
func WriteFeatures(path string, key []byte, f *eval.Features, read images.Report) error {
	file, err := npz.Create(path)
	if err != nil {
		return err
	}
	return writeFeatures(file, key, f, read)
}

// EncodeFeatures writes to w what WriteFeatures writes to a file; name is what messages
// call it.
func EncodeFeatures(w io.Writer, name string, key []byte, f *eval.Features, read images.Report) error {
	return writeFeatures(npz.NewWriter(w, name), key, f, read)
}

func writeFeatures(file *npz.Writer, key []byte, f *eval.Features, read images.Report) error {
	defer file.Abort()
	w := &arrayWriter{Writer: file}
	write(w, "key", key, len(key))
	write(w, "count", []int64{int64(f.N)}, 1)
	w.heldRows("pool", f, f.Pool)
	w.heldRows("logits", f, f.Logits)
	w.heldRows("spatial", f, f.SpatialRows)
	for _, name := range slices.Sorted(maps.Keys(f.Outputs)) {
		writeRows(w, outputPrefix+name, f.Outputs[name], f.N)
	}
	w.stats("", f.Stats)
	w.stats("_s", f.Spatial)
	for _, c := range slices.Sorted(maps.Keys(read.Converted)) {
		write(w, convertedPrefix+string(c), []int64{int64(read.Converted[c])}, 1)
	}
	if len(read.Broken) > 0 {
		var broken []brokenImage
		for _, b := range read.Broken {
			broken = append(broken, brokenImage{b.Name, b.Err.Error(), b.At})
		}
		data, err := json.Marshal(broken)
		if err != nil {
			return err
		}
		write(w, brokenArray, data, len(data))
	}
	if w.err != nil {
		return w.err
	}
	return file.Commit()
}

// An arrayWriter writes arrays up to the first error, which it keeps.
type arrayWriter struct {
	*npz.Writer
	err error
}

func write[T npz.Number](w *arrayWriter, name string, values []T, shape ...int) {
	if w.err == nil {
		w.err = npz.WriteArray(w.Writer, name, values, shape...)
	}
}

// writeRows writes values as n rows, where there are any.
func writeRows(w *arrayWriter, name string, values []float32, n int) {
	if values != nil {
		write(w, name, values, n, len(values)/n)
	}
}

// heldRows writes rows of the images of f, which may lie in a file.
func (w *arrayWriter) heldRows(name string, f *eval.Features, values []float32) {
	if values == nil || w.err != nil {
		return
	}
	width := len(values) / f.N
	to, err := w.Array(name, npz.Float32, f.N, width)
	for at := 0; at < len(values) && err == nil; at += heldBatch * width {
		part := values[at:min(at+heldBatch*width, len(values))]
		err = npz.WriteRows(to, part)
		f.Touched(len(part))
	}
	w.err = err
}

// heldBatch is how many rows go from or to a file at a time.
const heldBatch = 4096

// stats writes statistics, where there are any.
func (w *arrayWriter) stats(suffix string, s *eval.Stats) {
	if s == nil {
		return
	}
	d := s.D()
	write(w, "mu"+suffix, s.Mean, d)
	write(w, "mu32"+suffix, s.Mean32, d)
	write(w, "sigma"+suffix, s.Cov, d, d)
	writeRows(w, "rows"+suffix, s.Rows, s.N)
}

// ReadFeatures reads what WriteFeatures wrote: the wanted parts, and what was found
// in reading the images. It is false, and the features have to be computed, where
// there is no such file, or it is damaged, has another key or lacks a part.
func ReadFeatures(path string, key []byte, want eval.Parts) (*eval.Features, images.Report, bool) {
	var report images.Report
	file, err := npz.Open(path)
	if err != nil {
		return nil, report, false
	}
	defer file.Close()
	info, err := os.Stat(path)
	if err != nil {
		return nil, report, false
	}
	r := &arrayReader{File: file, size: info.Size()}
	f := &eval.Features{N: r.number("count")}
	if found := read[uint8](r, "key"); r.failed || !bytes.Equal(found, key) || f.N < 1 {
		return nil, report, false
	}
	report.Decoded = f.N
	if want.Pool {
		f.Pool = r.heldRows("pool", f)
		f.D = len(f.Pool) / f.N
	}
	if want.Stats {
		f.Stats = r.stats("", f.N)
		f.D = f.Stats.D()
	}
	if want.Spatial {
		f.Spatial = r.stats("_s", f.N)
	}
	if want.Logits {
		f.Logits = r.heldRows("logits", f)
	}
	if want.SpatialRows {
		f.SpatialRows = r.heldRows("spatial", f)
	}
	for _, name := range strings.Fields(want.Outputs) {
		if f.Outputs == nil {
			f.Outputs = map[string][]float32{}
		}
		f.Outputs[name] = read[float32](r, outputPrefix+name)
	}
	for _, name := range file.Names() {
		kind, isKind := strings.CutPrefix(name, convertedPrefix)
		switch {
		case isKind && images.Conversion(kind).Known():
			if report.Converted == nil {
				report.Converted = map[images.Conversion]int{}
			}
			report.Converted[images.Conversion(kind)] = r.number(name)
		case name == brokenArray:
			report.Broken = r.broken()
		case !strings.HasPrefix(name, outputPrefix) && !slices.Contains(ownArrays, name):
			f.Close()
			return nil, report, false
		}
	}
	if r.failed || f.Validate() != nil {
		f.Close()
		return nil, report, false
	}
	return f, report, true
}

// broken reads which images were left out.
func (r *arrayReader) broken() (out []images.Broken) {
	var list []brokenImage
	if json.Unmarshal(read[uint8](r, brokenArray), &list) != nil {
		r.failed = true
	}
	for _, b := range list {
		out = append(out, images.Broken{Name: b.Name, Err: errors.New(b.Reason), At: b.At})
	}
	return out
}

// An arrayReader reads arrays that an arrayWriter wrote, up to the first failure.
type arrayReader struct {
	*npz.File
	size   int64 // of the file, in bytes
	failed bool
}

// read reads an array into memory of its size: the largest ones would not fit
// twice. They are stored as they are, so none is larger than the file.
func read[T npz.Number](r *arrayReader, name string) []T {
	if r.failed {
		return nil
	}
	r.failed = true
	a := r.array(name)
	if a == nil {
		return nil
	}
	defer a.Close()
	out := make([]T, a.Rows()*a.RowLen())
	n, err := npz.ReadRows(a, out)
	r.failed = err != nil || n != a.Rows()
	return out
}

// array opens an array, nil where there is none or it claims more than the file has.
func (r *arrayReader) array(name string) *npz.Array {
	a, err := r.Array(name)
	if err != nil {
		return nil
	}
	if float64(a.Rows())*float64(a.RowLen())*float64(a.Dtype.Size) > float64(r.size) {
		a.Close()
		return nil
	}
	return a
}

// heldRows reads rows of the images of f, which holds them from then on.
func (r *arrayReader) heldRows(name string, f *eval.Features) []float32 {
	if r.failed {
		return nil
	}
	r.failed = true
	a := r.array(name)
	if a == nil {
		return nil
	}
	defer a.Close()
	held := &rows.Rows{}
	f.Held = append(f.Held, held)
	held.Expect(a.Rows() * a.RowLen())
	for left := a.Rows(); left > 0; {
		batch := make([]float32, min(left, heldBatch)*a.RowLen())
		n, err := npz.ReadRows(a, batch)
		if err != nil || n == 0 || held.Append(batch[:n*a.RowLen()]) != nil {
			return nil
		}
		left -= n
	}
	values, err := held.Values()
	r.failed = err != nil
	return values
}

// number reads an array of one whole number.
func (r *arrayReader) number(name string) int {
	values := read[int64](r, name)
	if len(values) != 1 {
		r.failed = true
		return 0
	}
	return int(values[0])
}

// stats reads statistics of n images.
func (r *arrayReader) stats(suffix string, n int) *eval.Stats {
	s := &eval.Stats{
		N: n, Mean: read[float64](r, "mu"+suffix), Mean32: read[float32](r, "mu32"+suffix), Cov: read[float64](r, "sigma"+suffix),
	}
	if n <= s.D() { // an Accumulator keeps them up to then
		s.Rows = read[float32](r, "rows"+suffix)
	}
	return s
}
