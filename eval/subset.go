package eval

import (
	"fmt"
	"slices"

	"sagbench/eval/images"
)

// A Subset chooses the first images of a set, or some at random. One of First and
// Random is not 0.
type Subset struct {
	First  int
	Random int
	Seed   uint32
}

var _ images.Chooser = Subset{}

// Choose implements images.Chooser. Random images of n are those at
// sorted(numpy.random.RandomState(Seed).permutation(n)[:Random]): which ones depends on
// n and the seed alone, and their order is the set's.
func (s Subset) Choose(n int) ([]int, error) {
	count := max(s.First, s.Random)
	if count > n {
		return nil, fmt.Errorf("has %d images, %d of them are asked for; ask for at most as many as there are", n, count)
	}
	if s.Random == 0 {
		chosen := make([]int, count)
		for i := range chosen {
			chosen[i] = i
		}
		return chosen, nil
	}
	chosen := newRandomState(s.Seed).permutation(n)[:count]
	slices.Sort(chosen)
	return slices.Clone(chosen), nil
}

// String implements images.Chooser.
func (s Subset) String() string {
	if s.Random > 0 {
		return fmt.Sprintf("%d at random, seed %d", s.Random, s.Seed)
	}
	return fmt.Sprintf("the first %d", s.First)
}
