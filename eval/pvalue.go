package eval

import (
	"cmp"
	"math"
	"slices"
)

// PValue is the two-sided p-value of a difference whose true value may be 0, from its
// bootstrap replicates d*:
//
//	(1 + #{b : |d*_b − d̄*| ≥ |d|}) / (B + 1)
//
// The replicates, shifted so that their mean is 0, stand for what the difference is where
// there is none (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, §16.2;
// the ones are those of Davison and Hinkley, "Bootstrap Methods and their Application",
// eq. 4.11). It is never below 1/(B+1): so many draws cannot show less. Replicates that
// are all equal spread nothing: the value is then 1, which claims nothing.
func PValue(difference float64, replicates []float64) float64 {
	mean, spread := replicates[0], 0.0 // exact where all are equal
	for _, v := range replicates {
		mean += (v - replicates[0]) / float64(len(replicates))
		spread = max(spread, math.Abs(v-replicates[0]))
	}
	if spread == 0 {
		return 1
	}
	beyond := 0
	for _, v := range replicates {
		if math.Abs(v-mean) >= math.Abs(difference) {
			beyond++
		}
	}
	return float64(1+beyond) / float64(1+len(replicates))
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
