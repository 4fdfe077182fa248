package checkpoint_test

import (
	"fmt"
	"log"

	"sagbench/models/checkpoint"
)

// Open a checkpoint that a training script wrote, {"model": …, "ema": …,
// "args": …}, and list its tensors without reading them.
func ExampleOpen() {
	f, err := checkpoint.Open("testdata/dit.pt")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	fmt.Println(f.Format, "with weights under", f.Wrapper, "beside", f.Others)
	for _, name := range f.Tensors.Names() {
		t := f.Tensors[name]
		fmt.Println(name, t.DType, t.Shape, t.Size, "bytes")
	}
	mean, err := f.Tensors["1.running_mean"].Float32()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("running mean", mean)
	// Output:
	// torch zip with weights under ema beside [model]
	// 0.bias F32 [2] 8 bytes
	// 0.weight F32 [2 3] 24 bytes
	// 1.bias F32 [2] 8 bytes
	// 1.num_batches_tracked I64 [] 8 bytes
	// 1.running_mean F32 [2] 8 bytes
	// 1.running_var F32 [2] 8 bytes
	// 1.weight F32 [2] 8 bytes
	// running mean [100 100]
}
