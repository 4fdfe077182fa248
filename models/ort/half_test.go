package ort

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// TestBFloat16Kernels holds the operators that run in bfloat16 on CUDA against the
// table of its kernels. Those of float32 scopes, casts and what asks for a shape are
// never asked for.
func TestBFloat16Kernels(t *testing.T) {
	data, err := os.ReadFile("testdata/kernels.txt")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := []string{"Cast", "Shape", "LayerNormalization"}
	found := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if !slices.Contains([]string{"BF16", "BOOL>BF16"}, f[1]) || slices.Contains(elsewhere, f[0]) {
			continue
		}
		found[f[0]] = true
		if has := slices.Contains(f, "cuda"); has != slices.Contains(cudaBFloat16, f[0]) {
			t.Errorf("%s: a kernel in the table: %v, in cudaBFloat16: %v", f[0], has, !has)
		}
	}
	for _, operator := range cudaBFloat16 {
		if !found[operator] {
			t.Errorf("%s is not in the table", operator)
		}
	}
}

// TestRounding computes in half scopes on the CPU: what enters a node and leaves it is
// rounded to the half type, ties to even, and a scalar is not, as in PyTorch.
func TestRounding(t *testing.T) {
	const third = float32(1) / 3
	in := []float32{third, 1 + 0x1p-8 + 0x1p-11} // the second is half way between two numbers of float16
	for precision, want := range map[string][4]float32{
		Float16:  {0.333251953125, 1.00390625, 0.111083984375, 0.334716796875}, // 0.11105 with the scalar rounded
		BFloat16: {0.333984375, 1.0078125, 0.111328125, 0.3359375},
	} {
		o := Options{Precision: precision}
		m, err := onnx.BuildHalf(nil, o.Half(), func(m *onnx.Module) {
			x, h := m.Input("x", checkpoint.F32, len(in)), m.Half()
			m.Output("y", h.Mul(x, h.Scalar(1)))
			m.Output("z", h.Mul(x, h.Scalar(third)))
		})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(m, o)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(t.Context(), map[string]Array{"x": {Shape: []int{len(in)}, Data: in}})
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Concat(out["y"].Tensor().Data, out["z"].Tensor().Data); !slices.Equal(got, want[:]) || s.Widened() != (Widened{2, 2}) {
			t.Errorf("%s: %v with %v nodes in float32, want %v and both", precision, got, s.Widened(), want)
		}
		s.Close()
	}
}

// A network without a half scope is refused in half precision, and so is a precision
// that the device lacks.
func TestRefusedPrecisions(t *testing.T) {
	plain := func(m *onnx.Module) { m.Output("y", m.Exp(m.Input("x", checkpoint.F32, 1))) }
	if _, err := onnx.BuildHalf(nil, checkpoint.F16, plain); err == nil || !strings.Contains(err.Error(), "no part of this network") {
		t.Errorf("got %v", err)
	}
	m, err := onnx.Build(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	for precision, want := range map[string]string{
		Float16: "float16 was asked for of a network that computes in float32 alone", TF32: "device cpu computes in no tf32, but in float32, bfloat16, float16",
	} {
		if _, err := Open(m, Options{Precision: precision}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", precision, err, want)
		}
	}
}

// TestCutWaves runs a graph whose sines and cosines are computed apart, as in one.
func TestCutWaves(t *testing.T) {
	m, err := onnx.Build(nil, func(m *onnx.Module) {
		steps := m.Input("t", checkpoint.F32, onnx.Batch)
		m.Output("y", m.Exp(m.TimestepEmbedding(steps, 7, 10000)))
		m.Output("z", m.Add(m.Input("x", checkpoint.F32, onnx.Batch), steps))
	})
	if err != nil {
		t.Fatal(err)
	}
	waves, rest, err := m.CutWaves()
	if err != nil || len(waves.Inputs) != 1 || len(waves.Outputs) != 2 || len(rest.Inputs) != 4 {
		t.Fatalf("%+v, %+v, %v", waves, rest, err)
	}
	in := map[string]Array{"t": {Shape: []int{2}, Data: []float32{515, 999}}, "x": {Shape: []int{2}, Data: []float32{1, 2}}}
	var results [2]map[string]Array
	for i, m := range []*onnx.Model{m, rest} {
		s, err := Open(m, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if i == 1 {
			if s.waves, err = Open(waves, Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if results[i], err = s.Run(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"y", "z"} {
		a, b := results[0][name].Tensor().Data, results[1][name].Tensor().Data
		for i := range a {
			if math.Abs(float64(a[i]-b[i])) > 1e-6*math.Abs(float64(a[i])) { // the places in vectors are others
				t.Errorf("%s: %v in one graph, %v in two", name, a, b)
			}
		}
	}
}
