package tiny

import (
	"fmt"
	"path/filepath"
	"testing"

	"sagbench/models/checkpoint/randomweights"
)

// CLIPConfig is the open_clip_config.json of CLIP.
const CLIPConfig = `{"model_cfg": {"embed_dim": 24,
 "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
 "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}},
 "preprocess_cfg": {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}}`

// CLIP writes a small CLIP with random weights into a folder in OpenCLIP's layout, and
// returns the folder.
func CLIP(t testing.TB) string {
	t.Helper()
	folder := t.TempDir()
	Write(t, filepath.Join(folder, "open_clip_config.json"), CLIPConfig)
	if err := randomweights.Write(filepath.Join(folder, "open_clip_pytorch_model.bin"), CLIPShapes(32, 16), 7); err != nil {
		t.Fatal(err)
	}
	return folder
}

// CLIPShapes are the parameters of CLIP, whose halves have these widths.
func CLIPShapes(image, text int) map[string][]int {
	shapes := map[string][]int{
		"logit_scale": {1}, "text_projection": {text, 24}, "token_embedding.weight": {49408, text}, "positional_embedding": {77, text},
		"ln_final.weight": {text}, "ln_final.bias": {text},
		"visual.conv1.weight": {image, 3, 8, 8}, "visual.class_embedding": {image}, "visual.positional_embedding": {17, image}, "visual.proj": {image, 24},
		"visual.ln_pre.weight": {image}, "visual.ln_pre.bias": {image}, "visual.ln_post.weight": {image}, "visual.ln_post.bias": {image},
	}
	block := func(root string, d int) {
		for name, shape := range map[string][]int{
			"ln_1.weight": {d}, "ln_1.bias": {d}, "ln_2.weight": {d}, "ln_2.bias": {d},
			"attn.in_proj_weight": {3 * d, d}, "attn.in_proj_bias": {3 * d}, "attn.out_proj.weight": {d, d}, "attn.out_proj.bias": {d},
			"mlp.c_fc.weight": {4 * d, d}, "mlp.c_fc.bias": {4 * d}, "mlp.c_proj.weight": {d, 4 * d}, "mlp.c_proj.bias": {d},
		} {
			shapes[root+name] = shape
		}
	}
	block("transformer.resblocks.0.", text)
	for i := range 2 {
		block(fmt.Sprintf("visual.transformer.resblocks.%d.", i), image)
	}
	return shapes
}
