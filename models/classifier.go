package models

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// Classifier is the classifier of noisy images of "Diffusion Models Beat GANs on
// Image Synthesis" (arXiv 2105.05233), guided_diffusion/unet.py EncoderUNetModel:
// the encoder half of ADM's U-Net and a pooling head, with the flags of
// guided_diffusion/script_util.py classifier_defaults. What create_classifier
// fixes are flags as well: channel_mult, num_head_channels and num_classes.
type Classifier struct {
	ImageSize            int    `yaml:"image_size" min:"1" max:"4096" doc:"height and width in pixels"`
	Width                int    `yaml:"classifier_width" min:"1" max:"8192" doc:"base width of the network"`
	Depth                int    `yaml:"classifier_depth" min:"1" max:"64" doc:"residual blocks a level"`
	AttentionResolutions string `yaml:"classifier_attention_resolutions" doc:"resolutions in pixels that have attention layers, comma-separated"`
	UseScaleShiftNorm    bool   `yaml:"classifier_use_scale_shift_norm" doc:"the embedding scales and shifts the norm"`
	ResblockUpdown       bool   `yaml:"classifier_resblock_updown" doc:"residual blocks change the resolution"`
	Pool                 string `yaml:"classifier_pool" doc:"how the last features become logits: attention, adaptive, spatial or spatial_v2"`
	UseFP16              bool   `yaml:"classifier_use_fp16" doc:"precision: float16, where the block does not say otherwise: input_blocks and middle_block compute in it, all else in float32"`
	ChannelMult          string `yaml:"channel_mult" doc:"width of each level over classifier_width, comma-separated; empty = the authors' choice for the image size"`
	NumHeadChannels      int    `yaml:"num_head_channels" min:"-1" max:"65536" doc:"channels of an attention head; -1 = one head a layer (not with attention pooling)"`
	NumClasses           int    `yaml:"num_classes" min:"1" max:"65536" doc:"number of labels"`
	InChannels           int    `yaml:"in_channels" min:"0" max:"3" doc:"channels of the images: 3, or 1 of a classifier of grey ones; 0 = 3"`
}

// NewClassifier is the classifier with its authors' defaults (script_util.py).
func NewClassifier() *Classifier {
	return &Classifier{
		ImageSize: 64, Width: 128, Depth: 2, AttentionResolutions: "32,16,8", UseScaleShiftNorm: true, ResblockUpdown: true,
		Pool: "attention", NumHeadChannels: 64, NumClasses: 1000,
	}
}

// Precision implements WithPrecision.
func (c *Classifier) Precision() string { return float16If(c.UseFP16) }

// IdleFlags are the flags that change no pixel; classifier_use_fp16 counts as the
// precision.
func (c *Classifier) IdleFlags() []string { return []string{"classifier_use_fp16"} }

// A head turns the features of the network's blocks, those of the middle block
// last, into logits [N,K].
type head func(m *onnx.Module, features []onnx.Value, c *Classifier) onnx.Value

// heads are those of EncoderUNetModel's out, by the flag classifier_pool.
var heads = map[string]head{
	"attention":  attentionHead,
	"adaptive":   adaptiveHead,
	"spatial":    spatialHead,
	"spatial_v2": spatialV2Head,
}

// classifierFlags spells the flags of a U-Net as those of a classifier.
var classifierFlags = strings.NewReplacer("num_channels", "classifier_width", "num_res_blocks", "classifier_depth",
	"attention_resolutions", "classifier_attention_resolutions", "use_scale_shift_norm", "classifier_use_scale_shift_norm",
	"resblock_updown", "classifier_resblock_updown")

// ofClassifier is an error about a U-Net's flags as one about a classifier's.
func ofClassifier(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(classifierFlags.Replace(err.Error()))
}

// network is the encoder that the flags describe.
func (c *Classifier) network() (*unet, error) {
	if _, ok := heads[c.Pool]; !ok {
		return nil, fmt.Errorf("classifier_pool is %q, expected %s", c.Pool, strings.Join(slices.Sorted(maps.Keys(heads)), ", "))
	}
	if c.NumClasses < 1 || c.NumClasses > maxWidth {
		return nil, fmt.Errorf("num_classes is %d, expected 1 to %d", c.NumClasses, maxWidth)
	}
	f := UNetFlags{
		ImageSize: c.ImageSize, NumChannels: c.Width, NumResBlocks: c.Depth, ChannelMult: c.ChannelMult,
		AttentionResolutions: c.AttentionResolutions, UseScaleShiftNorm: c.UseScaleShiftNorm, InChannels: c.InChannels,
	}
	u, err := f.unet(admChannelMult)
	if err != nil {
		return nil, ofClassifier(err)
	}
	u.updown, u.heads = c.ResblockUpdown, c.heads
	if c.Pool == "attention" && c.NumHeadChannels == -1 {
		return nil, fmt.Errorf("num_head_channels is -1, which attention pooling cannot do with; give the channels of a head")
	}
	for _, ch := range u.attending() {
		if c.NumHeadChannels != -1 && !divides(c.NumHeadChannels, ch) {
			return nil, fmt.Errorf("num_head_channels %d does not divide %d channels", c.NumHeadChannels, ch)
		}
	}
	return u, nil
}

func (c *Classifier) heads(channels int, _ bool) int {
	if c.NumHeadChannels == -1 {
		return 1
	}
	return channels / c.NumHeadChannels
}

// forward is EncoderUNetModel.forward: x [N,C,S,S], t [N] → logits [N,K].
func (c *Classifier) forward(m *onnx.Module, u *unet) (x, logits onnx.Value) {
	x = m.Input("x", checkpoint.F32, onnx.Batch, u.channels, u.size, u.size)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	none := NewTaps(Options{})
	emb := timeEmbed(m.In("time_embed"), steps, u.base)
	torso := m.Half() // convert_to_fp16: input_blocks and middle_block
	h, features := u.encode(torso, x, emb, none)
	features = append(features, u.middle(torso.In("middle_block"), h, emb, none))
	logits = heads[c.Pool](m.In("out"), features, c)
	m.Output("logits", logits)
	return x, logits
}

// backward is forward and cond_fn of classifier_sample.py: with y [N], gradient =
// ∇ₓ Σₙ log p(yₙ | xₙ, t), [N,3,S,S].
func (c *Classifier) backward(m *onnx.Module, u *unet) {
	x, logits := c.forward(m, u)
	y := m.Input("y", checkpoint.I64, onnx.Batch)
	m.Output("gradient", m.Grad(m.LogSoftmax(logits), m.OneHot(y, c.NumClasses), x))
}

// adaptiveHead averages the last features over all places.
func adaptiveHead(m *onnx.Module, features []onnx.Value, c *Classifier) onnx.Value {
	h := features[len(features)-1]
	h = m.Mean(m.SiLU(m.In("0").GroupNorm(h, groups)), 2, 3)
	h = m.Reshape(h, h.Dim(0), h.Dim(1), 1, 1)
	return m.Reshape(m.In("3").Conv2D(h, c.NumClasses, 1, 1, 0), h.Dim(0), c.NumClasses)
}

// attentionHead is guided_diffusion/unet.py AttentionPool2d: the last features
// and their mean are tokens, and the mean's is what attention returns.
func attentionHead(m *onnx.Module, features []onnx.Value, c *Classifier) onnx.Value {
	h := m.SiLU(m.In("0").GroupNorm(features[len(features)-1], groups))
	n, ch, tokens := h.Dim(0), h.Dim(1), h.Dim(2)*h.Dim(3)
	m = m.In("2")
	h = m.Reshape(h, n, ch, tokens)
	h = m.Concat(2, m.Reshape(m.Mean(h, 2), n, ch, 1), h) // [N, C, T]
	h = m.Add(h, m.Param("positional_embedding", ch, tokens+1))
	project := func(name string, x onnx.Value, out int) onnx.Value { // nn.Conv1d of width 1
		x = m.Reshape(x, n, x.Dim(1), x.Dim(2), 1)
		x = m.In("%s", name).Conv(x, onnx.Conv{Out: out, Kernel: [2]int{1, 1}, Stride: 1, StoredKernel1D: true})
		return m.Reshape(x, n, out, x.Dim(2))
	}
	q, k, v := splitQKV(m, project("qkv_proj", h, 3*ch), ch/c.NumHeadChannels, newOrder) // [N, heads, C/heads, T]
	q = m.Slice(q, 3, 0, 1)                                                              // of the mean alone
	a := m.MatMul(v, m.Transpose(attentionWeights(m, q, k), 0, 1, 3, 2))                 // [N, heads, C/heads, 1]
	return m.Reshape(project("c_proj", m.Reshape(a, n, ch, 1), c.NumClasses), n, c.NumClasses)
}

// averages are the features of all blocks, averaged over their places: [N,F].
func averages(m *onnx.Module, features []onnx.Value) onnx.Value {
	means := make([]onnx.Value, len(features))
	for i, f := range features {
		means[i] = m.Mean(f, 2, 3)
	}
	return m.Concat(1, means...)
}

// spatialWidth is the width of the hidden layer of the spatial heads.
const spatialWidth = 2048

func spatialHead(m *onnx.Module, features []onnx.Value, c *Classifier) onnx.Value {
	h := m.ReLU(m.In("0").Linear(averages(m, features), spatialWidth))
	return m.In("2").Linear(h, c.NumClasses)
}

func spatialV2Head(m *onnx.Module, features []onnx.Value, c *Classifier) onnx.Value {
	h := m.In("0").Linear(averages(m, features), spatialWidth)
	h = m.SiLU(m.In("1").GroupNorm(h, groups))
	return m.In("3").Linear(h, c.NumClasses)
}

// Open implements Family.
func (c *Classifier) Open(path string, opt Options) (Model, error) {
	u, err := c.network()
	if err != nil {
		return nil, fmt.Errorf("models: classifier: %w", err)
	}
	if len(opt.Taps) > 0 {
		return nil, fmt.Errorf("models: classifier: its attention layers cannot be tapped")
	}
	g, err := openGraph(path, opt, func(m *onnx.Module) error { c.backward(m, u); return nil }, c.hint)
	if err != nil {
		return nil, err
	}
	logits, err := openSession(g.file, opt, func(m *onnx.Module) error { c.forward(m, u); return nil }, nil)
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	return &ClassifierNet{g, logits, c.NumClasses, u.channels, c.ImageSize}, nil
}

// Parameters lists the parameters of the network by key with their shapes.
func (c *Classifier) Parameters() (map[string][]int, error) {
	u, err := c.network()
	if err != nil {
		return nil, fmt.Errorf("models: classifier: %w", err)
	}
	return onnx.Parameters(func(m *onnx.Module) { c.forward(m, u) })
}

// Size implements WithParameters, without the gradient.
func (c *Classifier) Size() (Size, error) {
	u, err := c.network()
	if err != nil {
		return Size{}, fmt.Errorf("models: classifier: %w", err)
	}
	return onnx.Measure(func(m *onnx.Module) { c.forward(m, u) })
}

var (
	_ Model               = (*ClassifierNet)(nil)
	_ sampling.Classifier = (*ClassifierNet)(nil)
)

// A ClassifierNet is a prepared classifier of noisy images: a graph that gives
// the gradient as well, and one that gives the logits alone.
type ClassifierNet struct {
	*graph
	logits         *ort.Session
	classes        int
	channels, size int // of an image; height and width in pixels
}

// Close implements Model.
func (n *ClassifierNet) Close() {
	n.logits.Close()
	n.graph.Close()
}

// SampleShape is [C,H,W] of the noisy images.
func (n *ClassifierNet) SampleShape() []int { return []int{n.channels, n.size, n.size} }

// Classes is the number of labels.
func (n *ClassifierNet) Classes() int { return n.classes }

// Forward implements Model: x [N,3,S,S], t [N] (int64 or float32) → logits [N,K],
// and with y [N] gradient [N,3,S,S].
func (n *ClassifierNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	if _, labelled := in["y"]; !labelled {
		return n.logits.Run(ctx, FloatTimesteps(in))
	}
	return n.Run(ctx, FloatTimesteps(in))
}

// Gradient implements sampling.Classifier.
func (n *ClassifierNet) Gradient(ctx context.Context, x tensor.Tensor, t sampling.Timestep, y []int64) (tensor.Tensor, error) {
	if err := CheckLabels(y, x.Rows(), n.classes); err != nil {
		return tensor.Tensor{}, err
	}
	in := DenoiserInputs(x, t)
	in["y"] = ort.Array{Shape: []int{x.Rows()}, Data: y}
	out, err := n.Run(ctx, in)
	if err != nil {
		return tensor.Tensor{}, err
	}
	return out["gradient"].Tensor(), nil
}

// hint names the flags that a checkpoint's shapes speak against.
func (c *Classifier) hint(sd checkpoint.StateDict) string {
	u, err := c.network()
	g, ok := guessClassifier(sd)
	if !ok || err != nil {
		return cmp.Or(ownKind(sd), "its keys are not those of guided-diffusion's EncoderUNetModel (input_blocks and middle_block without output_blocks)")
	}
	d := u.differences(g.unet)
	d.add("classifier_pool", c.Pool, g.Pool)
	d.add("num_classes", c.NumClasses, g.NumClasses)
	if c.Pool == g.Pool && g.side > 0 {
		d.add("image_size", c.ImageSize, g.side<<(len(g.unet.widths)-1))
	}
	return classifierFlags.Replace(d.hint())
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
	u := startUNet(sd)
	decoder := slices.ContainsFunc(sd.Names(), func(key string) bool { return strings.HasPrefix(key, "output_blocks.") })
	if u.base == 0 || sd.Dim("input_blocks.0.0.weight", 0) == 0 || sd.Dim("middle_block.0.in_layers.2.weight", 0) == 0 || decoder {
		return nil, false
	}
	if !u.countEncoder(sd) {
		return nil, false
	}
	g = &classifierGuess{Classifier: *NewClassifier(), unet: u}
	g.Width, g.Depth, g.UseScaleShiftNorm, g.ResblockUpdown = u.base, u.blocks, u.scaleShift, u.updown
	g.ChannelMult = u.channelMult()
	switch tokens := sd.Dim("out.2.positional_embedding", 1); {
	case tokens > 1:
		g.Pool, g.NumClasses = "attention", sd.Dim("out.2.c_proj.weight", 0)
		for g.side*g.side < tokens-1 {
			g.side++
		}
	case sd.Dim("out.3.weight", 2) == 1:
		g.Pool, g.NumClasses = "adaptive", sd.Dim("out.3.weight", 0)
	case sd.Dim("out.3.weight", 1) == spatialWidth:
		g.Pool, g.NumClasses = "spatial_v2", sd.Dim("out.3.weight", 0)
	default:
		g.Pool, g.NumClasses = "spatial", sd.Dim("out.2.weight", 0)
	}
	return g, true
}

// countEncoder finds the levels of the encoder among its blocks. Every level has
// num_res_blocks of them and all but the last another that halves the image,
// which has no attention and as many channels as the one before. Among the ways
// to cut the blocks so, that with the most levels is taken.
func (u *unet) countEncoder(sd checkpoint.StateDict) bool {
	type block struct {
		width           int
		attends, halves bool
	}
	blocks := []block{}
	for i := 1; ; i++ {
		key := fmt.Sprintf("input_blocks.%d", i)
		b := block{sd.Dim(key+".0.out_layers.3.weight", 0), sd.Dim(key+".1.qkv.weight", 0) > 0, false}
		if conv := sd.Dim(key+".0.op.weight", 0); conv > 0 {
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
	size := g.unet.guessSize()
	if g.side > 0 {
		g.unet.size = g.side << (levels - 1)
		size = NewFlag("image_size", g.unet.size)
	}
	attention := NewFlag("classifier_attention_resolutions", g.unet.resolutions(), g.unet.resolutionsNote(size))
	g.NumHeadChannels = 64 // of every published classifier
	for _, ch := range g.unet.attending() {
		for ch%g.NumHeadChannels != 0 {
			g.NumHeadChannels--
		}
	}
	var grey []Flag
	if g.unet.channels != 3 {
		grey = []Flag{NewFlag("in_channels", g.unet.channels)}
	}
	return Guess{
		Evidence: "time_embed, input_blocks and middle_block without output_blocks: guided-diffusion's EncoderUNetModel",
		Flags: append([]Flag{
			size, NewFlag("classifier_width", g.Width), NewFlag("classifier_depth", g.Depth), NewFlag("channel_mult", g.ChannelMult), attention,
			NewFlag("classifier_use_scale_shift_norm", g.UseScaleShiftNorm), NewFlag("classifier_resblock_updown", g.ResblockUpdown), NewFlag("classifier_pool", g.Pool),
			NewFlag("num_head_channels", g.NumHeadChannels, Assumed), NewFlag("num_classes", g.NumClasses),
		}, grey...),
		Mismatches: Mismatches(sd, ofClassifier(g.unet.check()), func(m *onnx.Module) { g.forward(m, g.unet) }),
	}, true
}
