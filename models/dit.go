package models

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
)

// DiT is the transformer of "Scalable Diffusion Models with Transformers" (arXiv
// 2212.09748), facebookresearch/DiT models.py DiT, over the latents of an
// autoencoder, with the diffusion of its diffusion/__init__.py create_diffusion.
type DiT struct {
	Model            string  `yaml:"model" doc:"published size, such as DiT-XL/2: sets hidden_size, depth, num_heads and patch_size"`
	InputSize        int     `yaml:"input_size" doc:"height and width of the latent: that of the image over 8"`
	PatchSize        int     `yaml:"patch_size" doc:"height and width of a token; 0 = of the model, or 2"`
	InChannels       int     `yaml:"in_channels" doc:"channels of the latent"`
	HiddenSize       int     `yaml:"hidden_size" doc:"width of the transformer; 0 = of the model, or 1152"`
	Depth            int     `yaml:"depth" doc:"blocks, at most 1024; 0 = of the model, or 28"`
	NumHeads         int     `yaml:"num_heads" doc:"attention heads of a block; 0 = of the model, or 16"`
	MLPRatio         float64 `yaml:"mlp_ratio" doc:"width of a block's MLP over hidden_size"`
	ClassDropoutProb float64 `yaml:"class_dropout_prob" doc:"of training; above 0 the network has a null class, which cfg needs"`
	NumClasses       int     `yaml:"num_classes" doc:"number of labels, without the null class"`
	LearnSigma       bool    `yaml:"learn_sigma" doc:"the network predicts the variance as well"`

	sampling.ScheduleConfig `yaml:",inline"`
	PredictXStart           bool `yaml:"predict_xstart" doc:"the network predicts x_0 instead of ε"`
	UseKL                   bool `yaml:"use_kl" doc:"of training; no effect here"`
	RescaleLearnedSigmas    bool `yaml:"rescale_learned_sigmas" doc:"of training; no effect here"`

	VAE              configs.Block `yaml:"vae" doc:"autoencoder that decodes the latents: the path of its folder, or a model block; without one, no images can be drawn"`
	VAEScalingFactor float64       `yaml:"vae_scaling_factor" doc:"what x_0 is divided by before it is decoded"`
}

func newDiT() *DiT {
	return &DiT{
		InputSize: 32, InChannels: 4, MLPRatio: 4, ClassDropoutProb: 0.1, NumClasses: 1000, LearnSigma: true,
		ScheduleConfig: sampling.DefaultSchedule(), VAEScalingFactor: 0.18215,
	}
}

// IdleFlags are the flags that change no pixel: what model stands for is in the
// other flags, and the autoencoder counts by its content.
func (*DiT) IdleFlags() []string {
	return []string{"model", "use_kl", "rescale_learned_sigmas", "vae"}
}

// A ditSize is a line of the paper's table 1 with a patch size.
type ditSize struct{ depth, hidden, heads, patch int }

// ditSizes is models.py DiT_models.
var ditSizes = map[string]ditSize{
	"DiT-XL/2": {28, 1152, 16, 2}, "DiT-XL/4": {28, 1152, 16, 4}, "DiT-XL/8": {28, 1152, 16, 8},
	"DiT-L/2": {24, 1024, 16, 2}, "DiT-L/4": {24, 1024, 16, 4}, "DiT-L/8": {24, 1024, 16, 8},
	"DiT-B/2": {12, 768, 12, 2}, "DiT-B/4": {12, 768, 12, 4}, "DiT-B/8": {12, 768, 12, 8},
	"DiT-S/2": {12, 384, 6, 2}, "DiT-S/4": {12, 384, 6, 4}, "DiT-S/8": {12, 384, 6, 8},
}

// ditDefault is the default of models.py DiT.
const ditDefault = "DiT-XL/2"

// Validate fills in the sizes that the model stands for, and tells everything
// that is wrong with the flags.
func (c *DiT) Validate() error {
	name := c.Model
	if name == "" {
		name = ditDefault
	}
	s, ok := ditSizes[name]
	if !ok {
		return fmt.Errorf("model %q is no published size; known: %s; others are described by hidden_size, depth, num_heads and patch_size", name, strings.Join(slices.Sorted(maps.Keys(ditSizes)), ", "))
	}
	var errs []error
	fill := func(flag string, to *int, of int) {
		if *to == 0 {
			*to = of
		} else if c.Model != "" && *to != of {
			errs = append(errs, fmt.Errorf("%s is %d, but that of model %s is %d; leave one of the two out", flag, *to, c.Model, of))
		}
	}
	fill("depth", &c.Depth, s.depth)
	fill("hidden_size", &c.HiddenSize, s.hidden)
	fill("num_heads", &c.NumHeads, s.heads)
	fill("patch_size", &c.PatchSize, s.patch)
	return errors.Join(append(errs, c.check(), c.checkVAE())...)
}

func (c *DiT) check() error {
	var errs []error
	for flag, n := range map[string]int{
		"depth": c.Depth, "hidden_size": c.HiddenSize, "num_heads": c.NumHeads, "patch_size": c.PatchSize,
		"input_size": c.InputSize, "in_channels": c.InChannels, "num_classes": c.NumClasses,
	} {
		if n < 1 || n > 1<<16 {
			errs = append(errs, fmt.Errorf("%s is %d, expected a number from 1 to %d", flag, n, 1<<16))
		}
	}
	if w := float64(c.HiddenSize) * c.MLPRatio; !(w >= 1 && w <= 1<<20) {
		errs = append(errs, fmt.Errorf("mlp_ratio is %g, which makes the MLP %g wide; expected 1 to %d", c.MLPRatio, w, 1<<20))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if c.Depth > 1<<10 {
		errs = append(errs, fmt.Errorf("depth is %d, expected at most %d", c.Depth, 1<<10))
	}
	if c.InputSize%c.PatchSize != 0 {
		errs = append(errs, fmt.Errorf("input_size %d is no multiple of patch_size %d", c.InputSize, c.PatchSize))
	}
	if c.HiddenSize%c.NumHeads != 0 {
		errs = append(errs, fmt.Errorf("num_heads %d does not divide hidden_size %d", c.NumHeads, c.HiddenSize))
	}
	return errors.Join(errs...)
}

// Open implements Family.
func (c *DiT) Open(path string, opt Options) (Model, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("models: dit: %w", err)
	}
	vae, err := c.openVAE(opt)
	if err != nil {
		return nil, err
	}
	g, err := openTapped(path, opt, c.build, c.hint)
	if err != nil {
		if vae != nil {
			vae.Close()
		}
		return nil, err
	}
	return &ditNet{network{graph: g, labels: c.rows(), tapped: len(opt.Taps) > 0, perturbations: opt.Perturbations}, c, vae}, nil
}

// Parameters lists the parameters of the network by key with their shapes.
func (c *DiT) Parameters() (map[string][]int, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("models: dit: %w", err)
	}
	return onnx.Parameters(func(m *onnx.Module) { c.build(m, newTaps(nil)) })
}

// Conditioning implements Conditional.
func (c *DiT) Conditioning() Conditioning {
	return Conditioning{Labels: true, Null: c.ClassDropoutProb > 0}
}

// rows is the length of the label table: the null class comes last.
func (c *DiT) rows() int {
	if c.ClassDropoutProb > 0 {
		return c.NumClasses + 1
	}
	return c.NumClasses
}

func (c *DiT) outChannels() int {
	if c.LearnSigma {
		return 2 * c.InChannels
	}
	return c.InChannels
}

// build is DiT.forward: x [N,C,S,S], t [N], y [N] → model [N,C or 2C,S,S].
func (c *DiT) build(m *onnx.Module, t *taps) error {
	x := m.Input("x", checkpoint.F32, onnx.Batch, c.InChannels, c.InputSize, c.InputSize)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	y := m.Input("y", checkpoint.I64, onnx.Batch)
	d, grid := c.HiddenSize, c.InputSize/c.PatchSize

	h := pixelsToTokens(m, m.In("x_embedder.proj").Conv2D(x, d, c.PatchSize, c.PatchSize, 0)) // [N, T, D]
	h = m.Add(h, m.Param("pos_embed", 1, grid*grid, d))
	mlp := m.In("t_embedder.mlp")
	emb := mlp.In("0").Linear(m.TimestepEmbedding(steps, 256, 10000), d)
	emb = mlp.In("2").Linear(m.SiLU(emb), d)
	emb = m.Add(emb, m.In("y_embedder.embedding_table").Embedding(y, c.rows(), d)) // [N, D]

	cond := m.SiLU(emb) // of every adaLN_modulation
	for i := range c.Depth {
		h = c.block(m.In("blocks.%d", i), h, cond, t)
	}
	f := m.In("final_layer")
	s := adaLN(f, cond, d, 2) // shift, scale
	h = modulate(m, h, s[0], s[1])
	h = f.In("linear").Linear(h, c.PatchSize*c.PatchSize*c.outChannels()) // [N, T, p·p·C]
	m.Output("model", c.unpatchify(m, h, grid))
	return t.output(m)
}

// block is DiTBlock with adaLN-Zero: in [N,T,D], cond [N,D] → [N,T,D].
func (c *DiT) block(m *onnx.Module, in, cond onnx.Value, t *taps) onnx.Value {
	s := adaLN(m, cond, c.HiddenSize, 6) // shift, scale and gate of the attention, then of the MLP
	h := m.Add(in, m.Mul(s[2], c.attention(m.In("attn"), modulate(m, in, s[0], s[1]), t)))
	mlp := m.In("mlp").In("fc1").Linear(modulate(m, h, s[3], s[4]), int(float64(c.HiddenSize)*c.MLPRatio))
	mlp = m.In("mlp").In("fc2").Linear(m.TanhGELU(mlp), c.HiddenSize)
	return t.skippable(m, in, m.Add(h, m.Mul(s[5], mlp)))
}

// attention is timm's vision_transformer.py Attention: h [N,T,D] → [N,T,D].
func (c *DiT) attention(m *onnx.Module, h onnx.Value, t *taps) onnx.Value {
	qkv := m.In("qkv").Linear(h, 3*c.HiddenSize)
	s := m.Split(qkv, 2, 3)
	t.mass(m, c.NumHeads, newOrder, onnx.Value{}, func() onnx.Value { return m.Transpose(qkv, 0, 2, 1) })
	grid := c.InputSize / c.PatchSize
	return m.In("proj").Linear(t.attention(m, s[0], s[1], s[2], c.NumHeads, size{grid, grid}), c.HiddenSize)
}

// adaLN is n vectors [N,1,D] of adaLN_modulation, whose SiLU cond has behind it.
func adaLN(m *onnx.Module, cond onnx.Value, d, n int) []onnx.Value {
	e := m.In("adaLN_modulation.1").Linear(cond, n*d)
	return m.Split(m.Reshape(e, e.Dim(0), n, d), 1, n)
}

// modulate is norm(h)·(1+scale)+shift with DiT's LayerNorm.
func modulate(m *onnx.Module, h, shift, scale onnx.Value) onnx.Value {
	return m.Add(m.Mul(m.LayerNormPlain(h, 1e-6), m.Add(scale, m.Scalar(1))), shift)
}

// unpatchify is h [N,T,p·p·C], the channel fastest, → [N,C,S,S].
func (c *DiT) unpatchify(m *onnx.Module, h onnx.Value, grid int) onnx.Value {
	p, out := c.PatchSize, c.outChannels()
	h = m.Reshape(h, h.Dim(0), grid, grid, p, p, out)
	return m.Reshape(m.Transpose(h, 0, 5, 1, 3, 2, 4), h.Dim(0), out, c.InputSize, c.InputSize)
}
