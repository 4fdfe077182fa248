package models

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// fashionClassifier are the flags of the embedded classifier.
func fashionClassifier() *Classifier {
	c := NewClassifier()
	c.ImageSize, c.Width, c.Depth, c.AttentionResolutions, c.ChannelMult, c.NumHeadChannels, c.NumClasses = 32, 32, 1, "8", "1,2,2", 16, 10
	return c
}

const fashionClassifierFile = "pretrained/classifier.pt"

func openClassifier(t *testing.T, c *Classifier, path string) *ClassifierNet {
	t.Helper()
	m, err := c.Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m.(*ClassifierNet)
}

// An image's gradient has the same bits in any batch.
func TestClassifierBatchInvariance(t *testing.T) {
	n := openClassifier(t, fashionClassifier(), fashionClassifierFile)
	const images = 8
	x, labels := noise(t, images, 3, 32, 32), []int64{0, 1, 2, 3, 4, 5, 6, 9}
	gradient := func(from, to int) tensor.Tensor {
		t.Helper()
		g, err := n.Gradient(t.Context(), x.Slice(from, to), sampling.Timestep{Value: 500}, labels[from:to])
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	all := gradient(0, images)
	for _, batch := range []int{1, 3, 7} {
		for from := 0; from < images; from += batch {
			to := min(from+batch, images)
			if g := gradient(from, to); !slices.Equal(g.Data, all.Slice(from, to).Data) {
				t.Errorf("batch %d: images %d to %d have other bits than in a batch of %d", batch, from, to, images)
			}
		}
	}
}

// Each head, with either way to halve the image, with and without scale and
// shift: the gradient is that of log p by central differences, along a random
// direction, within what float32 leaves of them; and an image alone has the same.
func TestClassifierHeads(t *testing.T) {
	for pool := range heads {
		for _, way := range []bool{true, false} {
			t.Run(fmt.Sprint(pool, way), func(t *testing.T) {
				c := NewClassifier()
				c.ImageSize, c.Width, c.Depth, c.AttentionResolutions, c.ChannelMult, c.NumHeadChannels, c.NumClasses = 16, 32, 1, "8", "1,2", 16, 7
				c.Pool, c.ResblockUpdown, c.UseScaleShiftNorm = pool, way, way
				shapes, err := c.Parameters()
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(t.TempDir(), "classifier.pt")
				if err := randomweights.Write(path, shapes, 3); err != nil {
					t.Fatal(err)
				}
				checkGradient(t, openClassifier(t, c, path))
			})
		}
	}
}

func checkGradient(t *testing.T, n *ClassifierNet) {
	t.Helper()
	x, y := noise(t, 2, 3, 16, 16), []int64{4, 1}
	direction := noise(t, 4, 3, 16, 16).Slice(2, 4)
	logP := func(step float32) (p [2]float64) {
		moved := x.Clone()
		for i, d := range direction.Data {
			moved.Data[i] += step * d
		}
		out, err := n.Forward(t.Context(), map[string]ort.Array{"x": ort.Floats(moved), "t": {Shape: []int{2}, Data: []int64{300, 20}}, "y": {Shape: []int{2}, Data: y}})
		if err != nil {
			t.Fatal(err)
		}
		logits := out["logits"].Tensor()
		for i, label := range y {
			sum := 0.0
			for _, v := range logits.Row(i) {
				sum += math.Exp(float64(v))
			}
			p[i] = float64(logits.Row(i)[label]) - math.Log(sum)
		}
		return p
	}
	out, err := n.Forward(t.Context(), map[string]ort.Array{"x": ort.Floats(x), "t": {Shape: []int{2}, Data: []int64{300, 20}}, "y": {Shape: []int{2}, Data: y}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range y {
		alone, err := n.Gradient(t.Context(), x.Slice(i, i+1), sampling.Timestep{Value: []float64{300, 20}[i]}, y[i:i+1])
		if err != nil || !slices.Equal(alone.Data, out["gradient"].Tensor().Row(i)) {
			t.Errorf("image %d alone has other bits than beside another: %v", i, err)
		}
	}
	const h = 2e-3
	up, down := logP(h), logP(-h)
	for i := range y {
		got, norm := 0.0, 0.0
		for j, g := range out["gradient"].Tensor().Row(i) {
			got += float64(g * direction.Row(i)[j])
			norm += float64(g * g)
		}
		want := (up[i] - down[i]) / (2 * h)
		if d := math.Abs(got - want); !(d < 0.01*math.Sqrt(norm)) || norm == 0 {
			t.Errorf("image %d: along the direction log p changes by %g, the gradient (of norm %g) says %g", i, want, math.Sqrt(norm), got)
		}
	}
}

// Wrong flags are named with what the shapes suggest.
func TestClassifierHints(t *testing.T) {
	for want, spoil := range map[string]func(*Classifier){
		"classifier_width: 32 (not 64)":                      func(c *Classifier) { c.Width = 64 },
		"classifier_depth: 1 (not 2)":                        func(c *Classifier) { c.Depth = 2 },
		`channel_mult: "1,2,2" (not "1,1,2")`:                func(c *Classifier) { c.ChannelMult = "1,1,2" },
		`classifier_attention_resolutions: "8" (not "16,8")`: func(c *Classifier) { c.AttentionResolutions = "16,8" },
		"classifier_use_scale_shift_norm: true (not false)":  func(c *Classifier) { c.UseScaleShiftNorm = false },
		"classifier_resblock_updown: true (not false)":       func(c *Classifier) { c.ResblockUpdown = false },
		"classifier_pool: attention (not spatial_v2)":        func(c *Classifier) { c.Pool = "spatial_v2" },
		"num_classes: 10 (not 1000)":                         func(c *Classifier) { c.NumClasses = 1000 },
		"image_size: 32 (not 64)":                            func(c *Classifier) { c.ImageSize = 64 },
	} {
		c := fashionClassifier()
		spoil(c)
		_, err := c.Open(fashionClassifierFile, Options{})
		var e *onnx.MismatchError
		if !errors.As(err, &e) || !strings.Contains(e.Hint, want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for want, spoil := range map[string]func(*Classifier){
		`classifier_pool is "max", expected adaptive, attention, spatial, spatial_v2`: func(c *Classifier) { c.Pool = "max" },
		"num_classes is 0":                                func(c *Classifier) { c.NumClasses = 0 },
		"num_head_channels is -1":                         func(c *Classifier) { c.NumHeadChannels = -1 },
		"num_head_channels 24 does not divide":            func(c *Classifier) { c.NumHeadChannels = 24 },
		"num_head_channels 0 does not divide":             func(c *Classifier) { c.NumHeadChannels = 0 },
		"classifier_width 0 and classifier_depth":         func(c *Classifier) { c.Width = 0 },
		"(classifier_width 40 times its channel_mult)":    func(c *Classifier) { c.Width = 40 },
		"channel_mult has 70 levels, expected at most 16": func(c *Classifier) { c.ChannelMult = strings.Repeat("1,", 69) + "1" },
		"image_size 48 has no default channel_mult":       func(c *Classifier) { c.ChannelMult, c.ImageSize = "", 48 },
	} {
		c := fashionClassifier()
		spoil(c)
		if _, err := c.Open(fashionClassifierFile, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := NewADM().Open(fashionClassifierFile, Options{}); err == nil || !strings.Contains(err.Error(), "(family: classifier)") {
		t.Errorf("a classifier as an ADM: %v", err)
	}
	if _, err := fashionClassifier().Open(fashionCheckpoint, Options{}); err == nil || !strings.Contains(err.Error(), "(family: adm or iddpm)") {
		t.Errorf("an ADM as a classifier: %v", err)
	}
}

// What is guessed of a classifier's shapes is what they were made from.
func TestClassifierGuess(t *testing.T) {
	for name, set := range map[string]func(*Classifier){
		"64x64_classifier":   func(c *Classifier) { c.Depth = 4 },
		"128x128_classifier": func(c *Classifier) { c.ImageSize = 128 },
		"256x256_classifier": func(c *Classifier) { c.ImageSize = 256 },
		"512x512_classifier": func(c *Classifier) { c.ImageSize = 512 },
		"strided":            func(c *Classifier) { c.ResblockUpdown = false },
		"one level":          func(c *Classifier) { c.ChannelMult, c.AttentionResolutions = "1", "32" },
		"spatial":            func(c *Classifier) { c.Pool, c.UseScaleShiftNorm = "spatial", false },
		"spatial_v2":         func(c *Classifier) { c.Pool = "spatial_v2" },
		"adaptive":           func(c *Classifier) { c.Pool, c.NumClasses = "adaptive", 10 },
	} {
		c := NewClassifier()
		set(c)
		shapes, err := c.Parameters()
		if err != nil {
			t.Fatal(err)
		}
		sd := checkpoint.StateDict{}
		for key, shape := range shapes {
			sd[key] = checkpoint.Tensor{DType: checkpoint.F32, Shape: shape, File: "classifier.pt", Size: int64(4 * tensor.Size(shape))}
			if sd[key].Size < 1<<13 { // such as are copied into the graph
				sd[key] = checkpoint.FromFloat32(make([]float32, tensor.Size(shape)), shape...)
			}
		}
		u, err := c.network()
		if err != nil {
			t.Fatal(err)
		}
		heads := 64
		for _, ch := range u.attending() {
			heads = min(heads, ch)
		}
		want := fmt.Sprintf("classifier image_size=%s classifier_width=%d classifier_depth=%d channel_mult=%q classifier_attention_resolutions=%s "+
			"classifier_use_scale_shift_norm=%t classifier_resblock_updown=%t classifier_pool=%q num_head_channels=%d num_classes=%d",
			fmt.Sprint(c.ImageSize), c.Width, c.Depth, u.channelMult(), fmt.Sprintf("%q", u.resolutions()), c.UseScaleShiftNorm, c.ResblockUpdown && len(u.widths) > 1, c.Pool, heads, c.NumClasses)
		if got := guessed(sd); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}
