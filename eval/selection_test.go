package eval

import (
	"slices"
	"strings"
	"testing"
)

// The features of a subset are those of a set of these images alone.
func TestFeaturesOfSome(t *testing.T) {
	rows := func(n, d int, of func(i, j int) float32) (out []float32) {
		for i := range n {
			for j := range d {
				out = append(out, of(i, j))
			}
		}
		return out
	}
	of := func(i, j int) float32 { return float32((i*7+j*3)%11) / 3 }
	index := []int{4, 0, 9, 2}
	at := func(i, j int) float32 { return of(index[i], j) }
	f := &Features{N: 10, D: 2, Source: "s", Network: "n", Pool: rows(10, 2, of), Logits: rows(10, 5, of), SpatialRows: rows(10, 3, of), Outputs: map[string][]float32{"o": rows(10, 1, of)}}
	f.Stats = &Stats{N: 99, Mean: []float64{1, 2}, Cov: make([]float64, 4)} // of a file, which are not the subset's
	s, err := f.Subset(index)
	if err != nil {
		t.Fatal(err)
	}
	if s.N != 4 || s.Stats != nil || s.Source != "s" || s.Network != "n" || !slices.Equal(s.Pool, rows(4, 2, at)) || !slices.Equal(s.Logits, rows(4, 5, at)) || !slices.Equal(s.Outputs["o"], rows(4, 1, at)) {
		t.Errorf("%+v", s)
	}
	want, err := StatsOf(rows(4, 3, at), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Spatial.Cov, want.Cov) || !slices.Equal(s.Spatial.Mean32, want.Mean32) {
		t.Errorf("%+v, want %+v", s.Spatial, want)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	if _, err := f.Subset([]int{10}); err == nil || !strings.Contains(err.Error(), "image 10 of 10") {
		t.Error(err)
	}
	if _, err := (&Features{N: 3, Stats: f.Stats}).Subset([]int{0}); err == nil || !strings.Contains(err.Error(), "no features of single images") {
		t.Error(err)
	}
}
