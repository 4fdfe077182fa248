package sd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// parametersIn counts the values of a file of weights, those of keys that begin so.
func parametersIn(t *testing.T, path string, prefixes ...string) float64 {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for _, x := range withPrefix(f.Tensors, prefixes...) {
		n += x.Len()
	}
	return float64(n)
}

// What is counted before a network is built is what its checkpoint holds; twice the
// height and width are four times the largest value.
func TestMeasure(t *testing.T) {
	const sd = "../pretrained/sd"
	weights := "diffusion_pytorch_model.safetensors"
	small, err := (&SD{flags: flags{Height: 32, Width: 32}}).Measure(sd, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := parametersIn(t, filepath.Join(sd, "unet", weights), "") + parametersIn(t, filepath.Join(sd, "vae", weights), "decoder.", "post_quant_conv.") + parametersIn(t, filepath.Join(sd, "text_encoder/model.safetensors"), "")
	if small.Parameters != want || small.Nodes < 500 {
		t.Errorf("%+v, want %g parameters", small, want)
	}
	large, err := (&SD{flags: flags{Height: 64, Width: 64}}).Measure(sd, 0, 0)
	if err != nil || large.Parameters != want || large.Activation != 4*small.Activation || large.Alone != 4*small.Alone {
		t.Errorf("%+v, %v; with half the side %+v", large, err, small)
	}
	vae, err := (&VAE{}).Measure(filepath.Join(sd, "vae"), 16, 16)
	if err != nil || vae.Alone != small.Alone || vae.Activation != 0 {
		t.Errorf("%+v, %v", vae, err)
	}

	cases := "../../experiments/refcase/testdata/cases/"
	for _, c := range []struct {
		family models.Measured
		path   string
		want   float64
	}{
		{&UNet2D{}, cases + "unet2d-cifar-tiny/model", parametersIn(t, cases+"unet2d-cifar-tiny/model/"+weights, "")},
		{&DiT2D{}, cases + "dit2d-tiny/model", parametersIn(t, cases+"dit2d-tiny/model/transformer/"+weights, "") + parametersIn(t, cases+"dit2d-tiny/model/vae/"+weights, "decoder.", "post_quant_conv.")},
		{&SD{}, t.TempDir(), 0},
		{&UNet2D{}, "nowhere", 0},
		{&DiT2D{}, "nowhere", 0},
		{&VAE{}, "nowhere", 0},
	} {
		if s, err := c.family.Measure(c.path, 1, 1); err != nil || s.Parameters != c.want {
			t.Errorf("%s: %+v, %v; want %g parameters", c.path, s, err, c.want)
		}
	}

	// Stable Diffusion 1.5 has 859,520,964 parameters in its U-Net, whose largest
	// value is the first perceptron's, 8·320 numbers for each of 64·64 places.
	c := newSDUNetConfig()
	doc, err := parseJSON("config.json", []byte(publishedUNets["stable-diffusion-v1-5"]))
	if err != nil || decodeConfig(doc, c) != nil {
		t.Fatal(err)
	}
	s, err := onnx.Measure(func(m *onnx.Module) { c.build(m, sdSize{size{64, 64}, 77}, models.NewTaps(models.Options{})) })
	if err != nil || s.Parameters != 859_520_964 || s.Activation != 64*64*8*320*4 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A configuration asks for no more than its numbers' bounds, whatever it says.
func TestHostileConfigs(t *testing.T) {
	const cases = "../../experiments/refcase/testdata/cases/"
	for _, c := range []struct {
		family  models.Measured
		folder  string
		file    string
		changes []string // old, new
		want    string   // in the error
	}{
		{&DiT2D{}, cases + "dit2d-tiny/model", "transformer/config.json", []string{`"sample_size": 8`, `"sample_size": 4096`, `"attention_head_dim": 16`, `"attention_head_dim": 32`}, "4194304 tokens of 64 numbers"},
		{&DiT2D{}, cases + "dit2d-tiny/model", "transformer/config.json", []string{`"num_attention_heads": 2`, `"num_attention_heads": 1024`, `"attention_head_dim": 16`, `"attention_head_dim": 1024`}, "num_attention_heads times attention_head_dim is 1048576"},
		{&DiT2D{}, cases + "dit2d-tiny/model", "transformer/config.json", []string{`"num_layers": 2`, `"num_layers": 1025`}, "num_layers is 1025"},
		{&UNet2D{}, cases + "unet2d-cifar-tiny/model", "config.json", []string{`"sample_size": 16`, `"sample_size": 1073741824`}, "sample_size is 1073741824"},
		{&UNet2D{}, cases + "unet2d-cifar-tiny/model", "config.json", []string{`"layers_per_block": 1`, `"layers_per_block": 1000000000`}, "layers_per_block is 1000000000"},
		{&SD{}, "../pretrained/sd", "unet/config.json", []string{`"sample_size": 16`, `"sample_size": 9007199254740991`}, "sample_size is 9007199254740991"},
		{&SD{}, "../pretrained/sd", "unet/config.json", []string{`"sample_size": 16`, `"sample_size": -1`}, "sample_size is -1"},
		{&SD{}, "../pretrained/sd", "text_encoder/config.json", []string{`"max_position_embeddings": 77`, `"max_position_embeddings": 65536`}, "max_position_embeddings is 65536, expected 1 to 4096"},
		{&SD{}, "../pretrained/sd", "unet/config.json", []string{`"layers_per_block": 1`, `"layers_per_block": 32`, `"transformer_layers_per_block": 1`, `"transformer_layers_per_block": 32`, `"CrossAttnDownBlock2D",
    "DownBlock2D"`, strings.Repeat(`"CrossAttnDownBlock2D",`, 7) + `"CrossAttnDownBlock2D"`, `"UpBlock2D",
    "CrossAttnUpBlock2D"`, strings.Repeat(`"CrossAttnUpBlock2D",`, 7) + `"CrossAttnUpBlock2D"`, `    64,
    128`, "64,64,64,64,64,64,64,64"}, "the network has more than 200000 operators"},
	} {
		folder := t.TempDir()
		if err := os.CopyFS(folder, os.DirFS(c.folder)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, c.file)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(c.changes); i += 2 {
			if !strings.Contains(string(data), c.changes[i]) {
				t.Fatalf("%s: no %s in\n%s", path, c.changes[i], data)
			}
			data = []byte(strings.Replace(string(data), c.changes[i], c.changes[i+1], 1))
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := c.family.Open(folder, models.Options{})
		if err == nil {
			m.Close()
		}
		if !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %.1000v, want %q", c.file, err, c.want)
		}
	}
}
