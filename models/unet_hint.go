package models

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// hint compares the network that was asked for with what the shapes of a
// checkpoint suggest, and names the flags that differ.
func (u *unet) hint(sd checkpoint.StateDict) string {
	g, ok := guessUNet(sd)
	if !ok {
		return "its keys are not those of a guided-diffusion or improved-diffusion U-Net (no time_embed.0.weight or input_blocks.0.0.weight)"
	}
	diffs := u.differences(g)
	if len(diffs) == 0 {
		return "its shapes agree with the flags, its keys do not: is it a file of another family?"
	}
	return "its shapes suggest " + strings.Join(diffs, ", ")
}

// differences are the flags in which u is not the network g.
func (u *unet) differences(g *unet) []string {
	var diffs []string
	differ := func(flag string, have, want any) {
		if fmt.Sprint(have) != fmt.Sprint(want) {
			diffs = append(diffs, fmt.Sprintf("%s: %v (not %v)", flag, want, have))
		}
	}
	differ("num_channels", u.base, g.base)
	differ("num_res_blocks", u.blocks, g.blocks)
	differ("channel_mult", strconv.Quote(u.channelMult()), strconv.Quote(g.channelMult()))
	differ("learn_sigma", u.out == 6, g.out == 6)
	differ("class_cond", u.classes > 0, g.classes > 0)
	if u.classes > 0 && g.classes > 0 {
		differ("num_classes", u.classes, g.classes)
	}
	differ("use_scale_shift_norm", u.scaleShift, g.scaleShift)
	differ("resblock_updown", u.updown, g.updown)
	differ("attention_resolutions", strconv.Quote(resolutions(u.attention, len(g.widths), u.size)), strconv.Quote(resolutions(g.attention, len(g.widths), u.size)))
	return diffs
}

// guessUNet reads the sizes of a U-Net off a checkpoint's shapes; ok is false
// when the keys are not those of one. What leaves no trace in the shapes (the
// size of the image, heads, the order of q, k, v) is set so that the network can
// be built.
func guessUNet(sd checkpoint.StateDict) (u *unet, ok bool) {
	embed, okEmbed := sd["time_embed.0.weight"]
	first, okFirst := sd["input_blocks.0.0.weight"]
	out, okOut := sd["out.2.weight"]
	if !okEmbed || !okFirst || !okOut || len(embed.Shape) != 2 || len(first.Shape) != 4 || len(out.Shape) != 4 {
		return nil, false
	}
	u = &unet{size: 512, base: embed.Shape[1], out: 3, heads: func(int, bool) int { return 1 }}
	if out.Shape[0] == 2*first.Shape[1] {
		u.out = 6
	}
	if label, has := sd["label_emb.weight"]; has && len(label.Shape) == 2 {
		u.classes = label.Shape[0]
	}
	width := func(key string) int {
		if t, has := sd[key]; has && len(t.Shape) > 0 {
			return t.Shape[0]
		}
		return 0
	}
	u.scaleShift = width("input_blocks.1.0.emb_layers.1.weight") == 2*width("input_blocks.1.0.out_layers.3.weight")
	levels := u.countDecoder(func(format string, args ...any) bool { _, has := sd[fmt.Sprintf(format, args...)]; return has })
	for level := range levels {
		block := fmt.Sprintf("input_blocks.%d", 1+level*(u.blocks+1))
		u.widths = append(u.widths, width(block+".0.in_layers.2.weight"))
		if width(block+".1.qkv.weight") > 0 {
			u.attention = append(u.attention, 1<<level)
		}
	}
	return u, true
}

// countDecoder counts the blocks of the decoder: every level has one more than
// num_res_blocks, and all but the last level end in an upsampling layer.
func (u *unet) countDecoder(has func(string, ...any) bool) (levels int) {
	blocks := 0
	levels = 1
	for ; has("output_blocks.%d.0.in_layers.2.weight", blocks); blocks++ {
		for _, i := range []int{1, 2} {
			conv := has("output_blocks.%d.%d.conv.weight", blocks, i)
			res := has("output_blocks.%d.%d.in_layers.2.weight", blocks, i)
			if conv || res {
				u.updown = res
				levels++
			}
		}
	}
	u.blocks = max(blocks/levels-1, 0)
	return levels
}

// guess is the U-Net of a checkpoint as flags of a family whose authors choose
// channel_mult by image size so.
func (u *unet) guess(sd checkpoint.StateDict, mults map[int]string, evidence string) Guess {
	size, attention := flag("image_size", "?"), flag("attention_resolutions", "?")
	size.Note = "not in the shapes"
	attention.Note = "image_size divided by " + joinInts(u.attention)
	for s, mult := range mults {
		if mult == u.channelMult() {
			u.size = s
			size = flag("image_size", s)
			size.Note = "whose default channel_mult this is"
			attention = flag("attention_resolutions", resolutions(u.attention, len(u.widths), s))
		}
	}
	guess := Guess{Evidence: evidence}
	guess.Flags = append(guess.Flags, size, flag("num_channels", u.base), flag("num_res_blocks", u.blocks),
		flag("channel_mult", u.channelMult()), flag("learn_sigma", u.out == 6), flag("class_cond", u.classes > 0))
	if u.classes > 0 {
		guess.Flags = append(guess.Flags, flag("num_classes", u.classes))
	}
	heads := flag("num_heads", "?")
	heads.Note = "not in the shapes; nor is the noise schedule"
	guess.Flags = append(guess.Flags, attention, heads, flag("use_scale_shift_norm", u.scaleShift))
	if err := u.check(); err != nil {
		guess.Mismatches = []string{err.Error()}
		return guess
	}
	guess.Mismatches = mismatches(sd, func(m *onnx.Module) { u.build(m, newTaps(nil)) })
	return guess
}

// channelMult spells the widths as the flag does.
func (u *unet) channelMult() string {
	var s []string
	for _, w := range u.widths {
		s = append(s, fmt.Sprint(float64(w)/float64(max(u.base, 1))))
	}
	return strings.Join(s, ",")
}

// resolutions spells the downsampling factors that a network of so many levels
// reaches, as the flag attention_resolutions does.
func resolutions(factors []int, levels, imageSize int) string {
	var s []string
	for level := range levels {
		if slices.Contains(factors, 1<<level) {
			s = append(s, fmt.Sprint(imageSize>>level))
		}
	}
	return strings.Join(s, ",")
}

func joinInts(xs []int) string {
	var s []string
	for _, x := range xs {
		s = append(s, fmt.Sprint(x))
	}
	return strings.Join(s, ", ")
}
