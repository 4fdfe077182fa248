package models

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// UNetFlags are the flags that guided-diffusion's U-Net and its ancestor in
// improved-diffusion have in common.
type UNetFlags struct {
	ImageSize            int    `yaml:"image_size" min:"1" max:"4096" doc:"height and width in pixels"`
	NumChannels          int    `yaml:"num_channels" min:"1" max:"8192" doc:"base width of the U-Net"`
	NumResBlocks         int    `yaml:"num_res_blocks" min:"1" max:"64" doc:"residual blocks a level"`
	ChannelMult          string `yaml:"channel_mult" doc:"width of each level over num_channels, comma-separated; empty = the authors' choice for the image size"`
	LearnSigma           bool   `yaml:"learn_sigma" doc:"the network predicts the variance as well"`
	ClassCond            bool   `yaml:"class_cond" doc:"the network takes a class label"`
	NumClasses           int    `yaml:"num_classes" min:"0" max:"1000000" doc:"number of labels of a class-conditional network"`
	AttentionResolutions string `yaml:"attention_resolutions" doc:"resolutions in pixels that have attention layers, comma-separated"`
	NumHeads             int    `yaml:"num_heads" min:"-1" max:"1024" doc:"attention heads of a layer"`
	NumHeadsUpsample     int    `yaml:"num_heads_upsample" min:"-1" max:"1024" doc:"heads in the decoder; -1 = num_heads"`
	UseScaleShiftNorm    bool   `yaml:"use_scale_shift_norm" doc:"the embedding scales and shifts the norm"`
	InChannels           int    `yaml:"in_channels" min:"0" max:"3" doc:"channels of the images: 3, or 1 of a network of grey ones, which are written as RGB; 0 = 3"`
}

// ImageSides implements WithImageSide.
func (f *UNetFlags) ImageSides(string) (height, width int) { return f.ImageSize, f.ImageSize }

// A unet is a U-Net over RGB or grey pixels by its sizes: guided_diffusion/unet.py
// UNetModel; improved_diffusion/unet.py UNetModel is its case without updown.
type unet struct {
	size       int   // height and width in pixels
	channels   int   // of an image: 3, or 1
	base       int   // num_channels, the width of the timestep's sinusoids
	widths     []int // channels of each level
	blocks     int   // residual blocks a level
	attention  []int // downsampling factors that have attention layers, ascending
	classes    int   // 0 = unconditional
	out        int   // channels, or with a learned variance twice that
	scaleShift bool  // the embedding scales and shifts the norm
	updown     bool  // residual blocks change the resolution
	order      qkvOrder
	heads      func(channels int, decoder bool) int
}

// unet is the network that the flags describe, legacyOrder and without updown;
// mults is the authors' choice of channel_mult by image size.
func (f *UNetFlags) unet(mults map[int]string) (*unet, error) {
	u := &unet{
		size: f.ImageSize, channels: cmp.Or(f.InChannels, 3), base: f.NumChannels, blocks: f.NumResBlocks, classes: f.classes(),
		scaleShift: f.UseScaleShiftNorm, order: legacyOrder, heads: f.heads,
	}
	if u.channels != 1 && u.channels != 3 {
		return nil, fmt.Errorf("in_channels %d: images have 3 channels, or 1 where they are grey", f.InChannels)
	}
	u.out = u.channels
	if f.LearnSigma {
		u.out *= 2
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
	if u.base > maxWidth {
		return fmt.Errorf("num_channels is %d, expected at most %d", u.base, maxWidth)
	}
	if len(u.widths) > maxLevels {
		return fmt.Errorf("channel_mult has %d levels, expected at most %d", len(u.widths), maxLevels)
	}
	if n := 1 << (len(u.widths) - 1); u.size <= 0 || u.size%n != 0 {
		return fmt.Errorf("image_size %d: %d levels of channel_mult need a positive multiple of %d", u.size, len(u.widths), n)
	}
	for i, ch := range u.widths {
		if ch > maxWidth {
			return fmt.Errorf("level %d has %d channels (num_channels %d times its channel_mult), expected at most %d", i, ch, u.base, maxWidth)
		}
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
	sizes := slices.Sorted(maps.Keys(mults))
	slices.Reverse(sizes)
	text := joined(sizes, ", ")
	if i := strings.LastIndex(text, ", "); i >= 0 {
		text = text[:i] + " and" + text[i+1:]
	}
	return text
}

// build is UNetModel.forward: x [N,C,S,S], t [N] and, if conditional, y [N] →
// model [N,C or 2C,S,S].
func (u *unet) build(m *onnx.Module, t *Taps) error {
	x := m.Input("x", checkpoint.F32, onnx.Batch, u.channels, u.size, u.size)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	emb := timeEmbed(m.In("time_embed"), steps, u.base)
	if u.classes > 0 {
		y := m.Input("y", checkpoint.I64, onnx.Batch)
		emb = m.Add(emb, m.In("label_emb").Embedding(y, u.classes, 4*u.base))
	}
	torso := m.Half() // convert_to_fp16: input_blocks, middle_block and output_blocks
	h, skips := u.encode(torso, x, emb, t)
	h = u.middle(torso.In("middle_block"), h, emb, t)
	h = u.decode(torso, h, skips, emb, t)
	h = m.SiLU(m.In("out.0").GroupNorm(h, groups))
	m.Output("model", m.In("out.2").Conv2D(h, u.out, 3, 1, 1))
	return t.Output(m)
}

// timeEmbed is UNetModel.time_embed: t [N] → [N,4·width].
func timeEmbed(m *onnx.Module, t onnx.Value, width int) onnx.Value {
	h := m.In("0").Linear(m.TimestepEmbedding(t, width, 10000), 4*width)
	return m.In("2").Linear(m.SiLU(h), 4*width)
}

// encode is input_blocks: x [N,C,S,S] → the last block's output and those of
// all blocks.
func (u *unet) encode(m *onnx.Module, x, emb onnx.Value, t *Taps) (h onnx.Value, skips []onnx.Value) {
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
func (u *unet) middle(m *onnx.Module, h, emb onnx.Value, t *Taps) onnx.Value {
	ch := h.Dim(1)
	h = resBlock(m.In("0"), h, emb, ch, u.scaleShift, same)
	h = attentionBlock(m.In("1"), h, u.heads(ch, false), u.order, t)
	return resBlock(m.In("2"), h, emb, ch, u.scaleShift, same)
}

// decode is output_blocks: each takes the last skip that is left.
func (u *unet) decode(m *onnx.Module, h onnx.Value, skips []onnx.Value, emb onnx.Value, t *Taps) onnx.Value {
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

// A pixelUNet is a prepared U-Net over pixels, ADM's or IDDPM's.
type pixelUNet struct {
	network
	process        Process
	channels, size int // 3 or 1; height and width
}

var (
	_ Generator = (*pixelUNet)(nil)
	_ Callable  = (*pixelUNet)(nil)
)

// open prepares the U-Net with the weights at path.
func (u *unet) open(path string, opt Options, p Process, hint func(checkpoint.StateDict) string) (Model, error) {
	n, err := openNetwork(path, opt, u.classes, u.build, hint)
	if err != nil {
		return nil, err
	}
	return &pixelUNet{n, p, u.channels, u.size}, nil
}

// Process implements Generator.
func (u *pixelUNet) Process() Process { return u.process }

// SampleShape implements Generator.
func (u *pixelUNet) SampleShape() []int { return []int{u.channels, u.size, u.size} }

// Classes implements Generator.
func (u *pixelUNet) Classes() int { return u.labels }

// Call implements Callable.
func (u *pixelUNet) Call(images int, t sampling.Timestep, c sampling.Cond) (*Call, error) {
	return u.call(images, t, c)
}

// Pixels implements Generator: (x+1)·127.5 clamped to [0,255] and truncated, as
// guided-diffusion's and improved-diffusion's image_sample.py do.
func (u *pixelUNet) Pixels(_ context.Context, x tensor.Tensor) (Images, error) {
	return ImagesOf(x, func(v float32) float32 { return float32(v+1) * 127.5 }, "")
}

// hint compares the network that was asked for with what the shapes of a
// checkpoint suggest, and names the flags that differ.
func (u *unet) hint(sd checkpoint.StateDict) string {
	g, ok := guessUNet(sd)
	if !ok {
		return cmp.Or(ownKind(sd), "its keys are not those of a guided-diffusion or improved-diffusion U-Net (no time_embed.0.weight or input_blocks.0.0.weight)")
	}
	return u.differences(g).hint()
}

// differences are the flags in which u is not the network g.
func (u *unet) differences(g *unet) (d differences) {
	d.add("num_channels", u.base, g.base)
	d.add("num_res_blocks", u.blocks, g.blocks)
	d.add("channel_mult", strconv.Quote(u.channelMult()), strconv.Quote(g.channelMult()))
	d.add("in_channels", u.channels, g.channels)
	d.add("learn_sigma", u.out == 2*u.channels, g.out == 2*g.channels)
	d.add("class_cond", u.classes > 0, g.classes > 0)
	if u.classes > 0 && g.classes > 0 {
		d.add("num_classes", u.classes, g.classes)
	}
	d.add("use_scale_shift_norm", u.scaleShift, g.scaleShift)
	d.add("resblock_updown", u.updown, g.updown)
	ours, theirs := unet{size: u.size, widths: g.widths, attention: u.attention}, unet{size: u.size, widths: g.widths, attention: g.attention}
	d.add("attention_resolutions", strconv.Quote(ours.resolutions()), strconv.Quote(theirs.resolutions()))
	return d
}

// guessUNet reads the sizes of a U-Net off a checkpoint's shapes; ok is false
// when the keys are not those of one. What leaves no trace in the shapes (the
// size of the image, heads, the order of q, k, v) is set so that the network can
// be built.
func guessUNet(sd checkpoint.StateDict) (u *unet, ok bool) {
	embed, first, out := sd["time_embed.0.weight"].Shape, sd["input_blocks.0.0.weight"].Shape, sd["out.2.weight"].Shape
	if len(embed) != 2 || len(first) != 4 || len(out) != 4 {
		return nil, false
	}
	u = startUNet(sd)
	u.out = u.channels
	if out[0] == 2*first[1] {
		u.out *= 2
	}
	if label := sd["label_emb.weight"].Shape; len(label) == 2 {
		u.classes = label[0]
	}
	for level := range u.countDecoder(sd) {
		block := fmt.Sprintf("input_blocks.%d", 1+level*(u.blocks+1))
		u.widths = append(u.widths, sd.Dim(block+".0.in_layers.2.weight", 0))
		if sd.Dim(block+".1.qkv.weight", 0) > 0 {
			u.attention = append(u.attention, 1<<level)
		}
	}
	return u, true
}

// startUNet is what the shapes tell of any U-Net with such blocks.
func startUNet(sd checkpoint.StateDict) *unet {
	return &unet{
		size: 512, channels: sd.Dim("input_blocks.0.0.weight", 1), base: sd.Dim("time_embed.0.weight", 1), heads: func(int, bool) int { return 1 },
		scaleShift: sd.Dim("input_blocks.1.0.emb_layers.1.weight", 0) == 2*sd.Dim("input_blocks.1.0.out_layers.3.weight", 0),
	}
}

// countDecoder counts the blocks of the decoder: every level has one more than
// num_res_blocks, and all but the last level end in an upsampling layer.
func (u *unet) countDecoder(sd checkpoint.StateDict) (levels int) {
	blocks := 0
	levels = 1
	for ; sd.Has("output_blocks.%d.0.in_layers.2.weight", blocks); blocks++ {
		for _, i := range []int{1, 2} {
			conv := sd.Has("output_blocks.%d.%d.conv.weight", blocks, i)
			res := sd.Has("output_blocks.%d.%d.in_layers.2.weight", blocks, i)
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
// channel_mult by image size so. headChannels is that of an attention head where
// the authors' networks have them and the widths allow it; 0 = they have num_heads.
func (u *unet) guess(sd checkpoint.StateDict, mults map[int]string, headChannels int, evidence string) Guess {
	size := u.guessSize()
	for s, mult := range mults {
		if mult == u.channelMult() {
			u.size = s
			size = NewFlag("image_size", s, Assumed+": that whose default channel_mult this is")
		}
	}
	flags := []Flag{size, NewFlag("num_channels", u.base), NewFlag("num_res_blocks", u.blocks),
		NewFlag("channel_mult", u.channelMult()), NewFlag("learn_sigma", u.out == 2*u.channels), NewFlag("class_cond", u.classes > 0)}
	if u.classes > 0 {
		flags = append(flags, NewFlag("num_classes", u.classes))
	}
	if u.channels != 3 {
		flags = append(flags, NewFlag("in_channels", u.channels))
	}
	flags = append(flags, NewFlag("attention_resolutions", u.resolutions(), u.resolutionsNote(size)),
		u.guessHeads(headChannels), NewFlag("use_scale_shift_norm", u.scaleShift))
	g := Guess{Evidence: evidence, Flags: flags}
	g.Mismatches = Mismatches(sd, u.check(), g.tapped(u.build))
	return g
}

// lowestAttention is the height and width of the lowest attention layers of all
// networks that the authors of ADM and IDDPM published, but for IDDPM's of LSUN.
const lowestAttention = 8

// guessSize sets the size of the image, which leaves no trace, to that which the
// attention layers have in the authors' networks.
func (u *unet) guessSize() Flag {
	least, why := 1<<len(u.widths), ""
	u.size = max(64, least)
	if n := len(u.attention); n > 0 && lowestAttention*u.attention[n-1] >= least {
		u.size, why = lowestAttention*u.attention[n-1], fmt.Sprintf(": that at which the lowest attention layers are of %d×%[1]d", lowestAttention)
	}
	return NewFlag("image_size", u.size, Assumed+why)
}

// resolutionsNote is the note of attention_resolutions, which follow from the
// image's size.
func (u *unet) resolutionsNote(size Flag) string {
	if !strings.HasPrefix(size.Note, Assumed) {
		return ""
	}
	return "image_size divided by " + joined(u.attention, ", ")
}

// guessHeads chooses the heads of the attention layers, which leave no trace.
func (u *unet) guessHeads(channels int) Flag {
	all := func(n int) bool {
		return !slices.ContainsFunc(u.attending(), func(ch int) bool { return !divides(n, ch) })
	}
	if channels > 0 && all(channels) {
		u.heads = func(ch int, _ bool) int { return ch / channels }
		return NewFlag("num_head_channels", channels, Assumed+"; some give num_heads")
	}
	n := 4
	if !all(n) {
		n = 1
	}
	u.heads = func(int, bool) int { return n }
	return NewFlag("num_heads", n, Assumed)
}

// channelMult spells the widths as the flag does.
func (u *unet) channelMult() string {
	var factors []float64
	for _, w := range u.widths {
		factors = append(factors, float64(w)/float64(max(u.base, 1)))
	}
	return joined(factors, ",")
}

// resolutions spells the downsampling factors that have attention layers as the
// flag attention_resolutions does; where none has, it names one below the lowest.
func (u *unet) resolutions() string {
	var sizes []int
	for level := range u.widths {
		if slices.Contains(u.attention, 1<<level) {
			sizes = append(sizes, u.size>>level)
		}
	}
	if len(sizes) == 0 {
		sizes = []int{max(1, u.size>>len(u.widths))}
	}
	return joined(sizes, ",")
}

// joined are numbers in one line with a separator between them.
func joined[T int | float64](xs []T, separator string) string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(xs)), separator), "[]")
}
