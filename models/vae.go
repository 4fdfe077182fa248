package models

import (
	"errors"
	"fmt"
	"slices"

	"sagbench/models/onnx"
)

// VAE is the autoencoder of latent diffusion (Rombach et al., arXiv
// 2112.10752), a diffusers vae/ folder (models/autoencoders/autoencoder_kl.py
// AutoencoderKL), whose config.json is the source of its dimensions.
type VAE struct {
	Variant string `yaml:"variant" doc:"which weights of the folder: fp16 = diffusion_pytorch_model.fp16.safetensors; empty = those without a variant"`
}

// vaeConfig is the config.json of an AutoencoderKL.
type vaeConfig struct {
	InChannels           int      `yaml:"in_channels"`
	OutChannels          int      `yaml:"out_channels"`
	DownBlockTypes       []string `yaml:"down_block_types"`
	UpBlockTypes         []string `yaml:"up_block_types"`
	BlockOutChannels     []int    `yaml:"block_out_channels"`
	LayersPerBlock       int      `yaml:"layers_per_block"`
	ActFn                string   `yaml:"act_fn"`
	LatentChannels       int      `yaml:"latent_channels"`
	NormNumGroups        int      `yaml:"norm_num_groups"`
	ScalingFactor        float64  `yaml:"scaling_factor"`
	ShiftFactor          *float64 `yaml:"shift_factor"`
	UseQuantConv         bool     `yaml:"use_quant_conv"`
	UsePostQuantConv     bool     `yaml:"use_post_quant_conv"`
	MidBlockAddAttention bool     `yaml:"mid_block_add_attention"`
}

func (*vaeConfig) class() string { return "AutoencoderKL" }

// ignored: all arithmetic is float32 anyway, and latents may have any size.
func (*vaeConfig) ignored() []string { return []string{"sample_size", "force_upcast"} }

func (*vaeConfig) fixed() map[string]string {
	return map[string]string{"latents_mean": "null", "latents_std": "null"}
}

func newVAEConfig() *vaeConfig {
	return &vaeConfig{
		InChannels: 3, OutChannels: 3, DownBlockTypes: []string{"DownEncoderBlock2D"}, UpBlockTypes: []string{"UpDecoderBlock2D"},
		BlockOutChannels: []int{64}, LayersPerBlock: 1, ActFn: "silu", LatentChannels: 4, NormNumGroups: 32, ScalingFactor: 0.18215,
		UseQuantConv: true, UsePostQuantConv: true, MidBlockAddAttention: true,
	}
}

// Validate implements configs.Validator.
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
	h := pixelsToTokens(m, m.In("group_norm").GroupNormEps(x, c.NormNumGroups, vaeEps))
	h = out.Linear(m.Attention(q.Linear(h, width), k.Linear(h, width), v.Linear(h, width), 1), width)
	return m.Add(tokensToPixels(m, h, x.Dim(2), x.Dim(3)), x)
}
