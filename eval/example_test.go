package eval_test

import (
	"context"
	"fmt"
	"math/rand/v2"

	"sagbench/eval"
)

// FID of two sets of features: here those of 1000 images each, in 8 dimensions
// of variance 1, whose means differ by 1 in every dimension.
func ExampleFID() {
	r := rand.New(rand.NewPCG(1, 2))
	features := func(mean float64) *eval.Features {
		f := &eval.Features{N: 1000, D: 8, Pool: make([]float32, 1000*8)}
		for i := range f.Pool {
			f.Pool[i] = float32(mean + r.NormFloat64())
		}
		return f
	}
	ref, gen := features(0), features(1)
	report, err := eval.Evaluate(context.Background(), ref, gen, &eval.FID{Mean: eval.MeanFloat64})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s %.1f\n", report.Scores[0].Title, report.Scores[0].Value)
	// Output: FID 8.0
}
