package models

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

const referenceCases = "../experiments/refcase/testdata/cases/"

// A halfBlock is a block of a reference case in half precision.
type halfBlock struct {
	source, name string
	build        func(m *onnx.Module, x, emb onnx.Value) onnx.Value
}

func residual(out int, scaleShift bool, r resample) func(m *onnx.Module, x, emb onnx.Value) onnx.Value {
	return func(m *onnx.Module, x, emb onnx.Value) onnx.Value { return resBlock(m, x, emb, out, scaleShift, r) }
}

func attending(m *onnx.Module, x, _ onnx.Value) onnx.Value {
	return attentionBlock(m, x, 8, legacyOrder, NewTaps(Options{}))
}

// TestHalfBlocks holds blocks in float16 against the official code's after
// convert_to_fp16, each on the values that enter it there, and their vector-Jacobian
// products against those of its autograd (make_half.py of the reference cases). Nearly
// all values have to be the very same: what another order of sums moves across a
// rounding is 5 in 100 at most, measured. Computed in float32 and rounded at the end
// half of them differ, which the test proves as well, so that it notices a rounding too
// few or too many.
func TestHalfBlocks(t *testing.T) {
	for _, b := range []halfBlock{
		{"adm-channel-mult-f16", "input_blocks.1.0", residual(32, false, same)},
		{"adm-channel-mult-f16", "middle_block.1", attending},
		{"adm-head-channels", "input_blocks.2.0", residual(32, true, down)},
		{"adm-head-channels", "input_blocks.3.0", residual(32, true, same)},
		{"adm-head-channels", "output_blocks.1.1", attending},
		{"adm-head-channels", "output_blocks.1.2", residual(32, true, up)},
		{"adm-channel-mult-f16", "input_blocks.2.0", func(m *onnx.Module, x, _ onnx.Value) onnx.Value { return m.In("op").Conv2D(x, 32, 3, 2, 1) }},
	} {
		golden := b.golden(t)
		for precision, bounds := range map[string][2]float64{ort.Float16: {0.93, 1}, ort.Float32: {0, 0.7}} {
			if strings.HasSuffix(b.name, "2.0") && b.source == "adm-channel-mult-f16" && precision == ort.Float32 {
				continue // one convolution, rounded once
			}
			y, dx := b.run(t, golden, precision)
			for key, got := range map[string][]float32{".out": y, ".din": dx} {
				if share := agreeing(got, golden[b.name+key].Data); share < bounds[0] || share > bounds[1] {
					t.Errorf("%s %s%s in %s: %.3f of the values are the official code's, expected %v", b.source, b.name, key, precision, share, bounds)
				}
			}
		}
	}
}

// golden are the blocks' inputs and outputs in the official code.
func (b halfBlock) golden(t *testing.T) map[string]tensor.Tensor {
	f, err := checkpoint.Open(filepath.Join(referenceCases, b.source+"-fp16", "blocks.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]tensor.Tensor{}
	for name, v := range f.Tensors {
		data, err := v.Float32()
		if err != nil {
			t.Fatal(err)
		}
		all[name] = tensor.Of(data, v.Shape...)
	}
	return all
}

// run is the block's output and its vector-Jacobian product.
func (b halfBlock) run(t *testing.T, golden map[string]tensor.Tensor, precision string) (y, dx []float32) {
	f, err := checkpoint.Open(filepath.Join(referenceCases, b.source, "model.pt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	weights := checkpoint.StateDict{}
	for key, v := range f.Tensors {
		if strings.HasPrefix(key, b.name+".") {
			weights[key] = v
		}
	}
	opt := ort.Options{Precision: precision}
	inputs := map[string]ort.Array{}
	m, err := onnx.BuildHalf(weights, opt.Half(), func(m *onnx.Module) {
		input := func(name, key string) onnx.Value {
			inputs[name] = ort.Floats(golden[key])
			return m.Input(name, checkpoint.F32, golden[key].Shape...)
		}
		x, dy, emb := input("x", b.name+".in"), input("dy", b.name+".dout"), input("emb", "emb")
		if opt.Half() != "" {
			x = m.Cast(x, opt.Half())
		}
		h := m.In("%s", b.name).Half()
		y := b.build(h, x, emb)
		m.Output("y", y)
		m.Output("dx", h.Grad(y, dy, x))
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := ort.Open(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run(context.Background(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	return out["y"].Tensor().Data, out["dx"].Tensor().Data
}

// agreeing is the share of values that are those of want, in float16, when rounded.
func agreeing(got, want []float32) float64 {
	n := 0
	for i, w := range want {
		ulp := math.Ldexp(1, max(math.Ilogb(float64(w)), -14)-10)
		if math.Abs(float64(got[i])-float64(w)) <= ulp/2 {
			n++
		}
	}
	return float64(n) / float64(len(want))
}
