package sd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// DiT2D is DiT as diffusers has it (models/transformers/dit_transformer_2d.py
// DiTTransformer2DModel): the folder of a DiTPipeline, such as facebook/DiT-XL-2-256,
// with transformer, vae and scheduler. Its numbers are not those of the authors'
// code by a little: diffusers spaces the frequencies of the time otherwise, and has
// another eps in one LayerNorm.
type DiT2D struct {
	Variant string `yaml:"variant" doc:"which weights of the folder: fp16 = files such as diffusion_pytorch_model.fp16.safetensors; empty = those without a variant"`
}

// dit2DConfig is the config.json of a DiTTransformer2DModel.
type dit2DConfig struct {
	NumAttentionHeads int     `json:"num_attention_heads"`
	AttentionHeadDim  int     `json:"attention_head_dim"`
	InChannels        int     `json:"in_channels"`
	OutChannels       *int    `json:"out_channels"` // null = in_channels
	NumLayers         int     `json:"num_layers"`
	SampleSize        int     `json:"sample_size"`
	PatchSize         int     `json:"patch_size"`
	NumEmbedsAdaNorm  int     `json:"num_embeds_ada_norm"` // classes
	NormEps           float64 `json:"norm_eps"`
}

var dit2DFormat = configFormat{
	class: "DiTTransformer2DModel", stems: diffusersStems,
	key: "_class_name", is: "DiTTransformer2DModel", was: "Transformer2DModel", unsupported: "%q is not supported here; supported: %s",
	fixed: map[string]string{
		"activation_fn": "gelu-approximate", "norm_type": "ada_norm_zero", "attention_bias": "true", "norm_elementwise_affine": "false", "attention_type": "default",
	},
	ignored: []string{"dropout", "norm_num_groups", "upcast_attention"},
}

func (*dit2DConfig) format() *configFormat { return &dit2DFormat }

// newDiT2DConfig are DiTTransformer2DModel's defaults.
func newDiT2DConfig() *dit2DConfig {
	return &dit2DConfig{
		NumAttentionHeads: 16, AttentionHeadDim: 72, InChannels: 4, NumLayers: 28, SampleSize: 32, PatchSize: 2, NumEmbedsAdaNorm: 1000, NormEps: 1e-5,
	}
}

// outChannels are in_channels, or twice as many with a learned variance.
func (c *dit2DConfig) outChannels() int {
	if c.OutChannels == nil {
		return c.InChannels
	}
	return *c.OutChannels
}

func (c *dit2DConfig) width() int { return c.NumAttentionHeads * c.AttentionHeadDim }

// grid is how many tokens a latent is wide and high.
func (c *dit2DConfig) grid() int { return c.SampleSize / c.PatchSize }

// maxPositions bounds the numbers of the embeddings of all positions, which are
// computed: DiT-XL/2 has 295,000 for images of 256×256 pixels.
const maxPositions = 1 << 24

// Validate implements componentConfig.
func (c *dit2DConfig) Validate() error {
	err := check(quantity{"num_attention_heads", c.NumAttentionHeads, 1 << 10}, quantity{"attention_head_dim", c.AttentionHeadDim, 1 << 10},
		quantity{"in_channels", c.InChannels, 1 << 10}, quantity{"num_layers", c.NumLayers, 1 << 10}, quantity{"sample_size", c.SampleSize, 1 << 12},
		quantity{"patch_size", c.PatchSize, 1 << 10}, quantity{"num_embeds_ada_norm", c.NumEmbedsAdaNorm, 1 << 24})
	switch out := c.outChannels(); {
	case err != nil:
		return err
	case out != c.InChannels && out != 2*c.InChannels:
		return fmt.Errorf("out_channels is %d, expected in_channels %d, or twice as many with a learned variance", out, c.InChannels)
	case c.SampleSize%c.PatchSize != 0:
		return fmt.Errorf("sample_size is %d, expected a multiple of patch_size %d", c.SampleSize, c.PatchSize)
	case c.width()%4 != 0 || c.width() > maxWidth:
		return fmt.Errorf("num_attention_heads times attention_head_dim is %d, expected a multiple of 4 of at most %d", c.width(), maxWidth)
	case c.grid()*c.grid()*c.width() > maxPositions:
		return fmt.Errorf("sample_size %d over patch_size %d makes %d tokens of %d numbers, expected at most %d numbers in all", c.SampleSize, c.PatchSize, c.grid()*c.grid(), c.width(), maxPositions)
	}
	return nil
}

// build is DiTTransformer2DModel.forward: x [N,C,S,S], t [N], y [N] → model
// [N,C or 2C,S,S].
func (c *dit2DConfig) build(m *onnx.Module, t *models.Taps) error {
	x := m.Input("x", checkpoint.F32, onnx.Batch, c.InChannels, c.SampleSize, c.SampleSize)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	y := m.Input("y", checkpoint.I64, onnx.Batch)
	d, grid, p, out := c.width(), c.grid(), c.PatchSize, c.outChannels()

	h := models.PixelsToTokens(m, m.In("pos_embed.proj").Conv2D(x, d, p, p, 0)) // [N, T, D]
	h = m.Add(h, m.Const(positions2D(grid, d), 1, grid*grid, d))
	frequencies := m.Sinusoids(steps, 256, 10000, 1, false)
	var first onnx.Value // the condition of the first block is the output's as well
	for i := range c.NumLayers {
		b := m.In("transformer_blocks.%d", i)
		e := b.In("norm1.emb.timestep_embedder")
		emb := e.In("linear_2").Linear(m.SiLU(e.In("linear_1").Linear(frequencies, d)), d)
		emb = m.Add(emb, b.In("norm1.emb.class_embedder.embedding_table").Embedding(y, c.NumEmbedsAdaNorm+1, d)) // the null class comes last
		cond := m.SiLU(emb)
		if i == 0 {
			first = cond
		}
		h = c.block(b, h, cond, grid, t)
	}
	s := vectors(m.In("proj_out_1"), first, d, 2) // shift, scale
	h = modulated(m, h, s[0], s[1], 1e-6)
	h = m.In("proj_out_2").Linear(h, p*p*out)
	h = m.Reshape(h, h.Dim(0), grid, grid, p, p, out)
	m.Output("model", m.Reshape(m.Transpose(h, 0, 5, 1, 3, 2, 4), h.Dim(0), out, c.SampleSize, c.SampleSize))
	return t.Output(m)
}

// block is attention.py BasicTransformerBlock with ada_norm_zero: in [N,T,D], cond
// [N,D] → [N,T,D].
func (c *dit2DConfig) block(m *onnx.Module, in, cond onnx.Value, grid int, t *models.Taps) onnx.Value {
	d := c.width()
	s := vectors(m.In("norm1.linear"), cond, d, 6) // shift, scale and gate of the attention, then of the MLP
	x := modulated(m, in, s[0], s[1], 1e-6)
	a := m.In("attn1")
	q, k, v := a.In("to_q").Linear(x, d), a.In("to_k").Linear(x, d), a.In("to_v").Linear(x, d)
	t.Visit(a, c.NumAttentionHeads, grid, grid, func(tap sampling.Tap) onnx.Value { return tokenMass(a, q, k, tap, c.NumAttentionHeads, t) })
	x = a.In("to_out.0").Linear(t.Attention(a, q, k, v, c.NumAttentionHeads, grid, grid), d)
	h := m.Add(in, m.Mul(s[2], x))
	x = m.In("ff.net.0.proj").Linear(modulated(m, h, s[3], s[4], c.NormEps), 4*d)
	x = m.In("ff.net.2").Linear(m.TanhGELU(x), d)
	return t.Skippable(m, in, m.Add(h, m.Mul(s[5], x)))
}

// vectors are n vectors [N,1,D] that a linear layer makes of the condition.
func vectors(m *onnx.Module, cond onnx.Value, d, n int) []onnx.Value {
	e := m.Linear(cond, n*d)
	return m.Split(m.Reshape(e, e.Dim(0), n, d), 1, n)
}

// modulated is norm(h)·(1+scale)+shift.
func modulated(m *onnx.Module, h, shift, scale onnx.Value, eps float64) onnx.Value {
	return m.Add(m.Mul(m.LayerNormPlain(h, eps), m.Add(scale, m.Scalar(1))), shift)
}

// positions2D is embeddings.py get_2d_sincos_pos_embed for a grid of n×n: of each
// position D values, the sines and cosines of its column, then those of its row.
func positions2D(n, d int) []float32 {
	out := make([]float32, n*n*d)
	quarter := d / 4
	for i := range n * n {
		row := out[i*d : (i+1)*d]
		for half, at := range []int{i % n, i / n} {
			for j := range quarter {
				sin, cos := math.Sincos(float64(at) / math.Pow(10000, float64(j)/float64(quarter)))
				row[half*2*quarter+j], row[half*2*quarter+quarter+j] = float32(sin), float32(cos)
			}
		}
	}
	return out
}

var (
	_ models.Conditional     = (*DiT2D)(nil)
	_ models.FolderGuesser   = (*DiT2D)(nil)
	_ models.FileLister      = (*DiT2D)(nil)
	_ models.WithImageSide   = (*DiT2D)(nil)
	_ models.LatentGenerator = (*dit2DNet)(nil)
	_ models.Unconditional   = (*dit2DNet)(nil)
)

// Conditioning implements Conditional.
func (*DiT2D) Conditioning() models.Conditioning {
	return models.Conditioning{Labels: true, Null: true}
}

// IdleFlags are the flags that change no pixel: files count by their content.
func (*DiT2D) IdleFlags() []string { return []string{"variant"} }

// Files implements FileLister.
func (c *DiT2D) Files(path string) ([]string, error) {
	path, err := snapshot(path)
	if err != nil {
		return nil, err
	}
	network, errNetwork := componentFiles(filepath.Join(path, "transformer"), diffusersStems, c.Variant)
	vae, errVAE := componentFiles(filepath.Join(path, "vae"), diffusersStems, c.Variant)
	files := append(append(network, vae...), filepath.Join(path, "scheduler", "scheduler_config.json"))
	return files, errors.Join(errNetwork, errVAE)
}

// ImageSides implements WithImageSide.
func (c *DiT2D) ImageSides(path string) (height, width int) {
	network, vae := newDiT2DConfig(), newVAEConfig()
	path, err := snapshot(path)
	if err != nil || readConfig(filepath.Join(path, "transformer"), network) != nil || readConfig(filepath.Join(path, "vae"), vae) != nil {
		return 0, 0
	}
	side := network.SampleSize * vae.factor()
	return side, side
}

// ditPipeline is the pipeline whose network this is.
const ditPipeline = "DiTPipeline"

// GuessFolder implements FolderGuesser.
func (c *DiT2D) GuessFolder(path string) (models.Guess, bool) {
	path, err := snapshot(path)
	if err != nil || pipelineClass(path) != ditPipeline {
		return models.Guess{}, false
	}
	g, config := models.Guess{Evidence: "model_index.json of a DiTPipeline"}, newDiT2DConfig()
	if readConfig(filepath.Join(path, "transformer"), config) == nil {
		g.Attention = attentionOf(config.build)
	}
	return g, true
}

// Open implements Family.
func (c *DiT2D) Open(path string, opt models.Options) (models.Model, error) {
	if err := models.CheckTaps(opt.Taps); err != nil {
		return nil, fmt.Errorf("models: dit2d: %w", err)
	}
	path, err := snapshot(path)
	if err != nil {
		return nil, err
	}
	if class := pipelineClass(path); class != "" && class != ditPipeline {
		return nil, fmt.Errorf("models: %s is the folder of a %s; supported here: %s", path, class, ditPipeline)
	}
	n, err := loadPart(filepath.Join(path, "transformer"), newDiT2DConfig(), c.Variant, newDiT2D, opt)
	if err != nil {
		return nil, err
	}
	var errVAE, errScheduler error
	n.vae, errVAE = (&VAE{Variant: c.Variant}).load(filepath.Join(path, "vae"), models.Options{Options: opt.Options})
	n.scheduler, errScheduler = readScheduler(filepath.Join(path, "scheduler", "scheduler_config.json"))
	err = errors.Join(errVAE, errScheduler)
	if err == nil && n.vae.LatentChannels() != n.config.InChannels {
		err = fmt.Errorf("models: %s: the transformer has in_channels %d, the autoencoder %d latent_channels", path, n.config.InChannels, n.vae.LatentChannels())
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func newDiT2D(c *dit2DConfig, w *weights, opt models.Options) (*dit2DNet, error) {
	s, err := openFixed(w, opt, c.build)
	if err != nil {
		return nil, err
	}
	return &dit2DNet{fixedNet: fixedNet{s, w, len(opt.Taps) > 0, opt.Perturbations}, config: c}, nil
}

// A dit2DNet is a DiTTransformer2DModel with its autoencoder and process.
type dit2DNet struct {
	fixedNet
	config    *dit2DConfig
	vae       *vaeNet // nil until it is open
	scheduler *sampling.SchedulerConfig
}

// Close implements Model.
func (n *dit2DNet) Close() {
	n.fixedNet.Close()
	if n.vae != nil {
		n.vae.Close()
	}
}

// Denoise implements sampling.Denoiser.
func (n *dit2DNet) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	if err := models.CheckLabels(c.Labels, x.Rows(), n.config.NumEmbedsAdaNorm+1); err != nil {
		return sampling.Prediction{}, err
	}
	return n.denoise(ctx, x, t, c, ort.Array{Shape: []int{x.Rows()}, Data: c.Labels})
}

// Process implements Generator.
func (n *dit2DNet) Process() models.Process { return processOf(n.scheduler) }

// SampleShape implements Generator.
func (n *dit2DNet) SampleShape() []int {
	return []int{n.config.InChannels, n.config.SampleSize, n.config.SampleSize}
}

// Classes implements Generator; the null class is not counted.
func (n *dit2DNet) Classes() int { return n.config.NumEmbedsAdaNorm }

// Null implements Unconditional: the class after the last.
func (n *dit2DNet) Null(_ context.Context, images int) (sampling.Cond, error) {
	c := sampling.Cond{Labels: make([]int64, images)}
	for i := range c.Labels {
		c.Labels[i] = int64(n.config.NumEmbedsAdaNorm)
	}
	return c, nil
}

// Decode implements LatentGenerator.
func (n *dit2DNet) Decode(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error) {
	return n.vae.decodeScaled(ctx, x)
}

// Pixels implements Generator as Stable Diffusion does.
func (n *dit2DNet) Pixels(ctx context.Context, x tensor.Tensor) (models.Images, error) {
	decoded, err := n.Decode(ctx, x)
	if err != nil {
		return models.Images{}, err
	}
	return models.ImagesOf(decoded, sdLevel, n.vae.weights.path)
}
