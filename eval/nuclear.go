package eval

import (
	"errors"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/gonum"
)

// nuclearNorm is the sum of the singular values of a [m,n]; a is overwritten.
// Unlike the roots of the eigenvalues of aᵀa, singular values keep an absolute
// error of the order of 2⁻⁵³ times the largest, also those that are zero.
//
// Householder reduction to bidiagonal form in blocks (LAPACK dgebrd and
// dlabrd), then the differential quotient-difference algorithm (dlasq1).
func nuclearNorm(a []float64, m, n int, products Products) (float64, error) {
	if m == 0 || n == 0 {
		return 0, nil
	}
	if m < n {
		a, m, n = transposed(a, m, n), n, m
	}
	scale := normalise(a)
	b := &bidiagonal{a: a, m: m, n: n, d: make([]float64, n), e: make([]float64, n)}
	for k := 0; k < n; k += reductionColumns {
		nb := min(reductionColumns, n-k)
		b.left, b.right = make([]float64, m*2*nb), make([]float64, n*2*nb)
		for j := range nb {
			b.reduce(k, j, nb)
		}
		first := k + nb
		if first >= n {
			break
		}
		err := subtractProduct(a[first*n+first:], n, b.left[first*2*nb:], b.right[first*2*nb:], m-first, n-first, 2*nb, products)
		if err != nil {
			return 0, err
		}
	}
	converged := gonum.Implementation{}.Dbdsqr(blas.Upper, n, 0, 0, 0, b.d, b.e[:n-1], nil, 1, nil, 1, nil, 1, make([]float64, 4*n))
	sum := 0.0
	for _, v := range b.d {
		sum += v
	}
	if !converged || math.IsNaN(sum) {
		return 0, errors.New("eval: the singular values of a matrix did not converge: it is not finite")
	}
	return sum * scale, nil
}

// A bidiagonal is a reduction under way: rows and columns before the block are
// done, and the rest is a − left·rightᵀ. Reflection j of the block, from the
// left with v and from the right with u, has v in column 2j and x in column
// 2j+1 of left, y and u in those of right.
type bidiagonal struct {
	a           []float64
	m, n        int
	d, e        []float64
	left, right []float64 // [m,2nb], [n,2nb]
}

// reduce eliminates column and row k+j, the j-th of a block of nb.
func (b *bidiagonal) reduce(k, j, nb int) {
	c, w, m, n := k+j, 2*nb, b.m, b.n
	v := make([]float64, m-c) // column c, up to date
	known := b.right[c*w : c*w+2*j]
	for i := range v {
		r := c + i
		v[i] = b.a[r*n+c] - dot64(b.left[r*w:r*w+2*j], known)
	}
	var tau float64
	b.d[c], tau = householder(v)
	for i, s := range v {
		b.left[(c+i)*w+2*j] = s
	}
	if c == n-1 {
		return
	}
	u := make([]float64, n-c-1) // y, then row c, up to date
	multiplyColumns(u, b.a[c*n+c+1:], n, v)
	b.correct(u, b.right[(c+1)*w:], b.left[c*w:], v, 2*j, w)
	for i, s := range u {
		b.right[(c+1+i)*w+2*j] = tau * s
	}
	known = b.left[c*w : c*w+2*j+1]
	for i := range u {
		r := c + 1 + i
		u[i] = b.a[c*n+r] - dot64(known, b.right[r*w:r*w+2*j+1])
	}
	b.e[c], tau = householder(u)
	for i, s := range u {
		b.right[(c+1+i)*w+2*j+1] = s
	}
	x := make([]float64, m-c-1)
	multiplyRows(x, b.a[(c+1)*n+c+1:], n, u)
	b.correct(x, b.left[(c+1)*w:], b.right[(c+1)*w:], u, 2*j+1, w)
	for i, s := range x {
		b.left[(c+1+i)*w+2*j+1] = tau * s
	}
}

// correct subtracts p·(qᵀ·s) from y, with the first k columns of p [.,w] and q [.,w].
func (b *bidiagonal) correct(y, p, q, s []float64, k, w int) {
	inner := make([]float64, k)
	for i, f := range s {
		for l, x := range q[i*w : i*w+k] {
			inner[l] += x * f
		}
	}
	for i := range y {
		y[i] -= dot64(p[i*w:i*w+k], inner)
	}
}

// multiplyColumns sets y = aᵀ·v for len(y) columns of a with the given stride.
func multiplyColumns(y, a []float64, stride int, v []float64) {
	const group = 8 // a multiple of what the kernel takes at a time
	parallel((len(y)+group-1)/group, func(from, to int) {
		from, to = from*group, min(to*group, len(y))
		blas64.Gemv(blas.Trans, 1, blas64.General{Rows: len(v), Cols: to - from, Stride: stride, Data: a[from:]},
			blas64.Vector{N: len(v), Inc: 1, Data: v}, 0, blas64.Vector{N: to - from, Inc: 1, Data: y[from:]})
	})
}
