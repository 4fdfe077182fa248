package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/internal/tiny"
	"sagbench/models/checkpoint"
	"sagbench/models/checkpoint/randomweights"
)

// sdxlFile writes a small Stable Diffusion XL as one file, in Stability AI's layout,
// with the published vocabulary and the widths that the shapes tell: heads of 64
// channels, groups of 32, sizes in 256 channels each.
func sdxlFile(t *testing.T) string {
	t.Helper()
	const width = 64
	shapes := tiny.LDM{Base: 32, Blocks: 1, Mult: []int{1, 2}, Depth: []int{0, 1}, Context: 2 * width, Added: width + 6*256, Linear: true}.Shapes()
	layer := func(key string, shape ...int) { shapes[key+".weight"], shapes[key+".bias"] = shape, shape[:1] }

	const first, second = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
	shapes[first+"embeddings.token_embedding.weight"], shapes[first+"embeddings.position_embedding.weight"] = []int{49408, width}, []int{77, width}
	shapes[second+"token_embedding.weight"], shapes[second+"positional_embedding"] = []int{49408, width}, []int{77, width}
	shapes[second+"text_projection"] = []int{width, width}
	layer(first+"final_layer_norm", width)
	layer(second+"ln_final", width)
	for i := range 2 {
		a, b := fmt.Sprintf("%sencoder.layers.%d.", first, i), fmt.Sprintf("%stransformer.resblocks.%d.", second, i)
		for _, p := range []string{"q_proj", "k_proj", "v_proj", "out_proj"} {
			layer(a+"self_attn."+p, width, width)
		}
		shapes[b+"attn.in_proj_weight"], shapes[b+"attn.in_proj_bias"] = []int{3 * width, width}, []int{3 * width}
		layer(b+"attn.out_proj", width, width)
		for _, n := range [][2]string{{a + "mlp.fc1", a + "mlp.fc2"}, {b + "mlp.c_fc", b + "mlp.c_proj"}} {
			layer(n[0], 2*width, width)
			layer(n[1], width, 2*width)
		}
		for _, n := range []string{a + "layer_norm1", a + "layer_norm2", b + "ln_1", b + "ln_2"} {
			layer(n, width)
		}
	}

	f, err := checkpoint.Open(referenceCase(t, "sample-sd-singlefile/model.ckpt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for key, w := range f.Tensors {
		if strings.HasPrefix(key, "first_stage_model.") {
			shapes[key] = w.Shape
		}
	}
	path := filepath.Join(t.TempDir(), "sd_xl_tiny.safetensors")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestInspectedBlocksOfFamilies: of every kind of file of EDM, EDM2, SiT and SDXL the
// block that inspect prints draws images as it is, but for what it says is missing.
func TestInspectedBlocksOfFamilies(t *testing.T) {
	xl := sdxlFile(t)
	autog, sit, sag := referenceCase(t, "sample-edm2-autog"), referenceCase(t, "sit-tiny/model.pt"), referenceCase(t, "sample-sit-sag")
	steps, ode := "sampler: {edm: {steps: 2}}", "sampler: {ode: {steps: 2, sampling_method: euler}}"
	for _, c := range []struct {
		path, family, extra, size string // size of the images
	}{
		{referenceCase(t, "edm-adm-tiny/model.pkl"), "edm", steps, "8x8"},
		{referenceCase(t, "edm-ddpmpp-tiny/model.pkl"), "edm", steps, "16x16"},
		{referenceCase(t, "edm-iddpm-tiny/model.pkl"), "edm", steps, "8x8"},
		{referenceCase(t, "edm-ncsnpp-tiny/model.pkl"), "edm", steps, "8x8"},
		{referenceCase(t, "edm-skip-tiny/model.pkl"), "edm", steps, "16x16"},
		{referenceCase(t, "edm-ve-tiny/model.pkl"), "edm", steps, "8x8"},
		{referenceCase(t, "edm-vp-tiny/model.pkl"), "edm", steps, "8x8"},
		{referenceCase(t, "edm2-cond-tiny/model.pkl"), "edm2", steps, "8x8"},
		{autog + "/model.pkl", "edm2", "  vae: " + autog + "/vae\n" + steps, "16x16"},
		{autog + "/gnet.pkl", "edm2", "  vae: " + autog + "/vae\n" + steps, "16x16"},
		{sit, "sit", "  vae: " + sag + "/vae\n" + ode, "16x16"},
		{referenceCase(t, "sample-sdxl-cfg/model"), "sdxl", "sampler: {euler: {steps: 2}}\nprompts: [a coat]", "32x32"},
		{xl, "sdxl", "sampler: {euler: {steps: 2}}\nprompts: [a coat]", "256x256"},
	} {
		results := t.TempDir()
		succeed(t, "run", pastedOf(t, c.path, c.family, c.extra), "--results", results)
		if drawn, err := filepath.Glob(filepath.Join(results, "pasted", "*", "samples", "samples_1x"+c.size+"x3.npz")); err != nil || len(drawn) != 1 {
			all, _ := filepath.Glob(filepath.Join(results, "pasted", "*", "samples", "*"))
			t.Errorf("%s: no image of %s pixels: %v, %v", c.path, c.size, all, err)
		}
	}
}

// TestInspectNamesOtherFiles: what lies beside a network's file in the folder of a
// training is called what it is, and so is a network of another family than a block
// says.
func TestInspectNamesOtherFiles(t *testing.T) {
	snapshot := referenceCase(t, "sample-edm2-autog/model.pkl")
	if got := succeed(t, "inspect", snapshot).stdout.String(); !strings.Contains(got, "loss_fn (EDM2Loss): a snapshot that training saved") {
		t.Errorf("a snapshot: %s", got)
	}

	lora := filepath.Join(t.TempDir(), "lora.safetensors")
	rows := make([]float32, 4*2048)
	if err := checkpoint.WriteSafetensors(lora, checkpoint.StateDict{
		"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": checkpoint.FromFloat32(rows, 4, 2048),
	}, nil); err != nil {
		t.Fatal(err)
	}
	if got := succeed(t, "inspect", lora).stdout.String(); !strings.Contains(got, "family      none: this is a LoRA for Stable Diffusion XL") {
		t.Errorf("a LoRA: %s", got)
	}

	edm, edm2 := referenceCase(t, "edm-vp-tiny/model.pkl"), referenceCase(t, "edm2-cond-tiny/model.pkl")
	sit, xl := referenceCase(t, "sit-tiny/model.pt"), referenceCase(t, "sample-sdxl-cfg/model")
	for _, c := range []struct{ model, settings, want string }{
		{"family: edm2, checkpoint: " + edm, "sampler: {edm: {steps: 2}}", "its network is a VPPrecond, expected a Precond of EDM2; it is one of EDM (family: edm)"},
		{"family: edm, checkpoint: " + edm2, "sampler: {edm: {steps: 2}}", "its network is a Precond, expected one of [EDMPrecond VEPrecond VPPrecond iDDPMPrecond]; it is one of EDM2 (family: edm2)"},
		{"family: edm, img_resolution: 8, img_channels: 4, checkpoint: " + sit, "sampler: {edm: {steps: 2}}", "its keys speak for family: dit or family: sit;"},
		{"family: sit, checkpoint: " + edm, "sampler: {ode: {steps: 2, sampling_method: euler}}", "its keys speak for family: edm;"},
		{"family: sd, checkpoint: " + xl, "sampler: {ddim: {steps: 2}}, prompts: [a coat]", "family: sdxl"},
		{"family: adm, image_size: 64, num_channels: 32, checkpoint: " + edm, "sampler: {ddim: {steps: 2}}", "its keys are those of a U-Net of EDM (family: edm)"},
	} {
		file := filepath.Join(t.TempDir(), "wrong.yaml")
		if err := os.WriteFile(file, []byte("{name: wrong, samples: 1, metrics: [], "+c.settings+", model: {"+c.model+"}}"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := fail(t, "run", file, "--results", t.TempDir()); !strings.Contains(got, c.want) {
			t.Errorf("%s: no %q in %s", c.model, c.want, got)
		}
	}
}
