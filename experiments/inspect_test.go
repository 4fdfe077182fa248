package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/models"
)

func TestInspectFolder(t *testing.T) {
	sd := "../models/pretrained/sd"
	for folder, want := range map[string][]string{
		sd:                   {"model:\n  family: sd\n  checkpoint: " + sd, "unet/diffusion_pytorch_model.safetensors\n    format      safetensors", "parameters  3,152,644"},
		sd + "/unet":         {"component: \"unet\"", "config.json of a UNet2DConditionModel"},
		sd + "/vae":          {"family: vae"},
		sd + "/text_encoder": {"family: clip_text"},
		t.TempDir():          {"family      none of adm, ", "it speaks for none of them"},
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
