package ort

import (
	"context"
	"fmt"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// Products computes large matrix products in ONNX Runtime, on the CPU, in IEEE
// float32 and float64: eval's Products with the runtime's kernels.
type Products struct{ single, double *Session }

// NewProducts prepares the products; threads 0 = all cores.
func NewProducts(threads int) (*Products, error) {
	single, err := product(checkpoint.F32, threads)
	if err != nil {
		return nil, err
	}
	double, err := product(checkpoint.F64, threads)
	if err != nil {
		single.Close()
		return nil, err
	}
	return &Products{single, double}, nil
}

// Symbolic lengths of the product dst [rows,columns] = a [rows,inner] · b [columns,inner]ᵀ.
const (
	rows    = onnx.Batch
	columns = -2
	inner   = -3
)

func product(t checkpoint.DType, threads int) (*Session, error) {
	m, err := onnx.Build(nil, func(m *onnx.Module) {
		a, b := m.Input("a", t, rows, inner), m.Input("b", t, columns, inner)
		m.Output("dst", m.MatMulTransposed(a, b))
	})
	if err != nil {
		return nil, err
	}
	return Open(m, Options{Threads: threads})
}

// Mul32 sets dst [m,n] = a [m,k] · b [n,k]ᵀ.
func (p *Products) Mul32(dst, a, b []float32, m, n, k int) error {
	return multiply(p.single, dst, a, b, m, n, k)
}

// Mul64 sets dst [m,n] = a [m,k] · b [n,k]ᵀ.
func (p *Products) Mul64(dst, a, b []float64, m, n, k int) error {
	return multiply(p.double, dst, a, b, m, n, k)
}

func multiply[T float32 | float64](s *Session, dst, a, b []T, m, n, k int) error {
	if m < 0 || n < 0 || k < 0 || len(dst) < m*n || len(a) < m*k || len(b) < n*k {
		return fmt.Errorf("ort: product of [%d,%d] and [%d,%d]: %d, %d and %d values given", m, k, n, k, len(a), len(b), len(dst))
	}
	dst = dst[:m*n]
	if m*n*k == 0 {
		clear(dst)
		return nil
	}
	in := map[string]Array{
		"a": {Shape: []int{m, k}, Data: a[:m*k]},
		"b": {Shape: []int{n, k}, Data: b[:n*k]},
	}
	return s.into(context.Background(), in, map[string]Array{"dst": {Shape: []int{m, n}, Data: dst}})
}

// Close frees the sessions.
func (p *Products) Close() {
	p.single.Close()
	p.double.Close()
}
