package eval

import (
	"errors"

	"gonum.org/v1/gonum/mat"
)

// nuclearNorm is the sum of the singular values of a [m,n]; a is overwritten.
// Unlike the roots of the eigenvalues of aᵀa, singular values keep an absolute
// error of the order of 2⁻⁵³ times the largest, also those that are zero.
func nuclearNorm(a []float64, m, n int) (float64, error) {
	if m == 0 || n == 0 {
		return 0, nil
	}
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(m, n, a), mat.SVDNone) {
		return 0, errors.New("eval: the singular values of a matrix did not converge: it is not finite")
	}
	sum := 0.0
	for _, v := range svd.Values(nil) {
		sum += v
	}
	return sum, nil
}
