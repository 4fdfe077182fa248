// Package linalg is the linear algebra of large symmetric matrices that scores
// take: in go covariances [D,D] or few rows of features, out comes the trace of
// √(Σ₁Σ₂). Large products of matrices are handed in as Products; everything
// else is computed here, on all cores, with the same bits on any number of them.
//
// Matrices are slices in row-major order.
package linalg

import (
	"fmt"
	"runtime"
	"sync"

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

// panelRows bounds the rows of a product of which only a triangle is used.
const panelRows = 256

// AddGram adds the upper triangle of x·xᵀ, x [d,k], to dst [d,d].
func AddGram(p Products, dst, x []float64, d, k int) error {
	tmp := make([]float64, min(d, panelRows)*d)
	for from := 0; from < d; from += panelRows {
		rows, cols := min(panelRows, d-from), d-from
		if err := p.Mul64(tmp, x[from*k:(from+rows)*k], x[from*k:], rows, cols, k); err != nil {
			return err
		}
		Parallel(rows, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				out := dst[(from+i)*d+from+i : (from+i+1)*d]
				for j, v := range tmp[i*cols+i : (i+1)*cols] {
					out[j] += v
				}
			}
		})
	}
	return nil
}

// subtractProduct sets c −= a·bᵀ, c [m,n] with the given stride.
func subtractProduct(c []float64, stride int, a, b []float64, m, n, k int, products Products) error {
	tmp := make([]float64, min(m, panelRows)*n)
	for from := 0; from < m; from += panelRows {
		rows := min(panelRows, m-from)
		if err := products.Mul64(tmp, a[from*k:(from+rows)*k], b[:n*k], rows, n, k); err != nil {
			return err
		}
		Parallel(rows, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				out := c[(from+i)*stride:][:n]
				for j, v := range tmp[i*n : (i+1)*n] {
					out[j] -= v
				}
			}
		})
	}
	return nil
}

// Transposed is aᵀ [n,m] of a [m,n].
func Transposed(a []float64, m, n int) []float64 {
	out := make([]float64, n*m)
	Parallel(m, func(from, to int) {
		for i := from; i < to; i++ {
			for j, v := range a[i*n : (i+1)*n] {
				out[j*m+i] = v
			}
		}
	})
	return out
}

// Parallel calls work on consecutive parts of [0,n), one a core, and waits.
// The parts only divide labour: no result may depend on where they end.
func Parallel(n int, work func(from, to int)) {
	parts := min(runtime.GOMAXPROCS(0), n)
	if parts <= 1 {
		work(0, n)
		return
	}
	var wg sync.WaitGroup
	for p := range parts {
		wg.Go(func() { work(p*n/parts, (p+1)*n/parts) })
	}
	wg.Wait()
}
