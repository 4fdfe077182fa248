package eval

import (
	"context"
	"math/rand/v2"
	"testing"

	"sagbench/eval/neighbours"
	"sagbench/eval/rows"
)

// TestRowsInAFile: every metric of single images gives the same bits where the
// features lie in a temporary file.
func TestRowsInAFile(t *testing.T) {
	const n, d, k = 300, 24, 7
	r := rand.New(rand.NewPCG(7, 7))
	values := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = float32(r.NormFloat64())
		}
		return out
	}
	pools, weight := [2][]float32{values(n * d), values(n * d)}, values(k*d)
	sets := func(limit int) (ref, gen *Features) {
		var out [2]*Features
		for i, pool := range pools {
			held := &rows.Rows{Limit: limit}
			if err := held.Append(pool); err != nil {
				t.Fatal(err)
			}
			f := &Features{N: n, D: d, ClassWeight: weight, Held: []*rows.Rows{held}}
			var err error
			if f.Pool, err = held.Values(); err != nil {
				t.Fatal(err)
			}
			out[i] = f
		}
		return out[0], out[1]
	}
	metrics := []Metric{&FID{}, &InceptionScore{Splits: 3, Shuffle: true}, &KID{Subsets: 5, SubsetSize: 50, Seed: 1},
		&Precision{K: 3, Distance: neighbours.DistanceADM}, &Recall{K: 3, Distance: neighbours.DistanceADM}}
	var found [2]Report
	for i, limit := range []int{0, 1} {
		ref, gen := sets(limit)
		var err error
		if found[i], err = Evaluate(context.Background(), ref, gen, metrics...); err != nil {
			t.Fatal(err)
		}
		if err := gen.Close(); err != nil {
			t.Fatal(err)
		}
		ref.Close()
	}
	if len(found[0].Scores) != len(metrics) {
		t.Fatalf("%d scores of %d metrics", len(found[0].Scores), len(metrics))
	}
	for i, s := range found[0].Scores {
		if o := found[1].Scores[i]; o.Value != s.Value || o.Std != s.Std {
			t.Errorf("%s: %v in memory, %v in a file", s.Name, s.Value, o.Value)
		}
	}
}
