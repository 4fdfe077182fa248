package onnx

import (
	"math"
	"slices"

	"sagbench/models/checkpoint"
)

// The products of elementwise operators; y = f(a, b), broadcast, or y = f(x).

// dy, dy.
func addVJP(m *Module, n *node, i int, dy []Value) Value {
	return m.unbroadcast(dy[0], n.in[i].Shape)
}

// dy, −dy.
func subVJP(m *Module, n *node, i int, dy []Value) Value {
	d := dy[0]
	if i == 1 {
		d = m.Neg(d)
	}
	return m.unbroadcast(d, n.in[i].Shape)
}

// dy·b, dy·a.
func mulVJP(m *Module, n *node, i int, dy []Value) Value {
	return m.unbroadcast(m.Mul(dy[0], n.in[1-i]), n.in[i].Shape)
}

// dy/b, −dy·y/b.
func divVJP(m *Module, n *node, i int, dy []Value) Value {
	d := m.Div(dy[0], n.in[1])
	if i == 1 {
		d = m.Neg(m.Mul(d, n.out[0]))
	}
	return m.unbroadcast(d, n.in[i].Shape)
}

func negVJP(m *Module, _ *node, _ int, dy []Value) Value { return m.Neg(dy[0]) }

// dy·y.
func expVJP(m *Module, n *node, _ int, dy []Value) Value { return m.Mul(dy[0], n.out[0]) }

// dy/(2y).
func sqrtVJP(m *Module, n *node, _ int, dy []Value) Value {
	return m.Div(dy[0], m.Add(n.out[0], n.out[0]))
}

// −dy·sin x.
func cosVJP(m *Module, n *node, _ int, dy []Value) Value {
	return m.Neg(m.Mul(dy[0], m.Sin(n.in[0])))
}

// dy·cos x.
func sinVJP(m *Module, n *node, _ int, dy []Value) Value { return m.Mul(dy[0], m.Cos(n.in[0])) }

// dy·y·(1−y).
func sigmoidVJP(m *Module, n *node, _ int, dy []Value) Value {
	y := n.out[0]
	return m.Mul(dy[0], m.Mul(y, m.Sub(m.Scalar(1), y)))
}

// dy·σ·(1 + x − y) with y = x·σ.
func siluVJP(m *Module, n *node, _ int, dy []Value) Value {
	x, y, sigmoid := n.in[0], n.out[0], n.out[1]
	if m.half { // one operator to its authors: nothing is rounded but its result
		f := m.Full()
		sigmoid = f.Sigmoid(x)
		return m.own(f.Mul(f.Mul(dy[0], sigmoid), f.Add(f.Scalar(1), f.Mul(x, f.Sub(f.Scalar(1), sigmoid)))))
	}
	return m.Mul(m.Mul(dy[0], sigmoid), m.Add(m.Sub(x, y), m.Scalar(1)))
}

// dy where x > 0.
func reluVJP(m *Module, n *node, _ int, dy []Value) Value {
	return m.Where(m.compare("Greater", n.in[0], m.Scalar(0)), dy[0], m.Scalar(0))
}

// dy where lo ≤ x ≤ hi, the bounds included as torch.clamp has it.
func clipVJP(m *Module, n *node, i int, dy []Value) Value {
	x := n.in[0]
	if i > 0 {
		n.fail("its bounds depend on the input")
	}
	inside := m.op("And", checkpoint.Bool, x.Shape, nil, m.compare("GreaterOrEqual", x, n.in[1]), m.compare("LessOrEqual", x, n.in[2]))
	return m.Where(inside, dy[0], m.Scalar(0))
}

func (m *Module) compare(kind string, a, b Value) Value {
	return m.op(kind, checkpoint.Bool, a.Shape, nil, a, b)
}

// geluVJP is dy·(Φ(x) + x·φ(x)), or the derivative of the approximation: with
// u = √(2/π)(x + 0.044715x³), dy·½(1 + tanh u + x(1 − tanh² u)u').
func geluVJP(m *Module, n *node, _ int, dy []Value) Value {
	x, one := n.in[0], m.Scalar(1)
	half := func(v Value) Value { return m.Mul(m.Scalar(0.5), v) }
	if n.at["approximate"] == "none" {
		cdf := half(m.Add(one, m.unary("Erf", m.Mul(x, m.Scalar(math.Sqrt2/2)), nil)))
		pdf := m.Mul(m.Scalar(float32(1/math.Sqrt(2*math.Pi))), m.Exp(m.Neg(half(m.Mul(x, x)))))
		return m.Mul(dy[0], m.Add(cdf, m.Mul(x, pdf)))
	}
	c, square := m.Scalar(float32(math.Sqrt(2/math.Pi))), m.Mul(x, x)
	u := m.Mul(m.Mul(c, x), m.Add(one, m.Mul(m.Scalar(0.044715), square)))
	slope := m.Mul(c, m.Add(one, m.Mul(m.Scalar(3*0.044715), square)))
	tanh := m.unary("Tanh", u, nil)
	bend := m.Mul(m.Mul(x, slope), m.Sub(one, m.Mul(tanh, tanh)))
	return m.Mul(dy[0], half(m.Add(m.Add(one, tanh), bend)))
}

// castVJP casts back.
func castVJP(m *Module, n *node, _ int, dy []Value) Value {
	x := n.in[0]
	if !slices.Contains([]checkpoint.DType{checkpoint.F16, checkpoint.BF16, checkpoint.F32, checkpoint.F64}, x.DType) {
		n.fail("a value of type %s has no derivative", x.DType)
	}
	return m.Cast(dy[0], x.DType)
}

// y⊙(dy − Σ dy⊙y).
func softmaxVJP(m *Module, n *node, _ int, dy []Value) Value {
	y := n.out[0]
	return m.Mul(y, m.Sub(dy[0], m.sumLast(m.Mul(dy[0], y))))
}

// dy − eʸ Σ dy.
func logSoftmaxVJP(m *Module, n *node, _ int, dy []Value) Value {
	return m.Sub(dy[0], m.Mul(m.Exp(n.out[0]), m.sumLast(dy[0])))
}

// The products of operators that move, repeat or add up.

// reshapeVJP gives dy the shape of x, of which the run time may know several
// lengths alone.
func reshapeVJP(m *Module, n *node, _ int, dy []Value) Value {
	x, open := n.in[0], 0
	for _, d := range x.Shape {
		if d < 0 {
			open++
		}
	}
	shape := m.Ints(x.Shape...) // its one negative length is what remains
	if open > 1 {
		shape = m.shapeOf(x)
	}
	return m.op("Reshape", x.DType, x.Shape, nil, dy[0], shape)
}

func transposeVJP(m *Module, n *node, _ int, dy []Value) Value {
	perm := n.at["perm"].([]int)
	inverse := make([]int, len(perm))
	for i, p := range perm {
		inverse[p] = i
	}
	return m.Transpose(dy[0], inverse...)
}

func concatVJP(m *Module, n *node, i int, dy []Value) Value {
	axis, from := n.number("axis"), 0
	for _, before := range n.in[:i] {
		from += before.Shape[axis]
	}
	return m.Slice(dy[0], axis, from, from+n.in[i].Shape[axis])
}

func splitVJP(m *Module, n *node, _ int, dy []Value) Value {
	parts := slices.Clone(dy)
	for k, d := range parts {
		if d.Name == "" {
			parts[k] = m.zerosLike(n.out[k])
		}
	}
	return m.Concat(n.number("axis"), parts...)
}

func sliceVJP(m *Module, n *node, _ int, dy []Value) Value {
	x, axis := n.in[0], m.g.ints[n.in[3].Name][0]
	pads := make([]int, 2*len(x.Shape))
	pads[axis] = m.g.ints[n.in[1].Name][0]
	pads[len(x.Shape)+axis] = x.Shape[axis] - m.g.ints[n.in[2].Name][0]
	return m.op("Pad", x.DType, x.Shape, attrs{"mode": "constant"}, dy[0], m.Ints(pads...))
}

// gatherVJP adds the rows of dy [N,D] to those of the table that they came from.
func gatherVJP(m *Module, n *node, i int, dy []Value) Value {
	table, index := n.in[0], n.in[1]
	if i > 0 || len(table.Shape) != 2 || len(index.Shape) != 1 {
		n.fail("only rows of a matrix are, with respect to it")
	}
	return m.MatMul(m.Transpose(m.OneHot(index, table.Shape[0]), 1, 0), dy[0])
}

func sumVJP(m *Module, n *node, _ int, dy []Value) Value { return m.spread(n, dy[0]) }

func meanVJP(m *Module, n *node, _ int, dy []Value) Value {
	count := 1
	for _, axis := range m.g.ints[n.in[1].Name] {
		if n.in[0].Shape[axis] < 0 {
			n.fail("the length of axis %d is known at run time only", axis)
		}
		count *= n.in[0].Shape[axis]
	}
	return m.spread(n, m.Mul(dy[0], m.Scalar(1/float32(count))))
}

// spread repeats d along the axes that a node reduced.
func (m *Module) spread(n *node, d Value) Value {
	x := n.in[0]
	kept, to := slices.Clone(x.Shape), slices.Clone(x.Shape)
	for _, axis := range m.g.ints[n.in[1].Name] {
		kept[axis] = 1
	}
	d = m.Reshape(d, kept...)
	for i, k := range kept {
		if k < 0 {
			to[i] = 1 // Expand's word for a length that stays
		} else if to[i] < 0 {
			n.fail("the length of axis %d is known at run time only", i)
		}
	}
	return m.op("Expand", d.DType, x.Shape, nil, d, m.Ints(to...))
}
