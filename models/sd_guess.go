package models

import (
	"fmt"

	"sagbench/models/checkpoint"
)

// compVisGroups is the number of groups of every GroupNorm in CompVis' code.
const compVisGroups = 32

// dim is the length of an axis of a tensor, 0 where there is none such.
func dim(sd checkpoint.StateDict, key string, axis int) int {
	if t, ok := sd[key]; ok && axis < len(t.Shape) {
		return t.Shape[axis]
	}
	return 0
}

func has(sd checkpoint.StateDict, format string, args ...any) bool {
	_, ok := sd[fmt.Sprintf(format, args...)]
	return ok
}

// count is how many of format with 0, 1, 2, … are there.
func count(sd checkpoint.StateDict, format string) int {
	n := 0
	for has(sd, format, n) {
		n++
	}
	return n
}

// unetConfig reads the U-Net's dimensions off the shapes. The number of heads
// leaves no trace: SD 1.x has 8 in every layer, SD 2.x, which is known by its
// linear projections, one for every 64 channels.
func (s *singleFile) unetConfig() *sdUNetConfig {
	u, c := s.unet, newSDUNetConfig()
	levels := count(u, "down_blocks.%d.resnets.0.conv1.weight")
	c.InChannels, c.OutChannels = dim(u, "conv_in.weight", 1), dim(u, "conv_out.weight", 0)
	c.NormNumGroups, c.LayersPerBlock = compVisGroups, one(s.blocks)
	attention := "mid_block.attentions.0"
	c.UseLinearProjection = has(u, "%s.proj_in.weight", attention) && len(u[attention+".proj_in.weight"].Shape) == 2
	c.CrossAttentionDim = dim(u, attention+".transformer_blocks.0.attn2.to_k.weight", 1)
	c.BlockOutChannels, c.DownBlockTypes, c.UpBlockTypes = nil, nil, make([]string, levels)
	heads, depth := oneOrMany{list: true}, oneOrMany{list: true}
	middle := count(u, attention+".transformer_blocks.%d.norm1.weight")
	for i := range levels {
		width := dim(u, fmt.Sprintf("down_blocks.%d.resnets.0.conv1.weight", i), 0)
		c.BlockOutChannels = append(c.BlockOutChannels, width)
		down, up, layers := "DownBlock2D", "UpBlock2D", middle
		if has(u, "down_blocks.%d.attentions.0.norm.weight", i) {
			down = "CrossAttnDownBlock2D"
			layers = count(u, fmt.Sprintf("down_blocks.%d.attentions.0.transformer_blocks.", i)+"%d.norm1.weight")
		}
		if has(u, "up_blocks.%d.attentions.0.norm.weight", levels-1-i) {
			up = "CrossAttnUpBlock2D"
		}
		c.DownBlockTypes, c.UpBlockTypes[levels-1-i] = append(c.DownBlockTypes, down), up
		depth.values = append(depth.values, layers)
		h := 8
		if c.UseLinearProjection {
			h = max(1, width/64)
		}
		heads.values = append(heads.values, h)
	}
	c.AttentionHeadDim, c.TransformerLayersPerBlock = heads, depth
	return c
}

// vaeConfig reads the autoencoder's dimensions off the shapes.
func (s *singleFile) vaeConfig() *vaeConfig {
	v, c := s.vae, newVAEConfig()
	c.InChannels, c.OutChannels = dim(v, "encoder.conv_in.weight", 1), dim(v, "decoder.conv_out.weight", 0)
	c.LatentChannels, c.NormNumGroups = dim(v, "decoder.conv_in.weight", 1), compVisGroups
	c.LayersPerBlock = count(v, "encoder.down_blocks.0.resnets.%d.conv1.weight")
	c.BlockOutChannels, c.DownBlockTypes, c.UpBlockTypes = nil, nil, nil
	for i := range count(v, "encoder.down_blocks.%d.resnets.0.conv1.weight") {
		c.BlockOutChannels = append(c.BlockOutChannels, dim(v, fmt.Sprintf("encoder.down_blocks.%d.resnets.0.conv1.weight", i), 0))
		c.DownBlockTypes, c.UpBlockTypes = append(c.DownBlockTypes, "DownEncoderBlock2D"), append(c.UpBlockTypes, "UpDecoderBlock2D")
	}
	c.UseQuantConv, c.UsePostQuantConv = has(v, "quant_conv.weight"), has(v, "post_quant_conv.weight")
	c.MidBlockAddAttention = has(v, "decoder.mid_block.attentions.0.group_norm.weight")
	return c
}

// openCLIPLayers is the number of layers of OpenCLIP ViT-H/14, of which SD 2.x
// leaves out the last (ldm/modules/encoders/modules.py FrozenOpenCLIPEmbedder,
// layer penultimate).
const openCLIPLayers = 24

// textConfig reads the text encoder's dimensions off the shapes; given are those
// that the flags state. A file with more layers than are used keeps the others,
// which are dropped from s.text.
func (s *singleFile) textConfig(given *clipSizes) *clipTextConfig {
	t, c := s.text, newCLIPTextConfig()
	root := "text_model."
	if !has(t, "text_model.embeddings.token_embedding.weight") {
		root = ""
	}
	c.VocabSize, c.HiddenSize = dim(t, root+"embeddings.token_embedding.weight", 0), dim(t, root+"embeddings.token_embedding.weight", 1)
	c.MaxPositionEmbeddings = dim(t, root+"embeddings.position_embedding.weight", 0)
	c.IntermediateSize = dim(t, root+"encoder.layers.0.mlp.fc1.weight", 0)
	layers := count(t, root+"encoder.layers.%d.layer_norm1.weight")
	c.NumHiddenLayers, c.NumAttentionHeads, c.EOSTokenID = layers, max(1, c.HiddenSize/64), 2
	if s.openCLIP {
		c.HiddenAct = "gelu"
		if layers == openCLIPLayers {
			c.NumHiddenLayers--
		}
	}
	given.over(c)
	for i := c.NumHiddenLayers; s.openCLIP && i < layers; i++ {
		for key := range t {
			if prefix := fmt.Sprintf("%sencoder.layers.%d.", root, i); len(key) > len(prefix) && key[:len(prefix)] == prefix {
				delete(t, key)
			}
		}
	}
	return c
}

// clipSizes are the sizes of a text encoder that the flags may state where a
// checkpoint has no config.json; 0 and "" = what the shapes and the published
// models say.
type clipSizes struct {
	VocabSize             int     `yaml:"vocab_size" doc:"number of tokens"`
	HiddenSize            int     `yaml:"hidden_size" doc:"width"`
	IntermediateSize      int     `yaml:"intermediate_size" doc:"width between the two layers of each perceptron"`
	NumHiddenLayers       int     `yaml:"num_hidden_layers" doc:"number of transformer layers"`
	NumAttentionHeads     int     `yaml:"num_attention_heads" doc:"attention heads a layer"`
	MaxPositionEmbeddings int     `yaml:"max_position_embeddings" doc:"most tokens of a prompt"`
	ProjectionDim         int     `yaml:"projection_dim" doc:"width of the projection, where there is one"`
	HiddenAct             string  `yaml:"hidden_act" doc:"quick_gelu or gelu"`
	LayerNormEps          float64 `yaml:"layer_norm_eps" doc:"eps of every LayerNorm"`
	EOSTokenID            int64   `yaml:"eos_token_id" doc:"the token that is pooled at"`
}

// over replaces the sizes of c that are stated.
func (s *clipSizes) over(c *clipTextConfig) {
	if s == nil {
		return
	}
	for _, f := range []struct {
		from int
		to   *int
	}{
		{s.VocabSize, &c.VocabSize}, {s.HiddenSize, &c.HiddenSize}, {s.IntermediateSize, &c.IntermediateSize}, {s.NumHiddenLayers, &c.NumHiddenLayers},
		{s.NumAttentionHeads, &c.NumAttentionHeads}, {s.MaxPositionEmbeddings, &c.MaxPositionEmbeddings}, {s.ProjectionDim, &c.ProjectionDim},
	} {
		if f.from != 0 {
			*f.to = f.from
		}
	}
	if s.HiddenAct != "" {
		c.HiddenAct = s.HiddenAct
	}
	if s.LayerNormEps != 0 {
		c.LayerNormEps = s.LayerNormEps
	}
	if s.EOSTokenID != 0 {
		c.EOSTokenID = s.EOSTokenID
	}
}
