package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"sagbench/models/checkpoint"
)

// An Array64 is a tensor of an evaluation in float64.
type Array64 struct {
	Shape []int
	Data  []float64
}

// Differentiable lists the operators that have a vector-Jacobian product, and
// tells which the graph holds.
func (m *Module) Differentiable() map[string]bool {
	kinds := map[string]bool{}
	for kind := range vjps {
		kinds[kind] = slices.ContainsFunc(m.g.nodes, func(n node) bool { return n.kind == kind })
	}
	return kinds
}

func zeros64(shape ...int) Array64 {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return Array64{slices.Clone(shape), make([]float64, n)}
}

// at is the value at an index of as many axes, or of fewer lengths 1 broadcast.
func (a Array64) at(index []int) float64 {
	k := 0
	for i, d := range a.Shape {
		j := index[len(index)-len(a.Shape)+i]
		if d == 1 {
			j = 0
		}
		k = k*d + j
	}
	return a.Data[k]
}

// each visits all indices of a shape in order.
func each(shape []int, visit func(k int, index []int)) {
	index := make([]int, len(shape))
	for k := range zeros64(shape...).Data {
		rest := k
		for i := len(shape) - 1; i >= 0; i-- {
			index[i], rest = rest%shape[i], rest/shape[i]
		}
		visit(k, index)
	}
}

// Evaluate64 computes v by the operators' definitions in float64, from the
// inputs, parameters and constants of the graph: an account of the operators
// that shares nothing with the runtime's or with the derivatives.
func (m *Module) Evaluate64(v Value, inputs map[string]Array64) Array64 {
	known := map[string]Array64{}
	for name, a := range inputs {
		known[name] = a
	}
	for _, p := range m.g.proto.Initializer {
		a := Array64{Data: []float64{}}
		for _, d := range p.Dims {
			a.Shape = append(a.Shape, int(d))
		}
		for raw := p.RawData; len(raw) > 0; {
			if p.GetDataType() == int32(protoTypes[checkpoint.I64]) {
				a.Data, raw = append(a.Data, float64(int64(binary.LittleEndian.Uint64(raw)))), raw[8:]
			} else {
				a.Data, raw = append(a.Data, float64(math.Float32frombits(binary.LittleEndian.Uint32(raw)))), raw[4:]
			}
		}
		known[p.GetName()] = a
	}
	for _, n := range m.g.nodes {
		if _, done := known[v.Name]; done {
			break
		}
		in := make([]Array64, len(n.in))
		for i, x := range n.in {
			in[i] = known[x.Name]
		}
		for i, y := range n.evaluate(in) {
			known[n.out[i].Name] = y
		}
	}
	return known[v.Name]
}

var unary64 = map[string]func(float64) float64{
	"Neg": func(x float64) float64 { return -x }, "Exp": math.Exp, "Sqrt": math.Sqrt, "Cos": math.Cos, "Sin": math.Sin,
	"Sigmoid": func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, "Relu": func(x float64) float64 { return max(x, 0) },
	"Cast": func(x float64) float64 { return x },
}

var binary64 = map[string]func(a, b float64) float64{
	"Add": func(a, b float64) float64 { return a + b }, "Sub": func(a, b float64) float64 { return a - b },
	"Mul": func(a, b float64) float64 { return a * b }, "Div": func(a, b float64) float64 { return a / b },
}

func (n *node) evaluate(in []Array64) []Array64 {
	x := in[0]
	if f, ok := unary64[n.kind]; ok {
		return []Array64{x.mapped(f)}
	}
	if f, ok := binary64[n.kind]; ok {
		y := zeros64(broadcast(in[0].Shape, in[1].Shape)...)
		each(y.Shape, func(k int, index []int) { y.Data[k] = f(in[0].at(index), in[1].at(index)) })
		return []Array64{y}
	}
	switch n.kind {
	case "SiLU":
		sigmoid := x.mapped(unary64["Sigmoid"])
		y := zeros64(x.Shape...)
		for i, s := range sigmoid.Data {
			y.Data[i] = x.Data[i] * s
		}
		return []Array64{y, sigmoid}
	case "Gelu":
		if n.at["approximate"] == "tanh" {
			return []Array64{x.mapped(func(x float64) float64 {
				return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+float64(float32(0.044715))*x*x*x)))
			})}
		}
		return []Array64{x.mapped(func(x float64) float64 { return x / 2 * math.Erfc(-x/math.Sqrt2) })}
	case "Clip":
		return []Array64{x.mapped(func(v float64) float64 { return max(in[1].Data[0], min(v, in[2].Data[0])) })}
	case "Softmax", "LogSoftmax":
		return []Array64{x.rows(func(y, x []float64) {
			sum := 0.0
			for _, v := range x {
				sum += math.Exp(v)
			}
			for i, v := range x {
				if y[i] = math.Exp(v) / sum; n.kind == "LogSoftmax" {
					y[i] = v - math.Log(sum)
				}
			}
		})}
	case "InstanceNormalization", "LayerNormalization":
		y := x.rows(func(y, x []float64) { normalize64(y, x, n.at["epsilon"].(float64)) })
		if n.kind == "LayerNormalization" {
			each(y.Shape, func(k int, index []int) {
				if y.Data[k] *= in[1].at(index); len(in) > 2 {
					y.Data[k] += in[2].at(index)
				}
			})
		}
		return []Array64{y}
	case "BatchNormalization":
		y := zeros64(x.Shape...)
		each(y.Shape, func(k int, index []int) {
			c := index[1]
			y.Data[k] = (x.Data[k]-in[3].Data[c])/math.Sqrt(in[4].Data[c]+n.at["epsilon"].(float64))*in[1].Data[c] + in[2].Data[c]
		})
		return []Array64{y}
	}
	return n.evaluateShapes(in)
}

// evaluateShapes are the operators that move values between places.
func (n *node) evaluateShapes(in []Array64) []Array64 {
	x := in[0]
	switch n.kind {
	case "Reshape":
		shape, size, rest := []int{}, len(x.Data), -1
		for i, d := range in[1].Data {
			if shape = append(shape, int(d)); d < 0 {
				rest = i
			} else {
				size /= int(d)
			}
		}
		if rest >= 0 {
			shape[rest] = size
		}
		return []Array64{{shape, x.Data}}
	case "Transpose":
		perm := n.at["perm"].([]int)
		shape := make([]int, len(perm))
		for i, p := range perm {
			shape[i] = x.Shape[p]
		}
		y, from := zeros64(shape...), make([]int, len(perm))
		each(shape, func(k int, index []int) {
			for i, p := range perm {
				from[p] = index[i]
			}
			y.Data[k] = x.at(from)
		})
		return []Array64{y}
	case "Concat":
		axis := n.number("axis")
		y, from := zeros64(x.Shape...), 0
		y.Shape[axis] = 0
		for _, part := range in {
			y.Shape[axis] += part.Shape[axis]
		}
		y = zeros64(y.Shape...)
		for _, part := range in {
			y.paste(part, axis, from)
			from += part.Shape[axis]
		}
		return []Array64{y}
	case "Split":
		var parts []Array64
		for i := range n.out {
			size := x.Shape[n.number("axis")] / len(n.out)
			parts = append(parts, x.cut(n.number("axis"), i*size, (i+1)*size))
		}
		return parts
	case "Slice":
		return []Array64{x.cut(int(in[3].Data[0]), int(in[1].Data[0]), int(in[2].Data[0]))}
	case "Gather":
		y := zeros64(append(slices.Clone(in[1].Shape), x.Shape[1:]...)...)
		row := len(x.Data) / x.Shape[0]
		for i, j := range in[1].Data {
			copy(y.Data[i*row:(i+1)*row], x.Data[int(j)*row:])
		}
		return []Array64{y}
	case "ReduceMean", "ReduceSum":
		return []Array64{x.reduced(in[1].Data, n.kind == "ReduceMean")}
	}
	return n.evaluateProducts(in)
}

// evaluateProducts are the operators with sums of products.
func (n *node) evaluateProducts(in []Array64) []Array64 {
	x := in[0]
	switch n.kind {
	case "MatMul":
		return []Array64{product64(x, in[1])}
	case "Gemm":
		y := product64(x, in[1].swapped())
		if len(in) > 2 {
			each(y.Shape, func(k int, index []int) { y.Data[k] += in[2].at(index) })
		}
		return []Array64{y}
	case "Conv":
		w, pads, stride := in[1], n.at["pads"].([]int), n.at["strides"].([]int)[0]
		y := zeros64(x.Shape[0], w.Shape[0], n.out[0].Shape[2], n.out[0].Shape[3])
		each(y.Shape, func(k int, o []int) {
			if len(in) > 2 {
				y.Data[k] = in[2].Data[o[1]]
			}
			each(w.Shape[1:], func(_ int, i []int) {
				row, col := o[2]*stride+i[1]-pads[0], o[3]*stride+i[2]-pads[1]
				if row >= 0 && col >= 0 && row < x.Shape[2] && col < x.Shape[3] {
					y.Data[k] += x.at([]int{o[0], i[0], row, col}) * w.at([]int{o[1], i[0], i[1], i[2]})
				}
			})
		})
		return []Array64{y}
	case "AveragePool", "Resize":
		y := zeros64(append(slices.Clone(x.Shape[:2]), n.out[0].Shape[2:]...)...)
		fine, coarse := x.Shape, y.Shape
		if n.kind == "Resize" {
			fine, coarse = coarse, fine
		}
		k := fine[2] / coarse[2]
		each(fine, func(_ int, f []int) {
			c := []int{f[0], f[1], f[2] / k, f[3] / k}
			if n.kind == "Resize" {
				y.Data[y.place(f)] = x.at(c)
			} else {
				y.Data[y.place(c)] += x.at(f) / float64(k*k)
			}
		})
		return []Array64{y}
	case "MultiHeadAttention":
		return []Array64{attention64(in[0], in[1], in[2], n.number("num_heads"))}
	}
	panic(fmt.Sprintf("%s is not evaluated here", n.kind))
}

func (a Array64) place(index []int) (k int) {
	for i, d := range a.Shape {
		k = k*d + index[i]
	}
	return k
}

func (a Array64) mapped(f func(float64) float64) Array64 {
	y := zeros64(a.Shape...)
	for i, v := range a.Data {
		y.Data[i] = f(v)
	}
	return y
}

// rows applies f to every row along the last axis.
func (a Array64) rows(f func(y, x []float64)) Array64 {
	y, n := zeros64(a.Shape...), a.Shape[len(a.Shape)-1]
	for i := 0; i < len(a.Data); i += n {
		f(y.Data[i:i+n], a.Data[i:i+n])
	}
	return y
}

func normalize64(y, x []float64, eps float64) {
	mean, square := 0.0, 0.0
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		square += (v - mean) * (v - mean) / float64(len(x))
	}
	for i, v := range x {
		y[i] = (v - mean) / math.Sqrt(square+eps)
	}
}

func (a Array64) cut(axis, from, to int) Array64 {
	shape := slices.Clone(a.Shape)
	shape[axis] = to - from
	y := zeros64(shape...)
	each(shape, func(k int, index []int) {
		index[axis] += from
		y.Data[k] = a.at(index)
		index[axis] -= from
	})
	return y
}

func (a Array64) paste(part Array64, axis, from int) {
	each(part.Shape, func(k int, index []int) {
		index[axis] += from
		a.Data[a.place(index)] = part.Data[k]
		index[axis] -= from
	})
}

func (a Array64) reduced(axes []float64, mean bool) Array64 {
	kept, shape := slices.Clone(a.Shape), []int{}
	for i, d := range a.Shape {
		if slices.Contains(axes, float64(i)) {
			kept[i] = 1
		} else {
			shape = append(shape, d)
		}
	}
	y := zeros64(kept...)
	each(a.Shape, func(k int, index []int) {
		to := slices.Clone(index)
		for i, d := range kept {
			if d == 1 {
				to[i] = 0
			}
		}
		y.Data[y.place(to)] += a.Data[k]
	})
	if mean {
		y = y.mapped(func(v float64) float64 { return v * float64(len(y.Data)) / float64(len(a.Data)) })
	}
	return Array64{shape, y.Data}
}

// swapped exchanges the last two axes.
func (a Array64) swapped() Array64 {
	shape := slices.Clone(a.Shape)
	n := len(shape)
	shape[n-1], shape[n-2] = shape[n-2], shape[n-1]
	y := zeros64(shape...)
	each(shape, func(k int, index []int) {
		from := slices.Clone(index)
		from[n-1], from[n-2] = from[n-2], from[n-1]
		y.Data[k] = a.at(from)
	})
	return y
}

func product64(a, b Array64) Array64 {
	n := len(a.Shape)
	lead := broadcast(a.Shape[:n-2], b.Shape[:len(b.Shape)-2])
	y := zeros64(append(lead, a.Shape[n-2], b.Shape[len(b.Shape)-1])...)
	each(y.Shape, func(k int, index []int) {
		last := len(index) - 1
		l, r := slices.Clone(index), slices.Clone(index)
		for j := range a.Shape[n-1] {
			l[last], r[last-1] = j, j
			y.Data[k] += a.at(l) * b.at(r)
		}
	})
	return y
}

func attention64(q, k, v Array64, heads int) Array64 {
	y, d := zeros64(q.Shape...), q.Shape[2]/heads
	for h := range heads {
		part := func(a Array64) Array64 { return a.cut(2, h*d, (h+1)*d) }
		logits := product64(part(q), part(k).swapped()).mapped(func(v float64) float64 { return v / math.Sqrt(float64(d)) })
		w := (&node{kind: "Softmax"}).evaluate([]Array64{logits})[0]
		y.paste(product64(w, part(v)), 2, h*d)
	}
	return y
}
