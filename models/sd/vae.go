package sd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// VAE is the autoencoder of latent diffusion (Rombach et al., arXiv
// 2112.10752), a diffusers vae/ folder (models/autoencoders/autoencoder_kl.py
// AutoencoderKL), whose config.json is the source of its dimensions, or one file in
// CompVis' layout, whose shapes are.
type VAE struct {
	Variant string `yaml:"variant" doc:"which weights of the folder: fp16 = diffusion_pytorch_model.fp16.safetensors; empty = those without a variant"`
}

// vaeConfig is the config.json of an AutoencoderKL.
type vaeConfig struct {
	InChannels           int      `json:"in_channels"`
	OutChannels          int      `json:"out_channels"`
	DownBlockTypes       []string `json:"down_block_types"`
	UpBlockTypes         []string `json:"up_block_types"`
	BlockOutChannels     []int    `json:"block_out_channels"`
	LayersPerBlock       int      `json:"layers_per_block"`
	ActFn                string   `json:"act_fn"`
	LatentChannels       int      `json:"latent_channels"`
	NormNumGroups        int      `json:"norm_num_groups"`
	ScalingFactor        float64  `json:"scaling_factor"`
	ShiftFactor          *float64 `json:"shift_factor"`
	UseQuantConv         bool     `json:"use_quant_conv"`
	UsePostQuantConv     bool     `json:"use_post_quant_conv"`
	MidBlockAddAttention bool     `json:"mid_block_add_attention"`
}

var vaeFormat = configFormat{
	class: "AutoencoderKL", stems: diffusersStems, untapped: "an autoencoder",
	key: "_class_name", is: "AutoencoderKL", unsupported: "%q is not supported here; supported: %s",
	null:    []string{"latents_mean", "latents_std"},
	ignored: []string{"sample_size", "force_upcast"}, // all arithmetic is float32 anyway, and latents may have any size
}

func (*vaeConfig) format() *configFormat { return &vaeFormat }

func newVAEConfig() *vaeConfig {
	return &vaeConfig{
		InChannels: 3, OutChannels: 3, DownBlockTypes: []string{"DownEncoderBlock2D"}, UpBlockTypes: []string{"UpDecoderBlock2D"},
		BlockOutChannels: []int{64}, LayersPerBlock: 1, ActFn: "silu", LatentChannels: 4, NormNumGroups: 32, ScalingFactor: 0.18215,
		UseQuantConv: true, UsePostQuantConv: true, MidBlockAddAttention: true,
	}
}

// Validate implements componentConfig.
func (c *vaeConfig) Validate() error {
	errs := []error{
		only("down_block_types", c.DownBlockTypes, "DownEncoderBlock2D"),
		only("up_block_types", c.UpBlockTypes, "UpDecoderBlock2D"),
		oneOf("act_fn", c.ActFn, "silu", "swish"),
		checkWidths(c.BlockOutChannels, c.NormNumGroups, len(c.DownBlockTypes), len(c.UpBlockTypes)),
		check(quantity{"in_channels", c.InChannels, maxWidth}, quantity{"out_channels", c.OutChannels, maxWidth},
			quantity{"latent_channels", c.LatentChannels, maxWidth}, quantity{"layers_per_block", c.LayersPerBlock, maxLayers}),
	}
	if c.ScalingFactor == 0 {
		errs = append(errs, errors.New("scaling_factor is 0; latents are divided by it"))
	}
	return errors.Join(errs...)
}

// checkWidths checks block_out_channels against the lists of blocks and the
// groups of the norms.
func checkWidths(widths []int, groups, downs, ups int) error {
	var errs []error
	if len(widths) > maxBlocks {
		return fmt.Errorf("block_out_channels has %d numbers, expected at most %d", len(widths), maxBlocks)
	}
	if len(widths) == 0 || len(widths) != downs || len(widths) != ups {
		errs = append(errs, fmt.Errorf("block_out_channels has %d numbers, down_block_types %d and up_block_types %d; expected as many of each", len(widths), downs, ups))
	}
	if groups < 1 || groups > maxWidth {
		return errors.Join(append(errs, fmt.Errorf("norm_num_groups is %d, expected 1 to %d", groups, maxWidth))...)
	}
	for i, w := range widths {
		if w < 1 || w > maxWidth || w%groups != 0 {
			errs = append(errs, fmt.Errorf("block_out_channels: block %d has %d channels, expected 1 to %d, a multiple of norm_num_groups %d", i, w, maxWidth, groups))
		}
	}
	return errors.Join(errs...)
}

// factor is how many pixels a latent is wide and high.
func (c *vaeConfig) factor() int { return 1 << (len(c.BlockOutChannels) - 1) }

// decoder is AutoencoderKL._decode: z [N,latent,h,w] → [N,out,f·h,f·w].
func (c *vaeConfig) decoder(m *onnx.Module, z onnx.Value) onnx.Value {
	if c.UsePostQuantConv {
		z = m.In("post_quant_conv").Conv2D(z, c.LatentChannels, 1, 1, 0)
	}
	m = m.In("decoder")
	widths := slices.Clone(c.BlockOutChannels)
	slices.Reverse(widths)
	h := m.In("conv_in").Conv2D(z, widths[0], 3, 1, 1)
	h = c.middle(m.In("mid_block"), h)
	for i, width := range widths {
		b := m.In("up_blocks.%d", i)
		for j := range c.LayersPerBlock + 1 {
			h = c.resnet(b.In("resnets.%d", j), h, width)
		}
		if i < len(widths)-1 {
			h = b.In("upsamplers.0.conv").Conv2D(m.UpsampleNearest(h), width, 3, 1, 1)
		}
	}
	h = m.SiLU(m.In("conv_norm_out").GroupNormEps(h, c.NormNumGroups, vaeEps))
	return m.In("conv_out").Conv2D(h, c.OutChannels, 3, 1, 1)
}

// encoder is AutoencoderKL._encode: x [N,in,H,W] → mean and log variance of the
// latents, [N,2·latent,H/f,W/f].
func (c *vaeConfig) encoder(m *onnx.Module, x onnx.Value) onnx.Value {
	e := m.In("encoder")
	h := e.In("conv_in").Conv2D(x, c.BlockOutChannels[0], 3, 1, 1)
	for i, width := range c.BlockOutChannels {
		b := e.In("down_blocks.%d", i)
		for j := range c.LayersPerBlock {
			h = c.resnet(b.In("resnets.%d", j), h, width)
		}
		if i < len(c.BlockOutChannels)-1 {
			// Downsample2D with padding 0: a row and a column of zeros come after the image only.
			h = b.In("downsamplers.0.conv").Conv(h, onnx.Conv{Out: width, Kernel: [2]int{3, 3}, Stride: 2, After: [2]int{1, 1}})
		}
	}
	h = c.middle(e.In("mid_block"), h)
	h = e.SiLU(e.In("conv_norm_out").GroupNormEps(h, c.NormNumGroups, vaeEps))
	h = e.In("conv_out").Conv2D(h, 2*c.LatentChannels, 3, 1, 1)
	if c.UseQuantConv {
		h = m.In("quant_conv").Conv2D(h, 2*c.LatentChannels, 1, 1, 0)
	}
	return h
}

// vaeEps is the eps of every GroupNorm of the autoencoder.
const vaeEps = 1e-6

func (c *vaeConfig) resnet(m *onnx.Module, x onnx.Value, out int) onnx.Value {
	return resnet2D(m, x, onnx.Value{}, out, c.NormNumGroups, vaeEps)
}

// middle is unet_2d_blocks.py UNetMidBlock2D.
func (c *vaeConfig) middle(m *onnx.Module, h onnx.Value) onnx.Value {
	width := h.Dim(1)
	h = c.resnet(m.In("resnets.0"), h, width)
	if c.MidBlockAddAttention {
		h = c.attention(m.In("attentions.0"), h)
	}
	return c.resnet(m.In("resnets.1"), h, width)
}

// attention is one head over all positions. Its projections were called query,
// key, value and proj_attn in the files of SD 1.x.
func (c *vaeConfig) attention(m *onnx.Module, x onnx.Value) onnx.Value {
	q, k, v, out := m.In("to_q"), m.In("to_k"), m.In("to_v"), m.In("to_out.0")
	if m.Has("query.weight") {
		q, k, v, out = m.In("query"), m.In("key"), m.In("value"), m.In("proj_attn")
	}
	width := x.Dim(1)
	h := models.PixelsToTokens(m, m.In("group_norm").GroupNormEps(x, c.NormNumGroups, vaeEps))
	h = out.Linear(m.Attention(q.Linear(h, width), k.Linear(h, width), v.Linear(h, width), 1), width)
	return m.Add(tokensToPixels(m, h, x.Dim(2), x.Dim(3)), x)
}

// size is the height and width of a network's input.
type size struct{ height, width int }

// sizeOf is the size of an array [N,C,H,W].
func sizeOf(name string, a ort.Array, channels int) (size, error) {
	if len(a.Shape) != 4 || a.Shape[1] != channels || a.Shape[2] < 1 || a.Shape[3] < 1 {
		return size{}, fmt.Errorf("models: %s has shape %v, expected [N,%d,H,W]", name, a.Shape, channels)
	}
	return size{a.Shape[2], a.Shape[3]}, nil
}

// Open implements Family.
func (c *VAE) Open(path string, opt models.Options) (models.Model, error) {
	if err := exact(path, opt); err != nil {
		return nil, err
	}
	return c.load(path, opt)
}

// exact refuses another precision than float32, which autoencoders and text encoders
// compute in whatever their denoiser does.
func exact(path string, opt models.Options) error {
	if p := opt.Precision; p != "" && p != ort.Float32 {
		return fmt.Errorf("models: %s: %s was asked for of a network that computes in float32 alone", path, p)
	}
	return nil
}

// load opens the autoencoder; graphs are made for the sizes that come.
func (c *VAE) load(path string, opt models.Options) (*vaeNet, error) {
	if isFile(path) {
		return c.loadFile(path, opt)
	}
	return loadPart(path, newVAEConfig(), c.Variant, newVAE, opt)
}

// isFile reports whether a path is that of a regular file.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// besideConfig is the path of the config.json that diffusers saves beside the
// weights at path, "" where there is none.
func besideConfig(path string) string {
	if config := filepath.Join(filepath.Dir(path), "config.json"); isFile(config) {
		return config
	}
	return ""
}

// loadFile opens an autoencoder that is one file: in CompVis' layout, alone or as
// a part of Stable Diffusion, whose dimensions its shapes tell, or that of a
// folder of diffusers, with its config.json where that lies beside it.
func (c *VAE) loadFile(path string, opt models.Options) (*vaeNet, error) {
	if len(opt.Taps) > 0 {
		return nil, fmt.Errorf("models: %s: layer %q: the attention maps of %s cannot be tapped", path, opt.Taps[0].Layer, vaeFormat.untapped)
	}
	if c.Variant != "" {
		return nil, fmt.Errorf("models: %s: variant %q: a single file has no variants", path, c.Variant)
	}
	w, err := fileWeights(path, opt.Weights)
	if err != nil {
		return nil, err
	}
	config, err := vaeOf(w)
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	n, err := newVAE(config, w, opt)
	if err != nil {
		w.Close()
	}
	return n, err
}

// vaeState is what is in the file of an autoencoder beside its weights.
var vaeState = regexp.MustCompile(`^(loss|model_ema)\.`)

// vaeOf leaves of the tensors of a file those of its autoencoder, under the names
// of diffusers, and says what it is.
func vaeOf(w *weights) (*vaeConfig, error) {
	prefix := ""
	if begins(w.tensors, ldmVAE) {
		prefix = ldmVAE
	}
	vae := checkpoint.StateDict{}
	for key, t := range w.tensors {
		if rest, ok := strings.CutPrefix(key, prefix); ok && !vaeState.MatchString(rest) {
			vae[rest] = t
		}
	}
	switch {
	case vae.Has("decoder.up_blocks.0.resnets.0.conv1.weight"):
		w.tensors = vae
		if besideConfig(w.path) != "" {
			c := newVAEConfig()
			return c, readConfig(filepath.Dir(w.path), c)
		}
	case vae.Has("decoder.up.0.block.0.norm1.weight"):
		w.names = map[string]string{}
		w.tensors = renamedVAE(prefix, vae, w.names)
	default:
		if what := models.Foreign(w.tensors); what != "" {
			return nil, errors.New(what)
		}
		return nil, fmt.Errorf("holds no autoencoder: no key is decoder.up.0.block.0.norm1.weight (of CompVis) or decoder.up_blocks.0.resnets.0.conv1.weight (of diffusers); its keys begin with %s", examples(w.tensors.Names()))
	}
	c := vaeConfigOf(w.tensors)
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("the shapes of the autoencoder make no sense: %w", err)
	}
	return c, nil
}

func newVAE(c *vaeConfig, w *weights, opt models.Options) (*vaeNet, error) {
	opt.Precision = "" // of the denoiser alone
	f := c.factor()
	encodes := begins(w.tensors, "encoder.") // some files are for decoding alone
	if _, err := onnx.Build(w.tensors, func(m *onnx.Module) {
		c.decoder(m, m.Input("z", checkpoint.F32, onnx.Batch, c.LatentChannels, 1, 1))
		if encodes {
			c.encoder(m, m.Input("image", checkpoint.F32, onnx.Batch, c.InChannels, f, f))
		} else {
			m.In("quant_conv").Ignore("weight", "bias")
		}
	}); err != nil {
		return nil, w.fault(err)
	}
	decode := func(m *onnx.Module, s size) error {
		m.Output("model", c.decoder(m, m.Input("z", checkpoint.F32, onnx.Batch, c.LatentChannels, s.height, s.width)))
		return nil
	}
	encode := func(m *onnx.Module, s size) error {
		m.Output("moments", c.encoder(m, m.Input("image", checkpoint.F32, onnx.Batch, c.InChannels, s.height, s.width)))
		return nil
	}
	n := &vaeNet{config: c, weights: w, decode: sessions(w, withPrefix(w.tensors, "decoder.", "post_quant_conv."), opt, decode)}
	if encodes {
		n.encode = sessions(w, withPrefix(w.tensors, "encoder.", "quant_conv."), opt, encode)
	}
	return n, nil
}

// withPrefix is the part of a state dict whose keys begin so.
func withPrefix(sd checkpoint.StateDict, prefixes ...string) checkpoint.StateDict {
	part := maps.Clone(sd)
	maps.DeleteFunc(part, func(key string, _ checkpoint.Tensor) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
	})
	return part
}

// begins reports whether a key of a state dict begins so.
func begins(sd checkpoint.StateDict, prefix string) bool { return len(withPrefix(sd, prefix)) > 0 }

// A vaeNet is an autoencoder with its weights at hand.
type vaeNet struct {
	config         *vaeConfig
	weights        *weights
	decode, encode *models.Sessions[size] // encode is nil where the file holds no encoder
}

var _ models.Model = (*vaeNet)(nil)

// LatentChannels is the number of channels of a latent.
func (n *vaeNet) LatentChannels() int { return n.config.LatentChannels }

// Close frees all sessions.
func (n *vaeNet) Close() {
	n.decode.Close()
	if n.encode != nil {
		n.encode.Close()
	}
	n.weights.Close()
}

// decodeArea bounds the pixels that are decoded at a time: the decoder's widest
// layers hold 2 KiB a pixel.
const decodeArea = 512 * 512

// Decode turns latents as the decoder takes them, [N,C,h,w] without the scaling
// factor, into images, [N,3,f·h,f·w], in [-1,1] but for overshoot.
func (n *vaeNet) Decode(ctx context.Context, z tensor.Tensor) (tensor.Tensor, error) {
	s, err := sizeOf("z", ort.Floats(z), n.config.LatentChannels)
	if err != nil {
		return tensor.Tensor{}, err
	}
	f := n.config.factor()
	out := tensor.New(z.Shape[0], n.config.OutChannels, f*s.height, f*s.width)
	batch := max(1, decodeArea/(f*s.height*f*s.width))
	for from := 0; from < z.Rows(); from += batch {
		to := min(from+batch, z.Rows())
		r, err := n.decode.Run(ctx, s, map[string]ort.Array{"z": ort.Floats(z.Slice(from, to))})
		if err != nil {
			return tensor.Tensor{}, err
		}
		copy(out.Slice(from, to).Data, r["model"].Tensor().Data)
	}
	return out, nil
}

// decodeScaled is Decode for latents as a diffusion model gives them:
// x/scaling_factor + shift_factor.
func (n *vaeNet) decodeScaled(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error) {
	scale, shift := float32(n.config.ScalingFactor), float32(0)
	if n.config.ShiftFactor != nil {
		shift = float32(*n.config.ShiftFactor)
	}
	z := x.Like()
	for i, v := range x.Data {
		z.Data[i] = v/scale + shift
	}
	return n.Decode(ctx, z)
}

// Encode is the distribution of an image's latents: x [N,3,H,W] in [-1,1] → mean
// and log variance, [N,2·C,H/f,W/f], before any scaling.
func (n *vaeNet) Encode(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error) {
	if n.encode == nil {
		return tensor.Tensor{}, fmt.Errorf("models: %s: holds a decoder and no encoder (no key begins with encoder.)", n.weights.path)
	}
	s, err := sizeOf("image", ort.Floats(x), n.config.InChannels)
	if err != nil {
		return tensor.Tensor{}, err
	}
	if f := n.config.factor(); s.height < f || s.width < f {
		return tensor.Tensor{}, fmt.Errorf("models: images of %d×%d pixels: the encoder needs at least %d×%d", s.height, s.width, f, f)
	}
	r, err := n.encode.Run(ctx, s, map[string]ort.Array{"image": ort.Floats(x)})
	if err != nil {
		return tensor.Tensor{}, err
	}
	return r["moments"].Tensor(), nil
}

// Forward implements Model: z or x [N,C,h,w] → model [N,3,H,W]; image
// [N,3,H,W] → moments [N,2·C,h,w].
func (n *vaeNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	out := map[string]ort.Array{}
	for name, a := range in {
		x, ok := a.Data.([]float32)
		if !ok {
			return nil, fmt.Errorf("models: %s holds %T, expected float32", name, a.Data)
		}
		var y tensor.Tensor
		var err error
		switch name {
		case "z", "x":
			y, err = n.Decode(ctx, tensor.Of(x, a.Shape...))
			out["model"] = ort.Floats(y)
		case "image":
			y, err = n.Encode(ctx, tensor.Of(x, a.Shape...))
			out["moments"] = ort.Floats(y)
		default:
			err = fmt.Errorf("models: an autoencoder takes z and image, not %s", name)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Files implements FileLister: config.json and the weights that it is opened with.
func (c *VAE) Files(path string) ([]string, error) {
	if isFile(path) {
		if config := besideConfig(path); config != "" {
			return []string{config, path}, nil
		}
		return []string{path}, nil
	}
	return componentFiles(path, diffusersStems, c.Variant)
}
