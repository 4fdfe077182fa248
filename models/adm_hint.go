package models

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// hint compares the flags with what the shapes of a checkpoint suggest and
// names those that differ.
func (c *ADM) hint(sd checkpoint.StateDict) string {
	g, ok := guessADM(sd)
	if !ok {
		return "its keys are not those of a guided-diffusion U-Net (no time_embed.0.weight or input_blocks.0.0.weight)"
	}
	var diffs []string
	differ := func(flag string, have, want any) {
		if fmt.Sprint(have) != fmt.Sprint(want) {
			diffs = append(diffs, fmt.Sprintf("%s: %v (not %v)", flag, want, have))
		}
	}
	d, err := c.dims()
	if err != nil {
		return err.Error()
	}
	differ("num_channels", c.NumChannels, g.NumChannels)
	differ("num_res_blocks", c.NumResBlocks, g.NumResBlocks)
	differ("channel_mult", strconv.Quote(joinFloats(d.mult)), strconv.Quote(g.ChannelMult))
	differ("learn_sigma", c.LearnSigma, g.LearnSigma)
	differ("class_cond", c.ClassCond, g.ClassCond)
	if c.ClassCond && g.ClassCond {
		differ("num_classes", c.NumClasses, g.NumClasses)
	}
	differ("use_scale_shift_norm", c.UseScaleShiftNorm, g.UseScaleShiftNorm)
	differ("resblock_updown", c.ResblockUpdown, g.ResblockUpdown)
	slices.Sort(d.attention)
	if !slices.Equal(d.attention, g.attention) {
		differ("attention_resolutions", strconv.Quote(c.AttentionResolutions), strconv.Quote(g.attentionResolutions(c.ImageSize)))
	}
	if len(diffs) == 0 {
		return "its shapes agree with the flags, its keys do not: is it a file of another family?"
	}
	return "its shapes suggest " + strings.Join(diffs, ", ")
}

// Guess implements Guesser. image_size leaves no trace in the shapes; it is
// known where the levels are the authors' default for one.
func (c *ADM) Guess(sd checkpoint.StateDict) (Guess, bool) {
	g, ok := guessADM(sd)
	if !ok {
		return Guess{}, false
	}
	size := flag("image_size", "?")
	size.Note = "not in the shapes"
	attention := flag("attention_resolutions", "?")
	attention.Note = "image_size divided by " + joinInts(g.attention)
	g.ImageSize = 512 // any that the levels divide will do to compare the keys
	for s, mult := range defaultChannelMult {
		if mult == g.ChannelMult {
			g.ImageSize = s
			size = flag("image_size", s)
			size.Note = "whose default channel_mult this is"
			attention = flag("attention_resolutions", g.attentionResolutions(s))
		}
	}
	g.AttentionResolutions = g.attentionResolutions(g.ImageSize)
	guess := Guess{Evidence: "time_embed, input_blocks, middle_block and output_blocks of guided-diffusion's UNetModel"}
	guess.Flags = append(guess.Flags, size, flag("num_channels", g.NumChannels), flag("num_res_blocks", g.NumResBlocks),
		flag("channel_mult", g.ChannelMult), flag("learn_sigma", g.LearnSigma), flag("class_cond", g.ClassCond))
	if g.ClassCond {
		guess.Flags = append(guess.Flags, flag("num_classes", g.NumClasses))
	}
	guess.Flags = append(guess.Flags, attention, flag("use_scale_shift_norm", g.UseScaleShiftNorm), flag("resblock_updown", g.ResblockUpdown))
	d, err := g.dims()
	if err != nil {
		guess.Mismatches = []string{err.Error()}
		return guess, true
	}
	guess.Mismatches = mismatches(sd, func(m *onnx.Module) { g.build(m, d, newTaps(nil)) })
	return guess, true
}

func joinInts(xs []int) string {
	var s []string
	for _, x := range xs {
		s = append(s, fmt.Sprint(x))
	}
	return strings.Join(s, ", ")
}

// A guessedADM holds the flags that can be read off a checkpoint's shapes.
type guessedADM struct {
	ADM
	attention []int // downsampling factors with attention layers
}

// guessADM reads the flags of a guided-diffusion U-Net off its shapes; ok is
// false when the keys are not those of one. Flags that leave no trace in the
// shapes (image_size, heads, the order of q, k, v) keep their defaults.
func guessADM(sd checkpoint.StateDict) (g guessedADM, ok bool) {
	embed, okEmbed := sd["time_embed.0.weight"]
	first, okFirst := sd["input_blocks.0.0.weight"]
	out, okOut := sd["out.2.weight"]
	if !okEmbed || !okFirst || !okOut || len(embed.Shape) != 2 || len(first.Shape) != 4 || len(out.Shape) != 4 {
		return g, false
	}
	g.ADM = *newADM()
	g.NumChannels = embed.Shape[1]
	g.LearnSigma = out.Shape[0] == 2*first.Shape[1]
	if label, has := sd["label_emb.weight"]; has && len(label.Shape) == 2 {
		g.ClassCond, g.NumClasses = true, label.Shape[0]
	}
	width := func(key string) int {
		if t, has := sd[key]; has && len(t.Shape) > 0 {
			return t.Shape[0]
		}
		return 0
	}
	g.UseScaleShiftNorm = width("input_blocks.1.0.emb_layers.1.weight") == 2*width("input_blocks.1.0.out_layers.3.weight")

	levels := g.decoder(func(format string, args ...any) bool { _, has := sd[fmt.Sprintf(format, args...)]; return has })
	var mult []float64
	for level := range levels {
		block := fmt.Sprintf("input_blocks.%d", 1+level*(g.NumResBlocks+1))
		mult = append(mult, float64(width(block+".0.in_layers.2.weight"))/float64(max(g.NumChannels, 1)))
		if width(block+".1.qkv.weight") > 0 {
			g.attention = append(g.attention, 1<<level)
		}
	}
	g.ChannelMult = joinFloats(mult)
	return g, true
}

// decoder counts the blocks of the decoder: every level has one more than
// num_res_blocks, and all but the last level end in an upsampling layer.
func (g *guessedADM) decoder(has func(string, ...any) bool) (levels int) {
	blocks := 0
	levels = 1
	for ; has("output_blocks.%d.0.in_layers.2.weight", blocks); blocks++ {
		for _, i := range []int{1, 2} {
			conv := has("output_blocks.%d.%d.conv.weight", blocks, i)
			res := has("output_blocks.%d.%d.in_layers.2.weight", blocks, i)
			if conv || res {
				g.ResblockUpdown = res
				levels++
			}
		}
	}
	g.NumResBlocks = max(blocks/levels-1, 0)
	return levels
}

// attentionResolutions spells the guessed layers as the flag does.
func (g *guessedADM) attentionResolutions(imageSize int) string {
	var s []string
	for _, ds := range slices.Backward(g.attention) {
		s = append(s, fmt.Sprint(imageSize/ds))
	}
	slices.Reverse(s)
	return strings.Join(s, ",")
}

func joinFloats(xs []float64) string {
	var s []string
	for _, x := range xs {
		s = append(s, fmt.Sprint(x))
	}
	return strings.Join(s, ",")
}
