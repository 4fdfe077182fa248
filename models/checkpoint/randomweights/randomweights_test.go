package randomweights

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/models/checkpoint"
)

// TestWrite reads a file back as any other checkpoint.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.pt")
	shapes := map[string][]int{"a.weight": {100, 900}, "a.bias": {100}, "norm.weight": {7}, "deep.conv.weight": {4, 3, 3, 3}}
	if err := Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(f.Tensors) != len(shapes) {
		t.Fatalf("tensors %v, want %v", f.Tensors.Names(), shapes)
	}
	for k, shape := range shapes {
		if got := f.Tensors[k].Shape; !slices.Equal(got, shape) {
			t.Errorf("%s has shape %v, want %v", k, got, shape)
		}
	}
	w, err := f.Tensors["a.weight"].Float64()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, x := range w {
		sum += x * x
	}
	if v := sum / float64(len(w)) * 900; math.Abs(v-1) > 0.02 {
		t.Errorf("variance × fan-in is %g, want 1", v)
	}
	if n, _ := f.Tensors["norm.weight"].Float32(); n[6] != 1 {
		t.Errorf("gains are %v, want ones", n)
	}
}
