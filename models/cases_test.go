package models

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/sampling"
)

const casesFolder = "../experiments/testdata/cases/"

// A caseFile is what these tests read of a reference case.
type caseFile struct {
	dir     string
	doc     configs.Block
	spec    Spec
	tensors checkpoint.StateDict
}

func openCase(t testing.TB, name string) caseFile {
	t.Helper()
	c := caseFile{dir: casesFolder + name}
	data, err := os.ReadFile(filepath.Join(c.dir, "case.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if c.doc, err = configs.Parse(name+"/case.yaml", data); err != nil {
		t.Fatal(err)
	}
	model, _ := c.doc.At("model")
	if c.spec, err = Decode(model); err != nil {
		t.Fatal(err)
	}
	f, err := checkpoint.Open(filepath.Join(c.dir, "io.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	c.tensors = f.Tensors
	return c
}

func (c caseFile) open(t testing.TB, opt Options) Model {
	t.Helper()
	opt.Find = func(b configs.Block) (string, error) {
		path, _ := b.Text()
		return filepath.Join(c.dir, path), nil
	}
	m, err := c.spec.Flags.Open(filepath.Join(c.dir, c.spec.Checkpoint), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func (c caseFile) array(t testing.TB, name string) ort.Array {
	t.Helper()
	x, ok := c.tensors[name]
	if !ok {
		t.Fatalf("%s has no tensor %s", c.dir, name)
	}
	a := ort.Array{Shape: x.Shape}
	var err error
	if x.DType == checkpoint.I64 {
		a.Data, err = x.Int64()
	} else {
		a.Data, err = x.Float32()
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// number is the value at a path of case.yaml, 0 where there is none.
func (c caseFile) number(t testing.TB, path string) (v float64) {
	t.Helper()
	if at, ok := c.doc.At(path); ok {
		if err := at.Decode(&v); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// forwardCase runs a case of kind forward and holds every output to the case's
// relative tolerance.
func forwardCase(t *testing.T, name string) {
	t.Helper()
	c := openCase(t, name)
	tolerance := c.number(t, "tolerance.relative")
	var opt Options
	if layer, ok := c.doc.At("layer"); ok {
		text, _ := layer.Text()
		opt.Taps = []sampling.Tap{{Layer: text}}
	}
	in := map[string]ort.Array{}
	for name := range c.tensors {
		if key, ok := strings.CutPrefix(name, "in."); ok {
			in[key] = c.array(t, name)
		}
	}
	out, err := c.open(t, opt).Forward(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	for name := range c.tensors {
		key, ok := strings.CutPrefix(name, "out.")
		if !ok {
			continue
		}
		got, ok := out[key]
		if !ok {
			t.Errorf("%s is not an output", key)
			continue
		}
		e := relativeError(t, got, c.array(t, name))
		t.Logf("%s: relative error %.1e, tolerance %.1e", key, e, tolerance)
		if !(e <= tolerance) {
			t.Errorf("%s: relative error %g, tolerance %g", key, e, tolerance)
		}
	}
}

// relativeError is max|got−want| / max|want|.
func relativeError(t testing.TB, got, want ort.Array) float64 {
	t.Helper()
	g, w := got.Tensor().Data, want.Tensor().Data
	if len(g) != len(w) {
		t.Fatalf("shape %v, expected %v", got.Shape, want.Shape)
	}
	worst, largest := 0.0, 0.0
	for i := range w {
		worst = math.Max(worst, math.Abs(float64(g[i])-float64(w[i])))
		largest = math.Max(largest, math.Abs(float64(w[i])))
	}
	return worst / largest
}
