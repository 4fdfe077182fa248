package ort

import (
	"fmt"
	"unsafe"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/checkpoint"
	"sagbench/sampling/tensor"
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

// An elementType is an element type of arrays, in Go and in the runtime.
type elementType struct {
	dtype  checkpoint.DType
	zeros  func(n int) any                                  // a slice
	is     func(data any) bool                              // whether data is such a slice
	value  func(shape rt.Shape, data any) (rt.Value, error) // data's own memory
	copied func(v rt.Value) any                             // a slice; nil of a value of another type
	fill   func(data any, from unsafe.Pointer)              // data, a slice, with as many elements from there
}

func elementOf[T rt.TensorData](t checkpoint.DType) elementType {
	return elementType{
		dtype: t,
		zeros: func(n int) any { return make([]T, n) },
		is:    func(data any) bool { _, ok := data.([]T); return ok },
		value: func(shape rt.Shape, data any) (rt.Value, error) {
			if n := len(data.([]T)); int64(n) != shape.FlattenedSize() {
				return nil, fmt.Errorf("%d values for shape %v", n, shape)
			}
			return rt.NewTensor(shape, data.([]T))
		},
		copied: func(v rt.Value) any {
			if t, ok := v.(*rt.Tensor[T]); ok {
				return append([]T{}, t.GetData()...)
			}
			return nil
		},
		fill: func(data any, from unsafe.Pointer) {
			to := data.([]T)
			copy(to, unsafe.Slice((*T)(from), len(to)))
		},
	}
}

var elementTypes = []elementType{
	elementOf[float32](checkpoint.F32), elementOf[float64](checkpoint.F64), elementOf[int64](checkpoint.I64),
	elementOf[int32](checkpoint.I32), elementOf[int8](checkpoint.I8), elementOf[uint8](checkpoint.U8),
}

// newArray allocates an array of the element type for an output.
func newArray(t checkpoint.DType, shape []int) (Array, error) {
	for _, e := range elementTypes {
		if e.dtype == t {
			return Array{Shape: shape, Data: e.zeros(tensor.Size(shape))}, nil
		}
	}
	return Array{}, fmt.Errorf("element type %s cannot leave a graph", t)
}

// fill copies the array's elements from memory that holds as many.
func (a Array) fill(from unsafe.Pointer) { a.elementType().fill(a.Data, from) }

// arrayOf copies a value that the runtime allocated.
func arrayOf(v rt.Value) (Array, error) {
	var a Array
	for _, d := range v.GetShape() {
		a.Shape = append(a.Shape, int(d))
	}
	for _, e := range elementTypes {
		if a.Data = e.copied(v); a.Data != nil {
			return a, nil
		}
	}
	return a, fmt.Errorf("a value of type %T cannot leave a graph", v)
}

// elementType is the type of the elements; its dtype is empty where a graph takes
// none such.
func (a Array) elementType() elementType {
	for _, e := range elementTypes {
		if e.is(a.Data) {
			return e
		}
	}
	return elementType{}
}

// value hands the array's own memory to the runtime.
func (a Array) value() (rt.Value, error) {
	e := a.elementType()
	if e.dtype == "" {
		return nil, fmt.Errorf("element type %T cannot enter a graph", a.Data)
	}
	shape := make(rt.Shape, len(a.Shape))
	for i, d := range a.Shape {
		shape[i] = int64(d)
	}
	return e.value(shape, a.Data)
}
