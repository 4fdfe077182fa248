package run

import (
	"slices"
	"testing"

	"sagbench/experiments/store"
)

func TestJobs(t *testing.T) {
	for _, c := range []struct {
		missing []store.Span
		batch   int
		want    []store.Span
	}{
		{nil, 4, nil},
		{[]store.Span{{From: 0, To: 10}}, 4, []store.Span{{From: 0, To: 4}, {From: 4, To: 8}, {From: 8, To: 10}}},
		{[]store.Span{{From: 3, To: 5}, {From: 6, To: 9}}, 4, []store.Span{{From: 3, To: 4}, {From: 4, To: 5}, {From: 6, To: 8}, {From: 8, To: 9}}},
		{[]store.Span{{From: 5, To: 6}}, 64, []store.Span{{From: 5, To: 6}}},
		{[]store.Span{{From: 0, To: 3}}, 1, []store.Span{{From: 0, To: 1}, {From: 1, To: 2}, {From: 2, To: 3}}},
	} {
		if got := jobs(c.missing, c.batch); !slices.Equal(got, c.want) {
			t.Errorf("jobs(%v, %d) = %v, want %v", c.missing, c.batch, got, c.want)
		}
	}
}
