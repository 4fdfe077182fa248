package models

import (
	"maps"
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

const cases = "../experiments/refcase/testdata/cases/"

// readFlags is ReadFlags of the checkpoint at path.
func readFlags(t *testing.T, c SelfDescribing, path string) error {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return c.ReadFlags(f)
}

// What a .pkl says of its network is enough to open it; what a block says besides has
// to agree.
func TestEDMFlags(t *testing.T) {
	for _, name := range []string{"edm-adm-tiny", "edm-ddpmpp-tiny", "edm-iddpm-tiny", "edm-ncsnpp-tiny", "edm-skip-tiny", "edm-ve-tiny", "edm-vp-tiny"} {
		path := filepath.Join(cases, name, "model.pkl")
		c := NewEDM()
		if err := readFlags(t, c, path); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		once := *c
		if err := readFlags(t, c, path); err != nil || once.ModelChannels != c.ModelChannels {
			t.Errorf("%s, again: %v", name, err)
		}
		m, err := NewEDM().Open(path, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m.Close()
		// the parameters that the flags describe are those of the file, buffers aside
		f, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := c.Parameters()
		if err != nil {
			t.Fatal(err)
		}
		for key, tensor := range f.Tensors {
			if _, has := want[key]; !has && key != "u" && !strings.HasSuffix(key, "resample_filter") && key != "model.map_augment.weight" {
				t.Errorf("%s: %s %v is not among the parameters", name, key, tensor.Shape)
			}
		}
		g, ok := NewEDM().GuessFile(f)
		if !ok || len(g.Mismatches) > 0 || len(g.Attention) == 0 {
			t.Errorf("%s: guessed %+v, %v", name, g, ok)
		}
		f.Close()
	}
	c := NewEDM()
	c.Precond, c.SigmaData, c.ChannelMult, c.LabelDim = "VPPrecond", 0.4, []int{1, 3}, new(7)
	err := readFlags(t, c, filepath.Join(cases, "edm-adm-tiny/model.pkl"))
	for _, want := range []string{"channel_mult is [1 3], but the checkpoint was made with [1 2]", "label_dim is 7, but the checkpoint was made with 5", `precond is VPPrecond, but the checkpoint was made with EDMPrecond`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}

func TestEDMRefused(t *testing.T) {
	fine := func() *EDM {
		return &EDM{ImgResolution: 16, ImgChannels: 3, ModelChannels: 32, ChannelMult: []int{1, 2}, NumBlocks: 1}
	}
	for want, change := range map[string]func(c *EDM){
		"img_resolution and img_channels are missing":                    func(c *EDM) { c.ImgResolution = 0 },
		"img_resolution 15: 2 levels":                                    func(c *EDM) { c.ImgResolution = 15 },
		`precond is "Precond"`:                                           func(c *EDM) { c.Precond = "Precond" },
		`model_type is "UNet"`:                                           func(c *EDM) { c.ModelType = "UNet" },
		`encoder_type is "none"`:                                         func(c *EDM) { c.ModelType, c.EncoderType = "SongUNet", "none" },
		"resample_filter has 3 numbers":                                  func(c *EDM) { c.ModelType, c.ResampleFilter = "SongUNet", []int{1, 2, 1} },
		"encoder_type is a flag of SongUNet":                             func(c *EDM) { c.ModelType, c.EncoderType = "DhariwalUNet", "skip" },
		"which GroupNorm cannot split into":                              func(c *EDM) { c.ModelChannels = 50 },
		"level 0 has 2 channels":                                         func(c *EDM) { c.ModelChannels = 2 },
		"num_blocks is 300":                                              func(c *EDM) { c.NumBlocks = 300 },
		"level 1 has 3200000 channels":                                   func(c *EDM) { c.ChannelMult = []int{1, 100000} },
		"channel_mult has 17 levels":                                     func(c *EDM) { c.ChannelMult = slices.Repeat([]int{1}, 17) },
		"the embeddings have 32000000 and 32 channels, expected at most": func(c *EDM) { c.ChannelMultEmb = 1000000 },
		"model_channels is 100000":                                       func(c *EDM) { c.ModelChannels = 100000 },
		"level 1 has 224 channels, which its 3 heads do not divide":      func(c *EDM) { c.ModelChannels = 112 },
	} {
		c := fine()
		change(c)
		if _, err := c.Parameters(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if _, err := fine().Parameters(); err != nil {
		t.Error(err)
	}
	if _, err := NewEDM().Open("pretrained/adm-uncond.pt", Options{}); err == nil || !strings.Contains(err.Error(), "img_resolution and img_channels are missing") {
		t.Errorf("ADM's checkpoint without flags: %v", err)
	}
	if _, err := fine().Open("pretrained/adm-uncond.pt", Options{}); err == nil || !strings.Contains(err.Error(), "family: adm or iddpm") {
		t.Errorf("ADM's checkpoint: %v", err)
	}
	adm := NewADM()
	if _, err := adm.Open(filepath.Join(cases, "edm-adm-tiny/model.pkl"), Options{}); err == nil || !strings.Contains(err.Error(), "family: edm") {
		t.Errorf("EDM's checkpoint as ADM's: %v", err)
	}
}

// A checkpoint of torch.save or safetensors takes all flags; a row of zeros is the
// null class of a network that was trained with it.
func TestEDMStateDict(t *testing.T) {
	c := &EDM{ImgResolution: 8, ImgChannels: 3, ModelChannels: 32, ChannelMult: []int{1, 2}, NumBlocks: 1, AttnResolutions: []int{4}, LabelDim: new(3), LabelDropout: new(0.1)}
	shapes, err := c.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.pt")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	f, err := checkpoint.Open(path)
	if err != nil || f.Prefix != "" {
		t.Fatalf("prefix %q, %v", f.Prefix, err)
	}
	if g, ok := NewEDM().GuessFile(f); !ok || len(g.Needs) != 1 {
		t.Errorf("%+v, %v", g, ok)
	}
	f.Close()
	m, err := c.Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	g := m.(*edmNet)
	null, err := g.Null(t.Context(), 2)
	if err != nil || !slices.Equal(null.Labels, []int64{3, 3}) || !c.Conditioning().Null {
		t.Errorf("∅ is %v, %v", null, err)
	}
	x := tensor.New(2, 3, 8, 8)
	for i := range x.Data {
		x.Data[i] = float32(math.Sin(float64(i)))
	}
	in := map[string]ort.Array{"x": ort.Floats(x), "sigma": ort.Floats(tensor.Of([]float32{0.7, 3}, 2))}
	unlabelled, err := m.Forward(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	labelled := maps.Clone(in)
	labelled["y"] = ort.Array{Shape: []int{2}, Data: []int64{3, 1}}
	out, err := m.Forward(t.Context(), labelled)
	if err != nil {
		t.Fatal(err)
	}
	a, b := unlabelled["model"].Tensor(), out["model"].Tensor()
	if !slices.Equal(a.Row(0), b.Row(0)) || slices.Equal(a.Row(1), b.Row(1)) {
		t.Error("no label is not the row of zeros")
	}
	// Denoise at x_t is Forward at x_0 + σ ε
	length := float32(math.Hypot(1, 3))
	scaled := x.Slice(1, 2).Clone()
	for i := range scaled.Data {
		scaled.Data[i] /= length
	}
	p, err := g.Denoise(t.Context(), scaled, sampling.Timestep{Value: 3}, sampling.Cond{Labels: []int64{1}})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range p.Eps.Data {
		if want := b.Row(1)[i]; math.Abs(float64(v-want)) > 1e-5 {
			t.Fatalf("D[%d] = %g, want %g", i, v, want)
		}
	}
	if _, err := g.Pixels(t.Context(), tensor.New(1, 4, 8, 8)); err == nil {
		t.Error("four channels are an image")
	}
}

// The noise levels that a network supports are those that its file says, and without
// a file the authors' formulas give the same.
func TestEDMLevels(t *testing.T) {
	for _, name := range []string{"edm-vp-tiny", "edm-ve-tiny", "edm-iddpm-tiny", "edm-adm-tiny"} {
		c := NewEDM()
		if err := readFlags(t, c, filepath.Join(cases, name, "model.pkl")); err != nil {
			t.Fatal(err)
		}
		told := c.Diffusion().Path.(sampling.NoiseLevels)
		u := c.levels
		c.low, c.high, c.levels = 0, 0, nil
		computed := c.Diffusion().Path.(sampling.NoiseLevels)
		if math.Abs(told.Min-computed.Min) > 1e-6*told.Min || told.Max != computed.Max && math.Abs(told.Max-computed.Max) > 1e-5*told.Max {
			t.Errorf("%s: levels from %g to %g, computed %g to %g", name, told.Min, told.Max, computed.Min, computed.Max)
		}
		for j, v := range u {
			if w := c.complete().iddpmLevels()[j]; math.Abs(float64(v-w)) > 1e-4*float64(v) {
				t.Errorf("u[%d] = %g, computed %g", j, v, w)
				break
			}
		}
		if u != nil && (nearestLevel(u, u[500]) != 500 || nearestLevel(u, 1e9) != 0 || nearestLevel(u, 0) != len(u)-1) {
			t.Error("a level is not the nearest to itself")
		}
	}
}
