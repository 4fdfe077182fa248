package checkpoint

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The files of testdata are PyTorch's own (testdata/make_fixtures.py).

var rampOf6 = []float64{-1, -.75, -.5, -.25, 0, .25}

// ofDType are the tensors that make_fixtures.py's dtypes() holds.
var ofDType = map[string]struct {
	dtype  DType
	shape  []int
	values []float64
}{
	"float64": {F64, []int{2, 3}, rampOf6}, "float32": {F32, []int{2, 3}, rampOf6},
	"float16": {F16, []int{2, 3}, rampOf6}, "bfloat16": {BF16, []int{2, 3}, rampOf6},
	"int64": {I64, []int{4}, []float64{0, 1, -2, 100}}, "int32": {I32, []int{4}, []float64{0, 1, -2, 100}},
	"int16": {I16, []int{4}, []float64{0, 1, -2, 100}}, "int8": {I8, []int{4}, []float64{0, 1, -2, 100}},
	"uint8": {U8, []int{4}, []float64{0, 1, 254, 255}}, "bool": {Bool, []int{3}, []float64{1, 0, 1}},
	"scalar": {F32, []int{}, []float64{2.5}}, "empty": {F32, []int{0, 3}, []float64{}},
}

func TestDTypes(t *testing.T) {
	for name, format := range map[string]string{
		"dtypes-p2.pt": TorchZip, "dtypes-p4.pt": TorchZip, "dtypes-p5.pt": TorchZip, "dtypes-zip64.pt": TorchZip,
		"dtypes-legacy.pt": TorchLegacy, "dtypes-legacy-p4.pt": TorchLegacy, "official.safetensors": Safetensors,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name)
			f := open(t, path)
			if f.Format != format || f.Wrapper != "" || f.Prefix != "" || len(f.Ignored) != 0 || f.Path != path {
				t.Errorf("opened as %+v", *f)
			}
			if len(f.Tensors) != len(ofDType) {
				t.Errorf("tensors %v, want %d", f.Tensors.Names(), len(ofDType))
			}
			for name, want := range ofDType {
				got := f.Tensors[name]
				if got.DType != want.dtype || !slices.Equal(got.Shape, want.shape) || got.Shape == nil {
					t.Errorf("%s is %s %v, want %s %v", name, got.DType, got.Shape, want.dtype, want.shape)
				}
				checkValues(t, name, got, want.values)
				checkInFile(t, path, got)
			}
		})
	}
}

// checkValues compares what Float64, Float32 and, for integers, Int64 say.
func checkValues(t *testing.T, name string, got Tensor, want []float64) {
	t.Helper()
	f64, err := got.Float64()
	if err != nil || !slices.Equal(f64, want) {
		t.Errorf("%s: Float64 = %v, %v; want %v", name, f64, err, want)
	}
	f32, err := got.Float32()
	if err != nil || len(f32) != len(want) {
		t.Fatalf("%s: Float32 = %v, %v", name, f32, err)
	}
	for i := range f32 {
		if f32[i] != float32(want[i]) {
			t.Errorf("%s: Float32[%d] = %v, want %v", name, i, f32[i], want[i])
		}
	}
	i64, err := got.Int64()
	switch got.DType {
	case F64, F32, F16, BF16:
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: Int64 = %v, %v; want an error that names it", name, i64, err)
		}
	default:
		for i := range want {
			if err != nil || i64[i] != int64(want[i]) {
				t.Errorf("%s: Int64 = %v, %v; want %v", name, i64, err, want)
			}
		}
	}
}

// checkInFile: the tensor is not copied, and [Offset, Offset+Size) of the file
// are its bytes.
func checkInFile(t *testing.T, path string, got Tensor) {
	t.Helper()
	if got.Raw != nil || got.File != path {
		t.Errorf("tensor is not a pointer into %s: %+v", path, got)
		return
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := got.Bytes()
	if err != nil || !bytes.Equal(b, file[got.Offset:got.Offset+got.Size]) {
		t.Errorf("bytes differ from the file's [%d, +%d): %v", got.Offset, got.Size, err)
	}
}

// ofView is what make_fixtures.py's views() holds, as indices of the ramp in C
// order; inFile: it is contiguous.
var ofView = map[string]struct {
	shape  []int
	index  []int
	inFile bool
}{
	"base":     {[]int{4, 6}, upTo(24), true},
	"rows":     {[]int{2, 6}, upTo(24)[6:18], true},
	"one":      {[]int{1, 1}, []int{9}, true},
	"column":   {[]int{4}, []int{2, 8, 14, 20}, false},
	"stepped":  {[]int{2, 3}, []int{1, 3, 5, 13, 15, 17}, false},
	"expanded": {[]int{3, 4}, []int{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}, false},
	"transposed": {[]int{6, 4}, []int{
		0, 6, 12, 18, 1, 7, 13, 19, 2, 8, 14, 20, 3, 9, 15, 21, 4, 10, 16, 22, 5, 11, 17, 23}, false},
	"permuted": {[]int{4, 2, 3}, []int{
		0, 4, 8, 12, 16, 20, 1, 5, 9, 13, 17, 21, 2, 6, 10, 14, 18, 22, 3, 7, 11, 15, 19, 23}, false},
	"channels_last": {[]int{2, 3, 2, 2}, upTo(24), false},
}

func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestViews(t *testing.T) {
	for _, name := range []string{"views.pt", "views-legacy.pt", "views-deflated.pt"} {
		path := filepath.Join("testdata", name)
		f := open(t, path)
		if len(f.Tensors) != len(ofView) {
			t.Errorf("%s: tensors %v, want %d", name, f.Tensors.Names(), len(ofView))
		}
		for key, want := range ofView {
			got := f.Tensors[key]
			if !slices.Equal(got.Shape, want.shape) {
				t.Errorf("%s: %s has shape %v, want %v", name, key, got.Shape, want.shape)
			}
			values := make([]float64, len(want.index))
			for i, n := range want.index {
				values[i] = float64(n)/4 - 1
			}
			checkValues(t, key, got, values)
			if inFile := want.inFile && name != "views-deflated.pt"; inFile {
				checkInFile(t, path, got)
			} else if got.Raw == nil {
				t.Errorf("%s: %s points into the file although it does not lie there in C order", name, key)
			}
		}
	}
}

// The keys of make_fixtures.py's small().state_dict().
var smallKeys = []string{"0.bias", "0.weight", "1.bias", "1.num_batches_tracked", "1.running_mean", "1.running_var", "1.weight"}

func TestWrappers(t *testing.T) {
	dit := []string{"argparse.Namespace"}
	for _, c := range []struct {
		name, wrapper, prefix string
		others, opaque        []string
		keys                  []string
		mean                  float64 // of 1.running_mean
	}{
		{name: "dit.pt", wrapper: "ema", others: []string{"model"}, opaque: dit, keys: smallKeys, mean: 100},
		{name: "dit-legacy.pt", wrapper: "ema", others: []string{"model"}, opaque: dit, keys: smallKeys, mean: 100},
		{name: "parallel.pt", prefix: "module.", keys: smallKeys},
		{name: "parameters.pt", keys: []string{"0.bias", "0.weight", "1.bias", "1.weight"}},
		{name: "tagged.pt", keys: []string{"ramp"}},
		{name: "lightning.pt", wrapper: "state_dict", keys: smallKeys, mean: -0.32500001788139343,
			opaque: []string{"__builtin__.list", "__builtin__.set", "argparse.ArgumentParser"}},
	} {
		f := open(t, filepath.Join("testdata", c.name))
		if f.Wrapper != c.wrapper || f.Prefix != c.prefix || !slices.Equal(f.Others, c.others) ||
			!slices.Equal(f.Opaque, c.opaque) || !slices.Equal(f.Tensors.Names(), c.keys) {
			t.Errorf("%s: wrapper %q, prefix %q, others %v, opaque %v, keys %v; want %+v", c.name, f.Wrapper, f.Prefix, f.Others, f.Opaque, f.Tensors.Names(), c)
		}
		if mean, ok := f.Tensors["1.running_mean"]; ok {
			if v, err := mean.Float64(); err != nil || v[0] != c.mean {
				t.Errorf("%s: running_mean %v, %v; want %v", c.name, v, err, c.mean)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for name, want := range map[string]string{
		"big-endian.pt":  `byte order is "big"`,
		"complex.pt":     `tensor "odd": dtype complex64 is not supported`,
		"uint16.pt":      `tensor "odd": dtype uint16 is not supported`,
		"float8.pt":      `tensor "odd": dtype float8_e4m3fn is not supported`,
		"meta.pt":        `tensor "odd": is a meta tensor`,
		"sparse.pt":      `tensor "odd": is sparse`,
		"negated.pt":     `lazy bit string "neg" set`,
		"module.pt":      "holds a whole Python object (torch.nn.modules.container.Sequential)",
		"tensor.pt":      "holds a single tensor",
		"torchscript.pt": "TorchScript",
	} {
		path := filepath.Join("testdata", name)
		_, err := Open(path)
		if err == nil || !strings.HasPrefix(err.Error(), "checkpoint: "+path+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", name, err, want)
		}
	}
}

// A file cut anywhere is refused with a message, whatever its format; only
// what PyTorch wrote after the last thing that counts may be missing.
func TestTruncated(t *testing.T) {
	for _, name := range []string{"dit.pt", "dit-legacy.pt", "official.safetensors", "dtypes-legacy-p4.pt", "views-deflated.pt"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for n := range data {
			if f, err := parseBytes(data[:n:n]); err == nil {
				t.Fatalf("%s cut to %d of %d bytes opens: %v", name, n, len(data), f.Tensors.Names())
			}
		}
	}
}
