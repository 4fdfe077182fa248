package sd

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/sampling"
)

const casesFolder = "../../experiments/refcase/testdata/cases/"

// families are those of this package.
var families = map[string]func() models.Family{
	"clip_text": func() models.Family { return &CLIPText{} },
	"sd":        func() models.Family { return &SD{} },
	"sdxl":      func() models.Family { return NewSDXL() },
	"vae":       func() models.Family { return &VAE{} },
}

// A caseFile is what these tests read of a reference case.
type caseFile struct {
	dir     string
	doc     configs.Block
	flags   models.Family
	path    string // of the checkpoint
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
	c.flags, c.path = decodeModel(t, model, c.dir)
	f, err := checkpoint.Open(filepath.Join(c.dir, "io.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	c.tensors = f.Tensors
	return c
}

// decodeModel reads a model block whose files lie in a folder.
func decodeModel(t testing.TB, b configs.Block, folder string) (f models.Family, checkpoint string) {
	t.Helper()
	var head struct {
		Family     string `yaml:"family"`
		Checkpoint string `yaml:"checkpoint"`
	}
	if err := b.Only("family", "checkpoint").Decode(&head); err != nil {
		t.Fatal(err)
	}
	f = families[head.Family]()
	if err := b.Without("family", "checkpoint").With(configs.Hooks{
		reflect.TypeFor[sampling.File](): func(b configs.Block, v reflect.Value) error {
			text, _ := b.Text()
			v.Set(reflect.ValueOf(fileIn(folder, text)))
			return nil
		},
	}).Decode(f); err != nil {
		t.Fatal(err)
	}
	return f, filepath.Join(folder, head.Checkpoint)
}

func fileIn(folder, name string) sampling.File {
	return sampling.File{Written: name, Path: filepath.Join(folder, name)}
}

func (c caseFile) open(t testing.TB, opt models.Options) models.Model {
	t.Helper()
	m, err := c.flags.Open(c.path, opt)
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
	var opt models.Options
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
