package models

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/models/checkpoint/randomweights"
)

// An image has the same features, to the bit, whatever else is in its batch.
func TestInceptionBatches(t *testing.T) {
	n, err := (&Inception{InputSize: 107}).Load("pretrained/inception.pt", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	sameInAnyBatch(t, n, congruential(9, 40, 31))
}

func sameInAnyBatch(t *testing.T, n *InceptionNet, all Images) {
	t.Helper()
	together, err := Features(context.Background(), n, TF, all, Pool, Spatial)
	if err != nil {
		t.Fatal(err)
	}
	pixels := all.Height * all.Width * 3
	for _, size := range []int{1, 2, 4} {
		for from := 0; from < all.N; from += size {
			part := all
			part.N = min(size, all.N-from)
			part.Pixels = all.Pixels[from*pixels : (from+part.N)*pixels]
			alone, err := Features(context.Background(), n, TF, part, Pool, Spatial)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{Pool, Spatial} {
				want, got := together[name].Tensor(), alone[name].Tensor()
				if !slices.Equal(got.Data, want.Slice(from, from+part.N).Data) {
					t.Errorf("%s of images %d to %d: other features in a batch of %d", name, from, from+part.N-1, size)
				}
			}
		}
	}
}

// The official size runs on package kernels, which changes roundings and no more.
func TestInceptionOnKernels(t *testing.T) {
	c := &Inception{InputSize: 75, Width: fullWidth}
	shapes, err := c.Parameters(10)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "inception.pt")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	all := congruential(5, 64, 48)
	open := func(kernels string) *InceptionNet {
		t.Setenv("SAGBENCH_KERNELS", kernels)
		n, err := c.Load(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Close)
		if blocked := n.blocked(); blocked == (kernels == "none") {
			t.Skip("no kernels for this processor")
		}
		return n
	}
	plain := open("none")
	want, err := Features(context.Background(), plain, TF, all, plain.Outputs()...)
	if err != nil {
		t.Fatal(err)
	}
	n := open("")
	got, err := Features(context.Background(), n, TF, all, n.Outputs()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range n.Outputs() {
		got, want := got[name].Tensor(), want[name].Tensor()
		if !slices.Equal(got.Shape, want.Shape) {
			t.Fatalf("%s has shape %v, want %v", name, got.Shape, want.Shape)
		}
		worst, largest := 0.0, 0.0
		for i, v := range want.Data {
			worst, largest = max(worst, math.Abs(float64(got.Data[i]-v))), max(largest, math.Abs(float64(v)))
		}
		if !(worst <= 1e-5*largest) {
			t.Errorf("%s: off by %.2g of %.2g", name, worst, largest)
		}
	}
	sameInAnyBatch(t, n, all)
}
