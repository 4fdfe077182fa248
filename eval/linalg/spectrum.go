package linalg

import (
	"errors"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/gonum"
)

// reductionColumns is how many columns are reduced before the rest of the
// matrix is updated by one product.
const reductionColumns = 32

// symmetricEigenvalues are the eigenvalues of a symmetric matrix a [n,n], both
// triangles given; a is overwritten. Their absolute error is of the order of
// 2⁻⁵³ times the largest.
//
// Householder reduction to tridiagonal form in blocks (LAPACK dsytrd and
// dlatrd, working on the full matrix so that every product reads rows), then
// the square-root-free QL iteration (dsterf).
func symmetricEigenvalues(a []float64, n int, products Products) ([]float64, error) {
	scale := normalise(a)
	t := &tridiagonal{a: a, n: n, d: make([]float64, n), e: make([]float64, max(n-1, 0)),
		x: make([]float64, n), y: make([]float64, n)}
	for k := 0; k < n; k += reductionColumns {
		nb := min(reductionColumns, n-k)
		t.v, t.w = make([]float64, n*nb), make([]float64, n*nb)
		for j := range nb {
			t.reduce(k, j, nb)
		}
		if err := t.update(k+nb, nb, products); err != nil {
			return nil, err
		}
	}
	converged := n == 0 || gonum.Implementation{}.Dsterf(n, t.d, t.e)
	for i, v := range t.d {
		t.d[i] *= scale
		converged = converged && !math.IsNaN(v)
	}
	if !converged {
		return nil, errors.New("eval: the eigenvalues of a symmetric matrix did not converge: it is not finite")
	}
	return t.d, nil
}

// NegativePart tells how far a symmetric matrix a [n,n] is from a covariance: its
// smallest eigenvalue and the sum of those below zero, both 0 where it is positive
// definite. Nil products are Gonum.
func NegativePart(a []float64, n int, products Products) (smallest, sum float64, err error) {
	if products == nil {
		products = Gonum{}
	}
	if _, definite, err := cholesky(a, n, products); definite || err != nil {
		return 0, 0, err
	}
	values, err := symmetricEigenvalues(slices.Clone(a), n, products)
	for _, v := range values {
		smallest, sum = min(smallest, v), sum+min(v, 0)
	}
	return smallest, sum, err
}

// normalise divides a by the power of two of its largest element, so that no
// square overflows or vanishes, and returns the divisor.
func normalise(a []float64) float64 {
	largest := 0.0
	for _, v := range a {
		largest = max(largest, math.Abs(v))
	}
	if largest == 0 || math.IsInf(largest, 0) || math.IsNaN(largest) {
		return 1
	}
	_, exponent := math.Frexp(largest)
	scale := math.Ldexp(1, exponent)
	for i := range a {
		a[i] /= scale
	}
	return scale
}

// A tridiagonal is a reduction under way: columns before the block are done,
// and the rest is a − v·wᵀ − w·vᵀ.
type tridiagonal struct {
	a    []float64
	n    int
	d, e []float64
	v, w []float64 // [n,nb]
	x, y []float64
}

// reduce eliminates column k+j, the j-th of a block of nb.
func (t *tridiagonal) reduce(k, j, nb int) {
	n, c := t.n, k+j
	x := t.x[:n-c]
	copy(x, t.a[c*n+c:(c+1)*n])
	vc, wc := t.v[c*nb:c*nb+j], t.w[c*nb:c*nb+j]
	for i := range x {
		r := (c + i) * nb
		x[i] -= dot64(t.v[r:r+j], wc) + dot64(t.w[r:r+j], vc)
	}
	t.d[c] = x[0]
	if c == n-1 {
		return
	}
	var tau float64
	v := x[1:]
	t.e[c], tau = householder(v)
	t.multiply(c+1, j, nb, v, tau)
	y := t.y[:len(v)]
	shift := -tau / 2 * dot64(y, v)
	for i := range v {
		r := (c+1+i)*nb + j
		t.v[r] = v[i]
		t.w[r] = y[i] + shift*v[i]
	}
}

// multiply sets y = tau·(a − v·wᵀ − w·vᵀ)·v for rows and columns from first on.
func (t *tridiagonal) multiply(first, j, nb int, v []float64, tau float64) {
	vv, wv := make([]float64, j), make([]float64, j)
	for i, s := range v {
		r := (first + i) * nb
		for l, x := range t.v[r : r+j] {
			vv[l] += x * s
		}
		for l, x := range t.w[r : r+j] {
			wv[l] += x * s
		}
	}
	y := t.y[:len(v)]
	multiplyRows(y, t.a[first*t.n+first:], t.n, v)
	for i := range y {
		r := (first + i) * nb
		y[i] = tau * (y[i] - dot64(t.v[r:r+j], wv) - dot64(t.w[r:r+j], vv))
	}
}

// multiplyRows sets y = a·v for len(y) rows of a with the given stride. Rows
// are dealt out in fours, as the kernel takes them, so that the number of
// cores does not change how a row is summed.
func multiplyRows(y, a []float64, stride int, v []float64) {
	const group = 4
	Parallel((len(y)+group-1)/group, func(from, to int) {
		from, to = from*group, min(to*group, len(y))
		blas64.Gemv(blas.NoTrans, 1, blas64.General{Rows: to - from, Cols: len(v), Stride: stride, Data: a[from*stride:]},
			blas64.Vector{N: len(v), Inc: 1, Data: v}, 0, blas64.Vector{N: to - from, Inc: 1, Data: y[from:]})
	})
}

// update applies a block of nb reflections to the rows and columns from first on.
func (t *tridiagonal) update(first, nb int, products Products) error {
	m := t.n - first
	if m <= 0 {
		return nil
	}
	vw, wv := make([]float64, m*2*nb), make([]float64, m*2*nb)
	for i := range m {
		v, w := t.v[(first+i)*nb:(first+i+1)*nb], t.w[(first+i)*nb:(first+i+1)*nb]
		copy(vw[i*2*nb:], v)
		copy(vw[i*2*nb+nb:], w)
		copy(wv[i*2*nb:], w)
		copy(wv[i*2*nb+nb:], v)
	}
	return subtractProduct(t.a[first*t.n+first:], t.n, vw, wv, m, m, 2*nb, products)
}

// householder turns x into v, v[0] = 1, such that (I − tau·v·vᵀ)·x = beta·e₁.
func householder(x []float64) (beta, tau float64) {
	alpha, rest := x[0], math.Sqrt(dot64(x[1:], x[1:]))
	x[0] = 1
	if rest == 0 {
		return alpha, 0
	}
	beta = -math.Copysign(math.Hypot(alpha, rest), alpha)
	for i := range x[1:] {
		x[1+i] /= alpha - beta
	}
	return beta, (beta - alpha) / beta
}

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
		a, m, n = Transposed(a, m, n), n, m
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
	Parallel((len(y)+group-1)/group, func(from, to int) {
		from, to = from*group, min(to*group, len(y))
		blas64.Gemv(blas.Trans, 1, blas64.General{Rows: len(v), Cols: to - from, Stride: stride, Data: a[from:]},
			blas64.Vector{N: len(v), Inc: 1, Data: v}, 0, blas64.Vector{N: to - from, Inc: 1, Data: y[from:]})
	})
}
