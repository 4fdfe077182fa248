//go:build slow

package features

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sagbench/models"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/onnx"
	"sagbench/models/sd"
)

// TestFullSizeCLIP runs published networks, both halves, on random weights of the true
// shapes in a folder of transformers.
func TestFullSizeCLIP(t *testing.T) {
	for _, c := range []struct {
		image               sd.CLIPImage
		text, heads, theads int
	}{
		{sd.CLIPImage{HiddenSize: 768, NumHiddenLayers: 12, PatchSize: 32, ImageSize: 224, ProjectionDim: 512}, 512, 12, 8},
		{sd.CLIPImage{HiddenSize: 1024, NumHiddenLayers: 24, PatchSize: 14, ImageSize: 336, ProjectionDim: 768}, 768, 16, 12},
	} {
		name := c.image.Name()
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			folder := t.TempDir()
			config := fmt.Sprintf(`{"model_type": "clip", "projection_dim": %d,
				"vision_config": {"hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": %d, "num_attention_heads": %d, "image_size": %d, "patch_size": %d},
				"text_config": {"hidden_size": %d, "intermediate_size": %d, "num_attention_heads": %d, "eos_token_id": 2}}`,
				c.image.ProjectionDim, c.image.HiddenSize, 4*c.image.HiddenSize, c.image.NumHiddenLayers, c.heads, c.image.ImageSize, c.image.PatchSize, c.text, 4*c.text, c.theads)
			if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(config), 0o644); err != nil {
				t.Fatal(err)
			}
			image := c.image
			image.NumChannels, image.IntermediateSize, image.NumAttentionHeads = 3, 4*image.HiddenSize, c.heads
			shapes, err := onnx.Parameters(func(m *onnx.Module) { image.Build(m, false) })
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(shapes, textShapes(c.text, c.image.ProjectionDim))
			if err := randomweights.Write(filepath.Join(folder, "pytorch_model.bin"), shapes, 1); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			n, err := (&CLIP{}).open(folder, models.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if n.Name() != name {
				t.Errorf("it is called %s", n.Name())
			}
			t.Logf("opened in %s, %s", time.Since(start), peak(t))
			for _, batch := range []int{1, 4} {
				start = time.Now()
				x, err := n.Input(CLIPCrop, congruential(batch, 256, 256))
				if err != nil {
					t.Fatal(err)
				}
				input := time.Since(start)
				if _, err := n.Run(context.Background(), x, Pool); err != nil {
					t.Fatal(err)
				}
				t.Logf("%d images in %s, %s of it for the pixels, %s", batch, time.Since(start), input, peak(t))
			}
			var texts []string
			for i := range 128 {
				texts = append(texts, fmt.Sprintf("caption %d of a dog that plays in the snow", i))
			}
			start = time.Now()
			if _, err := n.Texts(t.Context(), texts, TextForms["torchmetrics"], func(int) {}); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d texts in %s, %s", len(texts), time.Since(start), peak(t))
		})
	}
}

// textShapes are the parameters of a text half of twelve layers.
func textShapes(width, embedding int) map[string][]int {
	const root = "text_model."
	shapes := map[string][]int{
		"logit_scale": {1}, "text_projection.weight": {embedding, width},
		root + "embeddings.token_embedding.weight": {49408, width}, root + "embeddings.position_embedding.weight": {77, width},
		root + "final_layer_norm.weight": {width}, root + "final_layer_norm.bias": {width},
	}
	for i := range 12 {
		layer := fmt.Sprintf("%sencoder.layers.%d.", root, i)
		for _, norm := range []string{"layer_norm1", "layer_norm2"} {
			shapes[layer+norm+".weight"], shapes[layer+norm+".bias"] = []int{width}, []int{width}
		}
		for _, p := range []string{"q_proj", "k_proj", "v_proj", "out_proj"} {
			shapes[layer+"self_attn."+p+".weight"], shapes[layer+"self_attn."+p+".bias"] = []int{width, width}, []int{width}
		}
		shapes[layer+"mlp.fc1.weight"], shapes[layer+"mlp.fc1.bias"] = []int{4 * width, width}, []int{4 * width}
		shapes[layer+"mlp.fc2.weight"], shapes[layer+"mlp.fc2.bias"] = []int{width, 4 * width}, []int{width}
	}
	return shapes
}
