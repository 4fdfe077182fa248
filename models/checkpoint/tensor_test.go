package checkpoint

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Every float16 and bfloat16 against the definition of the format.
func TestHalfFloats(t *testing.T) {
	raw := make([]byte, 0, 2<<16)
	for u := range 1 << 16 {
		raw = binary.LittleEndian.AppendUint16(raw, uint16(u))
	}
	ieee := func(u, mantissa, bias int) float64 {
		exp, frac := u>>mantissa&(1<<(15-mantissa)-1), float64(u&(1<<mantissa-1))/float64(int(1)<<mantissa)
		v := math.Ldexp(1+frac, exp-bias)
		switch {
		case exp == 1<<(15-mantissa)-1 && frac != 0:
			return math.NaN()
		case exp == 1<<(15-mantissa)-1:
			v = math.Inf(1)
		case exp == 0:
			v = math.Ldexp(frac, 1-bias)
		}
		return math.Copysign(v, float64(1-u>>15<<1))
	}
	for _, c := range []struct {
		dtype          DType
		mantissa, bias int
	}{{F16, 10, 15}, {BF16, 7, 127}} {
		got, err := FromBytes(c.dtype, raw, 256, 256).Float32()
		if err != nil {
			t.Fatal(err)
		}
		for u, g := range got {
			want := ieee(u, c.mantissa, c.bias)
			if math.IsNaN(want) != math.IsNaN(float64(g)) || !math.IsNaN(want) && math.Float64bits(want) != math.Float64bits(float64(g)) {
				t.Fatalf("%s 0x%04x is %v, want %v", c.dtype, u, g, want)
			}
		}
	}
}

// Rounding to float32 is to nearest, ties to even, in one step.
func TestFloat32Rounds(t *testing.T) {
	const ulp = 0x1p-23
	from := []float64{1 + ulp/2, 1 + 3*ulp/2, 1 + ulp/2 + 0x1p-52, math.MaxFloat64, -math.MaxFloat64, 0x1p-150, 0x1p-150 + 0x1p-202, math.Copysign(0, -1)}
	want := []float32{1, 1 + 2*ulp, 1 + ulp, float32(math.Inf(1)), float32(math.Inf(-1)), 0, 0x1p-149, float32(math.Copysign(0, -1))}
	got, err := FromFloat64(from, len(from)).Float32()
	if err != nil || !slices.Equal(got, want) || math.Signbit(float64(got[7])) != true {
		t.Errorf("float64: %v, %v; want %v", got, err, want)
	}
	// 2²⁴+1 and 2⁵⁴+2³⁰+1: the second is wrong if rounded to float64 first.
	ints := []int64{1<<24 + 1, 1<<24 + 3, 1<<54 + 1<<30 + 1, math.MaxInt64, math.MinInt64}
	fromInt := []float32{1 << 24, 1<<24 + 4, 1<<54 + 1<<31, 1 << 63, -1 << 63}
	if got, err := FromInt64(ints, len(ints)).Float32(); err != nil || !slices.Equal(got, fromInt) {
		t.Errorf("int64: %v, %v; want %v", got, err, fromInt)
	}
	if got, err := FromBytes(Bool, []byte{0, 1, 2, 255}, 4).Int64(); err != nil || !slices.Equal(got, []int64{0, 1, 1, 1}) {
		t.Errorf("bool: %v, %v", got, err)
	}
}

// A tensor made by hand, without Open, is read from its file.
func TestTensorByHand(t *testing.T) {
	path := write(t, "raw.bin", rampBytes(8))
	good := Tensor{DType: F32, Shape: []int{3}, File: path, Offset: 4, Size: 12}
	checkValues(t, "", good, []float64{-.75, -.5, -.25})
	if n := good.Len(); n != 3 {
		t.Errorf("Len is %d, want 3", n)
	}
	for want, bad := range map[string]Tensor{
		"outside the file of 32 bytes":        {DType: F32, Shape: []int{3}, File: path, Offset: 24, Size: 12},
		"[-4, -4+12) lie outside":             {DType: F32, Shape: []int{3}, File: path, Offset: -4, Size: 12},
		"12 bytes where shape [4] of F32":     {DType: F32, Shape: []int{4}, File: path, Size: 12},
		`dtype "F4" is not supported`:         {DType: "F4", Shape: []int{4}, File: path, Size: 12},
		"shape [-3] is not possible":          {DType: F32, Shape: []int{-3}, File: path, Size: 12},
		"shape [4611686018427387904 2] is no": {DType: F32, Shape: []int{1 << 62, 2}, File: path, Size: 0},
		"-8 bytes where shape":                {DType: F32, Shape: []int{3}, File: path, Size: -8},
	} {
		if _, err := bad.Float32(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%+v: error %v, want one with %q", bad, err, want)
		}
		if _, err := bad.Bytes(); err == nil {
			t.Errorf("%+v: Bytes succeeds", bad)
		}
	}
}

func TestClose(t *testing.T) {
	f, err := Open("testdata/views.pt")
	if err != nil {
		t.Fatal(err)
	}
	first, err := f.SHA256()
	if err != nil {
		t.Fatal(err)
	}
	if err := errorsOf(f.Close(), f.Close()); err != "" {
		t.Errorf("closing twice: %s", err)
	}
	if again, err := f.SHA256(); again != first || err != nil {
		t.Errorf("SHA256 after Close: %s, %v; want %s", again, err, first)
	}
	for _, read := range []func(Tensor) error{
		func(t Tensor) error { _, err := t.Bytes(); return err },
		func(t Tensor) error { _, err := t.Float32(); return err },
	} {
		if err := read(f.Tensors["base"]); err == nil || !strings.Contains(err.Error(), `testdata/views.pt: tensor "base": the checkpoint is closed`) {
			t.Errorf("reading after Close: %v", err)
		}
	}
	if v, err := f.Tensors["column"].Float32(); err != nil || v[0] != -.5 {
		t.Errorf("a tensor in memory after Close: %v, %v", v, err)
	}
	g, err := Open("testdata/views.pt")
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	if sum, err := g.SHA256(); err == nil {
		t.Errorf("SHA256 of a closed file: %s", sum)
	}
}

// Somebody empties the file while it is open: an error, not the end of the
// process.
func TestShrunkFile(t *testing.T) {
	data, err := os.ReadFile("testdata/views.pt")
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "views.pt", data)
	f := open(t, path)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if v, err := f.Tensors["base"].Float32(); err == nil || v != nil || !strings.Contains(err.Error(), `tensor "base": the content is broken`) {
		t.Errorf("Float32: %v, %v", v, err)
	}
	if sum, err := f.SHA256(); err == nil || !strings.Contains(err.Error(), "shrank from") {
		t.Errorf("SHA256: %s, %v", sum, err)
	}
	out := filepath.Join(t.TempDir(), "out.safetensors")
	if err := WriteSafetensors(out, f.Tensors, nil); err == nil {
		t.Error("WriteSafetensors succeeds")
	}
}

func errorsOf(errs ...error) string {
	var out []string
	for _, e := range errs {
		if e != nil {
			out = append(out, e.Error())
		}
	}
	return strings.Join(out, "; ")
}

// Reading and closing at once is safe: values or an error, never a fault.
func TestConcurrentUse(t *testing.T) {
	for range 20 {
		f, err := Open("testdata/views.pt")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if v, err := f.Tensors["base"].Float32(); err == nil && v[23] != 4.75 {
					t.Errorf("read %v", v)
				}
				_, _ = f.SHA256()
			})
		}
		wg.Go(func() { f.Close() })
		wg.Wait()
	}
}
