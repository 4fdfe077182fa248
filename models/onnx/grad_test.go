package onnx_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// A gradCase is an operator as a function of inputs a, b, … of the given shapes,
// the first length of which is the batch's where it is 2.
type gradCase struct {
	shapes [][]int
	f      func(m *onnx.Module, in []onnx.Value) onnx.Value
	params map[string][]int
	shift  float64 // added to the inputs, which are N(0,1)
}

func unary(f func(*onnx.Module, onnx.Value) onnx.Value, shape ...int) gradCase {
	return gradCase{shapes: [][]int{shape}, f: func(m *onnx.Module, in []onnx.Value) onnx.Value { return f(m, in[0]) }}
}

func binary(f func(m *onnx.Module, a, b onnx.Value) onnx.Value, a, b []int) gradCase {
	return gradCase{shapes: [][]int{a, b}, f: func(m *onnx.Module, in []onnx.Value) onnx.Value { return f(m, in[0], in[1]) }}
}

// with are parameters that the operator asks for.
func (c gradCase) with(name string, shape ...int) gradCase {
	c.params = maps.Clone(c.params)
	if c.params == nil {
		c.params = map[string][]int{}
	}
	c.params[name] = shape
	return c
}

func (c gradCase) shifted(by float64) gradCase {
	c.shift = by
	return c
}

func conv(x []int, c onnx.Conv) gradCase {
	stored := []int{c.Out, x[1], c.Kernel[0], c.Kernel[1]}
	if c.StoredKernel1D {
		stored = stored[:3]
	}
	g := unary(func(m *onnx.Module, v onnx.Value) onnx.Value { return m.Conv(v, c) }, x...).with("weight", stored...)
	if !c.NoBias {
		g = g.with("bias", c.Out)
	}
	return g
}

var gradCases = map[string]gradCase{
	"add":       binary((*onnx.Module).Add, []int{2, 3, 4}, []int{2, 3, 4}),
	"add row":   binary((*onnx.Module).Add, []int{2, 3, 4}, []int{4}),
	"sub":       binary((*onnx.Module).Sub, []int{2, 3, 4}, []int{2, 3, 1}),
	"mul":       binary((*onnx.Module).Mul, []int{2, 3, 1}, []int{2, 1, 4}),
	"div":       binary((*onnx.Module).Div, []int{2, 3, 4}, []int{2, 3, 4}).shifted(4),
	"neg":       unary((*onnx.Module).Neg, 2, 5),
	"exp":       unary((*onnx.Module).Exp, 2, 5),
	"sqrt":      unary((*onnx.Module).Sqrt, 2, 5).shifted(4),
	"cos":       unary((*onnx.Module).Cos, 2, 5),
	"sin":       unary((*onnx.Module).Sin, 2, 5),
	"sigmoid":   unary((*onnx.Module).Sigmoid, 2, 5),
	"relu":      unary((*onnx.Module).ReLU, 2, 20),
	"silu":      unary((*onnx.Module).SiLU, 2, 5),
	"gelu":      unary((*onnx.Module).GELU, 2, 20),
	"tanh gelu": unary((*onnx.Module).TanhGELU, 2, 20),
	"quickgelu": unary((*onnx.Module).QuickGELU, 2, 20),
	"clip":      unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Clip(x, -0.5, 0.7) }, 2, 20),
	"cast": unary(func(m *onnx.Module, x onnx.Value) onnx.Value {
		return m.Cast(m.Cast(x, checkpoint.F64), checkpoint.F32)
	}, 2, 5),
	"softmax":    unary((*onnx.Module).Softmax, 2, 3, 7),
	"logsoftmax": unary((*onnx.Module).LogSoftmax, 2, 7),
	"square":     unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Mul(x, x) }, 2, 5),

	"reshape":   unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Reshape(x, onnx.Batch, 2, 6) }, 2, 3, 4),
	"transpose": unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Transpose(x, 0, 3, 1, 2) }, 2, 3, 4, 5),
	"concat":    binary(func(m *onnx.Module, a, b onnx.Value) onnx.Value { return m.Concat(1, a, b, a) }, []int{2, 3, 4}, []int{2, 2, 4}),
	"split": unary(func(m *onnx.Module, x onnx.Value) onnx.Value {
		s := m.Split(x, 1, 3) // nothing depends on the second part
		return m.Mul(s[0], s[2])
	}, 2, 6, 4),
	"slice":  unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Slice(x, 2, 1, 3) }, 2, 3, 4),
	"gather": unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Gather(x, m.Ints(4, 0, 4)) }, 5, 3),
	"mean":   unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Mean(x, 2, 3) }, 2, 3, 4, 5),
	"sum":    unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Sum(x, 1) }, 2, 3, 4),

	"matmul":            binary((*onnx.Module).MatMul, []int{2, 3, 4, 5}, []int{2, 3, 5, 2}),
	"matmul broadcast":  binary((*onnx.Module).MatMul, []int{2, 3, 4, 5}, []int{5, 2}),
	"matmul row":        binary((*onnx.Module).MatMul, []int{1, 4}, []int{2, 4, 3}),
	"matmul transposed": binary((*onnx.Module).MatMulTransposed, []int{2, 5}, []int{3, 5}),
	"linear":            unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Linear(x, 3) }, 2, 5).with("weight", 3, 5).with("bias", 3),
	"linear tokens":     unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.LinearNoBias(x, 3) }, 2, 4, 5).with("weight", 3, 5),

	"conv":          conv([]int{2, 3, 5, 6}, onnx.Conv{Out: 4, Kernel: [2]int{3, 3}, Stride: 1, Pad: [2]int{1, 1}}),
	"conv 1x1":      conv([]int{2, 3, 5, 6}, onnx.Conv{Out: 4, Kernel: [2]int{1, 1}, Stride: 1, StoredKernel1D: true}),
	"conv oblong":   conv([]int{2, 3, 5, 6}, onnx.Conv{Out: 4, Kernel: [2]int{1, 5}, Stride: 1, Pad: [2]int{0, 2}, NoBias: true}),
	"conv unpadded": conv([]int{2, 3, 5, 6}, onnx.Conv{Out: 4, Kernel: [2]int{3, 2}, Stride: 1}),
	"conv wide pad": conv([]int{2, 3, 5, 6}, onnx.Conv{Out: 4, Kernel: [2]int{1, 1}, Stride: 1, Pad: [2]int{1, 2}}),
	"conv strided":  conv([]int{2, 3, 6, 7}, onnx.Conv{Out: 4, Kernel: [2]int{3, 3}, Stride: 2, Pad: [2]int{1, 1}}),
	"conv after":    conv([]int{2, 3, 6, 7}, onnx.Conv{Out: 4, Kernel: [2]int{3, 3}, Stride: 2, After: [2]int{1, 1}}),
	"conv patches":  conv([]int{2, 3, 6, 4}, onnx.Conv{Out: 4, Kernel: [2]int{2, 2}, Stride: 2}),

	"groupnorm":     unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.GroupNorm(x, 2) }, 2, 4, 3, 3).with("weight", 4).with("bias", 4),
	"groupnorm row": unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.GroupNorm(x, 2) }, 2, 8).with("weight", 8).with("bias", 8),
	"groupnorm scale shift": {shapes: [][]int{{2, 4, 3, 3}, {2, 4}, {2, 4}}, f: func(m *onnx.Module, in []onnx.Value) onnx.Value {
		return m.GroupNormScaleShift(in[0], 2, in[1], in[2])
	}, params: map[string][]int{"weight": {4}, "bias": {4}}},
	"batchnorm": unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.BatchNorm(x, 1e-3) }, 2, 4, 3, 3).
		with("weight", 4).with("bias", 4).with("running_mean", 4).with("running_var", 4),
	"layernorm":       unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.LayerNorm(x, 1e-5) }, 2, 3, 8).with("weight", 8).with("bias", 8),
	"layernorm plain": unary(func(m *onnx.Module, x onnx.Value) onnx.Value { return m.LayerNormPlain(x, 1e-6) }, 2, 3, 8),
	"averagepool": unary(func(m *onnx.Module, x onnx.Value) onnx.Value {
		return m.AveragePool(x, onnx.Pool{Kernel: 2, Stride: 2})
	}, 2, 3, 4, 6),
	"upsample": unary((*onnx.Module).UpsampleNearest, 2, 3, 2, 3),
	"attention": {shapes: [][]int{{2, 3, 8}, {2, 5, 8}, {2, 5, 8}}, f: func(m *onnx.Module, in []onnx.Value) onnx.Value {
		return m.Attention(in[0], in[1], in[2], 2)
	}},
}

// run builds f, which names its outputs, on weights and inputs.
func run(t *testing.T, sd checkpoint.StateDict, inputs map[string]ort.Array, f func(*onnx.Module)) map[string]ort.Array {
	t.Helper()
	model, err := onnx.Build(sd, f)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ort.Open(model, ort.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run(t.Context(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// normal is a tensor of N(shift, 1).
func normal(rng *rand.Rand, shift float64, shape ...int) tensor.Tensor {
	x := tensor.New(shape...)
	for i := range x.Data {
		x.Data[i] = float32(shift + rng.NormFloat64())
	}
	return x
}

func double(x tensor.Tensor) onnx.Array64 {
	a := onnx.Array64{Shape: x.Shape}
	for _, v := range x.Data {
		a.Data = append(a.Data, float64(v))
	}
	return a
}

// Every operator's product equals central differences, in float64, of what the
// operator is by its definition; and so does what the runtime makes of it.
func TestGrad(t *testing.T) {
	tested := map[string]bool{}
	for name, c := range gradCases {
		t.Run(name, func(t *testing.T) {
			for kind, is := range checkGrad(t, c) {
				tested[kind] = tested[kind] || is
			}
		})
	}
	for kind, is := range tested {
		if !is {
			t.Errorf("no case differentiates %s", kind)
		}
	}
}

// checkGrad tells which operators the case has.
func checkGrad(t *testing.T, c gradCase) (kinds map[string]bool) {
	rng := rand.New(rand.NewPCG(1, 2))
	sd := checkpoint.StateDict{}
	for _, name := range slices.Sorted(maps.Keys(c.params)) {
		p := normal(rng, 0, c.params[name]...)
		if name == "running_var" {
			p = normal(rng, 5, c.params[name]...)
		}
		sd[name] = checkpoint.FromFloat32(p.Data, p.Shape...)
	}
	inputs, exact := map[string]ort.Array{}, map[string]onnx.Array64{}
	var names []string
	for i, shape := range c.shapes {
		x := normal(rng, c.shift, shape...)
		name := string(rune('a' + i))
		names, inputs[name], exact[name] = append(names, name), ort.Floats(x), double(x)
	}
	const h = 1e-5
	var cotangent tensor.Tensor
	want := map[string][]float64{}
	var forward onnx.Array64
	out := run(t, sd, inputs, func(m *onnx.Module) {
		var in []onnx.Value
		for i, shape := range c.shapes {
			open := slices.Clone(shape)
			if open[0] == 2 {
				open[0] = onnx.Batch
			}
			in = append(in, m.Input(names[i], checkpoint.F32, open...))
		}
		y := c.f(m, in)
		kinds = m.Differentiable()
		forward = m.Evaluate64(y, exact)
		cotangent = normal(rng, 0, forward.Shape...)
		along := func() (sum float64) {
			for i, v := range m.Evaluate64(y, exact).Data {
				sum += v * float64(cotangent.Data[i])
			}
			return sum
		}
		for _, name := range names {
			for i := range exact[name].Data {
				x := &exact[name].Data[i]
				before := *x
				*x = before + h
				up := along()
				*x = before - h
				want[name] = append(want[name], (up-along())/(2*h))
				*x = before
			}
		}
		m.Output("y", y)
		dy := m.Const(cotangent.Data, cotangent.Shape...)
		dy.Shape = y.Shape
		for i, name := range names {
			m.Output("d"+name, m.Grad(y, dy, in[i]))
		}
	})
	near(t, "y", out["y"], forward.Data)
	for _, name := range names {
		near(t, "d"+name, out["d"+name], want[name])
		if !slices.Equal(out["d"+name].Shape, inputs[name].Shape) {
			t.Errorf("d%s has shape %v, want %v", name, out["d"+name].Shape, inputs[name].Shape)
		}
	}
	return kinds
}

// near compares within what float32 arithmetic leaves, of the largest value.
func near(t *testing.T, name string, got ort.Array, want []float64) {
	t.Helper()
	largest := 1e-30
	for _, v := range want {
		largest = max(largest, math.Abs(v))
	}
	for i, v := range got.Tensor().Data {
		if d := math.Abs(float64(v) - want[i]); !(d <= 5e-6*largest) {
			t.Errorf("%s[%d] is %g, want %g", name, i, v, want[i])
		}
	}
}

// What cannot be differentiated is an error that names the operator and its scope.
func TestGradErrors(t *testing.T) {
	for want, f := range map[string]func(m *onnx.Module, x onnx.Value) onnx.Value{
		"stem.pool.MaxPool cannot be differentiated": func(m *onnx.Module, x onnx.Value) onnx.Value {
			return m.In("stem.pool").MaxPool(x, onnx.Pool{Kernel: 2, Stride: 2})
		},
		"pool.AveragePool cannot be differentiated: its windows overlap": func(m *onnx.Module, x onnx.Value) onnx.Value {
			return m.In("pool").AveragePool(x, onnx.Pool{Kernel: 3, Stride: 1, Pad: 1})
		},
		"does not depend on": func(m *onnx.Module, x onnx.Value) onnx.Value { return m.Scalar(1) },
	} {
		_, err := onnx.Build(nil, func(m *onnx.Module) {
			x := m.Input("x", checkpoint.F32, onnx.Batch, 3, 4, 4)
			y := f(m, x)
			m.Output("dx", m.Grad(y, y, x))
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	_, err := onnx.Build(nil, func(m *onnx.Module) {
		x := m.Input("x", checkpoint.F32, 2, 3)
		m.Grad(m.Exp(x), m.Sum(x, 1), x)
	})
	if err == nil || !strings.Contains(err.Error(), "the cotangent of [2 3] has shape [2]") {
		t.Error(err)
	}
}
