package features

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint/randomweights"
)

// An image has the same features, to the bit, whatever else is in its batch.
func TestInceptionBatches(t *testing.T) {
	n, err := (&Inception{InputSize: 107}).Extractor(t.Context(), "../pretrained/inception.pt", models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	sameInAnyBatch(t, n, congruential(9, 40, 31))
}

func sameInAnyBatch(t *testing.T, n Extractor, all models.Images) {
	t.Helper()
	together, err := Of(context.Background(), n, TF, all, Pool, Spatial)
	if err != nil {
		t.Fatal(err)
	}
	pixels := all.Height * all.Width * 3
	for _, size := range []int{1, 2, 4} {
		for from := 0; from < all.N; from += size {
			part := all
			part.N = min(size, all.N-from)
			part.Pixels = all.Pixels[from*pixels : (from+part.N)*pixels]
			alone, err := Of(context.Background(), n, TF, part, Pool, Spatial)
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
	open := func(kernels string) Extractor {
		t.Setenv("SAGBENCH_KERNELS", kernels)
		n, err := c.Extractor(t.Context(), path, models.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Close)
		if blocked := n.(*inceptionNet).blocked(); blocked == (kernels == "none") {
			t.Skip("no kernels for this processor")
		}
		return n
	}
	plain := open("none")
	want, err := Of(context.Background(), plain, TF, all, plain.Outputs()...)
	if err != nil {
		t.Fatal(err)
	}
	n := open("")
	got, err := Of(context.Background(), n, TF, all, n.Outputs()...)
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

func TestInceptionOpens(t *testing.T) {
	for want, c := range map[string]struct {
		c    Inception
		path string
	}{
		"input_size 32":                            {Inception{InputSize: 32}, "../pretrained/inception.pt"},
		"width 2048 was asked for":                 {Inception{InputSize: 107, Width: 2048}, "../pretrained/inception.pt"},
		"fc.weight [classes, features] is missing": {Inception{InputSize: 107}, "../pretrained/adm-uncond.pt"},
		"give --input-size N":                      {Inception{}, "../../experiments/refcase/testdata/cases/inception-eighth/model.pt"},
	} {
		if _, err := c.c.Extractor(t.Context(), c.path, models.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	own := &Inception{}
	own.Adopt("../pretrained/inception.pt", "")
	if own.InputSize != 107 {
		t.Errorf("the embedded network looks at images of %d pixels, expected 107", own.InputSize)
	}
	n, err := (&Inception{}).Extractor(t.Context(), "../pretrained/inception.pt", models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	im := models.Images{N: 2, Height: 32, Width: 32, Pixels: make([]uint8, 2*32*32*3)}
	out, err := Of(context.Background(), n, TF, im, Pool, Spatial)
	if err != nil {
		t.Fatal(err)
	}
	if got := [][]int{out[Pool].Shape, out[Spatial].Shape}; !slices.Equal(got[0], []int{2, 256}) || !slices.Equal(got[1], []int{2, 175}) {
		t.Errorf("features have shapes %v, want [2 256] and [2 175]", got)
	}
	for input, want := range map[int]int{299: 2023, 107: 175} {
		if pool, spatial := (&Inception{InputSize: input}).Features("../pretrained/inception.pt"); pool != 256 || spatial != want {
			t.Errorf("%d pixels: %d and %d features, want 256 and %d", input, pool, spatial, want)
		}
	}
	if _, err := Of(context.Background(), n, "nearest", im, Pool); err == nil {
		t.Error("an unknown resize was accepted")
	}
}
