package ort

import (
	"math"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling/tensor"
)

// An attention that is taken apart is the fused one, in float32 and between casts of a
// graph in half precision; one of another shape stays.
func TestAttentionApart(t *testing.T) {
	for precision, most := range map[string]float64{Float32: 1e-6, Float16: 1e-3} { // one rounding of the result
		opt := Options{Precision: precision}
		m, err := onnx.BuildHalf(nil, opt.Half(), func(m *onnx.Module) {
			h := m.Half()
			q, k, v := m.Input("q", checkpoint.F32, onnx.Batch, 5, 24), m.Input("k", checkpoint.F32, onnx.Batch, 7, 24), m.Input("v", checkpoint.F32, onnx.Batch, 7, 24)
			m.Output("y", h.Attention(h.Attention(q, k, v, 3), k, v, 2))
		})
		if err != nil {
			t.Fatal(err)
		}
		shapes := m.Attentions()
		if want := []onnx.AttentionShape{{T: 5, S: 7, Heads: 3, Width: 8}, {T: 5, S: 7, Heads: 2, Width: 12}}; len(shapes) != 2 || shapes[0] != want[0] || shapes[1] != want[1] {
			t.Fatalf("%v, want %v", shapes, want)
		}
		inputs := map[string]Array{}
		for i, name := range []string{"q", "k", "v"} {
			x := tensor.New(2, 5+min(i, 1)*2, 24)
			for j := range x.Data {
				x.Data[j] = float32(math.Sin(float64(j*7 + i)))
			}
			inputs[name] = Floats(x)
		}
		want := computed(t, m, opt, inputs)
		for n, wrong := range []map[onnx.AttentionShape]bool{{}, {shapes[0]: true}, {shapes[0]: true, shapes[1]: true}} {
			apart, err := m.AttentionApart(wrong)
			if err != nil {
				t.Fatal(err)
			}
			fused := 0
			for _, node := range apart.Nodes {
				if node.Op == "MultiHeadAttention" {
					fused++
				}
			}
			if fused != 2-n {
				t.Errorf("%s: %d of 2 fused attentions are left where %d are wrong", precision, fused, n)
			}
			for i, y := range computed(t, apart, opt, inputs) {
				if !(math.Abs(float64(y-want[i])) <= most) {
					t.Fatalf("%s, %d apart: value %d is %g, want %g", precision, n, i, y, want[i])
				}
			}
		}
	}
}

func computed(t *testing.T, m *onnx.Model, opt Options, inputs map[string]Array) []float32 {
	t.Helper()
	s, err := Open(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run(t.Context(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	return out["y"].Tensor().Data
}
