package features

import (
	"runtime"
	"slices"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/sampling/tensor"
)

// The resizes of TensorFlow 1 (torch-fidelity's port) and of clean-fid are met
// to the bit; that of torch as closely as its fused arithmetic lets one know.
func TestResizeBits(t *testing.T) {
	f, err := checkpoint.Open("../../experiments/refcase/testdata/cases/inception-fid/io.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	x := f.Tensors["in.images"]
	pixels, err := x.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	images := models.Images{N: 1, Height: x.Shape[1], Width: x.Shape[2]}
	images.Pixels = pixels[:images.Height*images.Width*3]
	for resize, name := range map[Resize]string{TF: "out.tf.resized", Clean: "out.clean.resized"} {
		want, err := f.Tensors[name].Float32()
		if err != nil {
			t.Fatal(err)
		}
		got := channelsLast(tensor.Of(Resizes[resize].resized(images, 299), 1, 3, 299, 299)).Data
		if !slices.Equal(got, want) {
			t.Errorf("%s: other bits", name)
		}
	}
}

// What is of the network's size already, and what one pixel is stretched to, is
// left as it is.
func TestResizeLeavesAlone(t *testing.T) {
	images := congruential(2, 9, 9)
	one := models.Images{N: 1, Height: 1, Width: 1, Pixels: []uint8{7, 8, 9}}
	for resize, r := range Resizes {
		for i, v := range r.resized(images, 9) {
			pixel := images.Pixels[i/243*243+i%81*3+i/81%3]
			if want := float32(pixel) / r.divisor; v != want {
				t.Fatalf("%s: value %d is %v, want %v", resize, i, v, want)
			}
		}
		for i, v := range r.resized(one, 5) {
			if want := float32(one.Pixels[i/25]) / r.divisor; v-want > 1e-5 || want-v > 1e-5 {
				t.Fatalf("%s: one pixel became %v, want %v", resize, v, want)
			}
		}
	}
}

// A bilinear resize holds two lines of the source at a time, so that they stay in
// the processor's cache, and not the whole image at the width of the result.
func TestBilinearHoldsTwoLines(t *testing.T) {
	const h, w, size = 1 << 16, 2, 64
	src, dst := make([]float32, h*w), make([]float32, size*size)
	for _, r := range []Resize{TF, Torch} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		Resizes[r].resample.plane(dst, size, src, h, w)
		runtime.ReadMemStats(&after)
		if taken := after.TotalAlloc - before.TotalAlloc; taken > h*size {
			t.Errorf("%s: %d bytes taken for an image of %d×%d", r, taken, h, w)
		}
	}
}
