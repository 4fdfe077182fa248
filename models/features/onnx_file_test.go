package features

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/fuzzing"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
)

// onnxFile writes a graph as a file.
func onnxFile(t *testing.T, build func(m *onnx.Module)) string {
	t.Helper()
	g, err := onnx.Build(nil, build)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "features.onnx")
	if err := os.WriteFile(path, g.Proto, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// means is a graph whose features are the mean of each channel, and whose logits
// are their sum and their negated sum.
func means(t checkpoint.DType, shape ...int) func(m *onnx.Module) {
	return func(m *onnx.Module) {
		x := m.Input("images", t, shape...)
		axes := []int{2, 3}
		if shape[1] != 3 {
			axes = []int{1, 2}
		}
		pool := m.Mean(m.Cast(x, checkpoint.F32), axes...)
		m.Output("mean", pool)
		m.Output("class", m.MatMul(pool, m.Const([]float32{1, -1, 1, -1, 1, -1}, 3, 2)))
		m.Output("map", m.Slice(m.Cast(x, checkpoint.F32), 1, 0, 2))
		m.Output("counts", m.Cast(pool, checkpoint.I64))
		m.Output("all", m.Mean(pool, 0))
	}
}

// grey are three images, each of one colour.
func grey() models.Images {
	im := models.Images{N: 3, Height: 5, Width: 7}
	for i := range im.N {
		for range im.Height * im.Width {
			im.Pixels = append(im.Pixels, uint8(50*i), uint8(50*i+1), 255)
		}
	}
	return im
}

func TestONNXFile(t *testing.T) {
	unit := func(v float64) float64 { return v / 255 }
	for _, c := range []struct {
		name   string
		build  func(*onnx.Module)
		file   ONNXFile
		level  func(float64) float64
		output []string
	}{
		{"channels first", means(checkpoint.F32, onnx.Batch, 3, 8, 8), ONNXFile{Range: UnitRange}, unit, []string{Pool}},
		{"channels last", means(checkpoint.F32, onnx.Batch, 8, 8, 3), ONNXFile{Range: SignedRange}, func(v float64) float64 { return v/127.5 - 1 }, []string{Pool}},
		{"bytes", means(checkpoint.U8, onnx.Batch, 8, 8, 3), ONNXFile{}, func(v float64) float64 { return v }, []string{Pool}},
		{"free size", means(checkpoint.F32, onnx.Batch, 3, -2, -3), ONNXFile{Range: UnitRange, InputSize: 6}, unit, []string{Pool}},
		{"one image at a time", means(checkpoint.F32, 1, 3, 8, 8), ONNXFile{Range: UnitRange}, unit, []string{Pool}},
		{"two images at a time", means(checkpoint.F32, 2, 3, 8, 8), ONNXFile{Range: UnitRange, Logits: "class"}, unit, []string{Logits, Pool}},
		{"all outputs", means(checkpoint.F32, onnx.Batch, 3, 8, 8), ONNXFile{Range: UnitRange, Logits: "class", Spatial: "map"}, unit, []string{Logits, Pool, Spatial}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.file.Pool = "mean"
			x, err := c.file.Extractor(t.Context(), onnxFile(t, c.build), models.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			if x.Width() != 3 || !slices.Equal(x.Outputs(), c.output) {
				t.Errorf("width %d, outputs %v", x.Width(), x.Outputs())
			}
			in, err := x.Input(PIL, grey())
			if err != nil {
				t.Fatal(err)
			}
			out, err := x.Run(context.Background(), in, c.output...)
			if err != nil {
				t.Fatal(err)
			}
			pool := out[Pool].Tensor()
			for i := range 3 {
				want := []float64{c.level(float64(50 * i)), c.level(float64(50*i + 1)), c.level(255)}
				for j, w := range want {
					if d := math.Abs(float64(pool.Row(i)[j]) - w); d > 1e-5*(1+math.Abs(w)) {
						t.Errorf("image %d, channel %d: %g, want %g", i, j, pool.Row(i)[j], w)
					}
				}
				if slices.Contains(c.output, Logits) {
					if l := out[Logits].Tensor().Row(i); math.Abs(float64(l[0])-want[0]-want[1]-want[2]) > 1e-5 {
						t.Errorf("logit %g, want %g", l[0], want[0]+want[1]+want[2])
					}
				}
			}
			if slices.Contains(c.output, Spatial) && out[Spatial].Tensor().RowLen() != 2*8*8 {
				t.Errorf("spatial features %v", out[Spatial].Shape)
			}
		})
	}
}

func TestONNXFileRefuses(t *testing.T) {
	good := means(checkpoint.F32, onnx.Batch, 3, 8, 8)
	for _, c := range []struct {
		name, want string
		build      func(*onnx.Module)
		file       ONNXFile
	}{
		{"no output of that name", `no output "features"; it has mean [N,3] F32, class [N,2] F32, map [N,2,8,8] F32`, good, ONNXFile{Pool: "features", Range: UnitRange}},
		{"no name", "pool is missing: which of the graph's outputs mean", good, ONNXFile{Range: UnitRange}},
		{"no range", "range is missing", good, ONNXFile{Pool: "mean"}},
		{"range of bytes", "takes bytes", means(checkpoint.U8, onnx.Batch, 3, 8, 8), ONNXFile{Pool: "mean", Range: UnitRange}},
		{"whole numbers", "counts [N,3] I64; expected float32", good, ONNXFile{Pool: "counts", Range: UnitRange}},
		{"maps", "output map has shape [2 2 8 8]; expected [N,D]", good, ONNXFile{Pool: "map", Range: UnitRange}},
		{"one row for all", "output all has shape [3] for 2 images", good, ONNXFile{Pool: "all", Range: UnitRange}},
		{"open size", "leaves the size of images open; give input_size", means(checkpoint.F32, onnx.Batch, 3, -2, -3), ONNXFile{Pool: "mean", Range: UnitRange}},
		{"another size", "input_size 9, but input images [N,3,8,8] F32 fixes another", good, ONNXFile{Pool: "mean", Range: UnitRange, InputSize: 9}},
		{"not square", "expected images that are square", means(checkpoint.F32, onnx.Batch, 3, 8, 9), ONNXFile{Pool: "mean", Range: UnitRange}},
		{"no images", "expected images [N,3,H,W] or [N,H,W,3]", func(m *onnx.Module) {
			m.Output("mean", m.Mean(m.Input("grey", checkpoint.F32, onnx.Batch, 1, 8, 8), 2, 3))
		}, ONNXFile{Range: UnitRange}},
		{"float64", "expected float32 or uint8", means(checkpoint.F64, onnx.Batch, 3, 8, 8), ONNXFile{Pool: "mean", Range: UnitRange}},
		{"no image a call", "or 1 to 256 at a time", means(checkpoint.F32, 0, 3, 8, 8), ONNXFile{Pool: "mean", Range: UnitRange}},
		{"large calls", "expected at most 67108864", means(checkpoint.F32, 256, 3, 512, 512), ONNXFile{Pool: "mean", Range: UnitRange}},
		{"huge images", "expected at most 67108864", means(checkpoint.F32, onnx.Batch, 3, -2, -2), ONNXFile{Pool: "mean", Range: UnitRange, InputSize: 4096}},
		{"two inputs", "the graph takes 2 inputs, a [N,3] F32, b [N,3] F32", func(m *onnx.Module) {
			m.Output("mean", m.Add(m.Input("a", checkpoint.F32, onnx.Batch, 3), m.Input("b", checkpoint.F32, onnx.Batch, 3)))
		}, ONNXFile{Range: UnitRange}},
	} {
		x, err := c.file.Extractor(t.Context(), onnxFile(t, c.build), models.Options{})
		if err == nil {
			x.Close()
			t.Errorf("%s: it was accepted", c.name)
		} else if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "features.onnx") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	fine := onnxFile(t, means(checkpoint.F32, onnx.Batch, 3, 8, 8))
	if _, err := (&ONNXFile{Pool: "mean", Range: UnitRange}).Extractor(ended, fine, models.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("opened after the end: %v", err)
	}
	page := filepath.Join(t.TempDir(), "page.onnx")
	if err := os.WriteFile(page, []byte("<!doctype html>"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{page, page + ".missing"} {
		if _, err := (&ONNXFile{Range: UnitRange}).Open(path, models.Options{}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		} else {
			t.Log(err)
		}
	}
}

// A graph whose weights lie in a file beside it: that file is one of the network's,
// and the graph runs as well where both are links to different folders.
func TestONNXFileWithData(t *testing.T) {
	folder := t.TempDir()
	data := filepath.Join(folder, "features.onnx.data")
	values := make([]byte, 3*400*4)
	for k := range 3 { // the mean of channel k at place k, the rest are zeroes
		binary.LittleEndian.PutUint32(values[4*(k*400+k):], math.Float32bits(2))
	}
	sd := checkpoint.StateDict{"weight": {File: data, DType: checkpoint.F32, Shape: []int{3, 400}, Size: int64(len(values))}}
	g, err := onnx.Build(sd, func(m *onnx.Module) {
		m.Output("pool", m.MatMul(m.Mean(m.Input("images", checkpoint.F32, onnx.Batch, 3, 8, 8), 2, 3), m.Param("weight", 3, 400)))
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "features.onnx")
	snapshot := filepath.Join(folder, "snapshot")
	err = errors.Join(os.WriteFile(data, values, 0o644), os.WriteFile(path, g.Proto, 0o644), os.Mkdir(snapshot, 0o755))
	for i, file := range []string{path, data} {
		blob := filepath.Join(folder, fmt.Sprintf("blobs%d", i), "blob")
		err = errors.Join(err, os.Mkdir(filepath.Dir(blob), 0o755), os.Link(file, blob), os.Symlink(blob, filepath.Join(snapshot, filepath.Base(file))))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Join(snapshot, "features.onnx")} {
		file := ONNXFile{Range: ByteRange}
		if files, err := file.Files(path); err != nil || !slices.Equal(files, []string{path, path + ".data"}) {
			t.Errorf("files %v, %v", files, err)
		}
		x, err := file.Extractor(t.Context(), path, models.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		in, err := x.Input(PIL, grey())
		if err != nil {
			t.Fatal(err)
		}
		out, err := x.Run(t.Context(), in, Pool)
		if err != nil {
			t.Fatal(err)
		}
		if got := out[Pool].Tensor().Row(2); len(got) != 400 || got[0] != 200 || got[1] != 202 || got[2] != 510 || got[3] != 0 {
			t.Errorf("%s: features %v", path, got[:4])
		}
	}
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	if _, err := (&ONNXFile{}).Files(path); err == nil || !strings.Contains(err.Error(), "features.onnx: the file of its weights: ") {
		t.Errorf("without the data: %v", err)
	}
}

// FuzzONNXFile: whatever is in the file, it is a network whose features can be
// computed, or refused, in memory that is in proportion.
func FuzzONNXFile(f *testing.F) {
	for _, build := range []func(*onnx.Module){
		means(checkpoint.F32, onnx.Batch, 3, 8, 8), means(checkpoint.U8, onnx.Batch, 8, 8, 3), means(checkpoint.F32, onnx.Batch, 3, -2, -3), means(checkpoint.F32, 2, 3, 8, 8),
		func(m *onnx.Module) {
			m.Output("mean", m.Mean(m.Input("x", checkpoint.F32, onnx.Batch, 3, 4, 4), 2, 3))
		},
	} {
		g, err := onnx.Build(nil, build)
		if err != nil {
			f.Fatal(err)
		}
		for _, pool := range []string{"", "mean"} {
			f.Add(g.Proto, pool, "class", "unit", 8)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, pool, logits, pixels string, size int) {
		path := filepath.Join(t.TempDir(), "fuzz.onnx")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		fuzzing.Bounded(t, 64<<10+len(data), 1<<10, func() {
			flags := ONNXFile{Pool: pool, Logits: logits, Range: PixelRange(pixels), InputSize: size & 63}
			if flags.Validate() != nil {
				return
			}
			x, err := flags.Extractor(t.Context(), path, models.Options{Options: ort.Options{Threads: 1}})
			if err != nil {
				return
			}
			defer x.Close()
			if in, err := x.Input(PIL, grey()); err == nil {
				_, _ = x.Run(t.Context(), in, x.Outputs()...)
			}
		})
	})
}
