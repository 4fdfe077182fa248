package neighbours

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The neighbours are those of distances pair by pair in float64: of features far from
// zero, with duplicates, over the edges of tiles.
func TestNearest(t *testing.T) {
	dice := rand.New(rand.NewPCG(3, 5))
	for _, c := range []struct {
		n, m, d, k int
		mean       float64
	}{{50, 20, 3, 5, 0}, {1500, 1100, 8, 3, 100}, {7, 4, 2, 7, 0}, {300, 40, 64, 1, 1000}} {
		ref, gen := make([]float32, c.n*c.d), make([]float32, c.m*c.d)
		for i := range ref {
			ref[i] = float32(dice.NormFloat64() + c.mean)
		}
		for i := range gen {
			gen[i] = float32(dice.NormFloat64() + c.mean)
		}
		copy(gen[c.d:2*c.d], ref[2*c.d:]) // a copy
		copy(ref[5*c.d:6*c.d], ref[2*c.d:])
		got, err := Nearest(t.Context(), nil, ref, gen, c.d, c.k)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.m {
			var want []Neighbour
			for j := range c.n {
				sum := 0.0
				for x := range c.d {
					difference := float64(ref[j*c.d+x]) - float64(gen[i*c.d+x])
					sum += difference * difference
				}
				want = append(want, Neighbour{j, math.Sqrt(sum)})
			}
			slices.SortStableFunc(want, func(a, b Neighbour) int { return cmp.Compare(a.Distance, b.Distance) })
			if !slices.Equal(got[i], want[:c.k]) {
				t.Fatalf("%+v, row %d: %v, want %v", c, i, got[i], want[:c.k])
			}
		}
		if got[1][0] != (Neighbour{2, 0}) {
			t.Errorf("a copy: %v", got[1][0])
		}
	}
	for _, k := range []int{0, 4} {
		if _, err := Nearest(t.Context(), nil, make([]float32, 6), make([]float32, 2), 2, k); err == nil {
			t.Errorf("%d neighbours of 3 rows", k)
		}
	}
}
