package models

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
)

// ADM is the U-Net of "Diffusion Models Beat GANs on Image Synthesis" (arXiv
// 2105.05233), guided_diffusion/unet.py UNetModel, with the flags of
// guided_diffusion/script_util.py model_and_diffusion_defaults.
type ADM struct {
	ImageSize            int    `yaml:"image_size" doc:"height and width in pixels"`
	NumChannels          int    `yaml:"num_channels" doc:"base width of the U-Net"`
	NumResBlocks         int    `yaml:"num_res_blocks" doc:"residual blocks a level"`
	ChannelMult          string `yaml:"channel_mult" doc:"width of each level over num_channels, comma-separated; empty = the authors' choice for the image size"`
	LearnSigma           bool   `yaml:"learn_sigma" doc:"the network predicts the variance as well"`
	ClassCond            bool   `yaml:"class_cond" doc:"the network takes a class label"`
	NumClasses           int    `yaml:"num_classes" doc:"number of labels of a class-conditional network"`
	AttentionResolutions string `yaml:"attention_resolutions" doc:"resolutions in pixels that have attention layers, comma-separated"`
	NumHeads             int    `yaml:"num_heads" doc:"attention heads where num_head_channels is -1"`
	NumHeadChannels      int    `yaml:"num_head_channels" doc:"channels a head; -1 = num_heads heads"`
	NumHeadsUpsample     int    `yaml:"num_heads_upsample" doc:"heads in the decoder; -1 = num_heads"`
	UseScaleShiftNorm    bool   `yaml:"use_scale_shift_norm" doc:"the embedding scales and shifts the norm"`
	ResblockUpdown       bool   `yaml:"resblock_updown" doc:"residual blocks change the resolution"`
	UseNewAttentionOrder bool   `yaml:"use_new_attention_order" doc:"q, k, v are split before the heads"`

	sampling.ScheduleConfig `yaml:",inline"`

	PredictXStart        bool    `yaml:"predict_xstart" doc:"the network predicts x_0 instead of ε"`
	UseKL                bool    `yaml:"use_kl" doc:"of training; no effect here"`
	RescaleLearnedSigmas bool    `yaml:"rescale_learned_sigmas" doc:"of training; no effect here"`
	Dropout              float64 `yaml:"dropout" doc:"of training; no effect here"`
	UseCheckpoint        bool    `yaml:"use_checkpoint" doc:"of training; no effect here"`
	UseFP16              bool    `yaml:"use_fp16" doc:"of the official code on GPUs; here all arithmetic is float32"`
}

func newADM() *ADM {
	return &ADM{
		ImageSize: 64, NumChannels: 128, NumResBlocks: 2, NumClasses: 1000, AttentionResolutions: "16,8",
		NumHeads: 4, NumHeadChannels: -1, NumHeadsUpsample: -1, UseScaleShiftNorm: true,
		ScheduleConfig: sampling.DefaultSchedule(),
	}
}

// Open implements Family.
func (c *ADM) Open(path string, opt Options) (Model, error) {
	if err := validTaps(opt.Taps); err != nil {
		return nil, fmt.Errorf("models: adm: %w", err)
	}
	d, err := c.dims()
	if err != nil {
		return nil, fmt.Errorf("models: adm: %w", err)
	}
	var tapErr error
	g, err := openGraph(path, opt, func(m *onnx.Module) { tapErr = c.build(m, d, newTaps(opt.Taps)) }, c.hint)
	if err != nil {
		return nil, err
	}
	if tapErr != nil {
		g.Close()
		return nil, fmt.Errorf("models: %s: %w", path, tapErr)
	}
	return &pixelUNet{graph: g, process: c.process(), size: c.ImageSize, classes: c.classes(), tapped: len(opt.Taps) > 0}, nil
}

// Parameters lists the parameters of the network by key with their shapes.
func (c *ADM) Parameters() (map[string][]int, error) {
	d, err := c.dims()
	if err != nil {
		return nil, fmt.Errorf("models: adm: %w", err)
	}
	return onnx.Parameters(func(m *onnx.Module) { c.build(m, d, newTaps(nil)) })
}

// admDims are the sizes that the flags imply.
type admDims struct {
	mult      []float64 // width of each level over num_channels
	attention []int     // downsampling factors that have attention layers
}

// defaultChannelMult is guided_diffusion/script_util.py create_model.
var defaultChannelMult = map[int]string{512: "0.5,1,1,2,2,4,4", 256: "1,1,2,2,4,4", 128: "1,1,2,3,4", 64: "1,2,3,4"}

func (c *ADM) dims() (admDims, error) {
	var d admDims
	mult := c.ChannelMult
	if mult == "" {
		mult = defaultChannelMult[c.ImageSize]
	}
	if mult == "" {
		return d, fmt.Errorf("image_size %d has no default channel_mult (512, 256, 128 and 64 have); give channel_mult", c.ImageSize)
	}
	for _, s := range strings.Split(mult, ",") {
		x, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil || x <= 0 {
			return d, fmt.Errorf("channel_mult %q: expected comma-separated positive numbers such as \"1,2,3,4\"", mult)
		}
		d.mult = append(d.mult, x)
	}
	for _, s := range strings.Split(c.AttentionResolutions, ",") {
		r, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || r <= 0 {
			return d, fmt.Errorf("attention_resolutions %q: expected comma-separated sizes in pixels such as \"32,16,8\"", c.AttentionResolutions)
		}
		if r > c.ImageSize {
			return d, fmt.Errorf("attention_resolutions %q: %d pixels are more than image_size %d", c.AttentionResolutions, r, c.ImageSize)
		}
		d.attention = append(d.attention, c.ImageSize/r)
	}
	return d, c.check(d)
}

func (c *ADM) check(d admDims) error {
	if n := 1 << (len(d.mult) - 1); c.ImageSize <= 0 || c.ImageSize%n != 0 {
		return fmt.Errorf("image_size %d: %d levels of channel_mult need a positive multiple of %d", c.ImageSize, len(d.mult), n)
	}
	if c.NumChannels <= 0 || c.NumResBlocks <= 0 {
		return fmt.Errorf("num_channels %d and num_res_blocks %d: expected positive numbers", c.NumChannels, c.NumResBlocks)
	}
	if c.ClassCond && c.NumClasses <= 0 {
		return fmt.Errorf("num_classes %d: a class-conditional network needs at least one", c.NumClasses)
	}
	for i, mult := range d.mult {
		ch := int(mult * float64(c.NumChannels))
		if ch == 0 || ch%groups != 0 {
			return fmt.Errorf("level %d has %d channels (num_channels %d × %g), which GroupNorm cannot split into %d groups", i, ch, c.NumChannels, mult, groups)
		}
		if i == len(d.mult)-1 || slices.Contains(d.attention, 1<<i) { // the middle block always attends
			if err := c.checkHeads(ch); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *ADM) checkHeads(ch int) error {
	divides := func(n int) bool { return n > 0 && ch%n == 0 }
	switch {
	case c.NumHeadChannels != -1 && !divides(c.NumHeadChannels):
		return fmt.Errorf("num_head_channels %d does not divide %d channels", c.NumHeadChannels, ch)
	case c.NumHeadChannels == -1 && !divides(c.NumHeads):
		return fmt.Errorf("num_heads %d does not divide %d channels", c.NumHeads, ch)
	case c.NumHeadChannels == -1 && c.NumHeadsUpsample != -1 && !divides(c.NumHeadsUpsample):
		return fmt.Errorf("num_heads_upsample %d does not divide %d channels", c.NumHeadsUpsample, ch)
	}
	return nil
}

func (c *ADM) heads(ch int, decoder bool) int {
	switch {
	case c.NumHeadChannels != -1:
		return ch / c.NumHeadChannels
	case decoder && c.NumHeadsUpsample != -1:
		return c.NumHeadsUpsample
	}
	return c.NumHeads
}

// build is UNetModel: x [N,3,S,S], t [N] and, if conditional, y [N] → model [N,3 or 6,S,S].
func (c *ADM) build(m *onnx.Module, d admDims, t *taps) error {
	x := m.Input("x", checkpoint.F32, onnx.Batch, 3, c.ImageSize, c.ImageSize)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	order := legacyOrder
	if c.UseNewAttentionOrder {
		order = newOrder
	}
	res := func(m *onnx.Module, h, emb onnx.Value, out int, r resample) onnx.Value {
		return resBlock(m, h, emb, out, c.UseScaleShiftNorm, r)
	}
	width := func(level int) int { return int(d.mult[level] * float64(c.NumChannels)) }

	emb := timeEmbed(m.In("time_embed"), steps, c.NumChannels)
	if c.ClassCond {
		y := m.Input("y", checkpoint.I64, onnx.Batch)
		emb = m.Add(emb, m.In("label_emb").Embedding(y, c.NumClasses, 4*c.NumChannels))
	}

	ch, ds, block := width(0), 1, 1
	h := m.In("input_blocks.0.0").Conv2D(x, ch, 3, 1, 1)
	skips := []onnx.Value{h}
	for level := range d.mult {
		for range c.NumResBlocks {
			b := m.In("input_blocks.%d", block)
			ch = width(level)
			h = res(b.In("0"), h, emb, ch, same)
			if slices.Contains(d.attention, ds) {
				h = attentionBlock(b.In("1"), h, c.heads(ch, false), order, t)
			}
			skips, block = append(skips, h), block+1
		}
		if level < len(d.mult)-1 {
			b := m.In("input_blocks.%d.0", block)
			if c.ResblockUpdown {
				h = res(b, h, emb, ch, down)
			} else {
				h = b.In("op").Conv2D(h, ch, 3, 2, 1)
			}
			skips, block, ds = append(skips, h), block+1, 2*ds
		}
	}

	mid := m.In("middle_block")
	h = res(mid.In("0"), h, emb, ch, same)
	h = attentionBlock(mid.In("1"), h, c.heads(ch, false), order, t)
	h = res(mid.In("2"), h, emb, ch, same)

	block = 0
	for level := len(d.mult) - 1; level >= 0; level-- {
		for i := range c.NumResBlocks + 1 {
			b, next := m.In("output_blocks.%d", block), 1
			h = m.Concat(1, h, skips[len(skips)-1])
			skips = skips[:len(skips)-1]
			ch = width(level)
			h = res(b.In("0"), h, emb, ch, same)
			if slices.Contains(d.attention, ds) {
				h = attentionBlock(b.In("1"), h, c.heads(ch, true), order, t)
				next = 2
			}
			if level > 0 && i == c.NumResBlocks {
				if c.ResblockUpdown {
					h = res(b.In("%d", next), h, emb, ch, up)
				} else {
					h = b.In("%d.conv", next).Conv2D(m.UpsampleNearest(h), ch, 3, 1, 1)
				}
				ds /= 2
			}
			block++
		}
	}

	h = m.SiLU(m.In("out.0").GroupNorm(h, groups))
	m.Output("model", m.In("out.2").Conv2D(h, c.outChannels(), 3, 1, 1))
	return t.output(m)
}

func (c *ADM) outChannels() int {
	if c.LearnSigma {
		return 6
	}
	return 3
}

// timeEmbed is UNetModel.time_embed: t [N] → [N,4·width].
func timeEmbed(m *onnx.Module, t onnx.Value, width int) onnx.Value {
	h := m.In("0").Linear(m.TimestepEmbedding(t, width, 10000), 4*width)
	return m.In("2").Linear(m.SiLU(h), 4*width)
}

// process is what the sampler needs to know of the flags.
func (c *ADM) process() Process {
	p := Process{Schedule: c.ScheduleConfig, Predicts: sampling.Epsilon, ClipDenoised: true}
	if c.PredictXStart {
		p.Predicts = sampling.XStart
	}
	return p
}

func (c *ADM) classes() int {
	if c.ClassCond {
		return c.NumClasses
	}
	return 0
}
