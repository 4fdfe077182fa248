package sd

import (
	"maps"
	"slices"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling/tensor"
)

// The config.json of the autoencoder of SD 1.x and 2.x.
const (
	sdVAE = `{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 32,
		"down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
		"up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"], "sample_size": 512}`
)

func configOf[C componentConfig](t testing.TB, c C, text string) C {
	t.Helper()
	b, err := parseJSON("config.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := decodeConfig(b, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPublishedSizes counts the parameters of the published networks, as
// PyTorch's numel() does, and builds their graphs on state dicts that hold
// shapes alone.
func TestPublishedSizes(t *testing.T) {
	vae := configOf(t, newVAEConfig(), sdVAE)
	vitL := newCLIPTextConfig() // CLIP ViT-L/14
	vitL.HiddenSize, vitL.IntermediateSize, vitL.NumAttentionHeads = 768, 3072, 12
	vitH := newCLIPTextConfig() // OpenCLIP ViT-H/14 without its last layer
	vitH.HiddenSize, vitH.IntermediateSize, vitH.NumAttentionHeads, vitH.NumHiddenLayers, vitH.HiddenAct = 1024, 4096, 16, 23, "gelu"
	bigG := newCLIPTextConfig() // OpenCLIP ViT-bigG/14
	bigG.HiddenSize, bigG.IntermediateSize, bigG.NumAttentionHeads, bigG.NumHiddenLayers, bigG.HiddenAct, bigG.ProjectionDim = 1280, 5120, 20, 32, "gelu", 1280
	unet := func(name string) func(*onnx.Module) {
		c := configOf(t, newSDUNetConfig(), publishedUNets[name])
		return func(m *onnx.Module) {
			if err := c.build(m, sdSize{size{96, 64}, 77}, models.NewTaps(models.Options{})); err != nil {
				t.Error(err)
			}
		}
	}
	text := func(c *clipTextConfig) func(*onnx.Module) {
		return func(m *onnx.Module) { c.build(m, textKey{length: 77}) }
	}
	for name, c := range map[string]struct {
		parameters int
		build      func(*onnx.Module)
	}{
		"SD 1.5 U-Net":  {859_520_964, unet("stable-diffusion-v1-5")},
		"SD 2.1 U-Net":  {865_910_724, unet("stable-diffusion-2-1")},
		"autoencoder":   {83_653_863, func(m *onnx.Module) { buildVAE(m, vae) }},
		"CLIP ViT-L/14": {123_060_480, text(vitL)},
		"CLIP ViT-H/14": {340_387_840, text(vitH)},
		"SDXL U-Net":    {2_567_463_684, unet("stable-diffusion-xl-base-1.0")},
		"CLIP bigG/14":  {694_659_840 - 1280*1280, text(bigG)},
	} {
		shapes, err := onnx.Parameters(c.build)
		if err != nil {
			t.Fatal(err)
		}
		sd, count := checkpoint.StateDict{}, 0
		for _, key := range slices.Sorted(maps.Keys(shapes)) {
			n := tensor.Size(shapes[key])
			count += n
			sd[key] = checkpoint.Tensor{DType: checkpoint.F32, Shape: shapes[key], File: "weights.safetensors", Size: int64(4 * n), Raw: small(n)}
		}
		if count != c.parameters {
			t.Errorf("%s has %d parameters, want %d", name, count, c.parameters)
		}
		if _, err := onnx.Build(sd, c.build); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// small is the bytes of a tensor that is copied into the graph, nil of a larger one.
func small(n int) []byte {
	if n < 1024 {
		return make([]byte, 4*n)
	}
	return nil
}

func buildVAE(m *onnx.Module, c *vaeConfig) {
	c.decoder(m, m.Input("z", checkpoint.F32, onnx.Batch, c.LatentChannels, 64, 96))
	c.encoder(m, m.Input("image", checkpoint.F32, onnx.Batch, 3, 512, 768))
}
