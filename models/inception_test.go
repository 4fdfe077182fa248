package models

import (
	"context"
	"slices"
	"testing"
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
