package run

import (
	"slices"
	"testing"

	"sagbench/experiments/store"
)

// A unit is missing where any of its images is.
func TestUnits(t *testing.T) {
	for _, c := range []struct {
		missing []store.Span
		batch   int
		want    []int
	}{
		{nil, 4, nil},
		{[]store.Span{{From: 0, To: 10}}, 4, []int{0, 1, 2}},
		{[]store.Span{{From: 3, To: 5}, {From: 6, To: 9}}, 4, []int{0, 1, 2}},
		{[]store.Span{{From: 1, To: 2}, {From: 3, To: 4}, {From: 11, To: 12}}, 4, []int{0, 2}},
		{[]store.Span{{From: 5, To: 6}}, 64, []int{0}},
		{[]store.Span{{From: 2, To: 4}}, 1, []int{2, 3}},
	} {
		if got := unitsOf(c.missing, c.batch); !slices.Equal(got, c.want) {
			t.Errorf("unitsOf(%v, %d) = %v, want %v", c.missing, c.batch, got, c.want)
		}
	}
}
