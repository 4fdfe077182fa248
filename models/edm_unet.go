package models

import (
	"fmt"
	"math"
	"slices"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// An edmUNet is a network of NVlabs/edm training/networks.py by its sizes: SongUNet
// (DDPM++ and NCSN++) or DhariwalUNet (ADM), whose blocks are UNetBlock with other
// options.
type edmUNet struct {
	song     bool // SongUNet
	size     int  // height and width in pixels
	channels int  // of an image
	out      int  // channels of the output: channels, or twice as many
	labels   int  // classes, 0 for none
	dropsOut bool // labels, in training: a row of zeros is ∅
	augment  int  // width of the augmentation's labels, which sampling has none of

	base       int // model_channels
	widths     []int
	embedding  int // channels
	noise      int // channels of the timestep's embedding
	blocks     int // of a level
	attention  []int
	fourier    bool   // embedding of the timestep, else positional
	encoder    string // standard, skip or residual
	decoder    string // standard or skip
	filter     []int  // of resampling
	headWidth  int    // channels of a head; 0 = one head
	groupsEps  float64
	skipScale  float32
	projectAll bool // blocks that resample have a projection, also where the width stays
}

// build is forward: x [N,C,S,S] scaled, t [N] the noise label and, if conditional, y
// [N] → model [N,out,S,S]. A label of the number of classes is the row of zeros.
func (u *edmUNet) build(m *onnx.Module, t *Taps) error {
	x := m.Input("x", checkpoint.F32, onnx.Batch, u.channels, u.size, u.size)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	m = m.In("model")
	emb := u.embed(m, steps)
	h, skips := u.encode(m.In("enc"), x, emb, t)
	h = u.decode(m.In("dec"), h, skips, emb, t)
	if !u.song {
		h = m.SiLU(u.groupNorm(m.In("out_norm"), h))
		h = m.In("out_conv").Conv2D(h, u.out, 3, 1, 1)
	}
	m.Output("model", h)
	return t.Output(m)
}

// embed is the mapping: the noise label and the class → [N,embedding].
func (u *edmUNet) embed(m *onnx.Module, steps onnx.Value) onnx.Value {
	emb := u.embedNoise(m.In("map_noise"), steps)
	if u.augment > 0 {
		m.In("map_augment").Ignore("weight")
	}
	var label onnx.Value
	if u.labels > 0 {
		label = m.OneHot(m.Input("y", checkpoint.I64, onnx.Batch), u.labels)
	}
	l := m.In("map_label")
	if u.song {
		if u.labels > 0 {
			emb = m.Add(emb, l.Linear(m.Mul(label, m.Scalar(float32(math.Sqrt(float64(u.labels))))), u.noise))
		}
		emb = m.SiLU(m.In("map_layer0").Linear(emb, u.embedding))
		return m.SiLU(m.In("map_layer1").Linear(emb, u.embedding))
	}
	emb = m.SiLU(m.In("map_layer0").Linear(emb, u.embedding))
	emb = m.In("map_layer1").Linear(emb, u.embedding)
	if u.labels > 0 {
		emb = m.Add(emb, l.LinearNoBias(label, u.embedding))
	}
	return m.SiLU(emb)
}

// embedNoise is PositionalEmbedding or FourierEmbedding: t [N] → [N,noise]. SongUNet
// swaps the halves, so that sines come first.
func (u *edmUNet) embedNoise(m *onnx.Module, steps onnx.Value) onnx.Value {
	half := u.noise / 2
	var frequencies onnx.Value
	if u.fourier {
		frequencies = m.Mul(m.Reshape(m.Param("freqs", half), 1, half), m.Scalar(2*math.Pi))
	} else {
		endpoint, f := 0, make([]float32, half)
		if u.song {
			endpoint = 1
		}
		for i := range f { // rounded after every operation, as in the official code
			exponent := float32(i) / float32(half-endpoint)
			f[i] = float32(math.Pow(float64(float32(1.0/10000)), float64(exponent)))
		}
		frequencies = m.Const(f, 1, half)
	}
	arg := m.Mul(m.Reshape(steps, steps.Dim(0), 1), frequencies)
	if u.song {
		return m.Concat(1, m.Sin(arg), m.Cos(arg))
	}
	return m.Concat(1, m.Cos(arg), m.Sin(arg))
}

// encode is enc: x [N,C,S,S] → the last block's output and those that the decoder
// takes.
func (u *edmUNet) encode(m *onnx.Module, x, emb onnx.Value, t *Taps) (h onnx.Value, skips []onnx.Value) {
	h, aux := x, x
	keep := func() { skips = append(skips, h) }
	for level, width := range u.widths {
		at := levelOf(m, u.size>>level)
		switch {
		case level == 0 && u.song:
			h = at("conv").Conv2D(h, u.base, 3, 1, 1)
			keep()
		case level == 0:
			h = at("conv").Conv2D(h, width, 3, 1, 1)
			keep()
		default:
			h = u.block(at("down"), h, emb, h.Dim(1), down, false, t)
			keep()
		}
		if level > 0 && u.encoder == "skip" {
			aux = u.resample(at("aux_down"), aux, down)
			h = m.Add(h, at("aux_skip").Conv2D(aux, h.Dim(1), 1, 1, 0))
			skips[len(skips)-1] = h
		}
		if level > 0 && u.encoder == "residual" {
			h = m.Mul(m.Add(h, u.fused(at("aux_residual"), aux, h.Dim(1))), m.Scalar(float32(math.Sqrt(0.5))))
			skips[len(skips)-1], aux = h, h
		}
		for i := range u.blocks {
			h = u.block(at(fmt.Sprint("block", i)), h, emb, width, same, slices.Contains(u.attention, u.size>>level), t)
			keep()
		}
	}
	return h, skips
}

// levelOf is the scopes of the blocks at a resolution: 8x8_block0.
func levelOf(m *onnx.Module, size int) func(name string) *onnx.Module {
	return func(name string) *onnx.Module { return m.In("%dx%d_%s", size, size, name) }
}

// decode is dec: each block0, block1, … takes the last skip that is left. SongUNet's
// image is put together here.
func (u *edmUNet) decode(m *onnx.Module, h onnx.Value, skips []onnx.Value, emb onnx.Value, t *Taps) onnx.Value {
	var image onnx.Value
	for level, width := range slices.Backward(u.widths) {
		size, last := u.size>>level, level == len(u.widths)-1
		at := levelOf(m, size)
		if last {
			h = u.block(at("in0"), h, emb, h.Dim(1), same, true, t)
			h = u.block(at("in1"), h, emb, h.Dim(1), same, false, t)
		} else {
			h = u.block(at("up"), h, emb, h.Dim(1), up, false, t)
		}
		for i := range u.blocks + 1 {
			h = m.Concat(1, h, skips[len(skips)-1])
			skips = skips[:len(skips)-1]
			attends := slices.Contains(u.attention, size) && (!u.song || i == u.blocks)
			h = u.block(at(fmt.Sprint("block", i)), h, emb, width, same, attends, t)
		}
		if !u.song || u.decoder != "skip" && level > 0 {
			continue
		}
		if image.Name != "" {
			image = u.resample(at("aux_up"), image, up)
		}
		part := m.SiLU(u.groupNorm(at("aux_norm"), h))
		part = at("aux_conv").Conv2D(part, u.out, 3, 1, 1)
		if image.Name != "" {
			part = m.Add(part, image)
		}
		image = part
	}
	if u.song {
		return image
	}
	return h
}

// block is UNetBlock: x [N,C,H,W], emb [N,E] → [N,width,H',W'].
func (u *edmUNet) block(m *onnx.Module, x, emb onnx.Value, width int, r resample, attends bool, t *Taps) onnx.Value {
	h := m.SiLU(u.groupNorm(m.In("norm0"), x))
	h = m.In("conv0").Conv2D(u.resample(m.In("conv0"), h, r), width, 3, 1, 1)
	if u.song {
		h = m.Add(h, m.Reshape(m.In("affine").Linear(emb, width), emb.Dim(0), width, 1, 1))
		h = u.groupNorm(m.In("norm1"), h)
	} else {
		s := m.Split(m.In("affine").Linear(emb, 2*width), 1, 2)
		h = m.In("norm1").GroupNormScaleShift(h, edmGroups(width), s[0], s[1])
	}
	h = m.In("conv1").Conv2D(m.SiLU(h), width, 3, 1, 1)

	if width != x.Dim(1) || r != same {
		skip := m.In("skip")
		projects := width != x.Dim(1) || u.projectAll
		x = u.resample(skip, x, r)
		if projects {
			x = skip.Conv2D(x, width, 1, 1, 0)
		}
	}
	h = u.scaled(m, m.Add(h, x))
	if heads := u.heads(width); attends && heads > 0 {
		h = u.attend(m, h, heads, t)
	}
	return h
}

// heads is how many heads an attention layer of so many channels has; 0: there is
// no attention.
func (u *edmUNet) heads(width int) int {
	if u.headWidth == 0 {
		return 1
	}
	return width / u.headWidth
}

// scaled is x times what a block scales its sums by.
func (u *edmUNet) scaled(m *onnx.Module, x onnx.Value) onnx.Value {
	if u.skipScale == 1 {
		return x
	}
	return m.Mul(x, m.Scalar(u.skipScale))
}

// attend is the attention of a block, x [N,C,H,W] → the same shape.
func (u *edmUNet) attend(m *onnx.Module, x onnx.Value, heads int, t *Taps) onnx.Value {
	c := x.Dim(1)
	qkv := m.In("qkv").Conv2D(u.groupNorm(m.In("norm2"), x), 3*c, 1, 1, 0)
	h := selfAttention(m, qkv, heads, interleavedOrder, t, func(a onnx.Value) onnx.Value { return m.In("proj").Conv2D(a, c, 1, 1, 0) })
	return t.Skippable(m, x, u.scaled(m, m.Add(h, x)))
}

func (u *edmUNet) groupNorm(m *onnx.Module, x onnx.Value) onnx.Value {
	return m.GroupNormEps(x, edmGroups(x.Dim(1)), u.groupsEps)
}

// edmGroups is how many groups GroupNorm has: of four channels at least.
func edmGroups(channels int) int { return min(32, channels/4) }

// resample is Conv2d's up or down with the filter, which is a buffer of the scope m.
func (u *edmUNet) resample(m *onnx.Module, x onnx.Value, r resample) onnx.Value {
	if r == same {
		return x
	}
	m.Ignore("resample_filter") // which check compares with the flags
	if slices.Equal(u.filter, []int{1, 1}) {
		return resampled(m, x, r)
	}
	pad := (len(u.filter) - 1) / 2
	if r == up {
		return m.FilterTransposed(x, u.kernel(4), len(u.filter), 2, pad)
	}
	return m.Filter(x, u.kernel(1), len(u.filter), 2, pad)
}

// fused is Conv2d with fused_resample and down: the convolution on the larger image,
// then the filter without padding. The filter, whose sum is 1, leaves the bias.
func (u *edmUNet) fused(m *onnx.Module, x onnx.Value, width int) onnx.Value {
	m.Ignore("resample_filter")
	pad := 1 + (len(u.filter)-1)/2
	h := m.Conv2D(x, width, 3, 1, pad)
	return m.Filter(h, u.kernel(1), len(u.filter), 2, 0)
}

// kernel is the resampling filter in two dimensions, times gain.
func (u *edmUNet) kernel(gain float32) []float32 {
	sum := 0
	for _, f := range u.filter {
		sum += f
	}
	var k []float32
	for _, a := range u.filter {
		for _, b := range u.filter {
			k = append(k, float32(a*b)/float32(sum*sum)*gain)
		}
	}
	return k
}

// checkFilters compares the buffers of resampling filters with the flags: they hold
// numbers, not shapes alone.
func (u *edmUNet) checkFilters(sd checkpoint.StateDict) error {
	for key, t := range sd {
		if len(key) < len("resample_filter") || key[len(key)-len("resample_filter"):] != "resample_filter" {
			continue
		}
		have, err := t.Float32()
		if err != nil {
			return err
		}
		if !slices.Equal(have, u.kernel(1)) {
			return fmt.Errorf("%s is %v, but resample_filter %v makes %v", key, have, u.filter, u.kernel(1))
		}
	}
	return nil
}

// check tells what keeps the sizes from being those of a network.
func (u *edmUNet) check() error {
	if err := checkLevels(u.size, u.base, u.widths, u.blocks); err != nil {
		return err
	}
	for i, width := range append([]int{u.base}, u.widths...) {
		if g := edmGroups(width); g == 0 || width%g != 0 {
			return fmt.Errorf("level %d has %d channels, which GroupNorm cannot split into %d groups", max(0, i-1), width, g)
		}
		if h := u.heads(width); h > 0 && width%h != 0 {
			return fmt.Errorf("level %d has %d channels, which its %d heads do not divide", max(0, i-1), width, h)
		}
	}
	return nil
}

// checkLevels bounds the sizes of a U-Net whose levels have the given widths.
func checkLevels(size, base int, widths []int, blocks int) error {
	switch n := len(widths); {
	case base < 1 || base > maxWidth:
		return fmt.Errorf("model_channels is %d, expected 1 to %d", base, maxWidth)
	case blocks < 1 || blocks > maxBlocks:
		return fmt.Errorf("num_blocks is %d, expected 1 to %d", blocks, maxBlocks)
	case n < 1 || n > maxLevels:
		return fmt.Errorf("channel_mult has %d levels, expected 1 to %d", n, maxLevels)
	case size < 1 || size%(1<<(n-1)) != 0:
		return fmt.Errorf("img_resolution %d: %d levels of channel_mult need a positive multiple of %d", size, n, 1<<(n-1))
	}
	for i, w := range widths {
		if w < 1 || w > maxWidth {
			return fmt.Errorf("level %d has %d channels (model_channels %d times its channel_mult), expected 1 to %d", i, w, base, maxWidth)
		}
	}
	return nil
}

// maxBlocks bounds the blocks of a level against a mistyped number.
const maxBlocks = 256
