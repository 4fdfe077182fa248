package onnx

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
	"sagbench/sampling/tensor"
)

// contribDomain holds ONNX Runtime's own operators.
const contribDomain = "com.microsoft"

// attrs are a node's attributes: int, []int, float64 or string.
type attrs map[string]any

func (a attrs) protos() []*pb.AttributeProto {
	var r []*pb.AttributeProto
	for _, k := range sortedKeys(a) {
		p := &pb.AttributeProto{Name: proto.String(k)}
		switch x := a[k].(type) {
		case int:
			p.Type, p.I = pb.AttributeProto_INT.Enum(), proto.Int64(int64(x))
		case []int:
			p.Type, p.Ints = pb.AttributeProto_INTS.Enum(), int64s(x)
		case float64:
			p.Type, p.F = pb.AttributeProto_FLOAT.Enum(), proto.Float32(float32(x))
		case string:
			p.Type, p.S = pb.AttributeProto_STRING.Enum(), []byte(x)
		default:
			fail("attribute %s has type %T", k, x)
		}
		r = append(r, p)
	}
	return r
}

// broadcast is the shape of an elementwise operation by NumPy's rules.
func broadcast(a, b []int) []int {
	if len(a) < len(b) {
		a, b = b, a
	}
	r := slices.Clone(a)
	off := len(a) - len(b)
	for i, d := range b {
		switch {
		case d == r[off+i] || d == 1:
		case r[off+i] == 1:
			r[off+i] = d
		default:
			fail("shapes %v and %v do not broadcast", a, b)
		}
	}
	return r
}

func (m *Module) binary(kind string, a, b Value) Value {
	if m.computes(a.DType) != m.computes(b.DType) {
		fail("%s%s of %s and %s", m.prefix, kind, a.DType, b.DType)
	}
	return m.op(kind, a.DType, broadcast(a.Shape, b.Shape), nil, a, b)
}

func (m *Module) unary(kind string, x Value, at attrs) Value {
	return m.op(kind, x.DType, x.Shape, at, x)
}

// Add is a + b, broadcast.
func (m *Module) Add(a, b Value) Value { return m.binary("Add", a, b) }

// Sub is a − b, broadcast.
func (m *Module) Sub(a, b Value) Value { return m.binary("Sub", a, b) }

// Mul is a · b elementwise, broadcast.
func (m *Module) Mul(a, b Value) Value { return m.binary("Mul", a, b) }

// Div is a / b elementwise, broadcast.
func (m *Module) Div(a, b Value) Value { return m.binary("Div", a, b) }

// Cos is cos x, x in radians.
func (m *Module) Cos(x Value) Value { return m.wave("Cos", x) }

// Sin is sin x, x in radians.
func (m *Module) Sin(x Value) Value { return m.wave("Sin", x) }

// Sigmoid is 1/(1+e⁻ˣ).
func (m *Module) Sigmoid(x Value) Value { return m.unary("Sigmoid", x, nil) }

// ReLU is max(x, 0).
func (m *Module) ReLU(x Value) Value { return m.unary("Relu", x, nil) }

// SiLU is x·σ(x). Written as two nodes, which the runtime fuses; ONNX's own
// Swish has no CPU kernel.
func (m *Module) SiLU(x Value) Value {
	x = m.own(x)
	sigmoid := m.Sigmoid(x)
	m.asInner(sigmoid)
	y := m.Mul(x, sigmoid)
	m.asOne("SiLU", 2, []Value{x}, y, sigmoid)
	return y
}

// asOne makes the last n nodes one operator to Grad, whose derivative is less
// work than theirs.
func (m *Module) asOne(kind string, n int, in []Value, out ...Value) {
	rest := m.g.nodes[:len(m.g.nodes)-n]
	m.g.nodes = append(rest, node{m, kind, nil, in, out})
}

// GELU is x·Φ(x) with the exact normal distribution function Φ.
func (m *Module) GELU(x Value) Value { return m.unary("Gelu", x, attrs{"approximate": "none"}) }

// TanhGELU is nn.GELU(approximate="tanh"): x/2·(1+tanh(√(2/π)·(x+0.044715·x³))).
func (m *Module) TanhGELU(x Value) Value { return m.unary("Gelu", x, attrs{"approximate": "tanh"}) }

// QuickGELU is x·σ(1.702·x), CLIP's approximation of GELU.
func (m *Module) QuickGELU(x Value) Value {
	return m.Mul(x, m.Sigmoid(m.Mul(x, m.Scalar(1.702))))
}

// Exp is eˣ.
func (m *Module) Exp(x Value) Value { return m.unary("Exp", x, nil) }

// Sqrt is √x.
func (m *Module) Sqrt(x Value) Value { return m.unary("Sqrt", x, nil) }

// Neg is −x.
func (m *Module) Neg(x Value) Value { return m.unary("Neg", x, nil) }

// LogSoftmax is log Softmax along the last axis.
func (m *Module) LogSoftmax(x Value) Value { return m.unary("LogSoftmax", x, attrs{"axis": -1}) }

// OneHot is 1 at the place of each label [N] int64 and 0 elsewhere: [N,count].
func (m *Module) OneHot(y Value, count int) Value {
	return m.op("OneHot", checkpoint.F32, []int{y.Shape[0], count}, nil, y, m.Ints(count), m.Const([]float32{0, 1}, 2))
}

// Softmax normalizes along the last axis, in float32.
func (m *Module) Softmax(x Value) Value {
	return m.own(m.Full().unary("Softmax", x, attrs{"axis": -1}))
}

// Clip bounds x to [lo, hi].
func (m *Module) Clip(x Value, lo, hi float32) Value {
	return m.op("Clip", x.DType, x.Shape, nil, x, m.Scalar(lo), m.Scalar(hi))
}

// Cast converts the element type.
func (m *Module) Cast(x Value, t checkpoint.DType) Value {
	return m.op("Cast", t, x.Shape, attrs{"to": int(protoTypes[t])}, x)
}

// MatMul is the matrix product over the last two axes, leading axes broadcast.
func (m *Module) MatMul(a, b Value) Value {
	if a.Dim(-1) != b.Dim(-2) {
		fail("%sMatMul of %v and %v", m.prefix, a.Shape, b.Shape)
	}
	lead := broadcast(a.Shape[:len(a.Shape)-2], b.Shape[:len(b.Shape)-2])
	return m.op("MatMul", a.DType, append(lead, a.Dim(-2), b.Dim(-1)), nil, a, b)
}

// Equal tells where a and b, int64, are equal, broadcast.
func (m *Module) Equal(a, b Value) Value {
	return m.op("Equal", checkpoint.Bool, broadcast(a.Shape, b.Shape), nil, a, b)
}

// Greater is where a > b, broadcast: BOOL.
func (m *Module) Greater(a, b Value) Value {
	return m.op("Greater", checkpoint.Bool, broadcast(a.Shape, b.Shape), nil, a, b)
}

// Where is a where the condition, BOOL, holds and b elsewhere, broadcast.
func (m *Module) Where(condition, a, b Value) Value {
	if m.computes(a.DType) != m.computes(b.DType) {
		fail("%sWhere of %s and %s", m.prefix, a.DType, b.DType)
	}
	return m.op("Where", a.DType, broadcast(condition.Shape, broadcast(a.Shape, b.Shape)), nil, condition, a, b)
}

// Transpose permutes the axes; axis i of the result is axis perm[i] of x.
func (m *Module) Transpose(x Value, perm ...int) Value {
	shape := make([]int, len(perm))
	for i, p := range perm {
		shape[i] = x.Shape[p]
	}
	return m.op("Transpose", x.DType, shape, attrs{"perm": perm}, x)
}

// Reshape keeps the elements in order; one axis may be Batch.
func (m *Module) Reshape(x Value, shape ...int) Value {
	if known(x.Shape) != known(shape) {
		fail("%sReshape of %v to %v", m.prefix, x.Shape, shape)
	}
	return m.op("Reshape", x.DType, slices.Clone(shape), nil, x, m.Ints(shape...))
}

// known is the product of the axes other than Batch.
func known(shape []int) int {
	if i := slices.Index(shape, Batch); i >= 0 {
		shape = slices.Delete(slices.Clone(shape), i, i+1)
	}
	return tensor.Size(shape)
}

// Concat joins along an axis.
func (m *Module) Concat(axis int, xs ...Value) Value {
	shape := slices.Clone(xs[0].Shape)
	shape[axis] = 0
	for _, x := range xs {
		shape[axis] += x.Shape[axis]
	}
	return m.op("Concat", xs[0].DType, shape, attrs{"axis": axis}, xs...)
}

// Split cuts x along an axis into n equal parts.
func (m *Module) Split(x Value, axis, n int) []Value {
	if x.Shape[axis]%n != 0 {
		fail("%sSplit of %v into %d along axis %d", m.prefix, x.Shape, n, axis)
	}
	shape := slices.Clone(x.Shape)
	shape[axis] /= n
	shapes := make([][]int, n)
	for i := range shapes {
		shapes[i] = shape
	}
	return m.ops("", "Split", x.DType, shapes, attrs{"axis": axis, "num_outputs": n}, x)
}

// Slice takes [from, to) of an axis.
func (m *Module) Slice(x Value, axis, from, to int) Value {
	if from < 0 || to > x.Shape[axis] || from >= to {
		fail("%sSlice [%d,%d) of axis %d of %v", m.prefix, from, to, axis, x.Shape)
	}
	shape := slices.Clone(x.Shape)
	shape[axis] = to - from
	return m.op("Slice", x.DType, shape, nil, x, m.Ints(from), m.Ints(to), m.Ints(axis))
}

// Gather looks up rows of a table [K,D] by an int64 index [N]: [N,D].
func (m *Module) Gather(table, index Value) Value {
	return m.op("Gather", table.DType, append(slices.Clone(index.Shape), table.Shape[1:]...), attrs{"axis": 0}, table, index)
}

// Mean averages over the given axes, which vanish.
func (m *Module) Mean(x Value, axes ...int) Value { return m.reduce("ReduceMean", x, axes) }

// Sum adds over the given axes, which vanish.
func (m *Module) Sum(x Value, axes ...int) Value { return m.reduce("ReduceSum", x, axes) }

func (m *Module) reduce(kind string, x Value, axes []int) Value {
	var shape []int
	for i, d := range x.Shape {
		if !slices.Contains(axes, i) {
			shape = append(shape, d)
		}
	}
	return m.op(kind, x.DType, shape, attrs{"keepdims": 0}, x, m.Ints(axes...))
}

// PadFront puts n zeros before an axis.
func (m *Module) PadFront(x Value, axis, n int) Value {
	shape := slices.Clone(x.Shape)
	shape[axis] += n
	return m.op("Pad", x.DType, shape, attrs{"mode": "constant"}, x, m.Ints(n, 0), m.Scalar(0), m.Ints(axis))
}

// PadBack puts n entries of a value behind an axis.
func (m *Module) PadBack(x Value, axis, n int, value float32) Value {
	shape := slices.Clone(x.Shape)
	shape[axis] += n
	return m.op("Pad", x.DType, shape, attrs{"mode": "constant"}, x, m.Ints(0, n), m.Scalar(value), m.Ints(axis))
}
