package models

import (
	"fmt"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
)

// guessed is what the families of this package say of a checkpoint, by name with
// the flags and what does not fit them.
func guessed(sd checkpoint.StateDict) string {
	var s []string
	for _, f := range []struct {
		name string
		Guesser
	}{{"adm", NewADM()}, {"classifier", NewClassifier()}, {"dit", NewDiT()}, {"iddpm", NewIDDPM()}} {
		g, ok := f.Guess(sd)
		if !ok {
			continue
		}
		s = append(s, f.name)
		for _, flag := range g.Flags {
			s = append(s, flag.Name+"="+flag.Value)
		}
		s = append(s, g.Mismatches...)
	}
	return strings.Join(s, " ")
}

// official are the authors' published ADM configurations.
var official = map[string]struct {
	flags      func(*ADM)
	parameters int // of guided-diffusion's UNetModel with these flags, from PyTorch
}{
	"256x256_diffusion_uncond": {func(c *ADM) {
		c.ImageSize, c.NumChannels, c.NumHeadChannels, c.AttentionResolutions = 256, 256, 64, "32,16,8"
		c.LearnSigma, c.ResblockUpdown = true, true
	}, 552_814_086},
	"256x256_diffusion": {func(c *ADM) {
		c.ImageSize, c.NumChannels, c.NumHeadChannels, c.AttentionResolutions = 256, 256, 64, "32,16,8"
		c.LearnSigma, c.ResblockUpdown, c.ClassCond = true, true, true
	}, 553_838_086},
	"128x128_diffusion": {func(c *ADM) {
		c.ImageSize, c.NumChannels, c.NumHeads, c.AttentionResolutions = 128, 256, 4, "32,16,8"
		c.LearnSigma, c.ResblockUpdown, c.ClassCond = true, true, true
	}, 421_529_606},
	"64x64_diffusion": {func(c *ADM) {
		c.ImageSize, c.NumChannels, c.NumResBlocks, c.NumHeadChannels, c.AttentionResolutions = 64, 192, 3, 64, "32,16,8"
		c.LearnSigma, c.ResblockUpdown, c.ClassCond, c.UseNewAttentionOrder = true, true, true, true
	}, 295_904_454},
}

// TestOfficialSizes counts the parameters of the published networks and guesses
// their flags back from their shapes.
func TestOfficialSizes(t *testing.T) {
	for name, o := range official {
		c := NewADM()
		o.flags(c)
		u, err := c.network()
		if err != nil {
			t.Fatal(err)
		}
		shapes, err := c.Parameters()
		if err != nil {
			t.Fatal(err)
		}
		sd, count := checkpoint.StateDict{}, 0
		for k, s := range shapes {
			tensor := checkpoint.Tensor{DType: checkpoint.F32, Shape: s, File: "weights.pt"}
			tensor.Size = 4 * int64(tensor.Len())
			sd[k] = tensor
			count += tensor.Len()
		}
		if count != o.parameters {
			t.Errorf("%s has %d parameters, want %d", name, count, o.parameters)
		}
		g, ok := guessUNet(sd)
		if !ok {
			t.Fatalf("%s is not recognized", name)
		}
		if got, want := sizes(g, c.ImageSize), sizes(u, c.ImageSize); got != want {
			t.Errorf("%s: guessed %s, want %s", name, got, want)
		}
		told, _ := NewADM().Guess(sd)
		for _, want := range []Flag{ // what is not in the shapes is the authors' choice
			NewFlag("image_size", c.ImageSize), NewFlag("attention_resolutions", c.AttentionResolutions), NewFlag("use_new_attention_order", c.UseNewAttentionOrder),
			NewFlag("num_head_channels", c.NumHeadChannels), NewFlag("num_heads", c.NumHeads),
		} {
			for _, f := range told.Flags {
				if f.Name == want.Name && f.Value != want.Value {
					t.Errorf("%s: guessed %s: %s, want %s", name, f.Name, f.Value, want.Value)
				}
			}
		}
	}
}

// sizes spells all that the shapes of a U-Net tell.
func sizes(u *unet, imageSize int) string {
	return fmt.Sprint(u.base, u.blocks, u.widths, u.out, u.classes, u.scaleShift, u.updown, (&unet{size: imageSize, widths: u.widths, attention: u.attention}).resolutions())
}

// The image's size is guessed where the levels are no default: at the lowest
// attention layers it is 8 in the authors' networks.
func TestGuessedSize(t *testing.T) {
	for _, c := range []struct {
		attention []int
		levels    int
		want      int
		note      string
	}{
		{[]int{2, 4}, 3, 32, Assumed + ": that at which the lowest attention layers are of 8×8"},
		{[]int{2, 4, 8}, 4, 64, ""}, {[]int{16}, 6, 128, ""},
		{nil, 3, 64, Assumed}, {[]int{1}, 5, 64, Assumed}, // 8 pixels cannot be halved so often
	} {
		u := &unet{attention: c.attention, widths: make([]int, c.levels)}
		if f := u.guessSize(); f.Value != fmt.Sprint(c.want) || u.size != c.want || c.note != "" && f.Note != c.note || !strings.HasPrefix(f.Note, Assumed) {
			t.Errorf("%v of %d levels: %+v", c.attention, c.levels, f)
		}
	}
}

// Of many keys that do not fit, a guess names a few and counts the others.
func TestFirstFew(t *testing.T) {
	var all []string
	for i := range 180 {
		all = append(all, fmt.Sprint(i))
	}
	for n, want := range map[int]string{0: "", 5: "0 1 2 3 4", 180: "0 1 2 3 4 and 175 more"} {
		if got := strings.Join(FirstFew(all[:n]), " "); got != want {
			t.Errorf("of %d: %q, want %q", n, got, want)
		}
	}
}
