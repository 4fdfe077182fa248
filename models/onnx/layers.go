package onnx

import (
	"math"
	"slices"

	"sagbench/models/checkpoint"
)

// A Conv describes a 2-D convolution: height and width may differ.
type Conv struct {
	Out            int
	Kernel         [2]int
	Stride         int
	Pad            [2]int // zeros on both sides
	After          [2]int // further zeros below and to the right
	NoBias         bool
	StoredKernel1D bool // the checkpoint holds a Conv1d weight [Out,In,1]
}

// Conv2D is nn.Conv2d with a square kernel: x [N,C,H,W] → [N,out,H',W'];
// parameters weight [out,C,k,k] and bias [out].
func (m *Module) Conv2D(x Value, out, kernel, stride, pad int) Value {
	return m.Conv(x, Conv{Out: out, Kernel: [2]int{kernel, kernel}, Stride: stride, Pad: [2]int{pad, pad}})
}

// Conv is nn.Conv2d with all of its geometry.
func (m *Module) Conv(x Value, c Conv) Value {
	in := x.Shape[1]
	as := []int{c.Out, in, c.Kernel[0], c.Kernel[1]}
	stored := as
	if c.StoredKernel1D {
		stored = []int{c.Out, in, 1}
	}
	args := []Value{x, m.ParamAs("weight", stored, as)}
	if !c.NoBias {
		args = append(args, m.Param("bias", c.Out))
	}
	size := func(i int) int { return (x.Shape[2+i]+2*c.Pad[i]+c.After[i]-c.Kernel[i])/c.Stride + 1 }
	at := attrs{
		"kernel_shape": c.Kernel[:],
		"strides":      []int{c.Stride, c.Stride},
		"pads":         []int{c.Pad[0], c.Pad[1], c.Pad[0] + c.After[0], c.Pad[1] + c.After[1]},
	}
	y := m.op("Conv", x.DType, []int{x.Shape[0], c.Out, size(0), size(1)}, at, args...)
	c.mark(m, x, y)
	return y
}

// ConvBy is nn.functional.conv2d with a weight that the graph has, w [out,C,k,k], and
// zeros on all sides: x [N,C,H,W] → [N,out,H',W'].
func (m *Module) ConvBy(x, w Value, pad int) Value {
	k := w.Dim(2)
	size := func(i int) int { return x.Shape[i] + 2*pad - k + 1 }
	at := attrs{"kernel_shape": []int{k, k}, "strides": []int{1, 1}, "pads": []int{pad, pad, pad, pad}}
	return m.op("Conv", x.DType, []int{x.Shape[0], w.Dim(0), size(2), size(3)}, at, x, w)
}

// Linear is nn.Linear: x […,in] → […,out]; parameters weight [out,in] and bias [out].
func (m *Module) Linear(x Value, out int) Value {
	return m.gemm(x, out, m.Param("weight", out, x.Dim(-1)), m.Param("bias", out))
}

// LinearNoBias is nn.Linear with bias=False.
func (m *Module) LinearNoBias(x Value, out int) Value {
	return m.gemm(x, out, m.Param("weight", out, x.Dim(-1)))
}

// gemm is x·wᵀ + b over the last axis. The axes before it are merged, so that
// the weight is packed once, straight from the checkpoint, and needs no copy
// that is transposed.
func (m *Module) gemm(x Value, out int, weightAndBias ...Value) Value {
	shape := append(slices.Clone(x.Shape[:len(x.Shape)-1]), out)
	if len(shape) == 2 {
		return m.op("Gemm", x.DType, shape, attrs{"transB": 1}, append([]Value{x}, weightAndBias...)...)
	}
	rows := []int{Batch, x.Dim(-1)} // Batch stands for "what remains" in a Reshape
	x = m.op("Reshape", x.DType, rows, nil, x, m.Ints(rows...))
	y := m.op("Gemm", x.DType, []int{Batch, out}, attrs{"transB": 1}, append([]Value{x}, weightAndBias...)...)
	return m.op("Reshape", x.DType, shape, nil, y, m.Ints(shape...))
}

// MatMulTransposed is a·bᵀ: a [m,k], b [n,k] → [m,n].
func (m *Module) MatMulTransposed(a, b Value) Value {
	if a.Dim(-1) != b.Dim(-1) {
		fail("%sMatMulTransposed of %v and %v", m.prefix, a.Shape, b.Shape)
	}
	return m.op("Gemm", a.DType, []int{a.Shape[0], b.Shape[0]}, attrs{"transB": 1}, a, b)
}

// MatMulBytes is (a − zero)·b in int32: a uint8 [m,k], b int8 [k,n] → [m,n].
func (m *Module) MatMulBytes(a, b Value, zero uint8) Value {
	if a.Dim(-1) != b.Dim(-2) || a.DType != checkpoint.U8 || b.DType != checkpoint.I8 {
		fail("%sMatMulBytes of %s %v and %s %v", m.prefix, a.DType, a.Shape, b.DType, b.Shape)
	}
	return m.op("MatMulInteger", checkpoint.I32, []int{a.Shape[0], b.Shape[1]}, nil, a, b, m.Byte(zero))
}

// GroupNorm is nn.GroupNorm with its default eps, 1e-5.
func (m *Module) GroupNorm(x Value, groups int) Value { return m.GroupNormEps(x, groups, 1e-5) }

// GroupNormEps is nn.GroupNorm: x [N,C,H,W]; parameters weight and bias [C]. It
// is emitted as InstanceNormalization over the groups and a per-channel affine
// map, because GroupNormalization has no CPU kernel. In scopes in half precision it
// is guided_diffusion/nn.py GroupNorm32, which computes in float32 with such
// parameters and rounds the result.
func (m *Module) GroupNormEps(x Value, groups int, eps float64) Value {
	c, f := x.Shape[1], m.Full()
	n := f.normalizeGroups(x, groups, eps)
	scale, shift := f.Param("weight", c), f.Param("bias", c)
	y := f.op("BatchNormalization", x.DType, x.Shape, attrs{"epsilon": 0.0}, n, scale, shift, f.repeated(0, c), f.repeated(1, c))
	f.markNorm(groupNorm{x, scale, shift, groups, eps}, y)
	return m.own(y)
}

// GroupNormScaleShift is GroupNorm(x)·(1+scale)+shift with scale and shift
// [N,C]. The affine parameters are folded into scale and shift first, so that
// the image is read and written once. In half precision they are not, as rounding
// between the steps is the authors'.
func (m *Module) GroupNormScaleShift(x Value, groups int, scale, shift Value) Value {
	c := x.Shape[1]
	image := func(v Value) Value { return m.Reshape(v, v.Shape[0], c, 1, 1) }
	if m.half {
		n := m.GroupNorm(x, groups)
		return m.Add(m.Mul(n, image(m.Add(scale, m.Scalar(1)))), image(shift))
	}
	const eps = 1e-5
	n := m.normalizeGroups(x, groups, eps)
	one := m.Add(scale, m.Scalar(1))
	a := m.Mul(one, m.Param("weight", c))
	b := m.Add(m.Mul(one, m.Param("bias", c)), shift)
	y := m.Add(m.Mul(n, image(a)), image(b))
	m.markNorm(groupNorm{x, a, b, groups, eps}, y)
	return y
}

func (m *Module) normalizeGroups(x Value, groups int, eps float64) Value {
	if x.Shape[1]%groups != 0 {
		fail("%sGroupNorm: %d channels in %d groups", m.prefix, x.Shape[1], groups)
	}
	g := m.Reshape(x, x.Shape[0], groups, known(x.Shape[1:])/groups)
	n := m.op("InstanceNormalization", x.DType, g.Shape, attrs{"epsilon": eps}, g, m.repeated(1, groups), m.repeated(0, groups))
	return m.Reshape(n, x.Shape...)
}

// LayerNorm is nn.LayerNorm over the last axis, in float32: parameters weight and
// bias.
func (m *Module) LayerNorm(x Value, eps float64) Value {
	d, f := x.Dim(-1), m.Full()
	return m.own(f.op("LayerNormalization", x.DType, x.Shape, attrs{"axis": -1, "epsilon": eps}, x, f.Param("weight", d), f.Param("bias", d)))
}

// LayerNormPlain is nn.LayerNorm over the last axis with
// elementwise_affine=False, in float32.
func (m *Module) LayerNormPlain(x Value, eps float64) Value {
	f := m.Full()
	return m.own(f.op("LayerNormalization", x.DType, x.Shape, attrs{"axis": -1, "epsilon": eps}, x, f.repeated(1, x.Dim(-1))))
}

// Attention is softmax(q·kᵀ/√d)·v for heads of d = D/heads channels each:
// q [N,T,D], k and v [N,S,D] → [N,T,D]. The runtime's fused operator keeps a
// few rows of the T×S weights of each head at a time, so that memory is linear
// in T: at 4,096 tokens with 8 heads of 40 channels it takes 0.8 s and 33 MB on
// two cores, where two products and a softmax take 1.0 s and 1.1 GB an image.
func (m *Module) Attention(q, k, v Value, heads int) Value {
	if d := q.Dim(2); heads < 1 || d%heads != 0 || k.Dim(2) != d || v.Dim(2) != d || k.Dim(1) != v.Dim(1) {
		fail("%sAttention of %v, %v and %v with %d heads", m.prefix, q.Shape, k.Shape, v.Shape, heads)
	}
	y := m.ops(contribDomain, "MultiHeadAttention", q.DType, [][]int{q.Shape}, attrs{"num_heads": heads}, q, k, v)[0]
	m.g.attentions[y.Name] = AttentionShape{q.Dim(1), k.Dim(1), heads, q.Dim(2) / heads}
	return y
}

// BatchNorm is nn.BatchNorm2d in evaluation mode: parameters weight, bias,
// running_mean and running_var [C].
func (m *Module) BatchNorm(x Value, eps float64) Value {
	c := x.Shape[1]
	m.Ignore("num_batches_tracked")
	return m.op("BatchNormalization", x.DType, x.Shape, attrs{"epsilon": eps},
		x, m.Param("weight", c), m.Param("bias", c), m.Param("running_mean", c), m.Param("running_var", c))
}

// UpsampleNearest doubles height and width by repetition.
func (m *Module) UpsampleNearest(x Value) Value { return m.enlarge(x, 2) }

// enlarge is k times the height and width, by repetition.
func (m *Module) enlarge(x Value, k int) Value {
	shape := []int{x.Shape[0], x.Shape[1], k * x.Shape[2], k * x.Shape[3]}
	at := attrs{"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
	return m.op("Resize", x.DType, shape, at, x, Value{}, m.Const([]float32{1, 1, float32(k), float32(k)}, 4))
}

// Filter is nn.functional.conv2d of every channel by itself with a constant kernel
// [size,size] and zeros around: x [N,C,H,W] → [N,C,H',W'].
func (m *Module) Filter(x Value, kernel []float32, size, stride, pad int) Value {
	out := func(n int) int { return (n+2*pad-size)/stride + 1 }
	return m.filter("Conv", x, kernel, size, stride, pad, out)
}

// FilterTransposed is nn.functional.conv_transpose2d likewise.
func (m *Module) FilterTransposed(x Value, kernel []float32, size, stride, pad int) Value {
	out := func(n int) int { return (n-1)*stride - 2*pad + size }
	return m.filter("ConvTranspose", x, kernel, size, stride, pad, out)
}

func (m *Module) filter(kind string, x Value, kernel []float32, size, stride, pad int, out func(int) int) Value {
	c := x.Shape[1]
	w := m.Const(slices.Repeat(kernel, c), c, 1, size, size)
	at := attrs{"group": c, "kernel_shape": []int{size, size}, "strides": []int{stride, stride}, "pads": []int{pad, pad, pad, pad}}
	return m.op(kind, x.DType, []int{x.Shape[0], c, out(x.Shape[2]), out(x.Shape[3])}, at, x, w)
}

// A Pool describes a pooling window, square, padded on all sides alike.
type Pool struct{ Kernel, Stride, Pad int }

func (m *Module) pool(kind string, x Value, p Pool, at attrs) Value {
	size := func(i int) int { return (x.Shape[i]+2*p.Pad-p.Kernel)/p.Stride + 1 }
	if len(x.Shape) == 5 {
		return m.blockedPool(kind, x, p, size(2), size(3))
	}
	at["kernel_shape"] = []int{p.Kernel, p.Kernel}
	at["strides"] = []int{p.Stride, p.Stride}
	at["pads"] = []int{p.Pad, p.Pad, p.Pad, p.Pad}
	return m.op(kind, x.DType, []int{x.Shape[0], x.Shape[1], size(2), size(3)}, at, x)
}

// AveragePool is nn.AvgPool2d with count_include_pad=False, of an image [N,C,H,W]
// or a blocked one.
func (m *Module) AveragePool(x Value, p Pool) Value {
	return m.pool("AveragePool", x, p, attrs{"count_include_pad": 0})
}

// MaxPool is nn.MaxPool2d, of an image [N,C,H,W] or a blocked one.
func (m *Module) MaxPool(x Value, p Pool) Value { return m.pool("MaxPool", x, p, attrs{}) }

// TimestepEmbedding is the sinusoidal embedding of t […] (float32) in dim
// values each, […,dim], cosines first: guided_diffusion/nn.py timestep_embedding. The
// frequencies are rounded to float32 after every operation, as there. It is computed in
// float32 in every scope: the phase of a large timestep is lost in half precision.
func (m *Module) TimestepEmbedding(t Value, dim int, maxPeriod float64) Value {
	return m.Sinusoids(t, dim, maxPeriod, 0, false)
}

// Sinusoids is TimestepEmbedding with the options of diffusers' models/embeddings.py
// get_timestep_embedding: downscale_freq_shift, and sines before cosines
// (flip_sin_to_cos false).
func (m *Module) Sinusoids(t Value, dim int, maxPeriod float64, shift int, sinesFirst bool) Value {
	m = &Module{m.g, m.prefix, false}
	half := dim / 2
	freqs := make([]float32, half)
	for i := range freqs {
		exponent := float32(-math.Log(maxPeriod)*float64(i)) / float32(half-shift)
		freqs[i] = float32(math.Exp(float64(exponent)))
	}
	axis := len(t.Shape)
	last := slices.Repeat([]int{1}, axis+1)
	last[axis] = half
	arg := m.Mul(m.Reshape(t, append(slices.Clone(t.Shape), 1)...), m.Const(freqs, last...))
	parts := []Value{m.Cos(arg), m.Sin(arg)}
	if sinesFirst {
		parts = []Value{m.Sin(arg), m.Cos(arg)}
	}
	if dim%2 == 1 {
		parts = append(parts, m.Mul(m.Slice(arg, axis, 0, 1), m.Scalar(0)))
	}
	return m.Concat(axis, parts...)
}

// Embedding is nn.Embedding: rows of weight [count,dim] picked by y [N] int64.
func (m *Module) Embedding(y Value, count, dim int) Value {
	if y.DType != checkpoint.I64 {
		fail("%sEmbedding of %s labels", m.prefix, y.DType)
	}
	return m.Gather(m.Param("weight", count, dim), y)
}
