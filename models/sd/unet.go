package sd

import (
	"errors"
	"fmt"
	"math"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
)

// sdUNetConfig is the config.json of the U-Net of Stable Diffusion: diffusers'
// models/unets/unet_2d_condition.py UNet2DConditionModel.
type sdUNetConfig struct {
	SampleSize                *oneOrMany `json:"sample_size"` // of the latents that it was trained on
	InChannels                int        `json:"in_channels"`
	OutChannels               int        `json:"out_channels"`
	DownBlockTypes            []string   `json:"down_block_types"`
	UpBlockTypes              []string   `json:"up_block_types"`
	BlockOutChannels          []int      `json:"block_out_channels"`
	LayersPerBlock            oneOrMany  `json:"layers_per_block"`
	NormNumGroups             int        `json:"norm_num_groups"`
	NormEps                   float64    `json:"norm_eps"`
	CrossAttentionDim         int        `json:"cross_attention_dim"`
	TransformerLayersPerBlock oneOrMany  `json:"transformer_layers_per_block"`
	AttentionHeadDim          oneOrMany  `json:"attention_head_dim"` // despite its name the number of heads
	UseLinearProjection       bool       `json:"use_linear_projection"`

	// Of SDXL: what is embedded beside the time. null = nothing.
	AdditionEmbedType     *string `json:"addition_embed_type"`
	AdditionTimeEmbedDim  *int    `json:"addition_time_embed_dim"`               // of each of the time ids
	ProjectionInputsWidth *int    `json:"projection_class_embeddings_input_dim"` // of text_embeds and all time ids together
}

var unetFormat = configFormat{
	class: "UNet2DConditionModel", stems: diffusersStems,
	key: "_class_name", is: "UNet2DConditionModel", unsupported: "%q is not supported here; supported: %s",
	fixed: map[string]string{
		"act_fn": "silu", "mid_block_type": "UNetMidBlock2DCrossAttn", "mid_block_scale_factor": "1", "downsample_padding": "1",
		"center_input_sample": "false", "flip_sin_to_cos": "true", "freq_shift": "0", "time_embedding_type": "positional",
		"only_cross_attention": "false", "dual_cross_attention": "false", "attention_type": "default", "class_embeddings_concat": "false",
		"resnet_time_scale_shift": "default", "resnet_skip_time_act": "false", "resnet_out_scale_factor": "1", "conv_in_kernel": "3", "conv_out_kernel": "3",
	},
	null: []string{
		"num_attention_heads", "class_embed_type", "num_class_embeds",
		"encoder_hid_dim", "encoder_hid_dim_type", "time_embedding_dim", "time_embedding_act_fn", "timestep_post_act", "time_cond_proj_dim",
		"mid_block_only_cross_attention", "cross_attention_norm", "reverse_transformer_layers_per_block",
	},
	// Of training, or of options that other keys switch off.
	ignored: []string{"dropout", "upcast_attention", "addition_embed_type_num_heads"},
}

func (*sdUNetConfig) format() *configFormat { return &unetFormat }

// newSDUNetConfig are UNet2DConditionModel's defaults.
func newSDUNetConfig() *sdUNetConfig {
	cross, plain := "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
	return &sdUNetConfig{
		InChannels: 4, OutChannels: 4, DownBlockTypes: []string{cross, cross, cross, "DownBlock2D"}, UpBlockTypes: []string{"UpBlock2D", plain, plain, plain},
		BlockOutChannels: []int{320, 640, 1280, 1280}, LayersPerBlock: one(2), NormNumGroups: 32, NormEps: 1e-5, CrossAttentionDim: 1280,
		TransformerLayersPerBlock: one(1), AttentionHeadDim: one(8),
	}
}

// Validate implements componentConfig.
func (c *sdUNetConfig) Validate() error {
	n := len(c.BlockOutChannels)
	heads, errHeads := c.AttentionHeadDim.of("attention_head_dim", n, maxWidth)
	_, errLayers := c.LayersPerBlock.of("layers_per_block", n, maxLayers)
	_, errDepth := c.TransformerLayersPerBlock.of("transformer_layers_per_block", n, maxLayers)
	errs := []error{
		only("down_block_types", c.DownBlockTypes, "CrossAttnDownBlock2D", "DownBlock2D"),
		only("up_block_types", c.UpBlockTypes, "CrossAttnUpBlock2D", "UpBlock2D"),
		checkWidths(c.BlockOutChannels, c.NormNumGroups, len(c.DownBlockTypes), len(c.UpBlockTypes)),
		errHeads, errLayers, errDepth,
		check(quantity{"in_channels", c.InChannels, maxWidth}, quantity{"out_channels", c.OutChannels, maxWidth}, quantity{"cross_attention_dim", c.CrossAttentionDim, maxWidth}),
	}
	if s := c.latentSize(); c.SampleSize != nil {
		errs = append(errs, check(quantity{"sample_size", min(s.height, s.width), maxWidth}, quantity{"sample_size", max(s.height, s.width), maxWidth}))
	}
	for i, h := range heads {
		if c.BlockOutChannels[i]%h != 0 {
			errs = append(errs, fmt.Errorf("attention_head_dim: block %d has %d channels, which %d heads do not divide (the key holds the number of heads, despite its name)", i, c.BlockOutChannels[i], h))
		}
	}
	return errors.Join(append(errs, c.validateAdded())...)
}

// sdSize is what a graph of the U-Net is made for.
type sdSize struct {
	size       // of the latents
	length int // tokens of a prompt
}

// transformerNormEps is the eps of the GroupNorm before each transformer;
// norm_eps is that of the residual blocks.
const transformerNormEps = 1e-6

// build is UNet2DConditionModel.forward: x [N,C,H,W], t [N], context [N,L,D] and,
// for SDXL, text_embeds [N,P] and time_ids [N,6] → model [N,C,H,W]. Any height and
// width will do: where halving rounded up, the doubled image is cut to the skip
// connection's size.
func (c *sdUNetConfig) build(m *onnx.Module, s sdSize, t *models.Taps) error {
	x := m.Input("x", checkpoint.F32, onnx.Batch, c.InChannels, s.height, s.width)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	context := m.Input("context", checkpoint.F32, onnx.Batch, s.length, c.CrossAttentionDim)
	widths, n := c.BlockOutChannels, len(c.BlockOutChannels)
	heads, _ := c.AttentionHeadDim.of("", n, maxWidth) // Validate has seen to the lengths
	layers, _ := c.LayersPerBlock.of("", n, maxLayers)
	depth, _ := c.TransformerLayersPerBlock.of("", n, maxLayers)

	sinusoids := m.TimestepEmbedding(steps, widths[0], 10000)
	m = m.Half() // torch_dtype=float16
	e := m.In("time_embedding.linear_1").Linear(sinusoids, 4*widths[0])
	emb := m.In("time_embedding.linear_2").Linear(m.SiLU(e), 4*widths[0])
	if c.AdditionEmbedType != nil {
		emb = m.Add(emb, c.added(m, 4*widths[0]))
	}
	res := func(m *onnx.Module, h onnx.Value, out int) onnx.Value {
		return resnet2D(m, h, emb, out, c.NormNumGroups, c.NormEps)
	}
	attend := func(m *onnx.Module, h onnx.Value, block int) onnx.Value {
		return c.transformer(m, h, context, heads[block], depth[block], t)
	}

	h := m.In("conv_in").Conv2D(x, widths[0], 3, 1, 1)
	skips := []onnx.Value{h}
	for i, width := range widths {
		b := m.In("down_blocks.%d", i)
		for j := range layers[i] {
			h = res(b.In("resnets.%d", j), h, width)
			if c.DownBlockTypes[i] == "CrossAttnDownBlock2D" {
				h = attend(b.In("attentions.%d", j), h, i)
			}
			skips = append(skips, h)
		}
		if i < n-1 {
			h = b.In("downsamplers.0.conv").Conv2D(h, width, 3, 2, 1)
			skips = append(skips, h)
		}
	}

	mid := m.In("mid_block")
	h = res(mid.In("resnets.0"), h, widths[n-1])
	h = attend(mid.In("attentions.0"), h, n-1)
	h = res(mid.In("resnets.1"), h, widths[n-1])

	for i := range n {
		b, level := m.In("up_blocks.%d", i), n-1-i
		for j := range layers[level] + 1 {
			h = m.Concat(1, h, skips[len(skips)-1])
			skips = skips[:len(skips)-1]
			h = res(b.In("resnets.%d", j), h, widths[level])
			if c.UpBlockTypes[i] == "CrossAttnUpBlock2D" {
				h = attend(b.In("attentions.%d", j), h, level)
			}
		}
		if i < n-1 {
			skip := skips[len(skips)-1]
			h = cropped(m, m.UpsampleNearest(h), skip.Dim(2), skip.Dim(3))
			h = b.In("upsamplers.0.conv").Conv2D(h, widths[level], 3, 1, 1)
		}
	}
	h = m.SiLU(m.In("conv_norm_out").GroupNormEps(h, c.NormNumGroups, c.NormEps))
	m.Output("model", m.In("conv_out").Conv2D(h, c.OutChannels, 3, 1, 1))
	return t.Output(m)
}

// cropped is the upper left part of x [N,C,H,W].
func cropped(m *onnx.Module, x onnx.Value, height, width int) onnx.Value {
	if x.Dim(2) != height {
		x = m.Slice(x, 2, 0, height)
	}
	if x.Dim(3) != width {
		x = m.Slice(x, 3, 0, width)
	}
	return x
}

// transformer is transformer_2d.py Transformer2DModel: x [N,C,H,W] → the same shape.
func (c *sdUNetConfig) transformer(m *onnx.Module, x, context onnx.Value, heads, depth int, t *models.Taps) onnx.Value {
	width, height, wide := x.Dim(1), x.Dim(2), x.Dim(3)
	h := m.In("norm").GroupNormEps(x, c.NormNumGroups, transformerNormEps)
	if c.UseLinearProjection {
		h = m.In("proj_in").Linear(models.PixelsToTokens(m, h), width)
	} else {
		h = models.PixelsToTokens(m, m.In("proj_in").Conv2D(h, width, 1, 1, 0))
	}
	for i := range depth {
		h = transformerBlock(m.In("transformer_blocks.%d", i), h, context, heads, size{height, wide}, t) // [N, H·W, C]
	}
	if c.UseLinearProjection {
		h = tokensToPixels(m, m.In("proj_out").Linear(h, width), height, wide)
	} else {
		h = m.In("proj_out").Conv2D(tokensToPixels(m, h, height, wide), width, 1, 1, 0)
	}
	return m.Add(x, h)
}

// transformerBlock is attention.py BasicTransformerBlock: in [N,T,C], tokens of
// an image of the given size, and the prompt's embedding [N,L,D] → [N,T,C].
func transformerBlock(m *onnx.Module, in, context onnx.Value, heads int, s size, t *models.Taps) onnx.Value {
	width := in.Dim(2)
	x := m.In("norm1").LayerNorm(in, 1e-5)
	h := m.Add(in, crossAttention(m.In("attn1"), x, x, heads, s, t))
	x = m.In("norm2").LayerNorm(h, 1e-5)
	h = m.Add(h, crossAttention(m.In("attn2"), x, context, heads, s, nil))
	x = m.In("norm3").LayerNorm(h, 1e-5)
	g := m.Split(m.In("ff.net.0.proj").Linear(x, 8*width), 2, 2) // GEGLU: value and gate
	return t.Skippable(m, in, m.Add(h, m.In("ff.net.2").Linear(m.Mul(g[0], m.GELU(g[1])), width)))
}

// crossAttention is attention_processor.py Attention: queries from x [N,T,C],
// keys and values from the context [N,L,D]. For each tap of this layer its map
// is made an output, computed beside the fused operator: a tap changes no bit
// of the prediction, and layers without one never hold their weights.
func crossAttention(m *onnx.Module, x, context onnx.Value, heads int, s size, t *models.Taps) onnx.Value {
	width := x.Dim(2)
	q, k, v := m.In("to_q").LinearNoBias(x, width), m.In("to_k").LinearNoBias(context, width), m.In("to_v").LinearNoBias(context, width)
	if t != nil {
		t.Visit(m, heads, s.height, s.width, func(tap sampling.Tap) onnx.Value { return tokenMass(m.Full(), q, k, tap, heads, t) })
	}
	return m.In("to_out.0").Linear(t.Attention(m, q, k, v, heads, s.height, s.width), width)
}

// latentSize is sample_size as height and width, 0 where config.json does not say.
func (c *sdUNetConfig) latentSize() size {
	if c.SampleSize == nil || len(c.SampleSize.values) == 0 {
		return size{}
	}
	v := c.SampleSize.values
	return size{v[0], v[len(v)-1]}
}

// massElements bounds the attention weights that a map holds at a time, in
// elements an image: 64 MiB.
var massElements = 16 << 20 // a variable for the test alone

// tokenMass is AttentionMass of q, k [N,T,C] with the tap's heads. Where the
// weights of all queries would be large they are summed a stretch of queries at
// a time.
func tokenMass(m *onnx.Module, q, k onnx.Value, tap sampling.Tap, heads int, t *models.Taps) onnx.Value {
	tokens, width := q.Dim(1), q.Dim(2)
	if tap.Heads > 0 && width%tap.Heads == 0 {
		heads = tap.Heads
	} else if tap.Heads > 0 {
		t.Problem("layer %s has %d channels, which %d heads do not divide", tap.Layer, width, tap.Heads)
	}
	if tap.Order != "" {
		t.Problem("layer %s: attention_order %q: this layer's queries, keys and values are weights of their own, in no order", tap.Layer, tap.Order)
	}
	stretch := max(1, min(tokens, massElements/(heads*tokens)))
	var mass onnx.Value
	for from := 0; from < tokens; from += stretch {
		queries := m.Slice(q, 1, from, min(from+stretch, tokens))
		part := models.AttentionMass(m, m.Softmax(attentionScores(m, queries, k, heads)))
		if from == 0 {
			mass = part
		} else {
			mass = m.Add(mass, part)
		}
	}
	return mass
}

// resnet2D is diffusers' models/resnet.py ResnetBlock2D: x [N,C,H,W], emb [N,E]
// (the zero Value where the network knows no time) → [N,out,H,W].
func resnet2D(m *onnx.Module, x, emb onnx.Value, out, groups int, eps float64) onnx.Value {
	h := m.SiLU(m.In("norm1").GroupNormEps(x, groups, eps))
	h = m.In("conv1").Conv2D(h, out, 3, 1, 1)
	if emb.Name != "" {
		e := m.In("time_emb_proj").Linear(m.SiLU(emb), out)
		h = m.Add(h, m.Reshape(e, e.Dim(0), out, 1, 1))
	}
	h = m.SiLU(m.In("norm2").GroupNormEps(h, groups, eps))
	h = m.In("conv2").Conv2D(h, out, 3, 1, 1)
	if x.Dim(1) != out {
		x = m.In("conv_shortcut").Conv2D(x, out, 1, 1, 0)
	}
	return m.Add(x, h)
}

// tokensToPixels is [N,H·W,C] → [N,C,H,W].
func tokensToPixels(m *onnx.Module, x onnx.Value, height, width int) onnx.Value {
	return m.Reshape(m.Transpose(x, 0, 2, 1), x.Dim(0), x.Dim(2), height, width)
}

// splitHeads is [N,T,D] → [N,heads,T,D/heads].
func splitHeads(m *onnx.Module, x onnx.Value, heads int) onnx.Value {
	return m.Transpose(m.Reshape(x, x.Dim(0), x.Dim(1), heads, x.Dim(2)/heads), 0, 2, 1, 3)
}

// mergeHeads is [N,heads,T,d] → [N,T,heads·d].
func mergeHeads(m *onnx.Module, x onnx.Value) onnx.Value {
	return m.Reshape(m.Transpose(x, 0, 2, 1, 3), x.Dim(0), x.Dim(2), x.Dim(1)*x.Dim(3))
}

// attentionScores is q·kᵀ/√d, queries before keys: q [N,T,D] and k [N,S,D] →
// [N,heads,T,S].
func attentionScores(m *onnx.Module, q, k onnx.Value, heads int) onnx.Value {
	scale := m.Scalar(float32(1 / math.Sqrt(float64(q.Dim(2)/heads))))
	kt := m.Transpose(m.Reshape(k, k.Dim(0), k.Dim(1), heads, k.Dim(2)/heads), 0, 2, 3, 1)
	return m.Mul(m.MatMul(splitHeads(m, q, heads), kt), scale)
}
