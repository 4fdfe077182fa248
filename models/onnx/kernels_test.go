package onnx

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
)

// WithKernels replaces the convolutions that package kernels computes faster, and
// no others.
func TestWithKernels(t *testing.T) {
	square := func(out, kernel, stride, pad int) Conv {
		return Conv{Out: out, Kernel: [2]int{kernel, kernel}, Stride: stride, Pad: [2]int{pad, pad}}
	}
	lopsided := square(32, 3, 1, 1)
	lopsided.After = [2]int{1, 1}
	for _, c := range []struct {
		what       string
		in, side   int
		conv       Conv
		isReplaced bool
	}{
		{"32×32", 32, 32, square(32, 3, 1, 1), true},
		{"16×16", 32, 16, square(64, 3, 1, 1), true},
		{"too few tiles", 32, 8, square(32, 3, 1, 1), false},
		{"many weights, few tiles", 1024, 16, square(1024, 3, 1, 1), false},
		{"many weights, many tiles", 1024, 32, square(1024, 3, 1, 1), true},
		{"three channels", 3, 32, square(32, 3, 1, 1), false},
		{"to three channels", 32, 32, square(3, 3, 1, 1), false},
		{"1×1", 32, 32, square(32, 1, 1, 0), false},
		{"stride 2", 32, 32, square(32, 3, 2, 1), false},
		{"unequal padding", 32, 32, lopsided, false},
		{"unknown size", 32, -2, square(32, 3, 1, 1), false},
	} {
		shapes := map[string][]int{"weight": {c.conv.Out, c.in, c.conv.Kernel[0], c.conv.Kernel[1]}, "bias": {c.conv.Out}}
		m, err := Build(weights(shapes), func(m *Module) {
			m.Output("y", m.Conv(m.Input("x", checkpoint.F32, Batch, c.in, c.side, c.side), c.conv))
		})
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		with, err := m.WithKernels()
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		var p pb.ModelProto
		if err := proto.Unmarshal(with.Proto, &p); err != nil {
			t.Fatal(err)
		}
		replaced := false
		for _, n := range p.Graph.Node {
			replaced = replaced || n.GetOpType() == "Conv" && n.GetDomain() == KernelsDomain
		}
		if replaced != c.isReplaced || with.Kernels != c.isReplaced {
			t.Errorf("%s: replaced %v, Kernels %v, want %v", c.what, replaced, with.Kernels, c.isReplaced)
		}
	}
}

// A group norm becomes one node, unless something else reads what it is made of.
func TestNormWithKernels(t *testing.T) {
	for what, c := range map[string]struct {
		f    func(m *Module, x Value)
		want map[string]int // nodes by operator
	}{
		"alone": {func(m *Module, x Value) { m.Output("y", m.GroupNorm(x, 4)) }, map[string]int{"GroupNorm": 1}},
		"scaled": {func(m *Module, x Value) {
			s := m.Input("s", checkpoint.F32, Batch, 16)
			m.Output("y", m.GroupNormScaleShift(x, 4, s, s))
		}, map[string]int{"GroupNorm": 1, "Add": 2, "Mul": 2}},
		"with its gradient": {func(m *Module, x Value) {
			y := m.GroupNorm(x, 4)
			m.Output("dx", m.Grad(y, x, x))
			m.Output("y", y)
		}, map[string]int{"GroupNorm": 0, "InstanceNormalization": 1}},
	} {
		m, err := Build(weights(map[string][]int{"weight": {16}, "bias": {16}}), func(m *Module) { c.f(m, m.Input("x", checkpoint.F32, Batch, 16, 8, 8)) })
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		with, err := m.WithKernels()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var p pb.ModelProto
		if err := proto.Unmarshal(with.Proto, &p); err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, n := range p.Graph.Node {
			got[n.GetOpType()]++
		}
		for operator, n := range c.want {
			if got[operator] != n {
				t.Errorf("%s: %v, want %v", what, got, c.want)
			}
		}
	}
}
