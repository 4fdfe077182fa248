package models

import (
	"fmt"
	"slices"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// hint names the flags that a checkpoint's shapes speak against.
func (c *Classifier) hint(sd checkpoint.StateDict) string {
	u, err := c.network()
	g, ok := guessClassifier(sd)
	if !ok || err != nil {
		return "its keys are not those of guided-diffusion's EncoderUNetModel (input_blocks and middle_block without output_blocks)"
	}
	diffs := u.differences(g.unet)
	add := func(flag string, have, want any) {
		if fmt.Sprint(have) != fmt.Sprint(want) {
			diffs = append(diffs, fmt.Sprintf("%s: %v (not %v)", flag, want, have))
		}
	}
	add("classifier_pool", c.Pool, g.Pool)
	add("num_classes", c.NumClasses, g.NumClasses)
	if c.Pool == g.Pool && g.side > 0 {
		add("image_size", c.ImageSize, g.side<<(len(g.unet.widths)-1))
	}
	if len(diffs) == 0 {
		return "its shapes agree with the flags, its keys do not: is it a file of another family?"
	}
	return "its shapes suggest " + classifierFlags.Replace(strings.Join(diffs, ", "))
}

// A classifierGuess is what the shapes of a checkpoint tell of a classifier.
type classifierGuess struct {
	Classifier
	unet *unet
	side int // of the last features, in pixels; 0 = unknown
}

// guessClassifier reads the sizes of a classifier off a checkpoint's shapes; ok
// is false when the keys are not those of one.
func guessClassifier(sd checkpoint.StateDict) (g *classifierGuess, ok bool) {
	length := func(key string, axis int) int {
		if t, has := sd[key]; has && len(t.Shape) > axis {
			return t.Shape[axis]
		}
		return 0
	}
	u := &unet{size: 512, base: length("time_embed.0.weight", 1), heads: func(int, bool) int { return 1 }}
	decoder := slices.ContainsFunc(sortedNames(sd), func(key string) bool { return strings.HasPrefix(key, "output_blocks.") })
	if u.base == 0 || length("input_blocks.0.0.weight", 0) == 0 || length("middle_block.0.in_layers.2.weight", 0) == 0 || decoder {
		return nil, false
	}
	u.scaleShift = length("input_blocks.1.0.emb_layers.1.weight", 0) == 2*length("input_blocks.1.0.out_layers.3.weight", 0)
	if !u.countEncoder(length) {
		return nil, false
	}
	g = &classifierGuess{Classifier: *newClassifier(), unet: u}
	g.Width, g.Depth, g.UseScaleShiftNorm, g.ResblockUpdown = u.base, u.blocks, u.scaleShift, u.updown
	g.ChannelMult = u.channelMult()
	switch tokens := length("out.2.positional_embedding", 1); {
	case tokens > 1:
		g.Pool, g.NumClasses = "attention", length("out.2.c_proj.weight", 0)
		for g.side*g.side < tokens-1 {
			g.side++
		}
	case length("out.3.weight", 2) == 1:
		g.Pool, g.NumClasses = "adaptive", length("out.3.weight", 0)
	case length("out.3.weight", 1) == spatialWidth:
		g.Pool, g.NumClasses = "spatial_v2", length("out.3.weight", 0)
	default:
		g.Pool, g.NumClasses = "spatial", length("out.2.weight", 0)
	}
	return g, true
}

// countEncoder finds the levels of the encoder among its blocks. Every level has
// num_res_blocks of them and all but the last another that halves the image,
// which has no attention and as many channels as the one before. Among the ways
// to cut the blocks so, that with the most levels is taken.
func (u *unet) countEncoder(length func(string, int) int) bool {
	type block struct {
		width           int
		attends, halves bool
	}
	blocks := []block{}
	for i := 1; ; i++ {
		key := fmt.Sprintf("input_blocks.%d", i)
		b := block{length(key+".0.out_layers.3.weight", 0), length(key+".1.qkv.weight", 0) > 0, false}
		if conv := length(key+".0.op.weight", 0); conv > 0 {
			b = block{conv, false, true}
		}
		if b.width == 0 {
			break
		}
		blocks = append(blocks, b)
	}
	strided := slices.ContainsFunc(blocks, func(b block) bool { return b.halves })
	for depth := 1; depth <= len(blocks); depth++ {
		if (len(blocks)+1)%(depth+1) != 0 {
			continue
		}
		fits := true
		u.widths, u.attention = nil, nil
		for i, b := range blocks {
			first := blocks[i-i%(depth+1)]
			last := i%(depth+1) == depth
			fits = fits && b.width == first.width && b.halves == (strided && last) && b.attends == (first.attends && !last)
			if i%(depth+1) == 0 {
				if b.attends {
					u.attention = append(u.attention, 1<<len(u.widths))
				}
				u.widths = append(u.widths, b.width)
			}
		}
		if fits {
			u.blocks, u.updown = depth, !strided && len(u.widths) > 1
			return true
		}
	}
	return false
}

// Guess implements Guesser.
func (c *Classifier) Guess(sd checkpoint.StateDict) (Guess, bool) {
	g, ok := guessClassifier(sd)
	if !ok {
		return Guess{}, false
	}
	levels := len(g.unet.widths)
	size := flag("image_size", "?")
	size.Note = "not in the shapes"
	if g.side > 0 {
		g.unet.size = g.side << (levels - 1)
		size = flag("image_size", g.unet.size)
	}
	attention := flag("classifier_attention_resolutions", resolutions(g.unet.attention, levels, g.unet.size))
	if g.side == 0 {
		attention = flag("classifier_attention_resolutions", "?")
		attention.Note = "image_size divided by " + joinInts(g.unet.attention)
	}
	heads := flag("num_head_channels", "?")
	heads.Note = "not in the shapes; 64 in every published classifier"
	guess := Guess{Evidence: "time_embed, input_blocks and middle_block without output_blocks: guided-diffusion's EncoderUNetModel"}
	guess.Flags = []Flag{
		size, flag("classifier_width", g.Width), flag("classifier_depth", g.Depth), flag("channel_mult", g.ChannelMult), attention,
		flag("classifier_use_scale_shift_norm", g.UseScaleShiftNorm), flag("classifier_resblock_updown", g.ResblockUpdown),
		flag("classifier_pool", g.Pool), heads, flag("num_classes", g.NumClasses),
	}
	g.NumHeadChannels = g.unet.widths[levels-1] // one head: their number leaves no trace
	if err := g.unet.check(); err != nil {
		guess.Mismatches = []string{classifierFlags.Replace(err.Error())}
		return guess, true
	}
	guess.Mismatches = mismatches(sd, func(m *onnx.Module) { g.forward(m, g.unet) })
	return guess, true
}

func sortedNames(sd checkpoint.StateDict) []string {
	var names []string
	for name := range sd {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
