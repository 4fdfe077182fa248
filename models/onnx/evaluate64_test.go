package onnx

import (
	"fmt"
	"math"
	"slices"
)

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
