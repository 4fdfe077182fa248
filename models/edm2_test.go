package models

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// What a .pkl says of its network and encoder is enough to open it; what a block says
// besides has to agree.
func TestEDM2Flags(t *testing.T) {
	for name, encoder := range map[string]string{"edm2-cond-tiny": rgbEncoder, "edm2-uncond-tiny": vaeEncoder} {
		path := filepath.Join(cases, name, "model.pkl")
		c := NewEDM2()
		if err := readFlags(t, c, path); err != nil || c.Encoder != encoder || (c.scale != nil) != (encoder == vaeEncoder) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		if err := readFlags(t, c, path); err != nil {
			t.Errorf("%s, again: %v", name, err)
		}
		m, err := NewEDM2().Open(path, Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer m.Close()
		if err := m.(*edm2Net).Lacks(); (err != nil) != (encoder == vaeEncoder) {
			t.Errorf("%s: lacks %v", name, err)
		}
		f, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		want, err := c.Parameters()
		if err != nil || len(want) != len(f.Tensors) {
			t.Errorf("%s: %d parameters, the file has %d, %v", name, len(want), len(f.Tensors), err)
		}
		if g, ok := NewEDM2().GuessFile(f); !ok || len(g.Mismatches) > 0 || len(g.Attention) == 0 || (len(g.Needs) > 0) != (encoder == vaeEncoder) {
			t.Errorf("%s: guessed %+v, %v", name, g, ok)
		}
		if _, ok := NewEDM().GuessFile(f); ok {
			t.Errorf("%s is taken for one of EDM", name)
		}
	}
	c := &EDM2{Encoder: vaeEncoder, ChannelsPerHead: 32, ClipAct: new(3.0), NumBlocks: 2}
	err := readFlags(t, c, filepath.Join(cases, "edm2-cond-tiny/model.pkl"))
	for _, want := range []string{"encoder is StabilityVAEEncoder, but the checkpoint was made with StandardRGBEncoder", "num_blocks is 2, but the checkpoint was made with 1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	for file, family := range map[string]Family{"edm-adm-tiny": NewEDM2(), "edm2-cond-tiny": NewEDM()} {
		if _, err := family.Open(filepath.Join(cases, file, "model.pkl"), Options{}); err == nil || !strings.Contains(err.Error(), "it is one of EDM") {
			t.Errorf("%s as another family's: %v", file, err)
		}
	}
}

func TestEDM2Refused(t *testing.T) {
	fine := func() *EDM2 {
		return &EDM2{ImgResolution: 8, ImgChannels: 3, ModelChannels: 16, ChannelMult: []int{1, 2}, NumBlocks: 1}
	}
	for want, change := range map[string]func(c *EDM2){
		"img_resolution and img_channels are missing": func(c *EDM2) { c.ImgChannels = 0 },
		`encoder is "VAE"`:                            func(c *EDM2) { c.Encoder = "VAE" },
		"resample_filter has 3 numbers":               func(c *EDM2) { c.ResampleFilter = []int{1, 2, 1} },
		"img_resolution 9: 2 levels":                  func(c *EDM2) { c.ImgResolution = 9 },
		"the embeddings have 16 and 1600000 channels": func(c *EDM2) { c.ChannelMultEmb = new(100000) },
		"level 0 has 16 channels, which its 5 heads":  func(c *EDM2) { c.ChannelsPerHead = 3 },
		"vae is given, but the encoder is StandardRGBEncoder": func(c *EDM2) {
			c.Encoder, c.VAE = rgbEncoder, sampling.Ref{Family: "vae", Flags: NewDiT()}
		},
	} {
		c := fine()
		change(c)
		if _, err := c.Parameters(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if s, err := NewEDM2().Size(); err != nil || s.Parameters != 0 {
		t.Errorf("a size without flags: %+v, %v", s, err)
	}
}

// The sizes that the authors publish, by the parameters of their table 2, without the
// 129 of the uncertainty.
func TestEDM2Sizes(t *testing.T) {
	for channels, want := range map[int]float64{128: 124.7, 192: 280.2, 256: 497.8, 320: 777.6, 384: 1119.4, 448: 1523.2} {
		c := &EDM2{ImgResolution: 64, ImgChannels: 4, LabelDim: new(1000), ModelChannels: channels}
		s, err := c.Size()
		if err != nil || math.Abs(s.Parameters/1e6-want) > 0.01*want {
			t.Errorf("%d channels: %.1f million parameters, want %.1f, %v", channels, s.Parameters/1e6, want, err)
		}
	}
}

// Weights count by their direction alone, and a gain in float16 is divided in float16.
func TestEDM2Weights(t *testing.T) {
	c := &EDM2{ImgResolution: 8, ImgChannels: 3, ModelChannels: 32, ChannelMult: []int{1, 2}, NumBlocks: 1, AttnResolutions: []int{4}, ChannelsPerHead: 16, ClipAct: new(0.0)}
	shapes, err := c.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.pt")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := func(name string, change func(key string, v []float32) checkpoint.Tensor) string {
		sd := checkpoint.StateDict{}
		for key, w := range f.Tensors {
			v, err := w.Float32()
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(key, "gain") {
				v[0] = 0.7
			}
			if strings.HasSuffix(key, "freqs") || strings.HasSuffix(key, "phases") {
				for i := range v {
					v[i] = float32(math.Sin(float64(i)))
				}
			}
			sd[key] = checkpoint.FromFloat32(v, w.Shape...)
			if changed := change(key, v); changed.Raw != nil {
				sd[key] = changed
			}
		}
		path := filepath.Join(t.TempDir(), name)
		if err := checkpoint.WriteSafetensors(path, sd, nil); err != nil {
			t.Fatal(err)
		}
		return path
	}
	x := noise(t, 2, 3, 8, 8)
	run := func(path string) []float32 {
		m, err := c.Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		out, err := m.Forward(t.Context(), map[string]ort.Array{"x": ort.Floats(x), "sigma": ort.Floats(tensor.Of([]float32{0.5, 4}, 2))})
		if err != nil {
			t.Fatal(err)
		}
		return out["raw"].Tensor().Data
	}
	none := func(string, []float32) checkpoint.Tensor { return checkpoint.Tensor{} }
	plain := run(write("plain.safetensors", none))
	larger := run(write("larger.safetensors", func(key string, v []float32) checkpoint.Tensor {
		if strings.HasSuffix(key, "weight") {
			for i := range v {
				v[i] *= 8
			}
		}
		return checkpoint.Tensor{}
	}))
	half := run(write("half.safetensors", func(key string, v []float32) checkpoint.Tensor {
		if !strings.HasSuffix(key, "gain") {
			return checkpoint.Tensor{}
		}
		return checkpoint.FromBytes(checkpoint.F16, []byte{0x9a, 0x39}) // 0.7 in float16
	}))
	far := func(a, b []float32) float64 {
		d := 0.0
		for i := range a {
			d = max(d, math.Abs(float64(a[i]-b[i])))
		}
		return d
	}
	if d := far(plain, larger); d > 1e-3 {
		t.Errorf("weights of another magnitude change the output by %g", d)
	}
	if d := far(plain, half); d < 1e-5 || d > 1e-2 {
		t.Errorf("gains in float16 change the output by %g", d)
	}
}

// A latent is decoded by the encoder's statistics: those of the file, or those that
// its class assumes.
func TestEDM2Decode(t *testing.T) {
	n := &edm2Net{flags: &EDM2{Encoder: vaeEncoder, ImgChannels: 4}, vae: &echo{}}
	x := tensor.Of([]float32{0, 1, 0.5, -0.5, 0, 0, 1, 2}, 1, 4, 1, 2)
	z, err := n.Decode(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range x.Data {
		c := i / 2
		if want := float64(v)*2*float64(rawStd[c]) + float64(rawMean[c]); math.Abs(float64(z.Data[i])-want) > 1e-5 {
			t.Errorf("z[%d] = %g, want %g", i, z.Data[i], want)
		}
	}
	n.flags.scale, n.flags.bias = []float32{2, 2, 2, 2}, []float32{1, 1, 1, 1}
	if z, err = n.Decode(t.Context(), x); err != nil || z.Data[7] != 0.5 {
		t.Errorf("with the file's statistics %v, %v", z.Data, err)
	}
	im, err := n.Pixels(t.Context(), tensor.New(1, 4, 1, 2))
	if err == nil && !slices.Equal(im.Pixels[:1], []uint8{0}) {
		t.Errorf("pixels %v", im.Pixels)
	}
	n.flags.scale = n.flags.scale[:3]
	if _, err := n.Decode(t.Context(), x); err == nil || !strings.Contains(err.Error(), "statistics are of 3 channels") {
		t.Error(err)
	}
}

// echo is an autoencoder whose image is the latent.
type echo struct{ Decoder }

// Networks of continuous time give an image the same bits in any batch.
func TestContinuousBatchInvariance(t *testing.T) {
	for name, family := range map[string]Family{
		"edm-adm-tiny/model.pkl": NewEDM(), "edm-ncsnpp-tiny/model.pkl": NewEDM(), "edm-skip-tiny/model.pkl": NewEDM(),
		"edm2-cond-tiny/model.pkl": NewEDM2(), "edm2-uncond-tiny/model.pkl": NewEDM2(), "sit-tiny/model.pt": tinySiT(),
	} {
		layer := map[bool]string{true: "unet.dec.4x4_in0", false: "model.dec.4x4_in0"}[strings.HasPrefix(name, "edm2")]
		switch name[:8] {
		case "edm-skip":
			layer = "model.dec.8x8_block1"
		case "sit-tiny":
			layer = "blocks.1.attn"
		case "edm2-unc":
			layer = "unet.enc.4x4_block0"
		}
		m, err := family.Open(filepath.Join(cases, name), Options{Taps: []sampling.Tap{{Layer: layer}}})
		if err != nil {
			t.Fatal(name, err)
		}
		t.Run(name, func(t *testing.T) { batchInvarianceAt(t, m.(Generator), 0.7) })
		m.Close()
	}
}

func (*echo) Decode(_ context.Context, z tensor.Tensor) (tensor.Tensor, error) { return z, nil }
