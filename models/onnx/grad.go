package onnx

import (
	"slices"

	"sagbench/models/checkpoint"
)

// A node is an operator of the graph, as it was built.
type node struct {
	m    *Module // its scope
	kind string
	at   attrs
	in   []Value
	out  []Value
}

// A vjp is an operator's vector-Jacobian product: with y = f(x_0, x_1, …) and dy
// the cotangents of y, the cotangent of x_i, dyᵀ ∂f/∂x_i, of x_i's shape. A
// cotangent of dy is zero where nothing depends on that output.
type vjp func(m *Module, n *node, i int, dy []Value) Value

// vjps are the operators that can be differentiated.
var vjps = map[string]vjp{
	"Add": addVJP, "Sub": subVJP, "Mul": mulVJP, "Div": divVJP, "Neg": negVJP,
	"Exp": expVJP, "Sqrt": sqrtVJP, "Cos": cosVJP, "Sin": sinVJP,
	"Sigmoid": sigmoidVJP, "SiLU": siluVJP, "Relu": reluVJP, "Gelu": geluVJP, "Clip": clipVJP, "Cast": castVJP,
	"Softmax": softmaxVJP, "LogSoftmax": logSoftmaxVJP,

	"Reshape": reshapeVJP, "Transpose": transposeVJP, "Concat": concatVJP, "Split": splitVJP, "Slice": sliceVJP,
	"Gather": gatherVJP, "ReduceMean": meanVJP, "ReduceSum": sumVJP,

	"MatMul": matMulVJP, "Gemm": gemmVJP, "Conv": convVJP,
	"InstanceNormalization": instanceNormVJP, "LayerNormalization": layerNormVJP, "BatchNormalization": batchNormVJP,
	"AveragePool": averagePoolVJP, "Resize": upsampleVJP, "MultiHeadAttention": attentionVJP,
}

// Grad appends to the graph the reverse-mode derivative of y with respect to x:
// dyᵀ ∂y/∂x, of x's shape, for a cotangent dy of y's shape. Only what lies
// between x and y is differentiated; the weights are constants.
//
// The forward values are used where they stand, so a graph that gives y as well
// computes them once. It is a build error if y does not depend on x, or if an
// operator in between has no derivative here.
func (m *Module) Grad(y, dy, x Value) Value {
	if !slices.Equal(y.Shape, dy.Shape) {
		fail("%sGrad: the cotangent of %v has shape %v", m.prefix, y.Shape, dy.Shape)
	}
	depends := map[string]bool{x.Name: true}
	for _, n := range m.g.nodes {
		if slices.ContainsFunc(n.in, func(v Value) bool { return depends[v.Name] }) {
			for _, v := range n.out {
				depends[v.Name] = true
			}
		}
	}
	cotangents := map[string]Value{y.Name: dy}
	for _, n := range slices.Backward(slices.Clone(m.g.nodes)) { // products are appended to it
		dys := make([]Value, len(n.out))
		reached := false
		for i, v := range n.out {
			dys[i] = cotangents[v.Name]
			reached = reached || dys[i].Name != ""
		}
		if !reached {
			continue
		}
		scope := n.m.In("grad")
		for i, v := range n.in {
			if !depends[v.Name] {
				continue
			}
			d := scope.vjp(&n, i, dys)
			if before, ok := cotangents[v.Name]; ok {
				d = scope.Add(before, d)
			}
			cotangents[v.Name] = d
		}
	}
	dx, ok := cotangents[x.Name]
	if !ok {
		fail("%sGrad: %s does not depend on %s", m.prefix, y.Name, x.Name)
	}
	return dx
}

// vjp is the cotangent of input i of a node.
func (m *Module) vjp(n *node, i int, dy []Value) Value {
	f, ok := vjps[n.kind]
	if !ok {
		n.fail("it has no vector-Jacobian product")
	}
	d := f(m, n, i, dy)
	if !slices.Equal(d.Shape, n.in[i].Shape) {
		n.fail("its vector-Jacobian product of input %d has shape %v, the input %v", i, d.Shape, n.in[i].Shape)
	}
	return d
}

// fail is a build error about a node that cannot be differentiated.
func (n *node) fail(format string, args ...any) {
	fail("%s%s cannot be differentiated: "+format, append([]any{n.m.prefix, n.kind}, args...)...)
}

// number is an attribute that holds one integer.
func (n *node) number(name string) int { return n.at[name].(int) }

// unbroadcast adds up what broadcasting repeated: v becomes one of the given shape.
func (m *Module) unbroadcast(v Value, shape []int) Value {
	lead := len(v.Shape) - len(shape)
	var axes []int
	for i := range v.Shape {
		if i < lead || shape[i-lead] == 1 && v.Shape[i] != 1 {
			axes = append(axes, i)
		}
	}
	if len(axes) == 0 {
		return v
	}
	return m.Reshape(m.Sum(v, axes...), shape...)
}

// reduceLast is a reduction of the last axis, which stays with length 1.
func (m *Module) reduceLast(kind string, x Value) Value {
	shape := slices.Clone(x.Shape)
	shape[len(shape)-1] = 1
	return m.op(kind, x.DType, shape, attrs{"keepdims": 1}, x, m.Ints(len(shape)-1))
}

// sumLast is the sum over the last axis, which stays with length 1. It is a
// product with a column of ones: the runtime's own reduction adds a row in an
// order that depends on where it lies in memory, so on its place in the batch,
// unless rows are a multiple of what a register holds.
func (m *Module) sumLast(x Value) Value {
	n := x.Dim(-1)
	return m.MatMul(x, m.Const(slices.Repeat([]float32{1}, n), n, 1))
}

// zerosLike is 0 in every place of v.
func (m *Module) zerosLike(v Value) Value {
	return m.Full().op("ConstantOfShape", checkpoint.F32, v.Shape, nil, m.shapeOf(v))
}

// shapeOf is v's shape, of which the run time knows all lengths.
func (m *Module) shapeOf(v Value) Value {
	return m.op("Shape", checkpoint.I64, []int{len(v.Shape)}, nil, v)
}

// swapLast transposes the last two axes.
func (m *Module) swapLast(x Value) Value {
	perm := make([]int, len(x.Shape))
	for i := range perm {
		perm[i] = i
	}
	last := len(perm) - 1
	perm[last-1], perm[last] = last, last-1
	return m.Transpose(x, perm...)
}
