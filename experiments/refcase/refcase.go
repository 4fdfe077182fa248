// Package refcase runs reference cases: folders with inputs and outputs of another
// implementation go in; a line for each tensor comes out that says how far ours is
// from it.
package refcase

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/score"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// Options say how cases are run.
type Options struct {
	Runtime ort.Options
	Quiet   bool // print no lines of tensors that pass
	// Tolerance is what tensors may differ by relative to their largest value where
	// their case allows less; 0 = nothing more.
	Tolerance float64
	// Emulated is how many times the error of the CPU's emulation of the precision a
	// tensor may be off by on another device, where its case allows less; 0 = nothing more.
	// Runtime.Precision is one that the CPU has, and not float32.
	Emulated float64
}

// Check runs the reference cases in the folders dirs, networks as o says, but those
// whose case names a precision in that, where o names none, and prints to w a line for
// each case and tensor and for each graph on another device than the CPU, and how many
// cases passed. It is an error where one of them failed, or where there is none. Files
// among the folders are passed over.
func Check(ctx context.Context, w io.Writer, dirs []string, o Options) error {
	if !(o.Emulated >= 0) {
		return fmt.Errorf("check: expected a multiple of the emulation's error from 0, found %v", o.Emulated)
	}
	if o.Emulated > 0 && (o.Runtime.Precision == "" || o.Runtime.Precision == ort.Float32) {
		return errors.New("check: expected a precision that is emulated beside a multiple of the emulation's error, found float32; use --precision bfloat16 or float16")
	}
	passed, failed := 0, 0
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			continue // a file beside the cases, as in cases/*
		}
		ok, err := checkCase(ctx, w, dir, o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(w, "FAIL  %s: %s\n", dir, human.Message(err))
		}
		if err == nil && ok {
			passed++
		} else {
			failed++
		}
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", passed, failed)
	switch {
	case failed > 0:
		return fmt.Errorf("check: %d of %d cases failed", failed, passed+failed)
	case passed == 0:
		return fmt.Errorf("check: no folder with a reference case among the arguments")
	}
	return nil
}

// A referenceCase is a case.yaml. Keys that are for people stay undecoded.
type referenceCase struct {
	Kind           string        `yaml:"kind"`
	Tolerance      caseTolerance `yaml:"tolerance"`
	Model          configs.Block `yaml:"model"`
	Layer          string        `yaml:"layer"`
	Heads          int           `yaml:"heads" min:"0" max:"65536"`
	AttentionOrder string        `yaml:"attention_order"`
	Sampler        configs.Block `yaml:"sampler"`
	Guidance       configs.Block `yaml:"guidance"`
	Files          configs.Block `yaml:"files"`

	dir     string
	block   configs.Block // of case.yaml
	tensors checkpoint.StateDict
	options ort.Options
}

// caseKeys are the keys of case.yaml that say what to run, but for the options of a
// schedule's sampler. Others say, for people, how the case was made. They are many
// and left alone: a misspelt key cannot make numbers agree.
var caseKeys = []string{"kind", "tolerance", "model", "layer", "heads", "attention_order", "sampler", "guidance", "files"}

// A caseKind computes the outputs of a case: tensor names without "out." to values.
type caseKind func(context.Context, *referenceCase) (map[string]ort.Array, error)

var caseKinds = map[string]caseKind{
	"forward":  checkForward,
	"sample":   checkSample,
	"evaluate": checkEvaluate,
	"schedule": checkSchedule,
	"tokenize": checkTokenize,
}

// checkCase runs one case and prints its lines.
func checkCase(ctx context.Context, w io.Writer, dir string, o Options) (ok bool, err error) {
	c, file, err := openCase(dir)
	if err != nil {
		return false, err
	}
	defer file.Close()
	var lines []string
	c.options = o.Runtime
	c.options.Placed = func(p ort.Placement) {
		if !o.Quiet {
			lines = append(lines, "  "+score.PlacementOf(p).String())
		}
	}
	c.Tolerance.least = o.Tolerance
	run, known := caseKinds[c.Kind]
	if !known {
		return false, fmt.Errorf("%s: unknown kind %q; known: %v", filepath.Join(dir, "case.yaml"), c.Kind, slices.Sorted(maps.Keys(caseKinds)))
	}
	if o.Emulated > 0 {
		if err := c.emulate(ctx, run, o.Emulated); err != nil {
			return false, fmt.Errorf("%s: %w", filepath.Base(filepath.Clean(dir)), err)
		}
	}
	out, err := run(ctx, c)
	if err != nil {
		return false, err
	}
	verdict, count := "PASS", 0
	for _, name := range slices.Sorted(maps.Keys(c.tensors)) {
		if !strings.HasPrefix(name, "out.") {
			continue
		}
		want, err := c.tensors[name].Float64()
		if err != nil {
			return false, fmt.Errorf("%s: %s: %w", file.Path, name, err)
		}
		r := c.Tolerance.compare(name, out, want, c.tensors[name].Shape)
		count++
		if !r.pass {
			verdict = "FAIL"
		}
		if !o.Quiet || !r.pass {
			lines = append(lines, r.String())
		}
	}
	fmt.Fprintf(w, "%s  %s  %d tensors\n", verdict, filepath.Base(filepath.Clean(dir)), count)
	for _, l := range lines {
		fmt.Fprintln(w, l)
	}
	return verdict == "PASS" && count > 0, nil
}

// openCase reads a case.yaml and opens the io.safetensors beside it.
func openCase(dir string) (*referenceCase, *checkpoint.File, error) {
	path := filepath.Join(dir, "case.yaml")
	data, err := readFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("check: %s is no reference case: %w", dir, err)
	}
	b, err := configs.Parse(path, data)
	if err != nil {
		return nil, nil, err
	}
	b = b.With(plan.Hooks(func(b configs.Block) sampling.File {
		name, _ := b.Text()
		path := name
		if !filepath.IsAbs(name) {
			path = filepath.Join(dir, name)
		}
		return sampling.File{Place: plan.PlaceOf(b), Written: name, Path: path}
	}))
	c := &referenceCase{dir: dir, block: b}
	for _, key := range []string{"kind", "tolerance"} {
		if !b.Has(key) {
			return nil, nil, fmt.Errorf("%s: %s is missing; found %s", path, key, strings.Join(b.Keys(), ", "))
		}
	}
	if err := b.Only(caseKeys...).Decode(c); err != nil {
		return nil, nil, err
	}
	f, err := checkpoint.Open(filepath.Join(dir, "io.safetensors"))
	if err != nil {
		return nil, nil, err
	}
	c.tensors = f.Tensors
	return c, f, nil
}

// maxText bounds a text of a case, in bytes.
const maxText = 16 << 20

// maxUnpacked bounds a checkpoint that is kept compressed, in bytes.
var maxUnpacked int64 = 1 << 30 // a variable for the test alone

// readFile reads a text of a case.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path) // before it is opened, which would wait on a pipe
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxText) {
		return nil, fmt.Errorf("%s: expected a file of at most %d bytes", path, maxText)
	}
	return os.ReadFile(path)
}

// array is a tensor of io.safetensors in memory.
func (c *referenceCase) array(name string) (ort.Array, error) {
	t, ok := c.tensors[name]
	if !ok {
		return ort.Array{}, fmt.Errorf("check: %s has no tensor %s", filepath.Join(c.dir, "io.safetensors"), name)
	}
	return readArray(t)
}

// floats is a tensor of io.safetensors that holds floating point values and has a
// shape; -1 stands for any length but 0.
func (c *referenceCase) floats(name string, shape ...int) (tensor.Tensor, error) {
	a, err := c.array(name)
	if err != nil {
		return tensor.Tensor{}, err
	}
	values, ok := a.Data.([]float32)
	if !ok || !slices.EqualFunc(a.Shape, shape, func(have, want int) bool { return have == want || want < 0 && have > 0 }) {
		return tensor.Tensor{}, fmt.Errorf("check: %s: %s has shape %v and holds %T, expected float32 %s", filepath.Join(c.dir, "io.safetensors"), name, a.Shape, a.Data, strings.ReplaceAll(fmt.Sprint(shape), "-1", "N"))
	}
	return tensor.Of(values, a.Shape...), nil
}

// has reports whether io.safetensors has a tensor.
func (c *referenceCase) has(name string) bool {
	_, ok := c.tensors[name]
	return ok
}

func readArray(t checkpoint.Tensor) (a ort.Array, err error) {
	a.Shape = t.Shape
	switch t.DType {
	case checkpoint.F32, checkpoint.F16, checkpoint.BF16:
		a.Data, err = t.Float32()
	case checkpoint.F64:
		a.Data, err = t.Float64()
	case checkpoint.U8:
		a.Data, err = t.Bytes()
	case checkpoint.I64:
		a.Data, err = t.Int64()
	case checkpoint.I32:
		var v []int64
		v, err = t.Int64()
		a.Data = converted[int32](v)
	default:
		err = fmt.Errorf("element type %s is not used in reference cases", t.DType)
	}
	return a, err
}

// open prepares a network. A checkpoint that is kept compressed is unpacked into
// a scratch folder, removed by cleanup.
func (c *referenceCase) open(spec plan.NetworkRef, opt models.Options) (m models.Model, cleanup func(), err error) {
	path := spec.Checkpoint.Path
	scratch := ""
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if scratch, path, err = unpack(path); err != nil {
			return nil, nil, err
		}
	}
	opt.Precision = cmp.Or(opt.Precision, spec.Precision)
	if m, err = spec.Flags.(models.Family).Open(path, opt); err != nil {
		os.RemoveAll(scratch)
		return nil, nil, err
	}
	return m, func() { m.Close(); os.RemoveAll(scratch) }, nil
}

// unpack decompresses path.gz into a scratch folder.
func unpack(path string) (scratch, unpacked string, err error) {
	if info, err := os.Stat(path + ".gz"); err != nil || !info.Mode().IsRegular() {
		return "", "", fmt.Errorf("check: neither %s nor %s.gz is there", path, path)
	}
	in, err := os.Open(path + ".gz")
	if err != nil {
		return "", "", fmt.Errorf("check: %w", err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return "", "", fmt.Errorf("check: %s.gz: %w", path, err)
	}
	if scratch, err = os.MkdirTemp("", "sagbench-case-"); err != nil {
		return "", "", fmt.Errorf("check: %w", err)
	}
	unpacked = filepath.Join(scratch, filepath.Base(path))
	out, err := os.Create(unpacked)
	if err == nil {
		var n int64
		if n, err = io.Copy(out, io.LimitReader(z, maxUnpacked+1)); n > maxUnpacked {
			err = fmt.Errorf("is unpacked to more than %d bytes", maxUnpacked)
		}
		err = errors.Join(err, out.Close())
	}
	if err != nil {
		os.RemoveAll(scratch)
		return "", "", fmt.Errorf("check: %s.gz: %w", path, err)
	}
	return scratch, unpacked, nil
}

// values is an array of any element type as float64.
func values(a ort.Array) []float64 {
	switch d := a.Data.(type) {
	case []float64:
		return d
	case []float32:
		return converted[float64](d)
	case []int64:
		return converted[float64](d)
	case []int32:
		return converted[float64](d)
	case []uint8:
		return converted[float64](d)
	}
	return nil
}

func converted[To float64 | int32, From float32 | int64 | int32 | uint8](d []From) []To {
	out := make([]To, len(d))
	for i, x := range d {
		out[i] = To(x)
	}
	return out
}
