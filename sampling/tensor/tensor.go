// Package tensor holds the one array type that travels between the packages:
// a dense, row-major float32 array with its shape. Images are [N,C,H,W].
package tensor

import (
	"fmt"
	"slices"
)

// A Tensor is a dense row-major array. The zero Tensor is empty; IsZero tells
// it from a tensor that was computed.
type Tensor struct {
	Shape []int
	Data  []float32
}

// New returns a zero-filled tensor of the given shape.
func New(shape ...int) Tensor {
	return Tensor{Shape: slices.Clone(shape), Data: make([]float32, Size(shape))}
}

// Of wraps data; it panics if the length is not the product of the shape,
// which is a programmer's error.
func Of(data []float32, shape ...int) Tensor {
	if len(data) != Size(shape) {
		panic(fmt.Sprintf("tensor: %d values for shape %v", len(data), shape))
	}
	return Tensor{Shape: slices.Clone(shape), Data: data}
}

// Size is the number of elements of a shape; the empty shape is a scalar.
func Size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// IsZero reports whether the tensor is the zero Tensor: nothing was computed.
func (t Tensor) IsZero() bool { return t.Shape == nil }

// Clone returns a deep copy.
func (t Tensor) Clone() Tensor {
	return Tensor{Shape: slices.Clone(t.Shape), Data: slices.Clone(t.Data)}
}

// Like returns a zero-filled tensor of t's shape.
func (t Tensor) Like() Tensor { return New(t.Shape...) }

// Rows is the length of the first axis, the batch.
func (t Tensor) Rows() int { return t.Shape[0] }

// RowLen is the number of elements of one entry of the batch.
func (t Tensor) RowLen() int { return Size(t.Shape[1:]) }

// Row is the data of entry i of the batch; it shares memory with t.
func (t Tensor) Row(i int) []float32 {
	n := t.RowLen()
	return t.Data[i*n : (i+1)*n]
}

// Slice is the entries [from, to) of the batch; it shares memory with t.
func (t Tensor) Slice(from, to int) Tensor {
	n := t.RowLen()
	shape := slices.Clone(t.Shape)
	shape[0] = to - from
	return Tensor{Shape: shape, Data: t.Data[from*n : to*n]}
}

// Beside joins tensors along the last axis; their other axes have to be alike,
// which is the caller's to see to.
func Beside(parts ...Tensor) Tensor {
	shape, last := slices.Clone(parts[0].Shape), len(parts[0].Shape)-1
	shape[last] = 0
	for _, t := range parts {
		shape[last] += t.Shape[last]
	}
	out := Tensor{Shape: shape, Data: make([]float32, 0, Size(shape))}
	for row := range Size(shape[:last]) {
		for _, t := range parts {
			n := t.Shape[last]
			out.Data = append(out.Data, t.Data[row*n:(row+1)*n]...)
		}
	}
	return out
}
