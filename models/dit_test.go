package models

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

const fashionDiTCheckpoint = "pretrained/dit.pt"

// fashionDiT are the flags of the embedded DiT.
func fashionDiT() *DiT {
	c := NewDiT()
	c.InputSize, c.PatchSize, c.HiddenSize, c.Depth, c.NumHeads, c.NumClasses = 16, 2, 128, 6, 4, 10
	return c
}

func openDiT(t *testing.T, opt Options) *ditNet {
	t.Helper()
	m, err := fashionDiT().Open(fashionDiTCheckpoint, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m.(*ditNet)
}

func TestDiTBatchInvariance(t *testing.T) {
	batchInvariance(t, openDiT(t, Options{Taps: []sampling.Tap{{Layer: "blocks.3.attn"}}}))
}

// TestDiTSizes builds every published size against a state dict of the names and
// shapes that models.py gives its parameters, without data, and counts them.
func TestDiTSizes(t *testing.T) {
	millions := map[string]int{"DiT-S/2": 33, "DiT-B/2": 130, "DiT-L/2": 458, "DiT-XL/2": 675} // table 1 of the paper
	for name, s := range ditSizes {
		for _, imageSize := range []int{256, 512} {
			c := NewDiT()
			c.Model, c.InputSize = name, imageSize/8
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			sd := officialDiT(s.depth, s.hidden, s.patch, imageSize/8)
			if _, err := onnx.Build(sd, func(m *onnx.Module) { c.build(m, NewTaps(Options{})) }); err != nil {
				t.Errorf("%s at %d: %v", name, imageSize, err)
			}
			count := parameters(sd)
			if want := millions[name]; want != 0 && imageSize == 256 && (count < want*1e6-600_000 || count > want*1e6+600_000) {
				t.Errorf("%s has %d parameters, want %d million", name, count, want)
			}
			if name == "DiT-XL/2" && imageSize == 256 && count != 675_129_632 { // as train.py logs it
				t.Errorf("%s has %d parameters, want 675129632", name, count)
			}
			want := fmt.Sprintf("dit model=%q input_size=%d in_channels=4 mlp_ratio=4 num_classes=1000 learn_sigma=true", name, imageSize/8)
			if got := guessed(sd); got != want {
				t.Errorf("guessed %s, want %s", got, want)
			}
		}
	}
}

// TestDiTConfiguration decodes the models of configs/dit-imagenet.yaml.
func TestDiTConfiguration(t *testing.T) {
	var got []string
	checkpoints, all := modelsOf(t, "../configs/dit-imagenet.yaml", NewDiT)
	for i, c := range all {
		shapes, err := c.Parameters()
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprint(checkpoints[i], " ", c.VAE.Checkpoint.Written, " ", 8*c.InputSize, " ", shapes["pos_embed"], " ", len(shapes))
		if !slices.Contains(got, line) {
			got = append(got, line)
		}
	}
	want := []string{
		"${MODELS}/DiT-XL-2-256x256.pt ${MODELS}/sd-vae-ft-ema 256 [1 256 1152] 292",
		"${MODELS}/DiT-XL-2-512x512.pt ${MODELS}/sd-vae-ft-ema 512 [1 1024 1152] 292",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// officialDiT lists the parameters of models.py DiT with its defaults.
func officialDiT(depth, d, patch, input int) checkpoint.StateDict {
	shapes := map[string][]int{
		"pos_embed":                             {1, input / patch * (input / patch), d},
		"x_embedder.proj.weight":                {d, 4, patch, patch},
		"x_embedder.proj.bias":                  {d},
		"y_embedder.embedding_table.weight":     {1001, d},
		"t_embedder.mlp.0.weight":               {d, 256},
		"t_embedder.mlp.0.bias":                 {d},
		"t_embedder.mlp.2.weight":               {d, d},
		"t_embedder.mlp.2.bias":                 {d},
		"final_layer.linear.weight":             {8 * patch * patch, d},
		"final_layer.linear.bias":               {8 * patch * patch},
		"final_layer.adaLN_modulation.1.weight": {2 * d, d},
		"final_layer.adaLN_modulation.1.bias":   {2 * d},
	}
	for i := range depth {
		for layer, size := range map[string][2]int{
			"attn.qkv": {3 * d, d}, "attn.proj": {d, d}, "mlp.fc1": {4 * d, d}, "mlp.fc2": {d, 4 * d}, "adaLN_modulation.1": {6 * d, d},
		} {
			shapes[fmt.Sprintf("blocks.%d.%s.weight", i, layer)] = size[:]
			shapes[fmt.Sprintf("blocks.%d.%s.bias", i, layer)] = size[:1]
		}
	}
	return shapesOnly(shapes)
}

func TestDiTStrict(t *testing.T) {
	sd := officialDiT(12, 384, 4, 32)
	delete(sd, "blocks.7.attn.proj.bias")
	sd["blocks.7.attn.q_norm.weight"] = checkpoint.FromFloat32(make([]float32, 64), 64)
	pos := sd["pos_embed"]
	pos.Shape = []int{1, 65, 384}
	sd["pos_embed"] = pos
	c := NewDiT()
	c.Model = "DiT-S/4"
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	_, err := onnx.Build(sd, func(m *onnx.Module) { c.build(m, NewTaps(Options{})) })
	want := `the checkpoint does not fit the network
  missing    blocks.7.attn.proj.bias [384]
  unexpected blocks.7.attn.q_norm.weight [64]
  mis-shaped pos_embed: the network wants [1 64 384], the checkpoint has [1 65 384]`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestDiTHints(t *testing.T) {
	for want, spoil := range map[string]func(*DiT){
		"its shapes suggest hidden_size: 128 (not 256)":    func(c *DiT) { c.HiddenSize = 256 },
		"its shapes suggest depth: 6 (not 12)":             func(c *DiT) { c.Depth = 12 },
		"its shapes suggest patch_size: 2 (not 4)":         func(c *DiT) { c.PatchSize = 4 },
		"its shapes suggest input_size: 16 (not 32)":       func(c *DiT) { c.InputSize = 32 },
		"its shapes suggest in_channels: 4 (not 3)":        func(c *DiT) { c.InChannels = 3 },
		"its shapes suggest learn_sigma: true (not false)": func(c *DiT) { c.LearnSigma = false },
		"its shapes suggest mlp_ratio: 4 (not 2)":          func(c *DiT) { c.MLPRatio = 2 },
		"its shapes suggest a label table of 11 rows (not 1001): num_classes 10 and the null class, or 11 with class_dropout_prob 0": func(c *DiT) { c.NumClasses = 1000 },
		"its shapes suggest a label table of 11 rows (not 10): num_classes 10 and the null class, or 11 with class_dropout_prob 0":   func(c *DiT) { c.ClassDropoutProb = 0 },
		"its shapes suggest hidden_size: 128 (not 384), depth: 6 (not 12)":                                                           func(c *DiT) { c.Model, c.HiddenSize, c.Depth, c.NumHeads = "DiT-S/2", 0, 0, 0 },
	} {
		c := fashionDiT()
		spoil(c)
		_, err := c.Open(fashionDiTCheckpoint, Options{})
		var mismatch *onnx.MismatchError
		if !errors.As(err, &mismatch) || mismatch.Hint != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	c := NewDiT()
	c.Model = "DiT-XL/2"
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if got, want := c.hint(officialDiT(24, 1024, 4, 32)), `its shapes suggest model: "DiT-L/4" (not "DiT-XL/2")`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := fashionDiT().Open(fashionCheckpoint, Options{}); err == nil || !strings.Contains(err.Error(), "(family: adm or iddpm)") {
		t.Errorf("an ADM checkpoint: %v", err)
	}
}

// TestDiTModel: a published size stands for the flags that describe it.
func TestDiTModel(t *testing.T) {
	named, explicit := NewDiT(), NewDiT()
	named.Model = "DiT-B/4"
	explicit.Depth, explicit.HiddenSize, explicit.NumHeads, explicit.PatchSize = 12, 768, 12, 4
	if err := errors.Join(named.Validate(), explicit.Validate()); err != nil {
		t.Fatal(err)
	}
	if named.Model = ""; fmt.Sprint(named) != fmt.Sprint(explicit) {
		t.Errorf("got %+v, want %+v", named, explicit)
	}
}

// TestDiTTaps holds the map to its mean, and the prediction to the same bits
// whether a layer is tapped or not.
func TestDiTTaps(t *testing.T) {
	x := noise(t, 2, 4, 16, 16)
	predict := func(taps ...sampling.Tap) sampling.Prediction {
		t.Helper()
		p, err := openDiT(t, Options{Taps: taps}).Denoise(context.Background(), x, sampling.Timestep{Value: 400}, sampling.Cond{Labels: []int64{3, 10}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	plain, own := predict(), predict(sampling.Tap{Layer: "blocks.2.attn"})
	if !slices.Equal(plain.Eps.Data, own.Eps.Data) || !slices.Equal(plain.Var.Data, own.Var.Data) {
		t.Error("tapping a layer changes the prediction")
	}
	if !slices.Equal(own.Attn.Shape, []int{2, 64}) {
		t.Fatalf("the map has shape %v, want [2 64]", own.Attn.Shape)
	}
	for i := range 2 {
		mean := 0.0
		for _, v := range own.Attn.Row(i) {
			mean += float64(v) / 64
		}
		if mean < 1-1e-5 || mean > 1+1e-5 {
			t.Errorf("the mass of image %d has mean %g, expected 1", i, mean)
		}
	}
	if other := predict(sampling.Tap{Layer: "blocks.2.attn", Heads: 2}); slices.Equal(other.Attn.Data, own.Attn.Data) {
		t.Error("two heads give the map of four")
	}
	for want, tap := range map[string]sampling.Tap{
		`layer "blocks.6.attn" is no attention layer of this network; it has blocks.0.attn, blocks.1.attn, blocks.2.attn, blocks.3.attn, blocks.4.attn, blocks.5.attn`: {Layer: "blocks.6.attn"},
		"layer blocks.0.attn has 128 channels, which 3 heads do not divide":                                                                                            {Layer: "blocks.0.attn", Heads: 3},
	} {
		_, err := fashionDiT().Open(fashionDiTCheckpoint, Options{Taps: []sampling.Tap{tap}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestDiTNull(t *testing.T) {
	g := openDiT(t, Options{})
	null, err := g.Null(t.Context(), 2)
	if err != nil || !slices.Equal(null.Labels, []int64{10, 10}) {
		t.Errorf("got %v %v, want the class after the last", null, err)
	}
	g.flags.ClassDropoutProb = 0
	if null, err := g.Null(t.Context(), 2); err != nil || !null.IsZero() {
		t.Errorf("got %v %v, want nothing from a network without a null class", null, err)
	}
	x := noise(t, 1, 4, 16, 16)
	if _, err := g.Denoise(context.Background(), x, sampling.Timestep{}, sampling.Cond{Labels: []int64{11}}); err == nil || !strings.Contains(err.Error(), "label 11: the network knows 0 to 10") {
		t.Errorf("a label beyond the null class: %v", err)
	}
	if _, err := g.Pixels(context.Background(), x); err == nil || !strings.Contains(err.Error(), "the flags name no vae") {
		t.Errorf("images without an autoencoder: %v", err)
	}
}

func TestDiTPixels(t *testing.T) {
	im, err := ditPixels(tensor.Of([]float32{-1, 1, 0, -1.1, 0.9999, 0.0039}, 2, 3, 1, 1), "")
	if err != nil {
		t.Fatal(err)
	}
	var broken *NotFinite
	if _, err := ditPixels(tensor.Of([]float32{0, 0, 0, 0, float32(math.Inf(1)), 0}, 2, 3, 1, 1), "vae"); !errors.As(err, &broken) || broken.Image != 1 {
		t.Errorf("an infinity in image 1: %v", err)
	}
	if want := []uint8{0, 255, 128, 0, 255, 128}; !slices.Equal(im.Pixels, want) {
		t.Errorf("got %v, want %v: 127.5·x+128, truncated", im.Pixels, want)
	}
}
