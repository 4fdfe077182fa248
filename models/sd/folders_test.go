package sd

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// copyFolder copies a folder into a scratch folder that tests may spoil.
func copyFolder(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(from))
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// editJSON sets keys of a JSON object; a nil func deletes nothing.
func editJSON(t testing.TB, path string, edit func(map[string]any)) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	object := map[string]any{}
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	edit(object)
	if data, err = json.MarshalIndent(object, "", "  "); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// readTensors is a copy of a file's tensors in memory.
func readTensors(t testing.TB, path string) checkpoint.StateDict {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sd := checkpoint.StateDict{}
	for key, x := range f.Tensors {
		b, err := x.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		sd[key] = checkpoint.FromBytes(x.DType, append([]byte{}, b...), x.Shape...)
	}
	return sd
}

func writeTensors(t testing.TB, path string, sd checkpoint.StateDict) {
	t.Helper()
	if err := checkpoint.WriteSafetensors(path, sd, nil); err != nil {
		t.Fatal(err)
	}
}

// wantError fails unless the error holds every text.
func wantError(t testing.TB, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got %q, want %q in it", err, text)
		}
	}
}

const weightsFile = "diffusion_pytorch_model.safetensors"

func TestWeightFiles(t *testing.T) {
	const stem = "diffusion_pytorch_model"
	for _, c := range []struct{ names, variant, want string }{
		{stem + ".safetensors " + stem + ".bin", "", stem + ".safetensors"},
		{stem + ".bin " + stem + ".fp16.safetensors", "", stem + ".bin"},
		{stem + ".bin " + stem + ".fp16.safetensors", "fp16", stem + ".fp16.safetensors"},
		{stem + ".fp16.bin config.json", "fp16", stem + ".fp16.bin"},
		{stem + ".fp16.safetensors config.json", "", stem + ".fp16.safetensors"},
		{stem + ".safetensors.index.json", "", stem + ".safetensors.index.json"},
		{stem + ".safetensors.index.fp16.json", "fp16", stem + ".safetensors.index.fp16.json"},
	} {
		if got, err := chooseWeights(strings.Fields(c.names), diffusersStems, c.variant); err != nil || got != c.want {
			t.Errorf("%s, variant %q: got %q, %v, want %s", c.names, c.variant, got, err, c.want)
		}
	}
	for _, c := range []struct{ names, variant, want string }{
		{"config.json", "", "expected " + stem + ".safetensors or " + stem + ".bin; the folder holds config.json"},
		{"", "", "the folder is empty"},
		{stem + ".safetensors", "fp16", "expected " + stem + ".fp16.safetensors"},
		{stem + ".fp16.safetensors " + stem + ".ema.safetensors", "", "the folder holds"},
		{stem + ".bin.index.json " + stem + "-00001-of-00002.bin", "", "shards of pickles, which are not supported"},
	} {
		_, err := chooseWeights(strings.Fields(c.names), diffusersStems, c.variant)
		wantError(t, err, c.want)
	}
	for names, want := range map[string]string{ // of transformers
		"pytorch_model.bin model.safetensors config.json": "model.safetensors",
		"pytorch_model.bin config.json":                   "pytorch_model.bin",
		"pytorch_model.fp16.bin config.json":              "pytorch_model.fp16.bin",
	} {
		if got, err := chooseWeights(strings.Fields(names), transformersStems, ""); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %s", names, got, err, want)
		}
	}
	_, err := chooseWeights([]string{"pytorch_model.bin.index.json", "model.bin"}, transformersStems, "")
	wantError(t, err, "pytorch_model.bin.index.json lists shards of pickles")
}

func TestShards(t *testing.T) {
	whole := readTensors(t, casesFolder+"vae-decoder-tiny/model/vae/"+weightsFile)
	split := func(t *testing.T) (folder, index string) {
		folder = copyFolder(t, casesFolder+"vae-decoder-tiny/model/vae")
		if err := os.Remove(filepath.Join(folder, weightsFile)); err != nil {
			t.Fatal(err)
		}
		weightMap := map[string]string{}
		shards := map[string]checkpoint.StateDict{"a-00001-of-00002.safetensors": {}, "a-00002-of-00002.safetensors": {}}
		for key, x := range whole {
			name := "a-00001-of-00002.safetensors"
			if strings.HasPrefix(key, "encoder.") {
				name = "a-00002-of-00002.safetensors"
			}
			weightMap[key], shards[name][key] = name, x
		}
		for name, sd := range shards {
			writeTensors(t, filepath.Join(folder, name), sd)
		}
		index = filepath.Join(folder, weightsFile+".index.json")
		data, err := json.Marshal(map[string]any{"weight_map": weightMap})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(index, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return folder, index
	}
	folder, _ := split(t)
	n, err := (&VAE{}).load(folder, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := n.weights.SHA256(); err != nil || len(sum) != 64 {
		t.Errorf("hash %q, %v", sum, err)
	}
	n.Close()

	for want, spoil := range map[string]func(map[string]any){
		"weight_map is missing":          func(m map[string]any) { delete(m, "weight_map") },
		"lies in another folder":         func(m map[string]any) { m["weight_map"].(map[string]any)["quant_conv.bias"] = "../x.safetensors" },
		"shard b.safetensors is missing": func(m map[string]any) { m["weight_map"].(map[string]any)["quant_conv.bias"] = "b.safetensors" },
		`the index says "a-00002-of-00002.safetenso`: func(m map[string]any) {
			m["weight_map"].(map[string]any)["quant_conv.bias"] = "a-00002-of-00002.safetensors"
		},
		"index.json: json: cannot unmarshal string": func(m map[string]any) {
			maps.DeleteFunc(m, func(string, any) bool { return true })
			m["weight_map"] = "x"
		},
		`tensor quant_conv.bias lies in a-00001-of-00`: func(m map[string]any) { delete(m["weight_map"].(map[string]any), "quant_conv.bias") },
	} {
		folder, index := split(t)
		editJSON(t, index, spoil)
		_, err := (&VAE{}).load(folder, models.Options{})
		wantError(t, err, want)
	}
}

// noise is standard normal noise of a shape whose first axis counts images.
func noise(t testing.TB, shape ...int) tensor.Tensor {
	t.Helper()
	x := tensor.New(shape...)
	images := make([]int, shape[0])
	for i := range images {
		images[i] = i
	}
	if err := (sampling.Keyed{Seed: 1, Images: images}).Fill(-1, x); err != nil {
		t.Fatal(err)
	}
	return x
}
