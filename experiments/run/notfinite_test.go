package run

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
)

// poison puts an infinity into the first number of a tensor of a checkpoint.
func poison(t *testing.T, path, key string) {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	at, known := f.Tensors[key]
	f.Close()
	infinity, known2 := map[checkpoint.DType][]byte{checkpoint.F32: {0, 0, 0x80, 0x7f}, checkpoint.F16: {0, 0x7c}}[at.DType]
	if !known || !known2 || at.Raw != nil {
		t.Fatalf("%s: no %s to write to: %+v", path, key, at)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(infinity, at.Offset); err != nil {
		t.Fatal(err)
	}
}

// An infinity in what a network gives is an error that names row, image, step and
// network: clipping and the conversion to pixels would make a plausible picture.
func TestNotFinite(t *testing.T) {
	pretrained := filepath.Join(tiny.Root(), "models/pretrained")
	for name, c := range map[string]struct{ file, key, want string }{
		"U-Net of pixels, which clips x_0": {"adm-uncond.pt", "out.2.bias", "image 2, network CHECKPOINT: sampling: step 1 (t = 999): image 0 of the batch is not finite, from the network's output"},
		"U-Net of latents":                 {"sd/unet/diffusion_pytorch_model.safetensors", "conv_out.bias", "image 2, network CHECKPOINT: sampling: step 1"},
		"autoencoder":                      {"sd/vae/diffusion_pytorch_model.safetensors", "decoder.conv_out.bias", "vae/diffusion_pytorch_model.safetensors: image 2: the decoded image is not finite"},
		"text encoder":                     {"sd/text_encoder/model.safetensors", "final_layer_norm.bias", `text_encoder/model.safetensors: the embedding of "" is not finite`},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.CopyFS(folder, os.DirFS(pretrained)); err != nil {
				t.Fatal(err)
			}
			poison(t, filepath.Join(folder, c.file), c.key)
			var overrides []string
			path := writePrompted(t, folder, "MODELS", folder)
			if !strings.HasPrefix(c.file, "sd/") {
				path, overrides = filepath.Join(tiny.Root(), "configs/table1-fashion.yaml"), []string{"sampler.ddpm.steps=2", "guidance.sag.scale=0", "sweep=null"}
				overrides = append(overrides, "model.checkpoint="+filepath.Join(folder, c.file))
			}
			experiment, err := plan.Load(path, overrides)
			if err != nil {
				t.Fatal(err)
			}
			r := experiment.Rows[0]
			n, err := OpenRow(t.Context(), r, ort.Options{Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			_, err = drawImages(t.Context(), r, n, store.Span{From: 2, To: 4}, func(int, int) {})
			want := strings.ReplaceAll(c.want, "CHECKPOINT", r.Model.Checkpoint.Path)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `row "`) {
				t.Errorf("%v lacks %s", err, want)
			}
		})
	}
}
