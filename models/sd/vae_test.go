package sd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
)

const (
	tinyVAE    = casesFolder + "vae-decoder-tiny/model/vae"
	fashionVAE = "../pretrained/sd/vae"
)

func openVAE(t testing.TB, folder string) *vaeNet {
	t.Helper()
	n, err := (&VAE{}).load(folder, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func TestVAECase(t *testing.T) { forwardCase(t, "vae-decoder-tiny") }

// TestVAEBatch decodes and encodes images alone and together, wide and square.
func TestVAEBatch(t *testing.T) {
	n := openVAE(t, fashionVAE)
	ctx := context.Background()
	for _, s := range []size{{16, 16}, {3, 5}} {
		z := noise(t, 5, 4, s.height, s.width)
		all, err := n.Decode(ctx, z)
		if err != nil {
			t.Fatal(err)
		}
		if want := []int{5, 3, 2 * s.height, 2 * s.width}; !slices.Equal(all.Shape, want) {
			t.Fatalf("decoded to %v, want %v", all.Shape, want)
		}
		moments, err := n.Encode(ctx, all)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			one, err := n.Decode(ctx, z.Slice(i, i+1))
			if err != nil || !slices.Equal(one.Data, all.Row(i)) {
				t.Errorf("%v: image %d has other bits alone than in a batch (%v)", s, i, err)
			}
			m, err := n.Encode(ctx, all.Slice(i, i+1))
			if err != nil || !slices.Equal(m.Data, moments.Row(i)) {
				t.Errorf("%v: the moments of image %d have other bits alone than in a batch (%v)", s, i, err)
			}
		}
	}
}

// TestVAERoundTrip: the embedded autoencoder was trained to give an image back.
func TestVAERoundTrip(t *testing.T) {
	n := openVAE(t, fashionVAE)
	x := noise(t, 1, 3, 32, 32)
	for i := range x.Data { // a grey square on black
		x.Data[i] = -1
		if row, column := i/32%32, i%32; row >= 8 && row < 24 && column >= 8 && column < 24 {
			x.Data[i] = 0.2
		}
	}
	moments, err := n.Encode(context.Background(), x)
	if err != nil {
		t.Fatal(err)
	}
	z := noise(t, 1, 4, 16, 16)
	copy(z.Data, moments.Data) // the mean comes first
	back, err := n.Decode(context.Background(), z)
	if err != nil {
		t.Fatal(err)
	}
	for i := range z.Data {
		z.Data[i] *= float32(n.config.ScalingFactor)
	}
	scaled, err := n.decodeScaled(context.Background(), z)
	if err != nil {
		t.Fatal(err)
	}
	sum, apart := 0.0, 0.0
	for i := range x.Data {
		d, s := float64(back.Data[i]-x.Data[i]), float64(back.Data[i]-scaled.Data[i])
		sum, apart = sum+d*d, max(apart, s, -s)
	}
	if mse := sum / float64(len(x.Data)); mse > 0.02 {
		t.Errorf("mean square error %g of an image that was encoded and decoded", mse)
	}
	if apart > 1e-4 {
		t.Errorf("decodeScaled differs from Decode by %g", apart)
	}
}

func TestVAEConfig(t *testing.T) {
	for _, c := range []struct {
		want  string
		spoil func(map[string]any)
	}{
		{`_class_name: "AutoencoderTiny" is not supported here; supported: AutoencoderKL`, func(m map[string]any) { m["_class_name"] = "AutoencoderTiny" }},
		{`down_block_types: block 1 is "AttnDownEncoderBlock2D", which is not supported; supported: DownEncoderBlock2D`, func(m map[string]any) {
			m["down_block_types"] = []string{"DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"}
		}},
		{"block_out_channels has 2 numbers, down_block_types 3", func(m map[string]any) { m["block_out_channels"] = []int{32, 64} }},
		{"block 1 has 48 channels, expected 1 to 65536, a multiple of norm_num_groups 32", func(m map[string]any) { m["block_out_channels"] = []int{32, 48, 64} }},
		{`act_fn is "mish", which is not supported; supported: silu, swish`, func(m map[string]any) { m["act_fn"] = "mish" }},
		{"norm_num_groups: null is not supported", func(m map[string]any) { m["norm_num_groups"] = nil }},
		{"norm_num_groups is 0", func(m map[string]any) { m["norm_num_groups"] = 0 }},
		{"latent_channels is -4", func(m map[string]any) { m["latent_channels"] = -4 }},
		{"scaling_factor is 0", func(m map[string]any) { m["scaling_factor"] = 0 }},
		{"latents_mean: [0, 0, 0, 0] is not supported; supported: null", func(m map[string]any) { m["latents_mean"] = []float64{0, 0, 0, 0} }},
		{`unknown key "layer_per_block"; known: in_channels, out_channels, `, func(m map[string]any) { m["layer_per_block"] = 2 }},
		{"config.json:7: block_out_channels.1: expected a whole number, found 1.5", func(m map[string]any) { m["block_out_channels"] = []float64{32, 1.5, 64} }},
		{`layers_per_block: expected a whole number, found "two"`, func(m map[string]any) { m["layers_per_block"] = "two" }},
		{"missing    decoder.up_blocks.0.resnets.2.conv1.weight [64 64 3 3]", func(m map[string]any) { m["layers_per_block"] = 2 }},
		{"unexpected post_quant_conv.bias [4]", func(m map[string]any) { m["use_post_quant_conv"] = false }},
		{"mis-shaped decoder.conv_in.weight: the network wants [64 3 3 3], the checkpoint has [64 4 3 3]", func(m map[string]any) { m["latent_channels"] = 3 }},
		{"unexpected decoder.mid_block.attentions.0.group_norm.bias", func(m map[string]any) { m["mid_block_add_attention"] = false }},
	} {
		folder := copyFolder(t, tinyVAE)
		editJSON(t, filepath.Join(folder, "config.json"), c.spoil)
		_, err := (&VAE{}).load(folder, models.Options{})
		wantError(t, err, c.want)
	}
	folder := copyFolder(t, tinyVAE)
	editJSON(t, filepath.Join(folder, "config.json"), func(m map[string]any) {
		m["force_upcast"], m["sample_size"], m["shift_factor"], m["_name_or_path"], m["new_option"] = true, []int{64, 32}, nil, "x", false
	})
	openVAE(t, folder) // none of these changes a number
}

func TestVAEFolder(t *testing.T) {
	spoiled := func(spoil func(folder string) error) error {
		folder := copyFolder(t, tinyVAE)
		if err := spoil(folder); err != nil {
			t.Fatal(err)
		}
		_, err := (&VAE{}).load(folder, models.Options{})
		return err
	}
	wantError(t, spoiled(func(f string) error { return os.Remove(filepath.Join(f, "config.json")) }), "config.json is missing; expected the folder of one AutoencoderKL")
	wantError(t, spoiled(func(f string) error { return os.Remove(filepath.Join(f, weightsFile)) }), "the weights are missing: expected diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin")
	wantError(t, spoiled(func(f string) error {
		return os.WriteFile(filepath.Join(f, "config.json"), []byte("{\n\"a\": 1,\n}"), 0o644)
	}), "config.json:3: not JSON")
	wantError(t, spoiled(func(f string) error { return os.WriteFile(filepath.Join(f, "config.json"), []byte("[1]"), 0o644) }), "config.json:1: expected keys and values")
	wantError(t, spoiled(func(f string) error {
		return os.WriteFile(filepath.Join(f, weightsFile), []byte("version https://git-lfs.github.com/spec/v1\nsize 5\n"), 0o644)
	}), "is a Git LFS pointer")
	wantError(t, spoiled(func(f string) error {
		header := `{"decoder.conv_in.bias":{"dtype":"F8_E4M3","shape":[64],"data_offsets":[0,64]}}`
		return os.WriteFile(filepath.Join(f, weightsFile), append(append([]byte{byte(len(header)), 0, 0, 0, 0, 0, 0, 0}, header...), make([]byte, 64)...), 0o644)
	}), `tensor "decoder.conv_in.bias": dtype F8_E4M3 is not supported; convert it to F32, F16 or BF16`)
	_, err := (&VAE{Variant: "fp16"}).load(tinyVAE, models.Options{})
	wantError(t, err, "expected diffusion_pytorch_model.fp16.safetensors")
	_, err = (&VAE{}).load(tinyVAE, models.Options{Taps: []sampling.Tap{{Layer: "decoder.mid_block.attentions.0"}}})
	wantError(t, err, "cannot be tapped")
}

// TestVAEOldNames renames the attention's keys to the current names, in a file
// of a variant: the same numbers come out.
func TestVAEOldNames(t *testing.T) {
	folder := copyFolder(t, tinyVAE)
	sd := checkpoint.StateDict{}
	names := strings.NewReplacer("query", "to_q", "key", "to_k", "value", "to_v", "proj_attn", "to_out.0")
	for key, x := range readTensors(t, filepath.Join(folder, weightsFile)) {
		sd[names.Replace(key)] = x
	}
	if err := os.Remove(filepath.Join(folder, weightsFile)); err != nil {
		t.Fatal(err)
	}
	writeTensors(t, filepath.Join(folder, "diffusion_pytorch_model.fp16.safetensors"), sd)
	z := noise(t, 1, 4, 4, 6)
	want, err := openVAE(t, tinyVAE).Decode(context.Background(), z)
	if err != nil {
		t.Fatal(err)
	}
	for _, variant := range []string{"fp16", ""} { // the only one there is taken
		n, err := (&VAE{Variant: variant}).load(folder, models.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := n.Decode(context.Background(), z)
		if err != nil || !slices.Equal(got.Data, want.Data) {
			t.Errorf("variant %q: other numbers than under the old names (%v)", variant, err)
		}
		n.Close()
	}
	delete(sd, "decoder.mid_block.attentions.0.to_q.weight")
	writeTensors(t, filepath.Join(folder, weightsFile), sd)
	_, err = (&VAE{}).load(folder, models.Options{})
	var mismatch *onnx.MismatchError
	if !errors.As(err, &mismatch) || len(mismatch.Missing) != 1 || !strings.HasPrefix(err.Error(), "models: "+folder) {
		t.Errorf("got %v, want one missing tensor of the file", err)
	}
}

func TestVAEInputs(t *testing.T) {
	n := openVAE(t, tinyVAE)
	for want, in := range map[string]ort.Array{
		"z has shape [1 3 8 8], expected [N,4,H,W]": ort.Floats(noise(t, 1, 3, 8, 8)),
		"z has shape [4 8 8], expected [N,4,H,W]":   ort.Floats(noise(t, 4, 8, 8)),
		"z has shape [1 4 0 8], expected [N,4,H,W]": {Shape: []int{1, 4, 0, 8}, Data: []float32{}},
		"z holds []int64, expected float32":         {Shape: []int{1, 4, 1, 1}, Data: make([]int64, 4)},
	} {
		_, err := n.Forward(context.Background(), map[string]ort.Array{"z": in})
		wantError(t, err, want)
	}
	_, err := n.Encode(context.Background(), noise(t, 1, 3, 2, 8))
	wantError(t, err, "images of 2×8 pixels: the encoder needs at least 4×4")
	_, err = n.Forward(context.Background(), map[string]ort.Array{"t": ort.Floats(noise(t, 1))})
	wantError(t, err, "takes z and image, not t")
}

// Autoencoders and text encoders have one precision, and say so.
func TestPartsAreExact(t *testing.T) {
	for name, open := range map[string]func(models.Options) (models.Model, error){
		"autoencoder": func(o models.Options) (models.Model, error) { return (&VAE{}).Open(fashionVAE, o) },
		"text encoder": func(o models.Options) (models.Model, error) {
			return (&CLIPText{}).Open("../pretrained/sd/text_encoder", o)
		},
		"component": func(o models.Options) (models.Model, error) {
			c := SD{}
			c.Component = "vae"
			return c.Open("../pretrained/sd", o)
		},
	} {
		for _, precision := range []string{ort.BFloat16, ort.Float32} {
			n, err := open(models.Options{Options: ort.Options{Precision: precision}})
			if err == nil {
				n.Close()
			}
			if refused := err != nil && strings.Contains(err.Error(), "bfloat16 was asked for of a network that computes in float32 alone"); refused != (precision == ort.BFloat16) {
				t.Errorf("%s in %s: %v", name, precision, err)
			}
		}
	}
}
