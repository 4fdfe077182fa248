package models

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

const fashionIDDPMCheckpoint = "pretrained/iddpm.pt"

// fashionIDDPM are the flags of the embedded IDDPM.
func fashionIDDPM() *IDDPM {
	c := NewIDDPM()
	c.ImageSize, c.NumChannels, c.NumResBlocks, c.ChannelMult, c.LearnSigma = 32, 64, 1, "1,1,2", true
	c.DiffusionSteps, c.NoiseSchedule, c.RescaleTimesteps = 4000, "cosine", false
	return c
}

func openIDDPM(t *testing.T, opt Options) Generator {
	t.Helper()
	m, err := fashionIDDPM().Open(fashionIDDPMCheckpoint, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m.(Generator)
}

func TestIDDPMBatchInvariance(t *testing.T) {
	batchInvariance(t, openIDDPM(t, Options{Taps: []sampling.Tap{{Layer: "output_blocks.1.1"}}}))
}

// TestIDDPMDefaults holds the defaults against improved-diffusion's, which
// differ from ADM's in what a checkpoint cannot tell.
func TestIDDPMDefaults(t *testing.T) {
	got, err := configs.Canonical(NewIDDPM())
	want := `{"attention_resolutions":"16,8","channel_mult":"","class_cond":false,"diffusion_steps":1000,"dropout":0,"image_size":64,"in_channels":0,"learn_sigma":false,` +
		`"noise_schedule":"linear","num_channels":128,"num_classes":1000,"num_heads":4,"num_heads_upsample":-1,"num_res_blocks":2,"predict_xstart":false,` +
		`"rescale_learned_sigmas":true,"rescale_timesteps":true,"sigma_small":false,"timestep_respacing":"","use_checkpoint":false,"use_kl":false,"use_scale_shift_norm":true}`
	if err != nil || string(got) != want {
		t.Errorf("got\n%s %v\nwant\n%s", got, err, want)
	}
}

// TestIDDPMSizes builds the networks of configs/iddpm-*.yaml and counts their
// parameters; the published files' names give them rounded.
func TestIDDPMSizes(t *testing.T) {
	for file, want := range map[string][]string{
		"iddpm-cifar10.yaml":    {"cifar10_uncond_50M_500K.pt 52546438 32", "cifar10_uncond_vlb_50M_500K.pt 52546438 32"},
		"iddpm-imagenet64.yaml": {"imagenet64_uncond_100M_1500K.pt 121063942 64", "imagenet64_uncond_vlb_100M_1500K.pt 121063942 64", "imagenet64_cond_270M_250K.pt 273049350 64"},
		"iddpm-lsun256.yaml":    {"lsun_uncond_100M_1200K_bs128.pt 113676678 256", "lsun_uncond_100M_2400K_bs64.pt 113676678 256"},
	} {
		var got []string
		checkpoints, all := modelsOf(t, "../configs/"+file, NewIDDPM)
		for i, flags := range all {
			u, err := flags.network()
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			sd := shapesOf(t, flags)
			name := strings.TrimPrefix(checkpoints[i], "${MODELS}/")
			if line := fmt.Sprint(name, " ", parameters(sd), " ", u.size); !slices.Contains(got, line) {
				got = append(got, line)
			}
			g, ok := guessUNet(sd)
			if !ok || sizes(g, u.size) != sizes(u, u.size) {
				t.Errorf("%s: guessed %s, want %s", name, sizes(g, u.size), sizes(u, u.size))
			}
			if guess, ok := NewIDDPM().Guess(sd); !ok || len(guess.Mismatches) > 0 {
				t.Errorf("%s is not recognized: %v", name, guess.Mismatches)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
}

// modelsOf are the checkpoints and flags of the rows of an experiment file, as it
// has them.
func modelsOf[F Family](t *testing.T, path string, defaults func() F) (checkpoints []string, all []F) {
	t.Helper()
	doc, err := configs.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := doc.Rows()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		b, _ := r.Block.At("model")
		at, _ := b.At("checkpoint")
		path, _ := at.Text()
		f := defaults()
		if err := b.Without("family", "checkpoint").With(configs.Hooks{
			reflect.TypeFor[sampling.Ref](): func(b configs.Block, v reflect.Value) error {
				path, _ := b.Text()
				v.Set(reflect.ValueOf(sampling.Ref{Checkpoint: sampling.File{Written: path}}))
				return nil
			},
		}).Decode(f); err != nil {
			t.Fatal(err)
		}
		checkpoints, all = append(checkpoints, path), append(all, f)
	}
	return checkpoints, all
}

// shapesOf is a state dict of the shapes that a family's flags want, without data.
func shapesOf(t *testing.T, f WithParameters) checkpoint.StateDict {
	t.Helper()
	shapes, err := f.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	return shapesOnly(shapes)
}

// shapesOnly is a state dict without data.
func shapesOnly(shapes map[string][]int) checkpoint.StateDict {
	sd := checkpoint.StateDict{}
	for k, s := range shapes {
		p := checkpoint.Tensor{DType: checkpoint.F32, Shape: s, File: "weights.pt"}
		p.Size = 4 * int64(p.Len())
		if p.Size < 1<<16 {
			p.Raw = make([]byte, p.Size) // small ones are copied into the graph
		}
		sd[k] = p
	}
	return sd
}

// parameters counts the elements of a state dict.
func parameters(sd checkpoint.StateDict) int {
	n := 0
	for _, p := range sd {
		n += p.Len()
	}
	return n
}

func TestIDDPMHints(t *testing.T) {
	for want, spoil := range map[string]func(*IDDPM){
		"its shapes suggest num_channels: 64 (not 128)":          func(c *IDDPM) { c.NumChannels = 128 },
		"its shapes suggest num_res_blocks: 1 (not 3)":           func(c *IDDPM) { c.NumResBlocks = 3 },
		"its shapes suggest learn_sigma: true (not false)":       func(c *IDDPM) { c.LearnSigma = false },
		"its shapes suggest class_cond: false (not true)":        func(c *IDDPM) { c.ClassCond = true },
		`attention_resolutions: "16,8" (not "8")`:                func(c *IDDPM) { c.AttentionResolutions = "8" },
		"its shapes suggest use_scale_shift_norm: true (not fal": func(c *IDDPM) { c.UseScaleShiftNorm = false },
	} {
		c := fashionIDDPM()
		spoil(c)
		_, err := c.Open(fashionIDDPMCheckpoint, Options{})
		var mismatch *onnx.MismatchError
		if !errors.As(err, &mismatch) || !strings.Contains(mismatch.Hint, want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, err := fashionIDDPM().Open(fashionCheckpoint, Options{})
	if err == nil || !strings.Contains(err.Error(), "family: adm, resblock_updown: true") {
		t.Errorf("a guided-diffusion checkpoint: %v", err)
	}
	_, err = fashionIDDPM().Open("pretrained/inception.pt", Options{})
	if err == nil || !strings.Contains(err.Error(), "not those of a guided-diffusion or improved-diffusion U-Net") {
		t.Errorf("an Inception checkpoint: %v", err)
	}
}

func TestIDDPMFlags(t *testing.T) {
	for want, spoil := range map[string]func(*IDDPM){
		"image_size 128 has no default channel_mult (256, 64 and 32 have)": func(c *IDDPM) { c.ImageSize, c.ChannelMult = 128, "" },
		"the first level's factor has to be 1":                             func(c *IDDPM) { c.ChannelMult = "2,2,2" },
		"num_heads 5 does not divide":                                      func(c *IDDPM) { c.NumHeads = 5 },
		"num_heads_upsample 0 does not divide":                             func(c *IDDPM) { c.NumHeadsUpsample = 0 },
		`layer "output_blocks.5.1" is no attention layer of this network`:  func(c *IDDPM) {},
	} {
		c := fashionIDDPM()
		spoil(c)
		_, err := c.Open(fashionIDDPMCheckpoint, Options{Taps: []sampling.Tap{{Layer: "output_blocks.5.1"}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestIDDPMIsADM runs the checkpoint as both families: without resblock_updown,
// with num_heads heads in the legacy order, they are one network.
func TestIDDPMIsADM(t *testing.T) {
	tap := Options{Taps: []sampling.Tap{{Layer: "middle_block.1"}}}
	c := NewADM()
	c.UNetFlags = fashionIDDPM().UNetFlags
	m, err := c.Open(fashionIDDPMCheckpoint, tap)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	x := noise(t, 2, 3, 32, 32)
	predict := func(g Generator) sampling.Prediction {
		p, err := g.Denoise(context.Background(), x, sampling.Timestep{Value: 3999}, sampling.Cond{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, b := predict(openIDDPM(t, tap)), predict(m.(Generator))
	for name, pair := range map[string][2]tensor.Tensor{"eps": {a.Eps, b.Eps}, "var": {a.Var, b.Var}, "attention": {a.Attn, b.Attn}} {
		if pair[0].IsZero() || !slices.Equal(pair[0].Data, pair[1].Data) {
			t.Errorf("%s differs", name)
		}
	}
}

// TestFixedVariance builds an L_simple network, which learns no variance.
func TestFixedVariance(t *testing.T) {
	c := NewIDDPM()
	c.ImageSize, c.NumChannels, c.NumResBlocks, c.ChannelMult, c.SigmaSmall, c.PredictXStart = 16, 32, 1, "1,1", true, true
	if got := shapesOf(t, c)["out.2.weight"].Shape; !slices.Equal(got, []int{3, 32, 3, 3}) {
		t.Errorf("out.2.weight %v, want 3 channels out", got)
	}
	p := processOf(c.ScheduleConfig, c.PredictXStart)
	if !p.Schedule.SigmaSmall || p.Predicts != sampling.XStart || !p.ClipDenoised {
		t.Errorf("process %+v", p)
	}
}
