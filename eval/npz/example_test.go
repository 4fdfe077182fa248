package npz_test

import (
	"fmt"

	"sagbench/eval/npz"
)

// The statistics of a reference in the layout of the ADM evaluator.
func Example() {
	file, err := npz.Open("../testdata/stats-npz/adm_stored.npz")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer file.Close()
	fmt.Println(file.Names())
	mu, err := file.Array("mu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mu.Close()
	mean, err := npz.ReadAll[float64](mu, 4096)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("mu: %s %v, %.4f …\n", mu.Dtype, mu.Shape, mean[0])
	// Output:
	// [arr_0 mu sigma mu_s sigma_s]
	// mu: <f8 [64], 0.4872 …
}
