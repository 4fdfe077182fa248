package linalg

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
)

// choleskyColumns is the width of a panel of the blocked factorisation.
const choleskyColumns = 128

// cholesky factors a symmetric a [n,n] as L·Lᵀ, L lower triangular [n,n] with
// zeros above the diagonal. It reports false where a pivot is so small that
// rounding decides about it: a is then not, or not safely, positive definite.
func cholesky(a []float64, n int, products Products) (l []float64, ok bool, err error) {
	l = make([]float64, n*n)
	for i := range n {
		copy(l[i*n:i*n+i+1], a[i*n:i*n+i+1])
	}
	for k := 0; k < n; k += choleskyColumns {
		nb := min(choleskyColumns, n-k)
		if !choleskyPanel(l, a, n, k, nb) {
			return nil, false, nil
		}
		if err := choleskyUpdate(l, n, k, nb, products); err != nil {
			return nil, false, err
		}
	}
	return l, true, nil
}

// choleskyPanel factors columns [k,k+nb) of l.
func choleskyPanel(l, a []float64, n, k, nb int) bool {
	const safe = 1e-11 // of the diagonal element: well above n·2⁻⁵³
	for j := k; j < k+nb; j++ {
		row := l[j*n+k : j*n+j]
		pivot := l[j*n+j]
		for _, v := range row {
			pivot -= v * v
		}
		if !(pivot > safe*a[j*n+j]) {
			return false
		}
		root := math.Sqrt(pivot)
		l[j*n+j] = root
		for i := j + 1; i < k+nb; i++ {
			l[i*n+j] = (l[i*n+j] - dot64(l[i*n+k:i*n+j], row)) / root
		}
	}
	Parallel(n-k-nb, func(from, to int) {
		for i := k + nb + from; i < k+nb+to; i++ {
			x := l[i*n+k : i*n+k+nb]
			for j := range x {
				r := (k + j) * n
				x[j] = (x[j] - dot64(x[:j], l[r+k:r+k+j])) / l[r+k+j]
			}
		}
	})
	return true
}

// choleskyUpdate subtracts the panel's product from the columns after it.
func choleskyUpdate(l []float64, n, k, nb int, products Products) error {
	first := k + nb
	rest := n - first
	panel := make([]float64, rest*nb)
	for i := range rest {
		copy(panel[i*nb:(i+1)*nb], l[(first+i)*n+k:])
	}
	tmp := make([]float64, min(rest, panelRows)*rest)
	for from := 0; from < rest; from += panelRows {
		rows := min(panelRows, rest-from)
		cols := from + rows
		if err := products.Mul64(tmp, panel[from*nb:cols*nb], panel[:cols*nb], rows, cols, nb); err != nil {
			return err
		}
		Parallel(rows, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				out := l[(first+from+i)*n+first:][:from+i+1]
				for j, v := range tmp[i*cols : i*cols+len(out)] {
					out[j] -= v
				}
			}
		})
	}
	return nil
}

// pivotedCholesky factors a symmetric positive semi-definite a [n,n] as FᵀF
// and returns F as rank rows of n. Pivots below the rounding error of the
// largest are taken for zero, which leaves out of F exactly the directions in
// which there is no variance (Higham, Accuracy and Stability, §10.3).
func pivotedCholesky(a []float64, n int) (f []float64, rank int) {
	u := append([]float64(nil), a...)
	pivots := make([]int, n)
	_, rank, _ = lapack64.Pstrf(blas64.Symmetric{N: n, Stride: n, Data: u, Uplo: blas.Upper}, pivots, -1, make([]float64, 2*n))
	f = make([]float64, rank*n)
	for i := range rank {
		for j := i; j < n; j++ {
			f[i*n+pivots[j]] = u[i*n+j]
		}
	}
	return f, rank
}

func dot64(a, b []float64) float64 {
	var s0, s1, s2, s3 float64
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		x, y := a[i:i+4:i+4], b[i:i+4:i+4]
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}
