package sd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// UNet2D is the unconditional U-Net over pixels of diffusers' DDPMPipeline and
// DDIMPipeline (models/unets/unet_2d.py UNet2DModel), such as google/ddpm-cifar10-32:
// a folder of the pipeline, whose config.json and scheduler_config.json are the
// source of all that is to be known. The parts lie in folders of their own, or as
// in the oldest pipelines beside model_index.json.
type UNet2D struct {
	Variant string `yaml:"variant" doc:"which weights of the folder: fp16 = diffusion_pytorch_model.fp16.safetensors; empty = those without a variant"`
}

// unet2DConfig is the config.json of a UNet2DModel.
type unet2DConfig struct {
	SampleSize        *oneOrMany `json:"sample_size"`
	InChannels        int        `json:"in_channels"`
	OutChannels       int        `json:"out_channels"`
	DownBlockTypes    []string   `json:"down_block_types"`
	UpBlockTypes      []string   `json:"up_block_types"`
	BlockOutChannels  []int      `json:"block_out_channels"`
	LayersPerBlock    int        `json:"layers_per_block"`
	DownsamplePadding int        `json:"downsample_padding"`
	AttentionHeadDim  *int       `json:"attention_head_dim"` // channels of a head; null = one head
	NormNumGroups     int        `json:"norm_num_groups"`
	AttnNormNumGroups *int       `json:"attn_norm_num_groups"` // of the middle block's attention; null = norm_num_groups
	NormEps           float64    `json:"norm_eps"`
	FreqShift         int        `json:"freq_shift"`
	FlipSinToCos      bool       `json:"flip_sin_to_cos"`
	AddAttention      bool       `json:"add_attention"` // in the middle block
}

var unet2DFormat = configFormat{
	class: "UNet2DModel", stems: diffusersStems,
	key: "_class_name", is: "UNet2DModel", unsupported: "%q is not supported here; supported: %s",
	fixed: map[string]string{
		"act_fn": "silu", "mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": "1", "center_input_sample": "false",
		"time_embedding_type": "positional", "resnet_time_scale_shift": "default", "downsample_type": "conv", "upsample_type": "conv",
	},
	null:    []string{"time_embedding_dim", "class_embed_type", "num_class_embeds", "num_train_timesteps"},
	ignored: []string{"dropout"},
}

func (*unet2DConfig) format() *configFormat { return &unet2DFormat }

// newUNet2DConfig are UNet2DModel's defaults.
func newUNet2DConfig() *unet2DConfig {
	down, up, heads := "AttnDownBlock2D", "AttnUpBlock2D", 8
	return &unet2DConfig{
		InChannels: 3, OutChannels: 3, DownBlockTypes: []string{"DownBlock2D", down, down, down}, UpBlockTypes: []string{up, up, up, "UpBlock2D"},
		BlockOutChannels: []int{224, 448, 672, 896}, LayersPerBlock: 2, DownsamplePadding: 1, AttentionHeadDim: &heads,
		NormNumGroups: 32, NormEps: 1e-5, FlipSinToCos: true, AddAttention: true,
	}
}

// Validate implements componentConfig.
func (c *unet2DConfig) Validate() error {
	n := len(c.BlockOutChannels)
	errs := []error{
		only("down_block_types", c.DownBlockTypes, "DownBlock2D", "AttnDownBlock2D"),
		only("up_block_types", c.UpBlockTypes, "UpBlock2D", "AttnUpBlock2D"),
		checkWidths(c.BlockOutChannels, c.NormNumGroups, len(c.DownBlockTypes), len(c.UpBlockTypes)),
		check(quantity{"layers_per_block", c.LayersPerBlock, maxLayers}, quantity{"in_channels", c.InChannels, maxWidth}),
	}
	fault := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.InChannels != 1 && c.InChannels != 3, "in_channels is %d; images have 3 channels, or 1 where they are grey", c.InChannels)
	fault(c.OutChannels != c.InChannels && c.OutChannels != 2*c.InChannels, "out_channels is %d, expected in_channels %d, or twice as many with a learned variance", c.OutChannels, c.InChannels)
	fault(c.DownsamplePadding != 0 && c.DownsamplePadding != 1, "downsample_padding is %d, expected 0 or 1", c.DownsamplePadding)
	fault(c.FreqShift != 0 && c.FreqShift != 1, "freq_shift is %d, expected 0 or 1", c.FreqShift)
	fault(c.AttentionHeadDim != nil && *c.AttentionHeadDim < 1, "attention_head_dim is not positive")
	fault(c.AttnNormNumGroups != nil && (*c.AttnNormNumGroups < 1 || n > 0 && c.BlockOutChannels[n-1]%*c.AttnNormNumGroups != 0), "attn_norm_num_groups does not divide the last of block_out_channels")
	for i, width := range c.BlockOutChannels {
		fault(c.AttentionHeadDim != nil && *c.AttentionHeadDim > 0 && width%*c.AttentionHeadDim != 0, "attention_head_dim: block %d has %d channels, which its heads do not divide", i, width)
	}
	s := c.side()
	f := 1 << max(0, n-1)
	fault(s.height < 1 || s.width < 1 || s.height > maxWidth || s.width > maxWidth || s.height%f != 0 || s.width%f != 0, "sample_size is %d×%d, expected positive multiples of %d, for %d blocks", s.height, s.width, f, n)
	return errors.Join(errs...)
}

// side is sample_size as height and width, 0 where config.json does not say.
func (c *unet2DConfig) side() size {
	return (&sdUNetConfig{SampleSize: c.SampleSize}).latentSize()
}

// build is UNet2DModel.forward: x [N,C,H,W], t [N] → model [N,C or 2C,H,W].
func (c *unet2DConfig) build(m *onnx.Module, t *models.Taps) error {
	s, widths := c.side(), c.BlockOutChannels
	n := len(widths)
	x := m.Input("x", checkpoint.F32, onnx.Batch, c.InChannels, s.height, s.width)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	e := m.In("time_embedding.linear_1").Linear(m.Sinusoids(steps, widths[0], 10000, c.FreqShift, !c.FlipSinToCos), 4*widths[0])
	emb := m.In("time_embedding.linear_2").Linear(m.SiLU(e), 4*widths[0])
	res := func(m *onnx.Module, h onnx.Value, out int) onnx.Value {
		return resnet2D(m, h, emb, out, c.NormNumGroups, c.NormEps)
	}

	h := m.In("conv_in").Conv2D(x, widths[0], 3, 1, 1)
	skips := []onnx.Value{h}
	for i, width := range widths {
		b := m.In("down_blocks.%d", i)
		for j := range c.LayersPerBlock {
			h = res(b.In("resnets.%d", j), h, width)
			if c.DownBlockTypes[i] == "AttnDownBlock2D" {
				h = c.attention(b.In("attentions.%d", j), h, c.NormNumGroups, t)
			}
			skips = append(skips, h)
		}
		if i < n-1 {
			conv := onnx.Conv{Out: width, Kernel: [2]int{3, 3}, Stride: 2, Pad: [2]int{1, 1}}
			if c.DownsamplePadding == 0 { // a row and a column of zeros come after the image only
				conv.Pad, conv.After = [2]int{}, [2]int{1, 1}
			}
			h = b.In("downsamplers.0.conv").Conv(h, conv)
			skips = append(skips, h)
		}
	}

	mid := m.In("mid_block")
	h = res(mid.In("resnets.0"), h, widths[n-1])
	if c.AddAttention {
		groups := c.NormNumGroups
		if c.AttnNormNumGroups != nil {
			groups = *c.AttnNormNumGroups
		}
		h = c.attention(mid.In("attentions.0"), h, groups, t)
	}
	h = res(mid.In("resnets.1"), h, widths[n-1])

	for i := range n {
		b, width := m.In("up_blocks.%d", i), widths[n-1-i]
		for j := range c.LayersPerBlock + 1 {
			h = m.Concat(1, h, skips[len(skips)-1])
			skips = skips[:len(skips)-1]
			h = res(b.In("resnets.%d", j), h, width)
			if c.UpBlockTypes[i] == "AttnUpBlock2D" {
				h = c.attention(b.In("attentions.%d", j), h, c.NormNumGroups, t)
			}
		}
		if i < n-1 {
			h = b.In("upsamplers.0.conv").Conv2D(m.UpsampleNearest(h), width, 3, 1, 1)
		}
	}
	h = m.SiLU(m.In("conv_norm_out").GroupNormEps(h, c.NormNumGroups, c.NormEps))
	m.Output("model", m.In("conv_out").Conv2D(h, c.OutChannels, 3, 1, 1))
	return t.Output(m)
}

// attention is attention_processor.py Attention as the blocks of UNet2DModel have
// it: over all positions of x [N,C,H,W], with a residual connection. Its projections
// were called query, key, value and proj_attn in the oldest files.
func (c *unet2DConfig) attention(m *onnx.Module, x onnx.Value, groups int, t *models.Taps) onnx.Value {
	width, high, wide, heads := x.Dim(1), x.Dim(2), x.Dim(3), 1
	if c.AttentionHeadDim != nil {
		heads = width / *c.AttentionHeadDim
	}
	names := []string{"to_q", "to_k", "to_v", "to_out.0"}
	if m.Has("query.weight") {
		names = []string{"query", "key", "value", "proj_attn"}
	}
	h := models.PixelsToTokens(m, m.In("group_norm").GroupNormEps(x, groups, c.NormEps))
	q, k, v := m.In("%s", names[0]).Linear(h, width), m.In("%s", names[1]).Linear(h, width), m.In("%s", names[2]).Linear(h, width)
	t.Visit(m, heads, high, wide, func(tap sampling.Tap) onnx.Value { return tokenMass(m, q, k, tap, heads, t) })
	h = m.In("%s", names[3]).Linear(t.Attention(m, q, k, v, heads, high, wide), width)
	return t.Skippable(m, x, m.Add(x, tokensToPixels(m, h, high, wide)))
}

var (
	_ models.Conditional   = (*UNet2D)(nil)
	_ models.FolderGuesser = (*UNet2D)(nil)
	_ models.FileLister    = (*UNet2D)(nil)
	_ models.WithImageSide = (*UNet2D)(nil)
	_ models.Generator     = (*unet2DNet)(nil)
)

// Conditioning implements Conditional: on nothing.
func (*UNet2D) Conditioning() models.Conditioning { return models.Conditioning{} }

// IdleFlags are the flags that change no pixel: files count by their content.
func (*UNet2D) IdleFlags() []string { return []string{"variant"} }

// unet2DPipelines are the pipelines whose network this is.
var unet2DPipelines = []string{"DDPMPipeline", "DDIMPipeline", "PNDMPipeline"}

// unet2DFolders are the folders of the network and of the scheduler.
func unet2DFolders(path string) (network, scheduler string, err error) {
	if path, err = snapshot(path); err != nil {
		return "", "", err
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return "", "", fmt.Errorf("models: %s is no folder; expected that of a DDPMPipeline or DDIMPipeline of diffusers, with model_index.json", path)
	}
	if class := pipelineClass(path); class != "" && !slices.Contains(unet2DPipelines, class) {
		return "", "", fmt.Errorf("models: %s is the folder of a %s; supported here: %s", path, class, strings.Join(unet2DPipelines, ", "))
	}
	inside := func(part string) string {
		folder := filepath.Join(path, part)
		if info, err := os.Stat(folder); err == nil && info.IsDir() {
			return folder
		}
		return path
	}
	return inside("unet"), inside("scheduler"), nil
}

// Files implements FileLister.
func (c *UNet2D) Files(path string) ([]string, error) {
	network, scheduler, err := unet2DFolders(path)
	if err != nil {
		return nil, err
	}
	files, err := componentFiles(network, diffusersStems, c.Variant)
	return append(files, filepath.Join(scheduler, "scheduler_config.json")), err
}

// ImageSides implements WithImageSide.
func (c *UNet2D) ImageSides(path string) (height, width int) {
	config := newUNet2DConfig()
	network, _, err := unet2DFolders(path)
	if err != nil || readConfig(network, config) != nil {
		return 0, 0
	}
	return config.side().height, config.side().width
}

// GuessFolder implements FolderGuesser.
func (c *UNet2D) GuessFolder(path string) (models.Guess, bool) {
	network, _, err := unet2DFolders(path)
	if err != nil || partClass(network) != unet2DFormat.class {
		return models.Guess{}, false
	}
	g, config := models.Guess{Evidence: "config.json of a UNet2DModel, of a DDPMPipeline or DDIMPipeline"}, newUNet2DConfig()
	if readConfig(network, config) == nil {
		g.Attention = attentionOf(config.build)
	}
	return g, true
}

// attentionOf lists the attention layers of a network that build describes.
func attentionOf(build func(*onnx.Module, *models.Taps) error) []models.Layer {
	t := models.NewTaps(models.Options{})
	_, _ = onnx.Parameters(func(m *onnx.Module) { _ = build(m, t) }) // what is wrong with it, opening it tells
	return t.Layers()
}

// Open implements Family.
func (c *UNet2D) Open(path string, opt models.Options) (models.Model, error) {
	if err := models.CheckTaps(opt.Taps); err != nil {
		return nil, fmt.Errorf("models: unet2d: %w", err)
	}
	network, scheduler, err := unet2DFolders(path)
	if err != nil {
		return nil, err
	}
	n, err := loadPart(network, newUNet2DConfig(), c.Variant, newUNet2D, opt)
	if err != nil {
		return nil, err
	}
	if n.scheduler, err = readScheduler(filepath.Join(scheduler, "scheduler_config.json")); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func newUNet2D(c *unet2DConfig, w *weights, opt models.Options) (*unet2DNet, error) {
	s, err := openFixed(w, opt, c.build)
	if err != nil {
		return nil, err
	}
	return &unet2DNet{fixedNet: fixedNet{s, w, len(opt.Taps) > 0, opt.Perturbations}, config: c}, nil
}

// openFixed prepares a network of one size.
func openFixed(w *weights, opt models.Options, build func(*onnx.Module, *models.Taps) error) (*ort.Session, error) {
	g, err := models.BuildHalf(w.tensors, opt.Half(), func(m *onnx.Module) error { return build(m, models.NewTaps(opt)) })
	if err != nil {
		return nil, w.fault(err)
	}
	opt.Content = w.SHA256
	s, err := ort.Open(g, opt.Options)
	if err != nil {
		return nil, fmt.Errorf("models: %s: %w", w.path, err)
	}
	return s, nil
}

// A fixedNet is a denoiser for one size of images or latents.
type fixedNet struct {
	*ort.Session
	weights       *weights
	tapped        bool
	perturbations []sampling.Perturbation
}

// Close implements Model.
func (n *fixedNet) Close() {
	n.Session.Close()
	n.weights.Close()
}

// Forward implements Model: x [N,C,H,W], t [N] (int64 or float32) and, with labels,
// y [N] → model [N,C or 2C,H,W], attention, attention_1, … [N,HW].
func (n *fixedNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	return n.Run(ctx, models.FloatTimesteps(in))
}

// denoise is Denoise, with labels y where they are not the zero Array.
func (n *fixedNet) denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond, y ort.Array) (p sampling.Prediction, err error) {
	in := models.DenoiserInputs(x, t)
	if y.Shape != nil {
		in["y"] = y
	}
	if err := models.SwitchPerturbations(in, n.perturbations, c.Perturbed, x.Rows()); err != nil {
		return p, err
	}
	out, err := n.Run(ctx, in)
	if err != nil {
		return p, err
	}
	p.Eps, p.Var = models.SplitVariance(out["model"].Tensor(), x.Shape[1])
	if n.tapped {
		p.Attn = out[models.TapName(0)].Tensor()
	}
	return p, nil
}

// processOf is that of a scheduler_config.json, which also says whether x̂0 is
// clipped.
func processOf(c *sampling.SchedulerConfig) models.Process {
	return models.Process{Schedule: sampling.ScheduleConfig{Scheduler: c}, Predicts: c.Predicts(), ClipDenoised: c.ClipDenoised()}
}

// A unet2DNet is a UNet2DModel with its process, ready to draw images.
type unet2DNet struct {
	fixedNet
	config    *unet2DConfig
	scheduler *sampling.SchedulerConfig
}

// Denoise implements sampling.Denoiser.
func (n *unet2DNet) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	return n.denoise(ctx, x, t, c, ort.Array{})
}

// Process implements Generator.
func (n *unet2DNet) Process() models.Process { return processOf(n.scheduler) }

// SampleShape implements Generator.
func (n *unet2DNet) SampleShape() []int {
	s := n.config.side()
	return []int{n.config.InChannels, s.height, s.width}
}

// Classes implements Generator: there are no labels.
func (n *unet2DNet) Classes() int { return 0 }

// Pixels implements Generator: 255·clamp(x/2 + 0.5, 0, 1) rounded half to even, as
// the pipelines do.
func (n *unet2DNet) Pixels(_ context.Context, x tensor.Tensor) (models.Images, error) {
	return models.ImagesOf(x, sdLevel, n.weights.path)
}
