package onnx

import (
	"math"
	"slices"
)

// matMulVJP is dy·bᵀ and aᵀ·dy.
func matMulVJP(m *Module, n *node, i int, dy []Value) Value {
	if i == 0 {
		return m.unbroadcast(m.MatMul(dy[0], m.swapLast(n.in[1])), n.in[0].Shape)
	}
	return m.unbroadcast(m.MatMul(m.swapLast(n.in[0]), dy[0]), n.in[1].Shape)
}

// gemmVJP is of y = a·bᵀ + c: dy·b, dyᵀ·a, and dy added up.
func gemmVJP(m *Module, n *node, i int, dy []Value) Value {
	switch d := dy[0]; i {
	case 0:
		return m.op("Gemm", d.DType, n.in[0].Shape, nil, d, n.in[1])
	case 1:
		return m.op("Gemm", d.DType, n.in[1].Shape, attrs{"transA": 1}, d, n.in[0])
	default:
		return m.unbroadcast(d, n.in[i].Shape)
	}
}

// convVJP is the convolution of dy with the kernel turned round; where the
// stride leaves places out, the runtime's transposed convolution, which is
// slower.
func convVJP(m *Module, n *node, i int, dy []Value) Value {
	if i > 0 {
		n.fail("its weights depend on the input")
	}
	x, w, d := n.in[0], n.in[1], dy[0]
	kernel, pads, stride := n.at["kernel_shape"].([]int), n.at["pads"].([]int), n.at["strides"].([]int)[0]
	turned, missing := make([]int, 4), make([]int, 2)
	for i, p := range pads {
		turned[i] = kernel[i%2] - 1 - p
	}
	for i := range missing {
		missing[i] = x.Shape[2+i] - ((d.Shape[2+i]-1)*stride + kernel[i] - pads[i] - pads[2+i])
	}
	if stride != 1 || slices.Min(turned) < 0 {
		return m.op("ConvTranspose", x.DType, x.Shape, attrs{
			"kernel_shape": kernel, "strides": []int{stride, stride}, "pads": pads, "output_padding": missing,
		}, d, w)
	}
	dx := m.op("Conv", x.DType, x.Shape, attrs{"kernel_shape": kernel, "strides": []int{1, 1}, "pads": turned}, d, m.turn(w))
	c := Conv{Out: x.Shape[1], Kernel: [2]int(kernel), Stride: 1, Pad: [2]int(turned[:2]), After: [2]int{turned[2] - turned[0], turned[3] - turned[1]}}
	c.mark(m, d, dx)
	return dx
}

// turn is a kernel [out,in,h,w] with its channels exchanged and its places in
// reverse order. It is computed when the graph is loaded.
func (m *Module) turn(w Value) Value {
	w = m.Transpose(w, 1, 0, 2, 3)
	if w.Shape[2] == 1 && w.Shape[3] == 1 {
		return w
	}
	return m.op("Slice", w.DType, w.Shape, nil, w, m.Ints(-1, -1), m.Ints(math.MinInt32, math.MinInt32), m.Ints(2, 3), m.Ints(-1, -1))
}

// instanceNormVJP is of the normalization as normalizeGroups makes it, without
// scale and shift.
func instanceNormVJP(m *Module, n *node, _ int, dy []Value) Value {
	_, deviation := m.centred(n)
	return m.normalizeVJP(n.out[0], deviation, dy[0])
}

// layerNormVJP is that of the normalization, for dy times the scale.
func layerNormVJP(m *Module, n *node, i int, dy []Value) Value {
	if i > 0 {
		n.fail("its scale and shift depend on the input")
	}
	c, deviation := m.centred(n)
	return m.normalizeVJP(m.Div(c, deviation), deviation, m.Mul(dy[0], n.in[1]))
}

// normalizeVJP is (dy − mean dy − y·mean(dy⊙y))/σ, means over the last axis.
func (m *Module) normalizeVJP(y, deviation, dy Value) Value {
	d := m.Sub(m.Sub(dy, m.reduceLast("ReduceMean", dy)), m.Mul(y, m.reduceLast("ReduceMean", m.Mul(dy, y))))
	return m.Div(d, deviation)
}

// centred is x − mean x and σ = √(mean (x − mean x)² + ε) over the last axis.
func (m *Module) centred(n *node) (c, deviation Value) {
	x := n.in[0]
	c = m.Sub(x, m.reduceLast("ReduceMean", x))
	variance := m.Mul(m.reduceLast("ReduceSumSquare", c), m.Scalar(1/float32(x.Dim(-1))))
	return c, m.Sqrt(m.Add(variance, m.Scalar(float32(n.at["epsilon"].(float64)))))
}

// batchNormVJP is dy times each channel's factor, γ/√(σ² + ε).
func batchNormVJP(m *Module, n *node, i int, dy []Value) Value {
	if i > 0 {
		n.fail("its scale and shift depend on the input")
	}
	factor := m.Div(n.in[1], m.Sqrt(m.Add(n.in[4], m.Scalar(float32(n.at["epsilon"].(float64))))))
	shape := slices.Repeat([]int{1}, len(n.in[0].Shape)-1)
	shape[0] = factor.Shape[0]
	return m.Mul(dy[0], m.Reshape(factor, shape...))
}

// averagePoolVJP gives each place its part of dy, for windows that tile the image.
func averagePoolVJP(m *Module, n *node, _ int, dy []Value) Value {
	x, k := n.in[0], n.at["kernel_shape"].([]int)[0]
	tiled := n.at["strides"].([]int)[0] == k && slices.Max(n.at["pads"].([]int)) == 0
	if !tiled || x.Shape[2]%k != 0 || x.Shape[3]%k != 0 {
		n.fail("its windows overlap or leave places out")
	}
	return m.enlarge(m.Mul(dy[0], m.Scalar(1/float32(k*k))), k)
}

// upsampleVJP adds up what each place was repeated to.
func upsampleVJP(m *Module, n *node, _ int, dy []Value) Value {
	k := n.out[0].Shape[2] / n.in[0].Shape[2]
	return m.Mul(m.AveragePool(dy[0], Pool{Kernel: k, Stride: k}), m.Scalar(float32(k*k)))
}

// attentionVJP is that of softmax(q·kᵀ/√d)·v, whose weights it computes again.
func attentionVJP(m *Module, n *node, i int, dy []Value) Value {
	heads := n.number("num_heads")
	split := func(v Value) Value { // [N,T,D] → [N,heads,T,d]
		return m.Transpose(m.Reshape(v, v.Dim(0), v.Dim(1), heads, v.Dim(2)/heads), 0, 2, 1, 3)
	}
	q, k, v, d := split(n.in[0]), split(n.in[1]), split(n.in[2]), split(dy[0])
	scale := m.Scalar(float32(1 / math.Sqrt(float64(q.Dim(3)))))
	w := m.Softmax(m.Mul(m.MatMul(q, m.swapLast(k)), scale)) // [N,heads,T,S]
	var g Value
	if i == 2 {
		g = m.MatMul(m.swapLast(w), d)
	} else {
		dw := m.MatMul(d, m.swapLast(v))
		logits := m.Mul(m.Mul(w, m.Sub(dw, m.sumLast(m.Mul(dw, w)))), scale)
		if i == 0 {
			g = m.MatMul(logits, k)
		} else {
			g = m.MatMul(m.swapLast(logits), q)
		}
	}
	return m.Reshape(m.Transpose(g, 0, 2, 1, 3), n.in[i].Shape...)
}
