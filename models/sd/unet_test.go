package sd

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

const (
	tinyUNet  = casesFolder + "sd1-unet-tiny/model"
	fashionSD = "../pretrained/sd"
	midLayer  = "mid_block.attentions.0.transformer_blocks.0.attn1"
)

func TestSDUNetCases(t *testing.T) {
	forwardCase(t, "sd1-unet-tiny")
	forwardCase(t, "sd2-unet-tiny")
}

func openSD(t testing.TB, c *SD, path string, taps ...sampling.Tap) *Net {
	t.Helper()
	m, err := c.Open(path, models.Options{Taps: taps})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m.(*Net)
}

func denoise(t testing.TB, n *Net, x tensor.Tensor, c sampling.Cond) sampling.Prediction {
	t.Helper()
	p, err := n.Denoise(context.Background(), x, sampling.Timestep{Value: 500}, c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSDBatch: an image's prediction and map have the same bits in any batch,
// also where the latents are not square and no multiple of what the network
// halves.
func TestSDBatch(t *testing.T) {
	n := openSD(t, &SD{}, fashionSD, sampling.Tap{Layer: midLayer})
	prompts := []string{"a photo of a bag", "a dark sneaker", "", "a dress", "bag", "a coat", "trouser"}
	text, err := n.Encode(context.Background(), prompts)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []size{{16, 16}, {5, 9}} {
		x := noise(t, len(prompts), 4, s.height, s.width)
		all := denoise(t, n, x, text)
		for _, batch := range []int{1, 3} {
			for from := 0; from < len(prompts); from += batch {
				to := min(from+batch, len(prompts))
				p := denoise(t, n, x.Slice(from, to), sampling.Cond{Context: text.Context.Slice(from, to)})
				if !slices.Equal(p.Eps.Data, all.Eps.Slice(from, to).Data) || !slices.Equal(p.Attn.Data, all.Attn.Slice(from, to).Data) {
					t.Errorf("%v: images %d to %d have other bits than in a batch of %d", s, from, to, len(prompts))
				}
			}
		}
	}
}

// TestSDTaps: a tap of any self-attention layer changes no bit of the
// prediction, its map has mean 1, and it can be had for other head counts.
func TestSDTaps(t *testing.T) {
	plain := openSD(t, &SD{}, fashionSD)
	null, err := plain.Null(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	x := noise(t, 2, 4, 6, 10)
	want := denoise(t, plain, x, null)
	for layer, positions := range map[string]int{midLayer: 15, "up_blocks.1.attentions.1.transformer_blocks.0.attn1": 60} {
		for _, heads := range []int{0, 8} {
			p := denoise(t, openSD(t, &SD{}, fashionSD, sampling.Tap{Layer: layer, Heads: heads}), x, null)
			if !slices.Equal(p.Eps.Data, want.Eps.Data) {
				t.Errorf("%s with %d heads: the tap changes the prediction", layer, heads)
			}
			if p.Attn.RowLen() != positions {
				t.Fatalf("%s: a map of %d positions, want %d", layer, p.Attn.RowLen(), positions)
			}
			mean := 0.0
			for _, v := range p.Attn.Row(1) {
				mean += float64(v) / float64(positions)
			}
			if mean < 1-1e-5 || mean > 1+1e-5 {
				t.Errorf("%s: mean mass %g, want 1", layer, mean)
			}
		}
	}
	for _, c := range []struct {
		tap  sampling.Tap
		want string
	}{
		{sampling.Tap{Layer: "mid_block.attentions.0.transformer_blocks.0.attn2"}, "is no attention layer of this network; it has down_blocks.0.attentions.0.transformer_blocks.0.attn1, mid_block"},
		{sampling.Tap{Layer: midLayer, Heads: 3}, "has 128 channels, which 3 heads do not divide"},
		{sampling.Tap{Layer: midLayer, Order: "legacy"}, "queries, keys and values are weights of their own"},
		{sampling.Tap{Layer: midLayer, Order: "new"}, "expected \"legacy\" or nothing"},
	} {
		_, err := (&SD{}).Open(fashionSD, models.Options{Taps: []sampling.Tap{c.tap}})
		wantError(t, err, c.want)
	}
}

// TestMassInStretches: a map that is summed a stretch of queries at a time is
// that of all queries at once.
func TestMassInStretches(t *testing.T) {
	n := openSD(t, &SD{}, fashionSD, sampling.Tap{Layer: midLayer})
	null, err := n.Null(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	x := noise(t, 1, 4, 14, 14)
	whole := denoise(t, n, x, null)
	defer func(m int) { massElements = m }(massElements)
	massElements = 4 * 49 * 10 // 10 of 49 queries
	n = openSD(t, &SD{}, fashionSD, sampling.Tap{Layer: midLayer})
	if e := relativeError(t, ort.Floats(denoise(t, n, x, null).Attn), ort.Floats(whole.Attn)); e > 1e-6 {
		t.Errorf("relative error %g", e)
	}
}

// The embedding of ∅ is computed at the first call, which ends with its context.
func TestNullEnds(t *testing.T) {
	n := openSD(t, &SD{}, fashionSD)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Null(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

// TestSDSizes runs sizes that the network cannot halve evenly.
func TestSDSizes(t *testing.T) {
	n := openSD(t, &SD{}, fashionSD)
	null, err := n.Null(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []size{{1, 7}, {3, 2}, {17, 16}} {
		p := denoise(t, n, noise(t, 1, 4, s.height, s.width), null)
		if want := []int{1, 4, s.height, s.width}; !slices.Equal(p.Eps.Shape, want) {
			t.Errorf("ε has shape %v, want %v", p.Eps.Shape, want)
		}
	}
}

// TestCropped: doubled and cut, an image is what PyTorch's interpolate makes of
// it for the size of the skip connection, which takes pixel ⌊i·in/out⌋.
func TestCropped(t *testing.T) {
	const height, width = 4, 3 // halves of 7 or 8, and of 5 or 6
	x := noise(t, 1, 1, height, width)
	for _, s := range []size{{7, 5}, {8, 5}, {7, 6}, {8, 6}} {
		m, err := onnx.Build(nil, func(m *onnx.Module) {
			in := m.Input("x", checkpoint.F32, 1, 1, height, width)
			m.Output("y", cropped(m, m.UpsampleNearest(in), s.height, s.width))
		})
		if err != nil {
			t.Fatal(err)
		}
		session, err := ort.Open(m, ort.Options{})
		if err != nil {
			t.Fatal(err)
		}
		out, err := session.Run(context.Background(), map[string]ort.Array{"x": ort.Floats(x)})
		if err != nil {
			t.Fatal(err)
		}
		y := out["y"].Tensor()
		for i := range s.height {
			for j := range s.width {
				if want := x.Data[i*height/s.height*width+j*width/s.width]; y.Data[i*s.width+j] != want {
					t.Errorf("%v: pixel %d, %d is %g, want %g", s, i, j, y.Data[i*s.width+j], want)
				}
			}
		}
		session.Close()
	}
}

func TestSDUNetConfig(t *testing.T) {
	for _, c := range []struct {
		want  string
		spoil func(map[string]any)
	}{
		{`_class_name: "UNet2DModel" is not supported here; supported: UNet2DConditionModel`, func(m map[string]any) { m["_class_name"] = "UNet2DModel" }},
		{`down_block_types: block 0 is "SimpleCrossAttnDownBlock2D", which is not supported; supported: CrossAttnDownBlock2D, DownBlock2D`, func(m map[string]any) {
			m["down_block_types"] = []string{"SimpleCrossAttnDownBlock2D", "DownBlock2D"}
		}},
		{`up_block_types: block 0 is "AttnUpBlock2D"`, func(m map[string]any) { m["up_block_types"] = []string{"AttnUpBlock2D", "CrossAttnUpBlock2D"} }},
		{`mid_block_type: "UNetMidBlock2D" is not supported; supported: UNetMidBlock2DCrossAttn`, func(m map[string]any) { m["mid_block_type"] = "UNetMidBlock2D" }},
		{`addition_embed_type is text_time, which needs addition_time_embed_dim`, func(m map[string]any) { m["addition_embed_type"] = "text_time" }},
		{"the U-Net has addition_embed_type text_time: it is one of Stable Diffusion XL (family: sdxl)", func(m map[string]any) {
			m["addition_embed_type"], m["addition_time_embed_dim"], m["projection_class_embeddings_input_dim"] = "text_time", 8, 60
		}},
		{`only_cross_attention: [false, true] is not supported; supported: false`, func(m map[string]any) { m["only_cross_attention"] = []bool{false, true} }},
		{`resnet_time_scale_shift: "scale_shift" is not supported; supported: default`, func(m map[string]any) { m["resnet_time_scale_shift"] = "scale_shift" }},
		{`conv_in_kernel: 1 is not supported; supported: 3`, func(m map[string]any) { m["conv_in_kernel"] = 1 }},
		{"block 1 has 64 channels, which 5 heads do not divide (the key holds the number of heads", func(m map[string]any) { m["attention_head_dim"] = []int{8, 5} }},
		{"attention_head_dim: 3 numbers for 2 blocks", func(m map[string]any) { m["attention_head_dim"] = []int{8, 8, 8} }},
		{"attention_head_dim is 0, expected 1 to 65536", func(m map[string]any) { m["attention_head_dim"] = 0 }},
		{"layers_per_block is -1, expected 1 to 32", func(m map[string]any) { m["layers_per_block"] = -1 }},
		{"cross_attention_dim: expected a whole number, found a list", func(m map[string]any) { m["cross_attention_dim"] = []int{32, 32} }},
		{"transformer_layers_per_block.0: expected a whole number, found a list", func(m map[string]any) { m["transformer_layers_per_block"] = [][]int{{1}, {1}} }},
		{"attention_head_dim: null is not supported", func(m map[string]any) { m["attention_head_dim"] = nil }},
		{`unknown key "cross_attention_dims"`, func(m map[string]any) { m["cross_attention_dims"] = 5 }},
		{"mis-shaped down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight: the network wants [32 768], the checkpoint has [32 32]", func(m map[string]any) { m["cross_attention_dim"] = 768 }},
		{"mis-shaped mid_block.attentions.0.proj_in.weight: the network wants [64 64], the checkpoint has [64 64 1 1]", func(m map[string]any) { m["use_linear_projection"] = true }},
	} {
		folder := copyFolder(t, tinyUNet+"/unet")
		editJSON(t, filepath.Join(folder, "config.json"), c.spoil)
		_, err := (&SD{flags{Component: "unet"}}).Open(folder, models.Options{})
		wantError(t, err, c.want)
	}
	folder := copyFolder(t, tinyUNet+"/unet")
	editJSON(t, filepath.Join(folder, "config.json"), func(m map[string]any) {
		m["mid_block_type"], m["only_cross_attention"], m["resnet_out_scale_factor"], m["upcast_attention"] = "UNetMidBlock2DCrossAttn", []bool{false, false}, 1.0, true
		m["addition_embed_type_num_heads"], m["sample_size"], m["attention_head_dim"] = 64, []int{16, 24}, []int{8, 8}
		m["class_embed_type"], m["layers_per_block"], m["transformer_layers_per_block"] = nil, []int{1, 1}, []int{1, 1}
	})
	m, err := (&SD{flags{Component: "unet"}}).Open(folder, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if s := m.(*sdUNet).config.latentSize(); s != (size{16, 24}) {
		t.Errorf("sample_size %v, want 16×24", s)
	}
}

func TestSDUNetInputs(t *testing.T) {
	m, err := (&SD{flags{Component: "unet"}}).Open(tinyUNet, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	in := func(edit func(map[string]ort.Array)) map[string]ort.Array {
		a := map[string]ort.Array{"x": ort.Floats(noise(t, 2, 4, 4, 4)), "t": {Shape: []int{2}, Data: []int64{1, 2}}, "context": {Shape: []int{2, 3, 32}, Data: make([]float32, 192)}}
		edit(a)
		return a
	}
	if _, err := m.Forward(context.Background(), in(func(map[string]ort.Array) {})); err != nil {
		t.Error(err)
	}
	for want, edit := range map[string]func(map[string]ort.Array){
		"x has shape [2 3 4 4], expected [N,4,H,W]": func(a map[string]ort.Array) { a["x"] = ort.Floats(noise(t, 2, 3, 4, 4)) },
		"context has shape [], expected [2,L,32]":   func(a map[string]ort.Array) { delete(a, "context") },
		"context has shape [1 6 32], expected [2,L,32]": func(a map[string]ort.Array) {
			a["context"] = ort.Array{Shape: []int{1, 6, 32}, Data: make([]float32, 192)}
		},
		"input t [-1] is missing":                    func(a map[string]ort.Array) { delete(a, "t") },
		"input t has shape [3], the graph wants [2]": func(a map[string]ort.Array) { a["t"] = ort.Array{Shape: []int{3}, Data: []int64{1, 2, 3}} },
		"input context holds []float64, the graph wants F": func(a map[string]ort.Array) {
			a["context"] = ort.Array{Shape: []int{2, 3, 32}, Data: make([]float64, 192)}
		},
	} {
		_, err := m.Forward(context.Background(), in(edit))
		wantError(t, err, want)
	}
}
