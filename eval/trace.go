package eval

import (
	"math"
)

// traceOfRoot is Tr √(Σ₁Σ₂) of two covariances, and how it was found.
//
// With Σ₁ = F₁ᵀF₁ and Σ₂ = F₂ᵀF₂ the eigenvalues of Σ₁Σ₂ are the squares of the
// singular values of F₁F₂ᵀ, so the trace is the nuclear norm ‖F₁F₂ᵀ‖_*. What F
// is depends on what is known:
//
//   - N ≤ D images: F = Xc/√(N−1), the centred features, so that the trace is
//     ‖Xc Ycᵀ‖_* / √((n−1)(m−1));
//   - a positive definite Σ: F = Lᵀ of its Cholesky factorisation;
//   - a singular Σ: the pivoted factorisation, which leaves the null space out.
//
// Where both are Cholesky factors, the eigenvalues of F₁Σ₂F₁ᵀ are cheaper than
// singular values; they are taken if the error that their roots may have is
// small. A Σ that is not positive semi-definite (stored as float32, say) has no
// F; then it stands between the factors of the other, and negative eigenvalues
// count as zero, as the real part of scipy.linalg.sqrtm does.
func traceOfRoot(a, b *Stats, products Products) (float64, string, error) {
	if products == nil {
		products = Gonum{}
	}
	active := activeDims(a, b)
	if len(active) == 0 {
		return 0, "no dimension varies in both sets", nil
	}
	fa, err := newFactor(a, active, products)
	if err != nil {
		return 0, "", err
	}
	fb, err := newFactor(b, active, products)
	if err != nil {
		return 0, "", err
	}
	d := len(active)
	switch {
	case fa.indefinite || fb.indefinite:
		if fa.indefinite && !fb.indefinite {
			fa, a, b = fb, b, a
		}
		trace, _, err := gramTrace(fa, subCov(b, active), d, products)
		return trace, "eigenvalues of FΣFᵀ, the covariance of " + b.name() + " being indefinite", err
	case fa.full && fb.full:
		trace, doubt, err := gramTrace(fa, subCov(b, active), d, products)
		if err != nil || doubt <= 1e-10*(a.trace()+b.trace()) {
			return trace, "eigenvalues of BΣ₂Bᵀ, Σ₁ = BᵀB (Cholesky)", err
		}
	}
	w := make([]float64, fa.rows*fb.rows)
	if err := products.Mul64(w, fa.f, fb.f, fa.rows, fb.rows, d); err != nil {
		return 0, "", err
	}
	trace, err := nuclearNorm(w, fa.rows, fb.rows)
	return trace, "nuclear norm of F₁F₂ᵀ, F₁: " + fa.kind + ", F₂: " + fb.kind, err
}

// name is how messages call a set of statistics.
func (s *Stats) name() string {
	if s.Source == "" {
		return "one set"
	}
	return s.Source
}

// activeDims are the dimensions that vary in both sets; the others add nothing
// to the trace and would make a factorisation singular.
func activeDims(a, b *Stats) []int {
	d := a.D()
	active := make([]int, 0, d)
	for i := range d {
		if a.Cov[i*d+i] > 0 && b.Cov[i*d+i] > 0 {
			active = append(active, i)
		}
	}
	return active
}

// subCov is the covariance of some dimensions.
func subCov(s *Stats, dims []int) []float64 {
	d, n := s.D(), len(dims)
	out := make([]float64, n*n)
	for i, r := range dims {
		row := s.Cov[r*d : (r+1)*d]
		for j, c := range dims {
			out[i*n+j] = row[c]
		}
	}
	return out
}

// A factor is F [rows,D] with Σ = FᵀF.
type factor struct {
	f          []float64
	rows       int
	kind       string
	full       bool // Lᵀ of a positive definite Σ
	indefinite bool // Σ has a negative eigenvalue; f leaves that part out
}

func newFactor(s *Stats, dims []int, products Products) (factor, error) {
	n := len(dims)
	if s.Rows != nil && s.N <= n {
		return factor{f: centredRows(s, dims), rows: s.N, kind: "centred features"}, nil
	}
	cov := subCov(s, dims)
	l, ok, err := cholesky(cov, n, products)
	if err != nil {
		return factor{}, err
	}
	if ok {
		return factor{f: transposed(l, n, n), rows: n, kind: "Cholesky", full: true}, nil
	}
	f, rank := pivotedCholesky(cov, n)
	return factor{f: f, rows: rank, kind: "pivoted Cholesky", indefinite: !explains(f, rank, cov, n)}, nil
}

// explains reports whether the diagonal of cov − FᵀF is as small as rounding
// leaves it; that of an indefinite matrix is not.
func explains(f []float64, rank int, cov []float64, n int) bool {
	rest := make([]float64, n)
	largest := 0.0
	for i := range rest {
		rest[i] = cov[i*n+i]
		largest = max(largest, rest[i])
	}
	for k := range rank {
		for i, v := range f[k*n : (k+1)*n] {
			rest[i] -= v * v
		}
	}
	limit := 16 * float64(n) * 0x1p-52 * largest
	for _, r := range rest {
		if math.Abs(r) > limit {
			return false
		}
	}
	return true
}

// centredRows are the features less their mean, over √(N−1).
func centredRows(s *Stats, dims []int) []float64 {
	d, n := s.D(), len(dims)
	out := make([]float64, s.N*n)
	scale := 1 / math.Sqrt(float64(s.N-1))
	for i := range s.N {
		for j, c := range dims {
			out[i*n+j] = (float64(s.Rows[i*d+c]) - s.Mean[c]) * scale
		}
	}
	return out
}

func transposed(a []float64, m, n int) []float64 {
	out := make([]float64, n*m)
	parallel(m, func(from, to int) {
		for i := from; i < to; i++ {
			for j, v := range a[i*n : (i+1)*n] {
				out[j*m+i] = v
			}
		}
	})
	return out
}

// gramTrace is Σ√λ over the eigenvalues of FΣFᵀ, Σ [d,d], and a bound of its
// error: an eigenvalue is known to a few units of 2⁻⁵³ of the largest, and the
// root of a small one magnifies that.
func gramTrace(f factor, cov []float64, d int, products Products) (trace, doubt float64, err error) {
	half := make([]float64, f.rows*d)
	if err := products.Mul64(half, f.f, cov, f.rows, d, d); err != nil {
		return 0, 0, err
	}
	m := make([]float64, f.rows*f.rows)
	if err := products.Mul64(m, half, f.f, f.rows, f.rows, d); err != nil {
		return 0, 0, err
	}
	symmetrise(m, f.rows)
	values, err := symmetricEigenvalues(m, f.rows, products)
	if err != nil {
		return 0, 0, err
	}
	largest := 0.0
	for _, v := range values {
		largest = max(largest, math.Abs(v))
	}
	unit := 4 * 0x1p-52 * largest
	for _, v := range values {
		root := math.Sqrt(max(v, 0))
		trace += root
		doubt += math.Min(math.Sqrt(unit), unit/(2*root))
	}
	return trace, doubt, nil
}

// symmetrise replaces a by (a+aᵀ)/2.
func symmetrise(a []float64, n int) {
	for i := range n {
		for j := range i {
			v := (a[i*n+j] + a[j*n+i]) / 2
			a[i*n+j], a[j*n+i] = v, v
		}
	}
}
