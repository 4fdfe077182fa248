package sd

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/sampling"
)

// TestSingleFileExtraKeys: what training and merging left in a file is no fault.
func TestSingleFileExtraKeys(t *testing.T) {
	sd := readTensors(t, singleSD)
	for _, key := range []string{
		"embedding_manager.embedder.transformer.text_model.embeddings.position_ids", "model_ema.decay", "model_ema.num_updates",
		"safety_checker.vision_model.embeddings.class_embedding", "first_stage_model.model_ema.decay", "cond_stage_model.transformer.logit_scale",
	} {
		sd[key] = checkpoint.FromFloat32([]float32{1}, 1)
	}
	sd[sdText+"text_projection.weight"] = checkpoint.FromFloat32(make([]float32, 24*32), 24, 32)
	path := filepath.Join(t.TempDir(), "model.safetensors")
	writeTensors(t, path, sd)
	n, err := openSingle(t, singleFlags(t, func(*SD) {}), path)
	if err != nil {
		t.Fatal(err)
	}
	if n.Process().Predicts != sampling.Epsilon {
		t.Errorf("predicts %s", n.Process().Predicts)
	}
}

// TestMarkedPrediction: the keys v_pred and ztsnr say which process a file is of.
func TestMarkedPrediction(t *testing.T) {
	sd := readTensors(t, singleSD)
	sd["v_pred"], sd["ztsnr"] = checkpoint.FromFloat32(nil, 0), checkpoint.FromFloat32(nil, 0)
	path := filepath.Join(t.TempDir(), "model.safetensors")
	writeTensors(t, path, sd)
	plain := func(c *SD) { c.OriginalConfig = sampling.File{} }
	n, err := openSingle(t, singleFlags(t, plain), path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := (&sampling.DDIM{Steps: 5}).Schedule(n.Process().Schedule)
	if n.Process().Predicts != sampling.V || err != nil || s.AlphaBar(s.Len()-1) != 0 {
		t.Errorf("predicts %s, %v", n.Process().Predicts, err)
	}
	_, err = openSingle(t, singleFlags(t, func(c *SD) { plain(c); c.PredictionType = "epsilon" }), path)
	wantError(t, err, "its key v_pred says that the network predicts v, prediction_type says epsilon")
	_, err = openSingle(t, singleFlags(t, func(*SD) {}), path)
	wantError(t, err, "its key v_pred says that the network predicts v, original_config says epsilon")
}

// vaeFile writes the autoencoder of the single file, with the prefix of its keys,
// edited.
func vaeFile(t *testing.T, prefix string, edit func(checkpoint.StateDict)) string {
	t.Helper()
	sd := checkpoint.StateDict{}
	for key, x := range readTensors(t, singleSD) {
		if rest, ok := strings.CutPrefix(key, ldmVAE); ok {
			sd[prefix+rest] = x
		}
	}
	edit(sd)
	path := filepath.Join(t.TempDir(), "vae.safetensors")
	writeTensors(t, path, sd)
	return path
}

// TestVAEFile decodes with an autoencoder that is one file: alone, a part of
// Stable Diffusion, without its encoder, of a folder of diffusers.
func TestVAEFile(t *testing.T) {
	z := noise(t, 2, 4, 4, 4)
	whole, err := openSingle(t, singleFlags(t, func(*SD) {}), singleSD)
	if err != nil {
		t.Fatal(err)
	}
	want, err := whole.vae.Decode(t.Context(), z)
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a part": singleSD,
		"alone":  vaeFile(t, "", func(checkpoint.StateDict) {}),
		"with its state": vaeFile(t, "", func(sd checkpoint.StateDict) {
			sd["loss.logvar"], sd["model_ema.decay"] = checkpoint.FromFloat32([]float32{0}), checkpoint.FromFloat32([]float32{1})
		}),
		"without encoder": vaeFile(t, "", func(sd checkpoint.StateDict) {
			maps.DeleteFunc(sd, func(key string, _ checkpoint.Tensor) bool { return strings.HasPrefix(key, "encoder.") })
		}),
	} {
		m, err := (&VAE{}).Open(path, models.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := m.(*vaeNet).Decode(t.Context(), z)
		if err != nil || !slices.Equal(got.Data, want.Data) {
			t.Errorf("%s: other images, %v", name, err)
		}
		_, err = m.(*vaeNet).Encode(t.Context(), noise(t, 1, 3, 16, 16))
		if lacks := name == "without encoder"; lacks != (err != nil) || lacks && !strings.Contains(err.Error(), "a decoder and no encoder") {
			t.Errorf("%s: encoding: %v", name, err)
		}
		m.Close()
	}
	_, err = (&VAE{}).Open(vaeFile(t, "", func(sd checkpoint.StateDict) { delete(sd, "decoder.up.0.block.0.norm1.weight") }), models.Options{})
	wantError(t, err, "holds no autoencoder")

	folder := copyFolder(t, tinySD)
	before, err := (&VAE{}).Open(filepath.Join(folder, "vae"), models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	file := filepath.Join(folder, "vae", weightsFile)
	beside, err := (&VAE{}).Open(file, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	if a, b := before.(*vaeNet).config, beside.(*vaeNet).config; fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("the file beside its config.json is %v, the folder %v", b, a)
	}
	if files, err := (&VAE{}).Files(file); err != nil || len(files) != 2 {
		t.Errorf("files %v, %v", files, err)
	}
}

// TestCacheRoot opens the folder of a repository in the cache of a hub.
func TestCacheRoot(t *testing.T) {
	root := filepath.Join(t.TempDir(), "models--ORG--NAME")
	at := func(name string) string { return filepath.Join(root, "snapshots", name) }
	if err := first(os.CopyFS(at("abc"), os.DirFS(tinySD)), os.MkdirAll(filepath.Join(root, "refs"), 0o755)); err != nil {
		t.Fatal(err)
	}
	opens := func() error {
		m, err := (&SD{}).Open(root, models.Options{})
		if err == nil {
			m.Close()
			files, errFiles := (&SD{}).Files(root)
			if err = errFiles; len(files) != 11 || !strings.HasPrefix(files[0], at("abc")) {
				t.Errorf("files %v", files)
			}
		}
		return err
	}
	if err := opens(); err != nil {
		t.Error(err)
	}
	if _, ok := (&SD{}).GuessFolder(root); !ok {
		t.Error("the cache's folder is not recognized")
	}
	if err := os.Mkdir(at("older"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantError(t, opens(), "is the cache of a hub with 2 snapshots, and refs/main names none of them; give the folder of one: abc, older")
	if err := os.WriteFile(filepath.Join(root, "refs", "main"), []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := opens(); err != nil {
		t.Error(err)
	}
}

// TestImageSides: what the images measure is known before they are drawn.
func TestImageSides(t *testing.T) {
	for _, c := range []struct {
		path          string
		flags         *SD
		height, width int
	}{
		{tinySD, &SD{}, 32, 32},
		{tinySD, &SD{flags{Height: 24}}, 24, 32},
		{singleSD, singleFlags(t, func(*SD) {}), 32, 32},
		{"nowhere", &SD{flags{Width: 8}}, 0, 8},
	} {
		if h, w := c.flags.ImageSides(c.path); h != c.height || w != c.width {
			t.Errorf("%s: %d×%d, want %d×%d", c.path, h, w, c.height, c.width)
		}
	}
}
