package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/models"
)

// pasted is an experiment with the first block that inspect prints of a checkpoint.
func pasted(t *testing.T, path, extra string) string {
	t.Helper()
	return pastedOf(t, path, "", extra)
}

// pastedOf is pasted with the block of a family, where there are several.
func pastedOf(t *testing.T, path, family, extra string) string {
	t.Helper()
	out := succeed(t, "inspect", path).stdout.String()
	i := strings.Index(out, "\nmodel:\n  family: "+family)
	if i < 0 || strings.Contains(out, "?") {
		t.Fatalf("%s: no block, or one with unknown values:\n%s", path, out)
	}
	block, _, _ := strings.Cut(out[i+1:], "\n\n")
	file := filepath.Join(t.TempDir(), "pasted.yaml")
	if err := os.WriteFile(file, []byte("name: pasted\nsamples: 1\nmetrics: []\n"+strings.TrimSpace(block)+"\n"+extra+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestInspectedBlockRuns: what inspect prints is an experiment's block as it is, and
// draws images of the size that the network was trained at.
func TestInspectedBlockRuns(t *testing.T) {
	pretrained, err := filepath.Abs("../models/pretrained")
	if err != nil {
		t.Fatal(err)
	}
	blank := filepath.Join(t.TempDir(), "with a blank, and #: more.pt")
	data, err := os.ReadFile(filepath.Join(pretrained, "adm-cond.pt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blank, data, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, extra := range map[string]string{
		filepath.Join(pretrained, "adm-uncond.pt"): "sampler: {ddim: {steps: 2}}",
		blank:                                 "sampler: {ddim: {steps: 2}}",
		filepath.Join(pretrained, "iddpm.pt"): "sampler: {ddim: {steps: 2}}",
		filepath.Join(pretrained, "dit.pt"):   "  vae: " + pretrained + "/sd/vae\nsampler: {ddim: {steps: 2}}",
		filepath.Join(pretrained, "sd"):       "sampler: {ddim: {steps: 2}}\nprompts: [a coat]",
		filepath.Join(pretrained, "../../experiments/refcase/testdata/cases/sample-sdxl-cfg/model"): "sampler: {euler: {steps: 2}}\nprompts: [a coat]",
	} {
		results := t.TempDir()
		succeed(t, "run", pasted(t, path, extra), "--results", results)
		if drawn, err := filepath.Glob(filepath.Join(results, "pasted", "*", "samples", "samples_1x32x32x3.npz")); err != nil || len(drawn) != 1 {
			t.Errorf("%s: no image of 32×32 pixels: %v, %v", path, drawn, err)
		}
	}
	out := succeed(t, "inspect", filepath.Join(pretrained, "classifier.pt"), filepath.Join(pretrained, "inception.pt"), filepath.Join(pretrained, "adm-cond.pt"), filepath.Join(pretrained, "sd")).stdout.String()
	for _, want := range []string{
		"guidance:\n  classifier:\n    model:\n      family: classifier", "inception:\n  checkpoint:",
		"attention   8×8, heads 2: input_blocks.5.1, middle_block.1, output_blocks.0.1, output_blocks.1.1",
		"assumed     image_size, num_head_channels, use_new_attention_order, noise_schedule: not in the file",
		"image_size: 32  # assumed, not in the shapes: that at which the lowest attention layers are of 8×8",
		"attention   8×8, heads 4: mid_block.attentions.0.transformer_blocks.0.attn1",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestInspectFolder(t *testing.T) {
	sd := "../models/pretrained/sd"
	for folder, want := range map[string][]string{
		sd:                   {"model:\n  family: sd\n  checkpoint: " + sd, "unet/diffusion_pytorch_model.safetensors\n    format      safetensors", "parameters  3,152,644"},
		sd + "/unet":         {"component: \"unet\"", "config.json of a UNet2DConditionModel"},
		sd + "/vae":          {"family: vae"},
		sd + "/text_encoder": {"family: clip_text"},
	} {
		got := succeed(t, "inspect", folder).stdout.String()
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in\n%s", folder, w, got)
			}
		}
		if strings.Contains(got, "but ") {
			t.Errorf("%s: a fault in\n%s", folder, got)
		}
	}

	empty := t.TempDir()
	p := program("inspect", empty, sd)
	p.start(t)
	if status := p.status(t); status != statusFailed || !strings.Contains(p.stderr.String(), empty+": holds no model of a family that is known (adm, ") || !strings.Contains(p.stdout.String(), "family: sd") {
		t.Errorf("a folder without a model: exit status %d\n%s%s", status, &p.stdout, &p.stderr)
	}

	part := filepath.Join(t.TempDir(), "vae")
	if err := os.CopyFS(part, os.DirFS(sd+"/vae")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(part, "config.json")
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	wider := strings.Replace(string(data), `"latent_channels": 4`, `"latent_channels": 5`, 1)
	if err := os.WriteFile(config, []byte(wider), 0o644); err != nil || wider == string(data) {
		t.Fatal(err)
	}
	var got struct {
		Files   []json.RawMessage
		Guesses []models.Guess
	}
	if err := json.Unmarshal(succeed(t, "inspect", "--json", part).stdout.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Files) != 1 || len(got.Guesses) != 1 || !strings.Contains(strings.Join(got.Guesses[0].Mismatches, "\n"), "mis-shaped decoder.conv_in.weight: the network wants [64 5 3 3], the checkpoint has [64 4 3 3]") {
		t.Errorf("got %+v", got)
	}
}
