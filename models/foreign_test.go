package models

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/checkpoint/randomweights"
)

// keysOf is a checkpoint with tensors under these keys, of one shape.
func keysOf(shape []int, keys ...string) map[string][]int {
	shapes := map[string][]int{}
	for _, key := range keys {
		shapes[key] = shape
	}
	return shapes
}

// lora is the file of a LoRA as kohya's scripts save it.
func lora(context int) map[string][]int {
	shapes := map[string][]int{}
	for i := range 88 {
		name := fmt.Sprintf("lora_unet_down_blocks_%d_attentions_0_transformer_blocks_0_attn2_to_k.", i)
		shapes[name+"alpha"], shapes[name+"lora_down.weight"], shapes[name+"lora_up.weight"] = nil, []int{4, context}, []int{32, 4}
	}
	return shapes
}

// TestForeign: a file that no family is is called what it is, whoever opens it.
func TestForeign(t *testing.T) {
	upsampler, err := NewADM().Parameters()
	if err != nil {
		t.Fatal(err)
	}
	upsampler["input_blocks.0.0.weight"] = []int{128, 6, 3, 3}
	for want, shapes := range map[string]map[string][]int{
		"this is a LoRA for Stable Diffusion 1.x: 264 tensors named lora_unet_…; merge it into its base model first": lora(768),
		"this is a LoRA for Stable Diffusion 2.x: 264 tensors named lora_unet_…; merge it":                           lora(1024),
		"this is a LoRA for Stable Diffusion XL: 2 tensors":                                                          keysOf([]int{4, 768}, "lora_te2_text_model_x.lora_down.weight", "lora_te2_text_model_x.lora_up.weight"),
		"this is a LoRA for Stable Diffusion 1.x: 1 tensors named …lora…":                                            keysOf([]int{4, 768}, "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight"),
		"this is a LoRA for Flux":                                            keysOf([]int{4, 8}, "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"),
		"this is a ControlNet: 1 tensors named control_model.…":              keysOf([]int{4}, "control_model.time_embed.0.bias"),
		"this is a ControlNet":                                               keysOf([]int{4}, "controlnet_cond_embedding.conv_in.bias", "down_blocks.0.resnets.0.conv1.weight"),
		"this is a Flux model: 2 tensors named double_blocks.…":              keysOf([]int{4}, "model.diffusion_model.double_blocks.0.img_attn.proj.bias", "double_blocks.0.x"),
		"this is a Stable Diffusion 3 model: 1 tensors named joint_blocks.…": keysOf([]int{4}, "model.diffusion_model.joint_blocks.0.x_block.attn.proj.bias"),
		"this is Stable Diffusion XL's refiner: 1 tensors named conditioner.embedders.0.model.…; it works on images": keysOf([]int{4}, "conditioner.embedders.0.model.ln_final.bias", "model.diffusion_model.out.2.bias"),
		"this is a Playground v2.5 model": keysOf([]int{4}, "edm_mean", "conditioner.embedders.1.model.ln_final.bias"),
		"this is a LoRA for Stable Diffusion XL: 264 tensors named lora_unet_…; merge it into its base model first":     lora(2048),
		"this is a textual inversion: vectors of 768 channels that stand for a word for Stable Diffusion 1.x, no netwo": keysOf([]int{3, 768}, "emb_params"),
		"this is a textual inversion: vectors of 1024 channels":                                                         keysOf([]int{1024}, "<cat-toy>"),
		"this is a super-resolution model (upsampler) of guided-diffusion: its first layer takes 6 channels":            upsampler,
	} {
		path := filepath.Join(t.TempDir(), "model.pt")
		if err := randomweights.Write(path, shapes, 1); err != nil {
			t.Fatal(err)
		}
		for _, family := range []Family{NewADM(), NewDiT(), NewClassifier()} {
			_, err := family.Open(path, Options{})
			wantError(t, err, "model.pt: "+want)
		}
	}
	for _, path := range []string{"adm-uncond.pt", "adm-cond.pt", "iddpm.pt", "dit.pt", "classifier.pt", "inception.pt", "sd/unet/diffusion_pytorch_model.safetensors",
		"sd/vae/diffusion_pytorch_model.safetensors", "sd/text_encoder/model.safetensors"} {
		f, err := checkpoint.Open("pretrained/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if what := Foreign(f.Tensors); what != "" {
			t.Errorf("%s: %s", path, what)
		}
		f.Close()
	}
}

// TestOtherFamily: a checkpoint of another family is told by its name, briefly.
func TestOtherFamily(t *testing.T) {
	for _, c := range []struct {
		path   string
		family Family
		want   string
	}{
		{"classifier.pt", NewADM(), "a classifier of noisy images, guided-diffusion's EncoderUNetModel (family: classifier)"},
		{"classifier.pt", NewIDDPM(), "(family: classifier)"},
		{"dit.pt", NewADM(), "a DiT (family: dit)"},
		{"adm-cond.pt", NewClassifier(), "a U-Net that draws images, of guided-diffusion or improved-diffusion (family: adm or iddpm)"},
		{"adm-cond.pt", NewDiT(), "(family: adm or iddpm)"},
	} {
		_, err := c.family.Open("pretrained/"+c.path, Options{})
		wantError(t, err, c.want)
		if n := len(err.Error()); n > 2000 {
			t.Errorf("%s: a message of %d bytes", c.path, n)
		}
	}
}

// wantError fails unless the error holds the text.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %q in it", err, text)
	}
}
