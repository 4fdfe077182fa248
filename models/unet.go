package models

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// UNetFlags are the flags that guided-diffusion's U-Net and its ancestor in
// improved-diffusion have in common.
type UNetFlags struct {
	ImageSize            int    `yaml:"image_size" doc:"height and width in pixels"`
	NumChannels          int    `yaml:"num_channels" doc:"base width of the U-Net"`
	NumResBlocks         int    `yaml:"num_res_blocks" doc:"residual blocks a level"`
	ChannelMult          string `yaml:"channel_mult" doc:"width of each level over num_channels, comma-separated; empty = the authors' choice for the image size"`
	LearnSigma           bool   `yaml:"learn_sigma" doc:"the network predicts the variance as well"`
	ClassCond            bool   `yaml:"class_cond" doc:"the network takes a class label"`
	NumClasses           int    `yaml:"num_classes" doc:"number of labels of a class-conditional network"`
	AttentionResolutions string `yaml:"attention_resolutions" doc:"resolutions in pixels that have attention layers, comma-separated"`
	NumHeads             int    `yaml:"num_heads" doc:"attention heads of a layer"`
	NumHeadsUpsample     int    `yaml:"num_heads_upsample" doc:"heads in the decoder; -1 = num_heads"`
	UseScaleShiftNorm    bool   `yaml:"use_scale_shift_norm" doc:"the embedding scales and shifts the norm"`
}

// A unet is a U-Net over RGB pixels by its sizes: guided_diffusion/unet.py
// UNetModel; improved_diffusion/unet.py UNetModel is its case without updown.
type unet struct {
	size       int   // height and width in pixels
	base       int   // num_channels, the width of the timestep's sinusoids
	widths     []int // channels of each level
	blocks     int   // residual blocks a level
	attention  []int // downsampling factors that have attention layers, ascending
	classes    int   // 0 = unconditional
	out        int   // 3, or 6 with a learned variance
	scaleShift bool  // the embedding scales and shifts the norm
	updown     bool  // residual blocks change the resolution
	order      qkvOrder
	heads      func(channels int, decoder bool) int
}

// unet is the network that the flags describe, legacyOrder and without updown;
// mults is the authors' choice of channel_mult by image size.
func (f *UNetFlags) unet(mults map[int]string) (*unet, error) {
	u := &unet{
		size: f.ImageSize, base: f.NumChannels, blocks: f.NumResBlocks, classes: f.classes(), out: 3,
		scaleShift: f.UseScaleShiftNorm, order: legacyOrder, heads: f.heads,
	}
	if f.LearnSigma {
		u.out = 6
	}
	mult := f.ChannelMult
	if mult == "" {
		mult = mults[f.ImageSize]
	}
	if mult == "" {
		return nil, fmt.Errorf("image_size %d has no default channel_mult (%s have); give channel_mult", f.ImageSize, sizesOf(mults))
	}
	for _, s := range strings.Split(mult, ",") {
		x, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil || !(x > 0 && x < 1e6) {
			return nil, fmt.Errorf("channel_mult %q: expected comma-separated positive numbers such as \"1,2,3,4\"", mult)
		}
		u.widths = append(u.widths, int(x*float64(f.NumChannels)))
	}
	for _, s := range strings.Split(f.AttentionResolutions, ",") {
		r, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || r <= 0 {
			return nil, fmt.Errorf("attention_resolutions %q: expected comma-separated sizes in pixels such as \"32,16,8\"", f.AttentionResolutions)
		}
		if r > f.ImageSize {
			return nil, fmt.Errorf("attention_resolutions %q: %d pixels are more than image_size %d", f.AttentionResolutions, r, f.ImageSize)
		}
		u.attention = append(u.attention, f.ImageSize/r)
	}
	slices.Sort(u.attention)
	if f.ClassCond && f.NumClasses <= 0 {
		return nil, fmt.Errorf("num_classes %d: a class-conditional network needs at least one", f.NumClasses)
	}
	return u, u.check()
}

// maxLevels bounds the levels of a U-Net against a mistyped channel_mult: an image
// of one pixel at the last has 32,768 at the first.
const maxLevels = 16

// check tells what keeps the sizes from being those of a network.
func (u *unet) check() error {
	if u.base <= 0 || u.blocks <= 0 {
		return fmt.Errorf("num_channels %d and num_res_blocks %d: expected positive numbers", u.base, u.blocks)
	}
	if len(u.widths) > maxLevels {
		return fmt.Errorf("channel_mult has %d levels, expected at most %d", len(u.widths), maxLevels)
	}
	if n := 1 << (len(u.widths) - 1); u.size <= 0 || u.size%n != 0 {
		return fmt.Errorf("image_size %d: %d levels of channel_mult need a positive multiple of %d", u.size, len(u.widths), n)
	}
	for i, ch := range u.widths {
		if ch <= 0 || ch%groups != 0 {
			return fmt.Errorf("level %d has %d channels (num_channels %d times its channel_mult), which GroupNorm cannot split into %d groups", i, ch, u.base, groups)
		}
	}
	return nil
}

// attending lists the widths of the attention layers; the middle block always
// has one.
func (u *unet) attending() []int {
	var widths []int
	for level, ch := range u.widths {
		if level == len(u.widths)-1 || slices.Contains(u.attention, 1<<level) {
			widths = append(widths, ch)
		}
	}
	return widths
}

func (f *UNetFlags) checkHeads(ch int) error {
	if !divides(f.NumHeads, ch) {
		return fmt.Errorf("num_heads %d does not divide %d channels", f.NumHeads, ch)
	}
	if f.NumHeadsUpsample != -1 && !divides(f.NumHeadsUpsample, ch) {
		return fmt.Errorf("num_heads_upsample %d does not divide %d channels", f.NumHeadsUpsample, ch)
	}
	return nil
}

func divides(n, ch int) bool { return n > 0 && ch%n == 0 }

func (f *UNetFlags) heads(_ int, decoder bool) int {
	if decoder && f.NumHeadsUpsample != -1 {
		return f.NumHeadsUpsample
	}
	return f.NumHeads
}

// Conditioning implements Conditional: there is no null class.
func (f *UNetFlags) Conditioning() Conditioning { return Conditioning{Labels: f.ClassCond} }

func (f *UNetFlags) classes() int {
	if f.ClassCond {
		return f.NumClasses
	}
	return 0
}

// sizesOf lists image sizes in descending order: "512, 256 and 64".
func sizesOf(mults map[int]string) string {
	var sizes []int
	for s := range mults {
		sizes = append(sizes, s)
	}
	slices.Sort(sizes)
	slices.Reverse(sizes)
	text := strings.Trim(strings.ReplaceAll(fmt.Sprint(sizes), " ", ", "), "[]")
	if i := strings.LastIndex(text, ", "); i >= 0 {
		text = text[:i] + " and" + text[i+1:]
	}
	return text
}

// build is UNetModel.forward: x [N,3,S,S], t [N] and, if conditional, y [N] →
// model [N,3 or 6,S,S].
func (u *unet) build(m *onnx.Module, t *taps) error {
	x := m.Input("x", checkpoint.F32, onnx.Batch, 3, u.size, u.size)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	emb := timeEmbed(m.In("time_embed"), steps, u.base)
	if u.classes > 0 {
		y := m.Input("y", checkpoint.I64, onnx.Batch)
		emb = m.Add(emb, m.In("label_emb").Embedding(y, u.classes, 4*u.base))
	}
	h, skips := u.encode(m, x, emb, t)
	h = u.middle(m.In("middle_block"), h, emb, t)
	h = u.decode(m, h, skips, emb, t)
	h = m.SiLU(m.In("out.0").GroupNorm(h, groups))
	m.Output("model", m.In("out.2").Conv2D(h, u.out, 3, 1, 1))
	return t.output(m)
}

// parameters lists the network's parameters by key with their shapes.
func (u *unet) parameters() (map[string][]int, error) {
	return onnx.Parameters(func(m *onnx.Module) { u.build(m, newTaps(nil)) })
}

// timeEmbed is UNetModel.time_embed: t [N] → [N,4·width].
func timeEmbed(m *onnx.Module, t onnx.Value, width int) onnx.Value {
	h := m.In("0").Linear(m.TimestepEmbedding(t, width, 10000), 4*width)
	return m.In("2").Linear(m.SiLU(h), 4*width)
}

// encode is input_blocks: x [N,3,S,S] → the last block's output and those of
// all blocks.
func (u *unet) encode(m *onnx.Module, x, emb onnx.Value, t *taps) (h onnx.Value, skips []onnx.Value) {
	h = m.In("input_blocks.0.0").Conv2D(x, u.widths[0], 3, 1, 1)
	skips, block := []onnx.Value{h}, 1
	for level, ch := range u.widths {
		for range u.blocks {
			b := m.In("input_blocks.%d", block)
			h = resBlock(b.In("0"), h, emb, ch, u.scaleShift, same)
			if slices.Contains(u.attention, 1<<level) {
				h = attentionBlock(b.In("1"), h, u.heads(ch, false), u.order, t)
			}
			skips, block = append(skips, h), block+1
		}
		if level < len(u.widths)-1 {
			b := m.In("input_blocks.%d.0", block)
			if u.updown {
				h = resBlock(b, h, emb, ch, u.scaleShift, down)
			} else {
				h = b.In("op").Conv2D(h, ch, 3, 2, 1)
			}
			skips, block = append(skips, h), block+1
		}
	}
	return h, skips
}

// middle is middle_block, at the lowest resolution.
func (u *unet) middle(m *onnx.Module, h, emb onnx.Value, t *taps) onnx.Value {
	ch := h.Dim(1)
	h = resBlock(m.In("0"), h, emb, ch, u.scaleShift, same)
	h = attentionBlock(m.In("1"), h, u.heads(ch, false), u.order, t)
	return resBlock(m.In("2"), h, emb, ch, u.scaleShift, same)
}

// decode is output_blocks: each takes the last skip that is left.
func (u *unet) decode(m *onnx.Module, h onnx.Value, skips []onnx.Value, emb onnx.Value, t *taps) onnx.Value {
	block := 0
	for level, ch := range slices.Backward(u.widths) {
		for i := range u.blocks + 1 {
			b, next := m.In("output_blocks.%d", block), 1
			h = m.Concat(1, h, skips[len(skips)-1])
			skips = skips[:len(skips)-1]
			h = resBlock(b.In("0"), h, emb, ch, u.scaleShift, same)
			if slices.Contains(u.attention, 1<<level) {
				h = attentionBlock(b.In("1"), h, u.heads(ch, true), u.order, t)
				next = 2
			}
			switch {
			case level == 0 || i < u.blocks:
			case u.updown:
				h = resBlock(b.In("%d", next), h, emb, ch, u.scaleShift, up)
			default:
				h = b.In("%d.conv", next).Conv2D(m.UpsampleNearest(h), ch, 3, 1, 1)
			}
			block++
		}
	}
	return h
}
