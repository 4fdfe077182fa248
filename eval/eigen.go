package eval

import (
	"errors"
	"math"

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
	parallel((len(y)+group-1)/group, func(from, to int) {
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

// subtractProduct sets c −= a·bᵀ, c [m,n] with the given stride.
func subtractProduct(c []float64, stride int, a, b []float64, m, n, k int, products Products) error {
	tmp := make([]float64, min(m, panelRows)*n)
	for from := 0; from < m; from += panelRows {
		rows := min(panelRows, m-from)
		if err := products.Mul64(tmp, a[from*k:(from+rows)*k], b[:n*k], rows, n, k); err != nil {
			return err
		}
		parallel(rows, func(lo, hi int) {
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
