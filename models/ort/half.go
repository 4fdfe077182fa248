package ort

import (
	"fmt"
	"slices"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// moves are the operators that the CPU's kernels compute on half values as they are:
// those that move them. All others compute in float32 there, on values that are
// rounded to half between them.
var moves = []string{"Reshape", "Transpose", "Concat", "Split", "Slice", "Gather", "Identity"}

// cudaBFloat16 are the operators that the CUDA provider has kernels for in bfloat16
// (testdata/kernels.txt): no convolution, pool, resize or comparison. In float16 it has
// one for each that graphs here have, and so has WebGPU.
var cudaBFloat16 = append(slices.Clone(moves), "Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Exp", "Erf", "Sigmoid", "Tanh", "Relu", "Gelu",
	"Softmax", "MatMul", "Gemm", "MultiHeadAttention", "ReduceMean", "ReduceSum", "Expand", "Where")

// precision is what the device offers of the name that is asked for.
func (o Options) precision() (Precision, error) {
	d, err := ParseDevice(o.Device)
	if err != nil {
		return Precision{}, err
	}
	return d.Precision(o.Precision)
}

// CheckPrecision is an error where the device lacks a precision; it tells which it has.
func (o Options) CheckPrecision(name string) error {
	o.Precision = name
	p, err := o.precision()
	if err != nil || !p.chosen {
		return err
	}
	return o.probed()
}

// Half is the element type in which scopes in half precision have to be built
// (onnx.BuildHalf): "" in float32, on a device that takes graphs in float32 whatever
// it computes in, and where the device lacks the precision, which Open says.
func (o Options) Half() checkpoint.DType {
	if p, err := o.precision(); err == nil && p.Graph != checkpoint.F32 {
		return p.Graph
	}
	return ""
}

// lowered is m for the device's kernels in half precision.
func (o Options) lowered(m *onnx.Model) (low *onnx.Model, w Widened, err error) {
	p, err := o.precision()
	switch {
	case err != nil:
		return nil, w, err
	case m.Half() == "" && p.Graph != checkpoint.F32:
		return nil, w, fmt.Errorf("%s was asked for of a network that computes in float32 alone", p.Name)
	case m.Half() == "":
		return m, w, nil
	}
	has := func(operator string) bool { return p.kernels == nil || slices.Contains(p.kernels, operator) }
	low, w.Nodes, w.Of, err = m.Lowered(has)
	return low, w, err
}

// Widened counts the nodes that a device computes in float32, because it lacks their
// kernels in half precision.
type Widened struct{ Nodes, Of int }

// Widened are those of the session's graph; zeros where none is in half precision.
func (s *Session) Widened() Widened { return s.widened }
