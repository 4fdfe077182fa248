package sd

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// FuzzConfigs: any config.json gives a network that can be built, or an error.
func FuzzConfigs(f *testing.F) {
	f.Add([]byte(sdVAE))
	f.Add([]byte(publishedUNets["stable-diffusion-2-1"]))
	f.Add([]byte(publishedUNets["stable-diffusion-xl-base-1.0"]))
	f.Add([]byte(`{"addition_embed_type": "text_time", "addition_time_embed_dim": 1, "projection_class_embeddings_input_dim": 7}`))
	f.Add([]byte(`{"block_out_channels": [32], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "sample_size": [1, 2]}`))
	f.Add([]byte(`{"sample_size": 64, "in_channels": 1, "out_channels": 2, "block_out_channels": [32, 64], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}`))
	f.Add([]byte(`{"num_attention_heads": 1024, "attention_head_dim": 64, "num_layers": 1024, "sample_size": 4096, "patch_size": 1}`))
	f.Add([]byte(`{"vocab_size": 1, "hidden_size": 64, "num_hidden_layers": 256, "max_position_embeddings": 4096}`))
	f.Add([]byte(`{"norm_num_groups": 1, "block_out_channels": [1e9], "layers_per_block": [1, 2], "x": {"y": null}}`))
	plain := models.NewTaps(models.Options{})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseJSON("config.json", data)
		if err != nil {
			return
		}
		vae, unet, unet2D, dit, text := newVAEConfig(), newSDUNetConfig(), newUNet2DConfig(), newDiT2DConfig(), newCLIPTextConfig()
		for config, build := range map[componentConfig]func(*onnx.Module){
			vae:    func(m *onnx.Module) { buildVAE(m, vae) },
			unet:   func(m *onnx.Module) { unet.build(m, sdSize{size{3, 5}, 2}, plain) },
			unet2D: func(m *onnx.Module) { unet2D.build(m, plain) },
			dit:    func(m *onnx.Module) { dit.build(m, plain) },
			text:   func(m *onnx.Module) { text.build(m, textKey{length: min(clipLength, text.MaxPositionEmbeddings)}) },
		} {
			if decodeConfig(b, config) != nil {
				continue
			}
			if _, err := onnx.Measure(build); err != nil && !strings.Contains(err.Error(), "more than 200000 operators") {
				t.Error(err)
			}
		}
	})
}

// FuzzSingleFile: a file with any keys and shapes is opened, or refused, by each
// generation.
func FuzzSingleFile(f *testing.F) {
	for _, key := range []string{
		"model.diffusion_model.input_blocks.1.0.in_layers.0.weight", "first_stage_model.decoder.up.99.block.0.norm1.weight", "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
		"model.diffusion_model.label_emb.0.0.weight", "conditioner.embedders.1.model.text_projection", "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
	} {
		f.Add(key, 3, 2)
	}
	wholes := map[*pipeline]checkpoint.StateDict{}
	for _, c := range singles(f) {
		wholes[&c.pipeline] = c.tensors
	}
	f.Fuzz(func(t *testing.T, key string, rows, columns int) {
		rows, columns = rows&0xff, columns&0xff
		for p, whole := range wholes {
			sd := maps.Clone(whole)
			sd[key] = checkpoint.FromFloat32(make([]float32, rows*columns), rows, columns)
			if m, err := p.single(&weights{path: "model.ckpt", tensors: sd}, models.Options{}); err == nil {
				m.Close()
			}
		}
	})
}

// FuzzOriginal: any YAML file beside a single file is taken over, or refused.
func FuzzOriginal(f *testing.F) {
	f.Add([]byte("model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n  params:\n    timesteps: 1000\n    image_size: 64\n    unet_config: {target: x, params: {num_heads: 8}}\n"))
	f.Add([]byte("model: &m {params: *m}\n"))
	f.Add([]byte("a: &a [1]\nb: [*a, *a]\nmodel: {params: {timesteps: 9223372036854775807}}\n"))
	f.Add([]byte(tinySGM))
	all := singles(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "original.yaml")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			s, err := c.pipeline.split(&weights{path: "model.ckpt", tensors: c.tensors})
			if err != nil {
				t.Fatal(err)
			}
			d := c.pipeline.shaped(s)
			_ = d.readOriginal(path, s, c.pipeline.original)
		}
	})
}
