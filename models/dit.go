package models

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// DiT is the transformer of "Scalable Diffusion Models with Transformers" (arXiv
// 2212.09748), facebookresearch/DiT models.py DiT, over the latents of an
// autoencoder, with the diffusion of its diffusion/__init__.py create_diffusion.
type DiT struct {
	Model            string  `yaml:"model" doc:"published size, such as DiT-XL/2: sets hidden_size, depth, num_heads and patch_size"`
	InputSize        int     `yaml:"input_size" min:"1" max:"4096" doc:"height and width of the latent: that of the image over 8"`
	PatchSize        int     `yaml:"patch_size" min:"0" max:"4096" doc:"height and width of a token; 0 = of the model, or 2"`
	InChannels       int     `yaml:"in_channels" min:"1" max:"1024" doc:"channels of the latent"`
	HiddenSize       int     `yaml:"hidden_size" min:"0" max:"65536" doc:"width of the transformer; 0 = of the model, or 1152"`
	Depth            int     `yaml:"depth" min:"0" max:"1024" doc:"blocks, at most 1024; 0 = of the model, or 28"`
	NumHeads         int     `yaml:"num_heads" min:"0" max:"1024" doc:"attention heads of a block; 0 = of the model, or 16"`
	MLPRatio         float64 `yaml:"mlp_ratio" min:"0" max:"1024" doc:"width of a block's MLP over hidden_size"`
	ClassDropoutProb float64 `yaml:"class_dropout_prob" min:"0" max:"1" doc:"of training; above 0 the network has a null class, which cfg needs"`
	NumClasses       int     `yaml:"num_classes" min:"1" max:"1000000" doc:"number of labels, without the null class"`
	LearnSigma       bool    `yaml:"learn_sigma" doc:"the network predicts the variance as well"`

	sampling.ScheduleConfig `yaml:",inline"`
	PredictXStart           bool `yaml:"predict_xstart" doc:"the network predicts x_0 instead of ε"`
	UseKL                   bool `yaml:"use_kl" doc:"of training; no effect here"`
	RescaleLearnedSigmas    bool `yaml:"rescale_learned_sigmas" doc:"of training; no effect here"`

	VAE              sampling.Ref `yaml:"vae" type:"path, or block" doc:"autoencoder that decodes the latents: the path of its folder, or a model block; without one, no images can be drawn"`
	VAEScalingFactor float64      `yaml:"vae_scaling_factor" min:"-1000000" max:"1000000" doc:"what x_0 is divided by before it is decoded"`
}

// NewDiT is DiT with its authors' defaults, for 256×256 pixels.
func NewDiT() *DiT {
	return &DiT{
		InputSize: 32, InChannels: 4, MLPRatio: 4, ClassDropoutProb: 0.1, NumClasses: 1000, LearnSigma: true,
		ScheduleConfig: sampling.DefaultSchedule(), VAE: sampling.Ref{Family: "vae"}, VAEScalingFactor: 0.18215,
	}
}

// IdleFlags are the flags that change no pixel: what model stands for is in the
// other flags, and the autoencoder counts by its content.
func (*DiT) IdleFlags() []string {
	return []string{"model", "use_kl", "rescale_learned_sigmas", "vae"}
}

// Notes implements Noter.
func (c *DiT) Notes(string, []string, Options) ([]string, error) {
	return idleNotes(TrainingFlags{UseKL: c.UseKL, RescaleLearnedSigmas: c.RescaleLearnedSigmas}, TrainingFlags{}), nil
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
	if p := c.VAE.Precision; p != "" && p != ort.Float32 {
		errs = append(errs, fmt.Errorf("vae: precision is %s, but the autoencoder computes in float32", p))
	}
	if f := c.VAEScalingFactor; !(f > 0 || f < 0) {
		errs = append(errs, fmt.Errorf("vae_scaling_factor is %g, expected a number that latents can be divided by, such as 0.18215", f))
	}
	return errors.Join(append(errs, c.check())...)
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
	vae, err := openVAE(&c.VAE, c.InChannels, "in_channels", opt)
	if err != nil {
		return nil, err
	}
	n, err := openNetwork(path, opt, c.rows(), c.build, c.hint)
	if err != nil {
		if vae != nil {
			vae.Close()
		}
		return nil, err
	}
	return &ditNet{n, c, vae}, nil
}

// Parameters lists the parameters of the network by key with their shapes.
func (c *DiT) Parameters() (map[string][]int, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("models: dit: %w", err)
	}
	return onnx.Parameters(untapped(c.build))
}

// Size implements WithParameters.
func (c *DiT) Size() (Size, error) {
	if err := c.Validate(); err != nil {
		return Size{}, fmt.Errorf("models: dit: %w", err)
	}
	return onnx.Measure(untapped(c.build))
}

// Measure implements Measured: with the autoencoder.
func (c *DiT) Measure(string, int, int) (Size, error) {
	s, err := c.Size()
	vae, ok := c.VAE.Flags.(Measured)
	if err != nil || !ok {
		return s, err
	}
	v, err := vae.Measure(c.VAE.Checkpoint.Path, c.InputSize, c.InputSize)
	return Size{Nodes: s.Nodes + v.Nodes, Parameters: s.Parameters + v.Parameters, Activation: s.Activation, Alone: v.Alone}, err
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

// build is DiT.forward: x [N,C,S,S], t [N], y [N] → model [N,C or 2C,S,S]. In half
// precision, which the official code has not, the blocks are.
func (c *DiT) build(m *onnx.Module, t *Taps) error {
	x := m.Input("x", checkpoint.F32, onnx.Batch, c.InChannels, c.InputSize, c.InputSize)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	y := m.Input("y", checkpoint.I64, onnx.Batch)
	d, grid := c.HiddenSize, c.InputSize/c.PatchSize

	h := PixelsToTokens(m, m.In("x_embedder.proj").Conv2D(x, d, c.PatchSize, c.PatchSize, 0)) // [N, T, D]
	h = m.Add(h, m.Param("pos_embed", 1, grid*grid, d))
	mlp := m.In("t_embedder.mlp")
	emb := mlp.In("0").Linear(m.TimestepEmbedding(steps, 256, 10000), d)
	emb = mlp.In("2").Linear(m.SiLU(emb), d)
	emb = m.Add(emb, m.In("y_embedder.embedding_table").Embedding(y, c.rows(), d)) // [N, D]

	cond := m.SiLU(emb) // of every adaLN_modulation
	for i := range c.Depth {
		h = c.block(m.In("blocks.%d", i).Half(), h, cond, t)
	}
	f := m.In("final_layer")
	s := adaLN(f, cond, d, 2) // shift, scale
	h = modulate(m, h, s[0], s[1])
	h = f.In("linear").Linear(h, c.PatchSize*c.PatchSize*c.outChannels()) // [N, T, p·p·C]
	m.Output("model", c.unpatchify(m, h, grid))
	return t.Output(m)
}

// block is DiTBlock with adaLN-Zero: in [N,T,D], cond [N,D] → [N,T,D].
func (c *DiT) block(m *onnx.Module, in, cond onnx.Value, t *Taps) onnx.Value {
	s := adaLN(m, cond, c.HiddenSize, 6) // shift, scale and gate of the attention, then of the MLP
	h := m.Add(in, m.Mul(s[2], c.attention(m.In("attn"), modulate(m, in, s[0], s[1]), t)))
	mlp := m.In("mlp").In("fc1").Linear(modulate(m, h, s[3], s[4]), int(float64(c.HiddenSize)*c.MLPRatio))
	mlp = m.In("mlp").In("fc2").Linear(m.TanhGELU(mlp), c.HiddenSize)
	return t.Skippable(m, in, m.Add(h, m.Mul(s[5], mlp)))
}

// attention is timm's vision_transformer.py Attention: h [N,T,D] → [N,T,D].
func (c *DiT) attention(m *onnx.Module, h onnx.Value, t *Taps) onnx.Value {
	qkv := m.In("qkv").Linear(h, 3*c.HiddenSize)
	s := m.Split(qkv, 2, 3)
	grid := c.InputSize / c.PatchSize
	t.mass(m, c.NumHeads, grid, grid, newOrder, onnx.Value{}, func() onnx.Value { return m.Transpose(qkv, 0, 2, 1) })
	return m.In("proj").Linear(t.Attention(m, s[0], s[1], s[2], c.NumHeads, grid, grid), c.HiddenSize)
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

// A ditNet is a prepared DiT with its autoencoder.
type ditNet struct {
	network
	flags *DiT
	vae   Decoder // nil without one
}

var (
	_ LatentGenerator = (*ditNet)(nil)
	_ Unconditional   = (*ditNet)(nil)
	_ Composite       = (*DiT)(nil)
)

// ImageSides implements WithImageSide: with the autoencoder of Stable Diffusion.
func (c *DiT) ImageSides(string) (height, width int) { return 8 * c.InputSize, 8 * c.InputSize }

// Parts implements Composite.
func (c *DiT) Parts() []Part { return vaeParts(&c.VAE) }

// Files implements FileLister: the checkpoint, and the autoencoder's files.
func (c *DiT) Files(path string) ([]string, error) { return vaeFiles(path, &c.VAE) }

// vaeParts is the autoencoder that flags name, if they do.
func vaeParts(vae *sampling.Ref) []Part {
	if vae.IsZero() {
		return nil
	}
	return []Part{{File: vae.Checkpoint, Kind: "checkpoint", Weights: vae.Weights}}
}

// vaeFiles is the checkpoint at path, and the files of the autoencoder.
func vaeFiles(path string, vae *sampling.Ref) ([]string, error) {
	files := []string{path}
	if vae.IsZero() {
		return files, nil
	}
	folder, err := vae.Checkpoint.Find()
	if err != nil {
		return nil, err
	}
	parts, err := Files(vae.Flags.(Family), folder)
	return append(files, parts...), err
}

// openVAE is the autoencoder of latents with so many channels, as a flag says; nil
// where the flags name none.
func openVAE(vae *sampling.Ref, channels int, flag string, opt Options) (Decoder, error) {
	if vae.IsZero() {
		return nil, nil
	}
	opt.Taps, opt.Perturbations = nil, nil
	m, err := Open(vae, opt)
	if err != nil {
		return nil, err
	}
	d, ok := m.(Decoder)
	switch {
	case !ok:
		err = vae.Errorf("family %s decodes no latents; expected an autoencoder, such as family vae", vae.Family)
	case d.LatentChannels() != channels:
		err = vae.Errorf("the autoencoder's latents have %d channels, %s is %d", d.LatentChannels(), flag, channels)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return d, nil
}

// Close implements Model.
func (n *ditNet) Close() {
	n.network.Close()
	if n.vae != nil {
		n.vae.Close()
	}
}

// Process implements Generator: latents are not clipped.
func (n *ditNet) Process() Process {
	p := processOf(n.flags.ScheduleConfig, n.flags.PredictXStart)
	p.ClipDenoised = false
	return p
}

// SampleShape implements Generator.
func (n *ditNet) SampleShape() []int {
	return []int{n.flags.InChannels, n.flags.InputSize, n.flags.InputSize}
}

// Call implements Callable.
func (n *ditNet) Call(images int, t sampling.Timestep, c sampling.Cond) (*Call, error) {
	return n.call(images, t, c)
}

// Classes implements Generator; the null class is not counted.
func (n *ditNet) Classes() int { return n.flags.NumClasses }

// Null implements Unconditional: the class after the last.
func (n *ditNet) Null(_ context.Context, images int) (sampling.Cond, error) {
	if n.flags.ClassDropoutProb <= 0 {
		return sampling.Cond{}, nil
	}
	c := sampling.Cond{Labels: make([]int64, images)}
	for i := range c.Labels {
		c.Labels[i] = int64(n.flags.NumClasses)
	}
	return c, nil
}

// Lacks implements Incomplete.
func (n *ditNet) Lacks() error {
	if n.vae == nil {
		return errors.New("models: the flags name no vae: give the folder of the autoencoder that decodes the latents, such as sd-vae-ft-ema")
	}
	return nil
}

// Decode implements LatentGenerator: the autoencoder's image of x/0.18215.
func (n *ditNet) Decode(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error) {
	if err := n.Lacks(); err != nil {
		return tensor.Tensor{}, err
	}
	z, scale := x.Like(), float32(n.flags.VAEScalingFactor)
	for i, v := range x.Data {
		z.Data[i] = v / scale
	}
	return n.vae.Decode(ctx, z)
}

// Pixels implements Generator: 127.5·x + 128 clamped to [0,255] and truncated, as
// DiT's sample_ddp.py does.
func (n *ditNet) Pixels(ctx context.Context, x tensor.Tensor) (Images, error) {
	decoded, err := n.Decode(ctx, x)
	if err != nil {
		return Images{}, err
	}
	return ditPixels(decoded, n.flags.VAE.Checkpoint.Path)
}

func ditPixels(x tensor.Tensor, network string) (Images, error) {
	return ImagesOf(x, func(v float32) float32 { return float32(127.5*v) + 128 }, network)
}

// hint compares the flags with what the shapes of a checkpoint suggest, and
// names those that differ.
func (c *DiT) hint(sd checkpoint.StateDict) string {
	g, ok := guessDiT(sd)
	if !ok {
		return cmp.Or(ownKind(sd), "its keys are not those of a DiT (no x_embedder.proj.weight, pos_embed or final_layer.linear.weight)")
	}
	var d differences
	if name := g.published(); name != "" && c.Model != "" {
		d.add("model", strconv.Quote(c.Model), strconv.Quote(name))
	}
	if len(d) == 0 {
		d.add("hidden_size", c.HiddenSize, g.HiddenSize)
		d.add("depth", c.Depth, g.Depth)
		d.add("patch_size", c.PatchSize, g.PatchSize)
	}
	d.add("input_size", c.InputSize, g.InputSize)
	d.add("in_channels", c.InChannels, g.InChannels)
	d.add("learn_sigma", c.LearnSigma, g.LearnSigma)
	d.add("mlp_ratio", c.MLPRatio, g.MLPRatio)
	if c.rows() != g.rows() {
		d = append(d, fmt.Sprintf("a label table of %d rows (not %d): num_classes %d and the null class, or %[1]d with class_dropout_prob 0", g.rows(), c.rows(), g.NumClasses))
	}
	return d.hint()
}

// guessDiT reads the flags of a DiT off its shapes; ok is false when the keys
// are not those of one. num_heads leaves no trace in the shapes; it is that of
// the published width, or 1. The label table is taken to have a null class.
func guessDiT(sd checkpoint.StateDict) (c *DiT, ok bool) {
	shape := func(key string, rank int) []int {
		t, has := sd[key]
		if ok = ok && has && len(t.Shape) == rank; !ok {
			return make([]int, rank)
		}
		return t.Shape
	}
	ok = true
	patch, pos := shape("x_embedder.proj.weight", 4), shape("pos_embed", 3)
	out, labels := shape("final_layer.linear.weight", 2), shape("y_embedder.embedding_table.weight", 2)
	fc1 := shape("blocks.0.mlp.fc1.weight", 2)
	if !ok || patch[0] == 0 || patch[2] == 0 {
		return nil, false
	}
	c = NewDiT()
	c.HiddenSize, c.InChannels, c.PatchSize, c.NumHeads = patch[0], patch[1], patch[2], 1
	c.InputSize = c.PatchSize * int(math.Round(math.Sqrt(float64(pos[1]))))
	c.NumClasses = labels[0] - 1
	c.LearnSigma = out[0] == 2*c.InChannels*c.PatchSize*c.PatchSize
	c.MLPRatio = float64(fc1[0]) / float64(c.HiddenSize)
	if int(c.MLPRatio*float64(c.HiddenSize)) < fc1[0] { // the product is cut, and the quotient was rounded
		c.MLPRatio = math.Nextafter(c.MLPRatio, math.Inf(1))
	}
	c.Depth = sd.Count("blocks.%d.attn.qkv.weight")
	for _, s := range ditSizes {
		if s.hidden == c.HiddenSize {
			c.NumHeads = s.heads
		}
	}
	return c, true
}

// published is the name of the size, "" where it is none of the table.
func (c *DiT) published() string {
	for name, s := range ditSizes {
		if s.depth == c.Depth && s.hidden == c.HiddenSize && s.patch == c.PatchSize {
			return name
		}
	}
	return ""
}

// Guess implements Guesser.
func (c *DiT) Guess(sd checkpoint.StateDict) (Guess, bool) {
	g, ok := guessDiT(sd)
	if !ok {
		return Guess{}, false
	}
	var flags []Flag
	if name := g.published(); name != "" {
		flags = []Flag{NewFlag("model", name)}
	} else {
		flags = []Flag{NewFlag("hidden_size", g.HiddenSize), NewFlag("depth", g.Depth), NewFlag("num_heads", g.NumHeads, Assumed), NewFlag("patch_size", g.PatchSize)}
	}
	guess := Guess{
		Evidence: "x_embedder, t_embedder, y_embedder, blocks.N.adaLN_modulation and final_layer of DiT",
		Flags: append(flags, NewFlag("input_size", g.InputSize), NewFlag("in_channels", g.InChannels), NewFlag("mlp_ratio", g.MLPRatio),
			NewFlag("num_classes", g.NumClasses, "and the null class"), NewFlag("learn_sigma", g.LearnSigma)),
		Needs: []string{"vae: FOLDER  # of the autoencoder that decodes the latents, such as sd-vae-ft-ema"},
	}
	guess.Mismatches = Mismatches(sd, g.Validate(), guess.tapped(g.build))
	return guess, true
}
