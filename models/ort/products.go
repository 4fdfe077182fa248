package ort

import (
	"context"
	"errors"
	"fmt"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// Products computes large matrix products in ONNX Runtime, on the CPU, in IEEE
// float32 and float64 and, where that is exact, in bytes: eval's Products with
// the runtime's kernels.
type Products struct {
	ctx                   context.Context // ends what is being computed
	single, double, bytes *Session
}

// NewProducts prepares the products, which end with ctx; threads 0 = all cores.
func NewProducts(ctx context.Context, threads int) (*Products, error) {
	p := &Products{ctx: ctx}
	var errs [3]error
	p.single, errs[0] = product(threads, func(m *onnx.Module) onnx.Value { return transposed(m, checkpoint.F32) })
	p.double, errs[1] = product(threads, func(m *onnx.Module) onnx.Value { return transposed(m, checkpoint.F64) })
	p.bytes, errs[2] = product(threads, func(m *onnx.Module) onnx.Value {
		return m.MatMulBytes(m.Input("a", checkpoint.U8, rows, inner), m.Input("b", checkpoint.I8, inner, columns), 128)
	})
	err := errors.Join(errs[:]...)
	if err == nil {
		var exact bool
		if exact, err = p.exactBytes(); !exact && p.bytes != nil {
			p.bytes.Close()
			p.bytes = nil
		}
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// exactBytes tries the extremes of bytes. Processors without the instructions
// for products of bytes (VNNI) add two of them in 16 bits, which overflows.
func (p *Products) exactBytes() (bool, error) {
	const m, n, k = 9, 33, 260
	a, b, dst := make([]uint8, m*k), make([]int8, n*k), make([]int32, m*n)
	for i := range a {
		a[i] = uint8(255 * (i / k % 2)) // rows of −128 and of 127
	}
	for i := range b {
		b[i] = int8(254*(i%n%2) - 127) // columns of −127 and of 127
	}
	if err := p.Mul8(dst, a, b, m, n, k); err != nil {
		return false, err
	}
	for i, got := range dst {
		if want := k * (int32(a[i/n*k]) - 128) * int32(b[i%n]); got != want {
			return false, nil
		}
	}
	return true, nil
}

// Symbolic lengths of the product dst [rows,columns] of a [rows,inner] and b.
const (
	rows    = onnx.Batch
	columns = -2
	inner   = -3
)

// transposed is a·bᵀ, b [columns,inner].
func transposed(m *onnx.Module, t checkpoint.DType) onnx.Value {
	return m.MatMulTransposed(m.Input("a", t, rows, inner), m.Input("b", t, columns, inner))
}

func product(threads int, op func(m *onnx.Module) onnx.Value) (*Session, error) {
	m, err := onnx.Build(nil, func(m *onnx.Module) { m.Output("dst", op(m)) })
	if err != nil {
		return nil, err
	}
	return Open(m, Options{Threads: threads, idle: true})
}

// Mul32 sets dst [m,n] = a [m,k] · b [n,k]ᵀ.
func (p *Products) Mul32(dst, a, b []float32, m, n, k int) error {
	return multiply(p.ctx, p.single, dst, a, b, m, n, k, n, k)
}

// Mul64 sets dst [m,n] = a [m,k] · b [n,k]ᵀ.
func (p *Products) Mul64(dst, a, b []float64, m, n, k int) error {
	return multiply(p.ctx, p.double, dst, a, b, m, n, k, n, k)
}

// Bytes reports whether products of bytes are exact on this processor.
func (p *Products) Bytes() bool { return p.bytes != nil }

// Mul8 sets dst [m,n] = (a − 128) [m,k] · b [k,n], k at most 2¹⁶.
func (p *Products) Mul8(dst []int32, a []uint8, b []int8, m, n, k int) error {
	if p.bytes == nil {
		return errors.New("ort: products of bytes are not exact on this processor")
	}
	return multiply(p.ctx, p.bytes, dst, a, b, m, n, k, k, n)
}

// multiply sets dst [m,n] to the product over k of a [m,k] and b of the given
// shape.
func multiply[D float32 | float64 | int32, A float32 | float64 | uint8, B float32 | float64 | int8](ctx context.Context, s *Session, dst []D, a []A, b []B, m, n, k int, shape ...int) error {
	if m < 0 || n < 0 || k < 0 || len(dst) < m*n || len(a) < m*k || len(b) < n*k {
		return fmt.Errorf("ort: product of [%d,%d] and %v: %d, %d and %d values given", m, k, shape, len(a), len(b), len(dst))
	}
	dst = dst[:m*n]
	if m*n*k == 0 {
		clear(dst)
		return nil
	}
	in := map[string]Array{
		"a": {Shape: []int{m, k}, Data: a[:m*k]},
		"b": {Shape: shape, Data: b[:n*k]},
	}
	return s.into(ctx, in, map[string]Array{"dst": {Shape: []int{m, n}, Data: dst}})
}

// Close frees the sessions.
func (p *Products) Close() {
	for _, s := range []*Session{p.single, p.double, p.bytes} {
		if s != nil {
			s.Close()
		}
	}
}
