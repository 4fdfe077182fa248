package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
)

func checkCommand(g *globals) *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:   "check CASE...",
		Short: "compare our outputs with those of a reference implementation",
		Long: `Runs reference cases and prints a line a tensor: its largest error, the
tolerance, and pass or fail. A case is a folder with case.yaml (what to run, where
the numbers come from, the tolerance), a checkpoint in the layout in which its
authors publish it, and io.safetensors with the inputs in.* and the reference's
outputs out.*. To check an import of your own checkpoint, write such a folder from
a run of your PyTorch code.

The exit status is 1 if any tensor fails.`,
		Example: `  sagbench check cases/sample-ddpm-sag
  sagbench check cases/*`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			passed, failed := 0, 0
			for _, dir := range args {
				if info, err := os.Stat(dir); err == nil && !info.IsDir() {
					continue // a file beside the cases, as in cases/*
				}
				ok, err := checkCase(cmd.Context(), cmd.OutOrStdout(), dir, g.runtime(), quiet)
				if cmd.Context().Err() != nil {
					return cmd.Context().Err()
				}
				if err != nil {
					fmt.Fprintf(cmd.OutOrStdout(), "FAIL  %s: %v\n", dir, err)
				}
				if err == nil && ok {
					passed++
				} else {
					failed++
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d passed, %d failed\n", passed, failed)
			switch {
			case failed > 0:
				return fmt.Errorf("check: %d of %d cases failed", failed, passed+failed)
			case passed == 0:
				return fmt.Errorf("check: no folder with a reference case among the arguments")
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the tensors that fail, and a line a case")
	return c
}

// A referenceCase is a case.yaml. Keys that are for people stay undecoded.
type referenceCase struct {
	Kind           string        `yaml:"kind"`
	Source         string        `yaml:"source"`
	Tolerance      caseTolerance `yaml:"tolerance"`
	Model          configs.Block `yaml:"model"`
	Layer          string        `yaml:"layer"`
	Heads          int           `yaml:"heads"`
	AttentionOrder string        `yaml:"attention_order"`
	Sampler        configs.Block `yaml:"sampler"`
	Guidance       configs.Block `yaml:"guidance"`
	Steps          int           `yaml:"steps"` // schedule: an option of the sampler, as eta is
	Eta            float64       `yaml:"eta"`
	K              []int         `yaml:"k"`
	Files          configs.Block `yaml:"files"`

	dir     string
	block   configs.Block // of case.yaml
	tensors checkpoint.StateDict
	options ort.Options
}

// caseKeys are the keys of case.yaml that say what to run. Others say, for
// people, how the case was made. They are many and left alone: a misspelt key
// cannot make numbers agree.
var caseKeys = []string{"kind", "source", "tolerance", "model", "layer", "heads", "attention_order", "sampler", "guidance", "steps", "eta", "k", "files"}

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
func checkCase(ctx context.Context, w io.Writer, dir string, opt ort.Options, quiet bool) (ok bool, err error) {
	c, file, err := openCase(dir)
	if err != nil {
		return false, err
	}
	defer file.Close()
	c.options = opt
	run, known := caseKinds[c.Kind]
	if !known {
		return false, fmt.Errorf("%s: unknown kind %q; known: %v", filepath.Join(dir, "case.yaml"), c.Kind, slices.Sorted(maps.Keys(caseKinds)))
	}
	out, err := run(ctx, c)
	if err != nil {
		return false, err
	}
	var lines []string
	passed, count := true, 0
	for _, name := range slices.Sorted(maps.Keys(c.tensors)) {
		if !strings.HasPrefix(name, "out.") {
			continue
		}
		want, err := expected(c.tensors[name])
		if err != nil {
			return false, fmt.Errorf("%s: %s: %w", file.Path, name, err)
		}
		r := c.Tolerance.compare(name, out, want)
		count++
		passed = passed && r.pass
		if !quiet || !r.pass {
			lines = append(lines, r.String())
		}
	}
	verdict := "PASS"
	if !passed {
		verdict = "FAIL"
	}
	fmt.Fprintf(w, "%s  %s  %d tensors\n", verdict, filepath.Base(filepath.Clean(dir)), count)
	for _, l := range lines {
		fmt.Fprintln(w, l)
	}
	return passed && count > 0, nil
}

func openCase(dir string) (*referenceCase, *checkpoint.File, error) {
	path := filepath.Join(dir, "case.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("check: %s is no reference case: %w", dir, err)
	}
	b, err := configs.Parse(path, data)
	if err != nil {
		return nil, nil, err
	}
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

// array is a tensor of io.safetensors in memory.
func (c *referenceCase) array(name string) (ort.Array, error) {
	t, ok := c.tensors[name]
	if !ok {
		return ort.Array{}, fmt.Errorf("check: %s has no tensor %s", filepath.Join(c.dir, "io.safetensors"), name)
	}
	return readArray(t)
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
		ints := make([]int32, len(v))
		for i, x := range v {
			ints[i] = int32(x)
		}
		a.Data = ints
	default:
		err = fmt.Errorf("element type %s is not used in reference cases", t.DType)
	}
	return a, err
}

// open prepares a network. A checkpoint that is kept compressed is unpacked into
// a scratch folder, removed by cleanup.
func (c *referenceCase) open(spec models.Spec, opt models.Options) (m models.Model, cleanup func(), err error) {
	path := filepath.Join(c.dir, spec.Checkpoint)
	scratch := ""
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if scratch, path, err = unpack(path); err != nil {
			return nil, nil, err
		}
	}
	opt.Find = func(b configs.Block) (string, error) {
		name, _ := b.Text()
		return filepath.Join(c.dir, name), nil
	}
	if m, err = spec.Flags.Open(path, opt); err != nil {
		os.RemoveAll(scratch)
		return nil, nil, err
	}
	return m, func() { m.Close(); os.RemoveAll(scratch) }, nil
}

func unpack(path string) (scratch, unpacked string, err error) {
	in, err := os.Open(path + ".gz")
	if err != nil {
		return "", "", fmt.Errorf("check: neither %s nor %s.gz is there", path, path)
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
		_, err = io.Copy(out, z)
		err = errors.Join(err, out.Close())
	}
	if err != nil {
		os.RemoveAll(scratch)
		return "", "", fmt.Errorf("check: %s.gz: %w", path, err)
	}
	return scratch, unpacked, nil
}

// expected is a reference tensor as float64.
func expected(t checkpoint.Tensor) (ort.Array, error) {
	v, err := t.Float64()
	return ort.Array{Shape: t.Shape, Data: v}, err
}

// values is an array of any element type as float64.
func values(a ort.Array) []float64 {
	switch d := a.Data.(type) {
	case []float64:
		return d
	case []float32:
		return converted(d)
	case []int64:
		return converted(d)
	case []int32:
		return converted(d)
	case []uint8:
		return converted(d)
	}
	return nil
}

func converted[T float32 | int64 | int32 | uint8](d []T) []float64 {
	r := make([]float64, len(d))
	for i, x := range d {
		r[i] = float64(x)
	}
	return r
}

// maxAbs is the largest magnitude; NaN counts as nothing.
func maxAbs(d []float64) float64 {
	m := 0.0
	for _, x := range d {
		if a := math.Abs(x); a > m {
			m = a
		}
	}
	return m
}
