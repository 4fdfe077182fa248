package sd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/onnx"
	"sagbench/sampling/tensor"
)

const clipCase = "../../experiments/refcase/testdata/cases/clip-vision-tiny/model"

// rewritten copies files of a folder, one of them with replacements.
func rewritten(t *testing.T, from, file string, replacements ...string) string {
	t.Helper()
	folder := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		if e.Name() == file {
			for i := 0; i < len(replacements); i += 2 {
				if !strings.Contains(text, replacements[i]) {
					t.Fatalf("%s has no %s", file, replacements[i])
				}
				text = strings.ReplaceAll(text, replacements[i], replacements[i+1])
			}
		}
		tiny.Write(t, filepath.Join(folder, e.Name()), text)
	}
	return folder
}

// A folder of transformers: both halves, and what its files say of the pixels.
func TestCLIPOfTransformers(t *testing.T) {
	c, err := OpenCLIP(clipCase, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := CLIPImage{HiddenSize: 32, IntermediateSize: 64, NumHiddenLayers: 3, NumAttentionHeads: 4, NumChannels: 3, ImageSize: 28, PatchSize: 7, ProjectionDim: 24, HiddenAct: "quick_gelu", LayerNormEps: 1e-5}
	if c.Image != want || c.text == nil || c.text.HiddenSize != 16 || c.text.EOSTokenID != 2 || c.Mean != openAIMean || c.Notes != nil {
		t.Errorf("%+v, %+v, %v", c.Image, c.text, c.Notes)
	}
	if len(c.Files()) != 3 {
		t.Errorf("it was read from %v", c.Files())
	}
	if _, err := c.Texts(models.Options{}); err == nil || !strings.Contains(err.Error(), "there is no tokenizer, and its 60 tokens are not CLIP's 49408") {
		t.Errorf("texts without a tokenizer: %v", err)
	}
	// vision_config_dict overrides vision_config, with the class's defaults for the rest.
	over := rewritten(t, clipCase, "config.json", `"vision_config_dict": null`, `"vision_config_dict": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8, "image_size": 28, "patch_size": 7, "hidden_act": "gelu"}`)
	o, err := OpenCLIP(over, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if o.Image.NumAttentionHeads != 8 || o.Image.HiddenAct != "gelu" || o.Image.ProjectionDim != 24 {
		t.Errorf("%+v", o.Image)
	}
}

// A folder of the image half alone has its sizes at the top of config.json, and no texts.
func TestCLIPVisionModel(t *testing.T) {
	folder := rewritten(t, clipCase, "")
	tiny.Write(t, filepath.Join(folder, "config.json"), `{"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 28, "patch_size": 7, "projection_dim": 24, "torch_dtype": "float32"}`)
	if err := os.Remove(filepath.Join(folder, "preprocessor_config.json")); err != nil {
		t.Fatal(err)
	}
	c, err := OpenCLIP(folder, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Image.HiddenSize != 32 || c.Image.HiddenAct != "quick_gelu" || len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "there is no preprocessor_config.json") {
		t.Errorf("%+v, %q", c.Image, c.Notes)
	}
	if _, err := c.Texts(models.Options{}); err == nil || !strings.Contains(err.Error(), "holds no text half") {
		t.Errorf("its texts: %v", err)
	}
}

// Folders of OpenCLIP may hold a config.json of another library.
func TestCLIPOfTwoConfigs(t *testing.T) {
	folder := rewritten(t, tiny.CLIP(t), "")
	tiny.Write(t, filepath.Join(folder, "config.json"), `{"architecture": "vit_base_patch32_clip_224"}`)
	c, err := OpenCLIP(folder, "", "")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := os.Remove(filepath.Join(folder, "open_clip_pytorch_model.bin")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCLIP(folder, "", ""); err == nil || !strings.Contains(err.Error(), "the weights are missing") {
		t.Errorf("without weights: %v", err)
	}
}

func TestCLIPRefuses(t *testing.T) {
	open := tiny.CLIP(t)
	for _, c := range []struct{ from, file, old, new, want string }{
		{clipCase, "config.json", `"model_type": "clip"`, `"model_type": "blip"`, `model_type is "blip", expected clip or clip_vision_model`},
		{clipCase, "config.json", `"vision_config": {`, `"image_config": {`, "vision_config is missing"},
		{clipCase, "config.json", `"hidden_act": "quick_gelu",`, `"hidden_act": "relu",`, `hidden_act is "relu", which is not supported; supported: quick_gelu, gelu`},
		{clipCase, "config.json", `"num_attention_heads": 4`, `"num_attention_heads": 5`, "num_attention_heads 5 does not divide hidden_size 32"},
		{clipCase, "config.json", `"patch_size": 7`, `"patch_size": 14`, "vision_model.embeddings.patch_embedding.weight"},
		{clipCase, "config.json", `"image_size": 28`, `"image_size": 1e9`, "image_size is 1000000000, expected 1 to 4096"},
		{clipCase, "config.json", "{", "", "not JSON"},
		{clipCase, "preprocessor_config.json", `"resample": 3`, `"resample": 2`, "resample: 2 is not supported; supported: 3"},
		{clipCase, "preprocessor_config.json", `"size": 28`, `"size": {"shortest_edge": 32}`, "size.shortest_edge: 32 does not fit the network's images of 28 pixels"},
		{clipCase, "preprocessor_config.json", "0.26862954", "0", "expected three numbers, of the standard deviation above 0"},
		{open, "open_clip_config.json", `"patch_size": 8`, `"patch_size": 8, "timm_model_name": "vit_so400m"`, "image halves of timm are not supported"},
		{open, "open_clip_config.json", `"patch_size": 8`, `"patch_size": 8, "ls_init_value": 0.1`, "ls_init_value: 0.1 is not supported"},
		{open, "open_clip_config.json", `"layers": 2`, `"layers": [3, 4, 6, 3]`, "layers: expected a whole number"},
		{open, "open_clip_config.json", `"head_width": 16`, `"head_width": 0`, "head_width is 0, expected at least 1"},
		{open, "open_clip_config.json", `"preprocess_cfg": {`, `"preprocess_cfg": {"resize_mode": "squash", `, "resize_mode: \"squash\" is not supported; supported: shortest"},
		{open, "open_clip_config.json", `"model_cfg"`, `"model"`, "model_cfg is missing"},
	} {
		folder := rewritten(t, c.from, c.file, c.old, c.new)
		n, err := OpenCLIP(folder, "", "")
		if err == nil {
			n.Close()
			t.Errorf("%s: %s is accepted", c.file, c.new)
		} else if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), folder) {
			t.Errorf("%s: %v\nwant %s", c.new, err, c.want)
		}
	}
	if _, err := OpenCLIP(t.TempDir(), "", ""); err == nil || !strings.Contains(err.Error(), "neither config.json nor open_clip_config.json is there") {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := OpenCLIP(clipCase, "", "gelu"); err == nil || !strings.Contains(err.Error(), `hidden_act is "gelu", but its files say "quick_gelu"`) {
		t.Errorf("another activation: %v", err)
	}
	if _, err := OpenCLIP(filepath.Join(clipCase, "model.safetensors"), "", ""); err == nil || !strings.Contains(err.Error(), "give the folder with its config.json") {
		t.Errorf("a file of transformers: %v", err)
	}
	// A text half that is not supported is an error for texts alone.
	n, err := OpenCLIP(rewritten(t, open, "open_clip_config.json", `"layers": 1`, `"layers": 1, "hf_model_name": "xlm-roberta-base"`), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Texts(models.Options{}); err == nil || !strings.Contains(err.Error(), "text halves of transformers are not supported") {
		t.Errorf("its texts: %v", err)
	}
}

// A single file without a configuration: sizes come from shapes, and what no shape tells
// is a note.
func TestCLIPFile(t *testing.T) {
	for marked, want := range map[bool]string{false: "gelu", true: "quick_gelu"} {
		shapes := tiny.CLIPShapes(128, 64)
		if marked { // as in OpenAI's files
			shapes["input_resolution"], shapes["context_length"], shapes["vocab_size"] = []int{1}, []int{1}, []int{1}
		}
		path := filepath.Join(t.TempDir(), "ViT.pt")
		if err := randomweights.Write(path, shapes, 1); err != nil {
			t.Fatal(err)
		}
		for _, given := range []string{"", "gelu"} {
			c, err := OpenCLIP(path, "", given)
			if err != nil {
				t.Fatal(err)
			}
			act := want
			if given != "" {
				act = given
			}
			if i := c.Image; i.HiddenAct != act || i.ImageSize != 32 || i.PatchSize != 8 || i.NumAttentionHeads != 2 || i.NumHiddenLayers != 2 || i.ProjectionDim != 24 || c.text.HiddenAct != act || c.text.NumAttentionHeads != 1 {
				t.Errorf("%+v, %+v", i, c.text)
			}
			if noted := len(c.Notes) == 1 && strings.Contains(c.Notes[0], want+" was taken"); noted != (given == "") {
				t.Errorf("activation %q: notes %q", given, c.Notes)
			}
			texts, err := c.Texts(models.Options{})
			if err != nil || !texts.OwnTokenizer || texts.Length != 77 {
				t.Errorf("%+v, %v", texts, err)
			}
			texts.Close()
			c.Close()
		}
	}
	half := checkpoint.StateDict{"visual.conv1.weight": {DType: checkpoint.F16}, "visual.ln_pre.weight": {DType: checkpoint.F32}}
	if markOfOpenAI(half) == "" || markOfOpenAI(checkpoint.StateDict{"visual.conv1.weight": {DType: checkpoint.F16}, "visual.ln_pre.weight": {DType: checkpoint.F16}}) != "" {
		t.Error("OpenAI's mixture of precisions is not told")
	}
	path := filepath.Join(t.TempDir(), "broken.pt")
	shapes := tiny.CLIPShapes(32, 16)
	delete(shapes, "visual.ln_pre.weight")
	shapes["visual.more"] = []int{3}
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCLIP(path, "", ""); err == nil || !strings.Contains(err.Error(), "vision_model.pre_layrnorm.weight") || !strings.Contains(err.Error(), "visual.more") {
		t.Errorf("missing and unexpected: %v", err)
	}
}

// The published networks are told by their sizes.
func TestCLIPNames(t *testing.T) {
	for want, c := range map[string]CLIPImage{
		"ViT-B/32": {HiddenSize: 768, NumHiddenLayers: 12, PatchSize: 32, ImageSize: 224}, "ViT-L/14@336px": {HiddenSize: 1024, NumHiddenLayers: 24, PatchSize: 14, ImageSize: 336},
		"ViT-H/14": {HiddenSize: 1280, NumHiddenLayers: 32, PatchSize: 14, ImageSize: 224}, "3 blocks of width 32 at 28 pixels": {HiddenSize: 32, NumHiddenLayers: 3, PatchSize: 7, ImageSize: 28},
	} {
		if got := c.Name(); got != want {
			t.Errorf("%+v is called %s, want %s", c, got, want)
		}
	}
	if !slices.Contains(clipUnused, "logit_scale") {
		t.Error("logit_scale is of neither half")
	}
}

// FuzzCLIPConfigs reads what may lie beside weights: no input panics, and sizes are bounded.
func FuzzCLIPConfigs(f *testing.F) {
	f.Add([]byte(tiny.CLIPConfig))
	for _, name := range []string{"config.json", "preprocessor_config.json"} {
		data, err := os.ReadFile(filepath.Join(clipCase, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"model_type": "clip", "vision_config": {"hidden_size": null}, "text_config_dict": {}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		folder := t.TempDir()
		for _, name := range []string{"config.json", "preprocessor_config.json", openCLIPConfig} {
			if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, read := range []func(*CLIP) error{func(c *CLIP) error { return c.readTransformers(folder) }, func(c *CLIP) error { return c.readOpenCLIP(filepath.Join(folder, openCLIPConfig)) }} {
			c := &CLIP{Mean: openAIMean, Std: openAIStd}
			if err := read(c); err == nil && c.Image.Validate() != nil {
				t.Errorf("%+v was read", c.Image)
			}
		}
	})
}

// The halves of the published networks have as many parameters as their authors' code:
// openai/CLIP ViT-B/32, ViT-L/14 and ViT-L/14@336px, OpenCLIP ViT-H-14 (docs/model_profile.csv).
func TestCLIPParameters(t *testing.T) {
	for _, c := range []struct {
		image                                         CLIPImage
		textWidth, textHeads, textLayers, want, heads int
	}{
		{CLIPImage{HiddenSize: 768, NumHiddenLayers: 12, PatchSize: 32, ImageSize: 224, ProjectionDim: 512}, 512, 8, 12, 151_277_313, 12},
		{CLIPImage{HiddenSize: 1024, NumHiddenLayers: 24, PatchSize: 14, ImageSize: 224, ProjectionDim: 768}, 768, 12, 12, 427_616_513, 16},
		{CLIPImage{HiddenSize: 1024, NumHiddenLayers: 24, PatchSize: 14, ImageSize: 336, ProjectionDim: 768}, 768, 12, 12, 427_944_193, 16},
		{CLIPImage{HiddenSize: 1280, NumHiddenLayers: 32, PatchSize: 14, ImageSize: 224, ProjectionDim: 1024}, 1024, 16, 24, 986_109_441, 16},
	} {
		image, text := c.image, newCLIPTextConfig()
		image.NumChannels, image.IntermediateSize, image.NumAttentionHeads, image.HiddenAct, image.LayerNormEps = 3, 4*image.HiddenSize, c.heads, "gelu", 1e-5
		text.HiddenSize, text.IntermediateSize, text.NumAttentionHeads, text.NumHiddenLayers = c.textWidth, 4*c.textWidth, c.textHeads, c.textLayers
		if err := errors.Join(image.Validate(), text.Validate()); err != nil {
			t.Fatal(err)
		}
		count := 1 + c.textWidth*image.ProjectionDim // logit_scale, text_projection
		for _, build := range []func(*onnx.Module){func(m *onnx.Module) { image.Build(m, false) }, func(m *onnx.Module) { text.build(m, textKey{length: 77}) }} {
			shapes, err := onnx.Parameters(build)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range shapes {
				count += tensor.Size(s)
			}
		}
		if count != c.want {
			t.Errorf("%s has %d parameters, want %d", image.Name(), count, c.want)
		}
	}
}
