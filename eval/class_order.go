package eval

import "math"

// sortedFrom is the classOrder from which images count as sorted by class;
// chance reaches it about once in three million sets.
const sortedFrom = 5

// classOrder says by how many standard deviations the number of neighbours of
// equal class exceeds that of a random order: the multi-category runs test
// (Wald and Wolfowitz; Mood, "The Distribution Theory of Runs", 1940). With
// n_c images of class c, N in all, the pairs of equal neighbours have under
// permutation
//
//	mean Σn_c(n_c−1)/N
//	variance (Σn_c²·(Σn_c² + N(N+1)) − 2N·Σn_c³ − N³) / (N²(N−1))
//
// It is 0 where the order cannot matter.
func classOrder(classes []int) float64 {
	counts := map[int]float64{}
	equal := 0.0
	for i, c := range classes {
		counts[c]++
		if i > 0 && c == classes[i-1] {
			equal++
		}
	}
	var squares, cubes float64
	for _, n := range counts {
		squares += n * n
		cubes += n * n * n
	}
	n := float64(len(classes))
	variance := (squares*(squares+n*(n+1)) - 2*n*cubes - n*n*n) / (n * n * (n - 1))
	if n < 2 || !(variance > 1e-9) {
		return 0
	}
	return (equal - (squares-n)/n) / math.Sqrt(variance)
}
