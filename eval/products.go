package eval

import (
	"fmt"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
)

// Products computes the large matrix products of the metrics. Both methods set
//
//	dst = a·bᵀ,  a [m,k], b [n,k], dst [m,n]
//
// all row-major and without gaps between rows; dst overlaps neither a nor b,
// but a and b may be one slice. Every element is a sum of k products in the
// type's own arithmetic, in any order (IEEE: no TF32, no bfloat16), so that
//
//	|dst − exact| ≤ k·u/(1−k·u)·Σ|aᵢ||bᵢ|,  u = 2⁻²⁴ or 2⁻⁵³
//
// on which the exact counts of precision and recall rely. Calls come from one
// goroutine at a time.
type Products interface {
	Mul32(dst, a, b []float32, m, n, k int) error
	Mul64(dst, a, b []float64, m, n, k int) error
}

// ByteProducts are Products that multiply bytes as well, several times as fast
// as float32. Mul8 sets
//
//	dst = (a − 128)·b,  a [m,k], b [k,n], dst [m,n]
//
// exactly; k is at most 2¹⁶. Precision and recall use it to find the pairs of
// images that need a closer look.
type ByteProducts interface {
	Products
	Bytes() bool // whether this machine has such products
	Mul8(dst []int32, a []uint8, b []int8, m, n, k int) error
}

// Gonum computes products in pure Go, on all cores.
type Gonum struct{}

var _ Products = Gonum{}

// Mul32 implements Products.
func (Gonum) Mul32(dst, a, b []float32, m, n, k int) error {
	if err := checkProduct(len(dst), len(a), len(b), m, n, k); err != nil || m*n == 0 {
		return err
	}
	if k == 0 {
		clear(dst)
		return nil
	}
	blas32.Gemm(blas.NoTrans, blas.Trans, 1,
		blas32.General{Rows: m, Cols: k, Stride: k, Data: a},
		blas32.General{Rows: n, Cols: k, Stride: k, Data: b}, 0,
		blas32.General{Rows: m, Cols: n, Stride: n, Data: dst})
	return nil
}

// Mul64 implements Products.
func (Gonum) Mul64(dst, a, b []float64, m, n, k int) error {
	if err := checkProduct(len(dst), len(a), len(b), m, n, k); err != nil || m*n == 0 {
		return err
	}
	if k == 0 {
		clear(dst)
		return nil
	}
	blas64.Gemm(blas.NoTrans, blas.Trans, 1,
		blas64.General{Rows: m, Cols: k, Stride: k, Data: a},
		blas64.General{Rows: n, Cols: k, Stride: k, Data: b}, 0,
		blas64.General{Rows: m, Cols: n, Stride: n, Data: dst})
	return nil
}

func checkProduct(dst, a, b, m, n, k int) error {
	if dst < m*n || a < m*k || b < n*k || m < 0 || n < 0 || k < 0 {
		return fmt.Errorf("eval: product of [%d,%d] and [%d,%d]: %d, %d and %d values given", m, k, n, k, a, b, dst)
	}
	return nil
}
