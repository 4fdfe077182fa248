package models

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

const fashionCheckpoint = "pretrained/adm-uncond.pt"

// fashionADM are the flags of the embedded unconditional ADM.
func fashionADM() *ADM {
	c := NewADM()
	c.ImageSize, c.NumChannels, c.NumResBlocks, c.ChannelMult = 32, 64, 1, "1,1,2"
	c.NumHeadChannels, c.ResblockUpdown, c.LearnSigma = 32, true, true
	return c
}

func openFashion(t testing.TB, opt Options) *pixelUNet {
	t.Helper()
	m, err := fashionADM().Open(fashionCheckpoint, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m.(*pixelUNet)
}

func TestBatchInvariance(t *testing.T) {
	batchInvariance(t, openFashion(t, Options{Taps: []sampling.Tap{{Layer: "output_blocks.1.1"}}}))
}

// batchInvariance holds an image's prediction to the same bits whatever batch it
// is in.
func batchInvariance(t *testing.T, g Generator) {
	t.Helper()
	batchInvarianceAt(t, g, 500)
}

// batchInvarianceAt is batchInvariance at what the network is told as time.
func batchInvarianceAt(t *testing.T, g Generator, time float64) {
	t.Helper()
	const n = 8
	x := noise(t, append([]int{n}, g.SampleShape()...)...)
	var labels []int64
	for i := range min(n, n*g.Classes()) {
		labels = append(labels, int64(i%g.Classes()))
	}
	part := func(from, to int) sampling.Prediction {
		t.Helper()
		var c sampling.Cond
		if labels != nil {
			c.Labels = labels[from:to]
		}
		p, err := g.Denoise(context.Background(), x.Slice(from, to), sampling.Timestep{Value: time}, c)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	all := part(0, n)
	for _, batch := range []int{1, 3, 7} {
		for from := 0; from < n; from += batch {
			to := min(from+batch, n)
			p := part(from, to)
			for name, pair := range map[string][2]tensor.Tensor{"eps": {p.Eps, all.Eps}, "var": {p.Var, all.Var}, "attention": {p.Attn, all.Attn}} {
				if pair[1].IsZero() { // no learned variance
					continue
				}
				if !slices.Equal(pair[0].Data, pair[1].Slice(from, to).Data) {
					t.Errorf("batch %d: %s of images %d to %d has other bits than in a batch of %d", batch, name, from, to, n)
				}
			}
		}
	}
}

func noise(t testing.TB, shape ...int) tensor.Tensor {
	t.Helper()
	x := tensor.New(shape...)
	images := make([]int, shape[0])
	for i := range images {
		images[i] = i
	}
	if err := (sampling.Keyed{Seed: 1, Images: images}).Fill(-1, x); err != nil {
		t.Fatal(err)
	}
	return x
}

// TestHints opens the embedded checkpoint with one wrong flag at a time: the
// message has to name that flag and its right value.
func TestHints(t *testing.T) {
	for want, spoil := range map[string]func(*ADM){
		"num_channels: 64 (not 128)":                    func(c *ADM) { c.NumChannels = 128 },
		"num_res_blocks: 1 (not 2)":                     func(c *ADM) { c.NumResBlocks = 2 },
		`channel_mult: "1,1,2" (not "1,2,2")`:           func(c *ADM) { c.ChannelMult = "1,2,2" },
		`channel_mult: "1,1,2" (not "1,2")`:             func(c *ADM) { c.ChannelMult = "1,2" },
		"learn_sigma: true (not false)":                 func(c *ADM) { c.LearnSigma = false },
		"class_cond: false (not true)":                  func(c *ADM) { c.ClassCond = true },
		"use_scale_shift_norm: true (not false)":        func(c *ADM) { c.UseScaleShiftNorm = false },
		"resblock_updown: true (not false)":             func(c *ADM) { c.ResblockUpdown = false },
		`attention_resolutions: "16,8" (not "8")`:       func(c *ADM) { c.AttentionResolutions = "8" },
		`attention_resolutions: "16,8" (not "32,16,8")`: func(c *ADM) { c.AttentionResolutions = "32,16,8" },
	} {
		c := fashionADM()
		spoil(c)
		_, err := c.Open(fashionCheckpoint, Options{})
		var mismatch *onnx.MismatchError
		if !errors.As(err, &mismatch) {
			t.Errorf("%s: the network was opened: %v", want, err)
			continue
		}
		if mismatch.Hint != "its shapes suggest "+want {
			t.Errorf("hint %q, want %q", mismatch.Hint, want)
		}
		if !strings.HasPrefix(err.Error(), "models: "+fashionCheckpoint+": ") {
			t.Errorf("the message does not name the file first: %s", err)
		}
	}
}

// TestStrict lists all faults of a state dict in one error.
func TestStrict(t *testing.T) {
	f, err := checkpoint.Open(fashionCheckpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sd := checkpoint.StateDict{}
	for k, v := range f.Tensors {
		sd[k] = v
	}
	delete(sd, "out.2.bias")
	delete(sd, "middle_block.1.qkv.weight")
	sd["extra.weight"] = checkpoint.FromFloat32([]float32{1}, 1)
	bad := sd["out.0.weight"]
	bad.Shape = []int{32, 2}
	sd["out.0.weight"] = bad
	c := fashionADM()
	u, err := c.network()
	if err != nil {
		t.Fatal(err)
	}
	_, err = onnx.Build(sd, func(m *onnx.Module) { u.build(m, NewTaps(Options{})) })
	want := `the checkpoint does not fit the network
  missing    middle_block.1.qkv.weight [384 128 1]
  missing    out.2.bias [6]
  unexpected extra.weight [1]
  mis-shaped out.0.weight: the network wants [64], the checkpoint has [32 2]`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestFlags(t *testing.T) {
	for want, spoil := range map[string]func(*ADM){
		"image_size 48 has no default channel_mult":                        func(c *ADM) { c.ImageSize, c.ChannelMult = 48, "" },
		"image_size 30: 3 levels of channel_mult need a positive multiple": func(c *ADM) { c.ImageSize = 30 },
		`channel_mult "1,x"`:                                    func(c *ADM) { c.ChannelMult = "1,x" },
		`attention_resolutions "big"`:                           func(c *ADM) { c.AttentionResolutions = "big" },
		"num_channels -64":                                      func(c *ADM) { c.NumChannels = -64 },
		"level 0 has 48 channels":                               func(c *ADM) { c.NumChannels = 48 },
		"num_head_channels 7 does not divide":                   func(c *ADM) { c.NumHeadChannels = 7 },
		"num_heads 5 does not divide":                           func(c *ADM) { c.NumHeadChannels, c.NumHeads = -1, 5 },
		"num_classes 0: a class-conditional network needs":      func(c *ADM) { c.ClassCond, c.NumClasses = true, 0 },
		"num_heads_upsample 5 does not divide":                  func(c *ADM) { c.NumHeadChannels, c.NumHeadsUpsample = -1, 5 },
		"attention_resolutions \"64\": 64 pixels are more than": func(c *ADM) { c.AttentionResolutions = "64" },
	} {
		c := fashionADM()
		spoil(c)
		if _, err := c.Open(fashionCheckpoint, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestTaps(t *testing.T) {
	for want, tap := range map[string]sampling.Tap{
		`layer "output_blocks.9.1" is no attention layer of this network; it has input_blocks.3.1, input_blocks.5.1, middle_block.1, output_blocks.0.1, output_blocks.1.1, output_blocks.2.1, output_blocks.3.1`: {Layer: "output_blocks.9.1"},
		"layer middle_block.1 has 128 channels, which 3 heads do not divide": {Layer: "middle_block.1", Heads: 3},
		`attention_order "new": expected "legacy" or nothing`:                {Layer: "middle_block.1", Order: "new"},
		"heads -1: expected 0": {Layer: "middle_block.1", Heads: -1},
	} {
		_, err := fashionADM().Open(fashionCheckpoint, Options{Taps: []sampling.Tap{tap}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	u := openFashion(t, Options{Taps: []sampling.Tap{{Layer: "middle_block.1"}}})
	p, err := u.Denoise(context.Background(), noise(t, 2, 3, 32, 32), sampling.Timestep{Value: 10}, sampling.Cond{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		mean := 0.0
		for _, v := range p.Attn.Row(i) {
			mean += float64(v) / float64(p.Attn.RowLen())
		}
		if mean < 1-1e-5 || mean > 1+1e-5 {
			t.Errorf("the mass of image %d has mean %g, expected 1", i, mean)
		}
	}
}

func TestLabels(t *testing.T) {
	c := fashionADM()
	c.ClassCond, c.NumClasses = true, 10
	m, err := c.Open("pretrained/adm-cond.pt", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	x := noise(t, 2, 3, 32, 32)
	at := sampling.Timestep{Value: 500}
	if _, err := m.(Generator).Denoise(context.Background(), x, at, sampling.Cond{Labels: []int64{1}}); err == nil {
		t.Error("one label for two images was accepted")
	}
	if _, err := m.(Generator).Denoise(context.Background(), x, at, sampling.Cond{Labels: []int64{1, 10}}); err == nil || !strings.Contains(err.Error(), "label 10") {
		t.Errorf("a label beyond the last class: %v", err)
	}
	a, err := m.(Generator).Denoise(context.Background(), x, at, sampling.Cond{Labels: []int64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.(Generator).Denoise(context.Background(), x, at, sampling.Cond{Labels: []int64{1, 3}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Eps.Row(0), b.Eps.Row(0)) || slices.Equal(a.Eps.Row(1), b.Eps.Row(1)) {
		t.Error("a label has to change its own image's prediction and no other")
	}
}

func TestPixels(t *testing.T) {
	u := &pixelUNet{size: 1}
	x := tensor.Of([]float32{-1, 1, 0, -3, 3, 0.9999}, 2, 3, 1, 1)
	im, err := u.Pixels(context.Background(), x)
	if want := []uint8{0, 255, 127, 0, 255, 254}; err != nil || !slices.Equal(im.Pixels, want) {
		t.Errorf("got %v %v, want %v: truncated, not rounded", im.Pixels, err, want)
	}
}
