package ort

import (
	"fmt"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/checkpoint"
	"sagbench/models/tensor"
)

// An Array is a dense array of one of the element types that graphs take and
// give: Data is []float32, []float64, []int64, []int32, []int8 or []uint8.
type Array struct {
	Shape []int
	Data  any
}

// Floats wraps a float32 tensor; it shares memory.
func Floats(t tensor.Tensor) Array { return Array{Shape: t.Shape, Data: t.Data} }

// Tensor is the array as a float32 tensor; it shares memory. It panics when
// the element type is another, which the graph's Info tells beforehand.
func (a Array) Tensor() tensor.Tensor { return tensor.Of(a.Data.([]float32), a.Shape...) }

// newArray allocates an array of the element type for an output.
func newArray(t checkpoint.DType, shape []int) (Array, error) {
	n := tensor.Size(shape)
	a := Array{Shape: shape}
	switch t {
	case checkpoint.F32:
		a.Data = make([]float32, n)
	case checkpoint.F64:
		a.Data = make([]float64, n)
	case checkpoint.I64:
		a.Data = make([]int64, n)
	case checkpoint.I32:
		a.Data = make([]int32, n)
	case checkpoint.I8:
		a.Data = make([]int8, n)
	case checkpoint.U8:
		a.Data = make([]uint8, n)
	default:
		return a, fmt.Errorf("element type %s cannot leave a graph", t)
	}
	return a, nil
}

// value hands the array's own memory to the runtime.
func (a Array) value() (rt.Value, error) {
	shape := make(rt.Shape, len(a.Shape))
	for i, d := range a.Shape {
		shape[i] = int64(d)
	}
	switch d := a.Data.(type) {
	case []float32:
		return newTensor(shape, d)
	case []float64:
		return newTensor(shape, d)
	case []int64:
		return newTensor(shape, d)
	case []int32:
		return newTensor(shape, d)
	case []int8:
		return newTensor(shape, d)
	case []uint8:
		return newTensor(shape, d)
	}
	return nil, fmt.Errorf("element type %T cannot enter a graph", a.Data)
}

func newTensor[T rt.TensorData](shape rt.Shape, data []T) (rt.Value, error) {
	if int64(len(data)) != shape.FlattenedSize() {
		return nil, fmt.Errorf("%d values for shape %v", len(data), shape)
	}
	return rt.NewTensor(shape, data)
}

func (a Array) dtype() checkpoint.DType {
	switch a.Data.(type) {
	case []float32:
		return checkpoint.F32
	case []float64:
		return checkpoint.F64
	case []int64:
		return checkpoint.I64
	case []int32:
		return checkpoint.I32
	case []int8:
		return checkpoint.I8
	case []uint8:
		return checkpoint.U8
	}
	return ""
}
