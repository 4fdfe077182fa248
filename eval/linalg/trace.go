package linalg

import (
	"cmp"
	"math"
	"slices"
)

// A Covariance is a matrix Σ of D dimensions and, where they are known, the rows
// of features that it is the covariance of.
type Covariance struct {
	Name   string    // for messages
	Matrix []float64 // [D,D] symmetric
	Mean   []float64 // [D]
	Rows   []float32 // [N,D]; nil where unknown
}

func (c Covariance) d() int { return len(c.Mean) }

// n is the number of rows.
func (c Covariance) n() int { return len(c.Rows) / len(c.Mean) }

// TraceOfRoot is Tr √(Σ₁Σ₂) of two covariances, and how it was found.
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
// Where both Σ are positive definite, the roots of the eigenvalues of F₁Σ₂F₁ᵀ
// are as good (to 10⁻¹⁴ of the traces, also with one image more than
// dimensions) and cheaper. Small eigenvalues keep their digits because the
// matrix is graded: the dimensions are put in order of falling variance. With
// a singular Σ, rounding would leave about 10⁻⁸ of each eigenvalue that is
// zero.
//
// A Σ that is not positive semi-definite (rounded when it was stored, say) has
// no F; then it stands between the factors of the other, and negative
// eigenvalues count as zero, as the real part of scipy.linalg.sqrtm does.
func TraceOfRoot(a, b Covariance, products Products) (float64, string, error) {
	if products == nil {
		products = Gonum{}
	}
	active := activeDims(a, b)
	if len(active) == 0 {
		return 0, "no dimension varies in both sets", nil
	}
	d := len(active)
	fa, err := newFactor(a, active, products)
	if err != nil {
		return 0, "", err
	}
	fb, err := newFactor(b, active, products)
	if err != nil {
		return 0, "", err
	}
	if fa.full && fb.full {
		trace, err := gramTrace(fa, subCov(b, active), d, products)
		return trace, "eigenvalues of BΣ₂Bᵀ, Σ₁ = BᵀB (Cholesky)", err
	}
	if fa.indefinite && !fb.indefinite {
		fa, fb, a, b = fb, fa, b, a
	}
	if fb.indefinite {
		trace, err := gramTrace(fa, subCov(b, active), d, products)
		return trace, "eigenvalues of FΣFᵀ, the covariance of " + b.Name + " being indefinite", err
	}
	w := make([]float64, fa.rows*fb.rows)
	if err := products.Mul64(w, fa.f, fb.f, fa.rows, fb.rows, d); err != nil {
		return 0, "", err
	}
	trace, err := nuclearNorm(w, fa.rows, fb.rows, products)
	return trace, "nuclear norm of F₁F₂ᵀ, F₁: " + fa.kind + ", F₂: " + fb.kind, err
}

// activeDims are the dimensions that vary in both sets, those of the largest
// variance first; the others add nothing to the trace and would make a
// factorisation singular.
func activeDims(a, b Covariance) []int {
	d := a.d()
	active := make([]int, 0, d)
	for i := range d {
		if a.Matrix[i*d+i] > 0 && b.Matrix[i*d+i] > 0 {
			active = append(active, i)
		}
	}
	grade := func(i int) float64 { return a.Matrix[i*d+i] * b.Matrix[i*d+i] }
	slices.SortStableFunc(active, func(i, j int) int { return cmp.Compare(grade(j), grade(i)) })
	return active
}

// subCov is the covariance of some dimensions.
func subCov(c Covariance, dims []int) []float64 {
	d, n := c.d(), len(dims)
	out := make([]float64, n*n)
	for i, r := range dims {
		row := c.Matrix[r*d : (r+1)*d]
		for j, at := range dims {
			out[i*n+j] = row[at]
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

func newFactor(c Covariance, dims []int, products Products) (factor, error) {
	n := len(dims)
	if c.Rows != nil && c.n() <= n {
		return factor{f: centredRows(c, dims), rows: c.n(), kind: "centred features"}, nil
	}
	cov := subCov(c, dims)
	l, ok, err := cholesky(cov, n, products)
	if err != nil {
		return factor{}, err
	}
	if ok {
		return factor{f: Transposed(l, n, n), rows: n, kind: "Cholesky", full: true}, nil
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
func centredRows(c Covariance, dims []int) []float64 {
	d, n := c.d(), len(dims)
	out := make([]float64, c.n()*n)
	scale := 1 / math.Sqrt(float64(c.n()-1))
	for i := range c.n() {
		for j, at := range dims {
			out[i*n+j] = (float64(c.Rows[i*d+at]) - c.Mean[at]) * scale
		}
	}
	return out
}

// gramTrace is Σ√λ over the eigenvalues λ > 0 of FΣFᵀ, Σ [d,d].
func gramTrace(f factor, cov []float64, d int, products Products) (float64, error) {
	m, err := gram(f, cov, d, products)
	if err != nil {
		return 0, err
	}
	values, err := symmetricEigenvalues(m, f.rows, products)
	if err != nil {
		return 0, err
	}
	trace := 0.0
	for _, v := range values {
		trace += math.Sqrt(max(v, 0))
	}
	return trace, nil
}

// gram is FΣFᵀ, Σ [d,d], panel by panel: of a triangular F the zeros are left
// out, of the symmetric result one triangle is computed.
func gram(f factor, cov []float64, d int, products Products) ([]float64, error) {
	n := f.rows
	half, m := make([]float64, n*d), make([]float64, n*n)
	for from := 0; from < n; from += panelRows {
		rows, first := min(panelRows, n-from), f.firstColumn(from)
		a := columns(f.f[from*d:(from+rows)*d], d, first)
		if err := products.Mul64(half[from*d:(from+rows)*d], a, columns(cov, d, first), rows, d, d-first); err != nil {
			return nil, err
		}
	}
	tmp := make([]float64, n*panelRows)
	for from := 0; from < n; from += panelRows {
		rows, first, below := min(panelRows, n-from), f.firstColumn(from), n-from
		b := columns(f.f[from*d:(from+rows)*d], d, first)
		if err := products.Mul64(tmp, columns(half[from*d:], d, first), b, below, rows, d-first); err != nil {
			return nil, err
		}
		for i := range below {
			for j, v := range tmp[i*rows : i*rows+min(rows, i+1)] {
				m[(from+i)*n+from+j], m[(from+j)*n+from+i] = v, v
			}
		}
	}
	return m, nil
}

// firstColumn is the first column of F that is not zero from a row on.
func (f factor) firstColumn(row int) int {
	if f.full {
		return row
	}
	return 0
}

// columns are the columns of a [.,n] from one on.
func columns(a []float64, n, first int) []float64 {
	if first == 0 {
		return a
	}
	rows, width := len(a)/n, n-first
	out := make([]float64, rows*width)
	for i := range rows {
		copy(out[i*width:(i+1)*width], a[i*n+first:(i+1)*n])
	}
	return out
}
