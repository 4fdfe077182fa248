package onnx

import (
	"encoding/binary"
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
