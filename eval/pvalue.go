package eval

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// PValue is the two-sided p-value of a difference whose true value may be 0, from its
// bootstrap replicates d*. It counts those beyond the difference,
//
//	k = #{b : |d*_b − d̄*| ≥ |d|},  p = (1 + k) / (B + 1)
//
// The replicates, shifted so that their mean is 0, stand for what the difference is where
// there is none (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, §16.2;
// the ones are those of Davison and Hinkley, "Bootstrap Methods and their Application",
// eq. 4.11). B draws cannot count below 1/(B+1). Where none is beyond the difference, and
// only there, p is the tail of Student's t with B−1 degrees of freedom beyond d divided
// by the replicates' standard deviation, or 1/(B+1) if that is less: so a difference of
// many standard errors stands a correction for many comparisons (as Knijnenburg et al.,
// "Fewer Permutations, More Accurate P-values", 2009, extend counts by a fitted tail).
// Replicates that are all equal spread nothing: p is then 1, which claims nothing.
func PValue(difference float64, replicates []float64) float64 {
	n := float64(len(replicates))
	mean, squares := replicates[0], 0.0 // exact where all are equal
	for _, v := range replicates {
		mean += (v - replicates[0]) / n
	}
	beyond := 0.0
	for _, v := range replicates {
		if math.Abs(v-mean) >= math.Abs(difference) {
			beyond++
		}
		squares += (v - mean) * (v - mean)
	}
	if squares == 0 {
		return 1
	}
	counted := (1 + beyond) / (1 + n)
	if beyond > 0 {
		return counted
	}
	t := math.Abs(difference) / math.Sqrt(squares/(n-1))
	return min(counted, 2*distuv.StudentsT{Sigma: 1, Nu: n - 1}.Survival(t))
}

// Holm corrects the p-values of several comparisons (Holm, "A Simple Sequentially
// Rejective Multiple Test Procedure", 1979): the k-th smallest of m is multiplied by
// m−k+1, no value is below one of a smaller rank, and none above 1. Where those below α
// are called differences, the probability that one or more of these are none is at most
// α, however the comparisons depend on each other.
func Holm(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[a], p[b]) })
	out, least := make([]float64, len(p)), 0.0
	for rank, i := range order {
		least = max(least, min(1, float64(len(p)-rank)*p[i]))
		out[i] = least
	}
	return out
}
