package models

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
)

var vaeLevel = regexp.MustCompile(`^(encoder|decoder)\.(down|up)\.(\d+)\.(block|downsample|upsample)\.(.*)$`)

// vaeNames gives the keys of ldm/modules/diffusionmodules/model.py Encoder and
// Decoder diffusers' names. The decoder's levels are counted from the other end.
func vaeNames(vae checkpoint.StateDict) func(string) string {
	levels := 0
	for {
		if _, ok := vae[fmt.Sprintf("decoder.up.%d.block.0.norm1.weight", levels)]; !ok {
			break
		}
		levels++
	}
	names := strings.NewReplacer("mid.block_1.", "mid_block.resnets.0.", "mid.block_2.", "mid_block.resnets.1.", "mid.attn_1.norm.", "mid_block.attentions.0.group_norm.",
		"mid.attn_1.q.", "mid_block.attentions.0.to_q.", "mid.attn_1.k.", "mid_block.attentions.0.to_k.", "mid.attn_1.v.", "mid_block.attentions.0.to_v.",
		"mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0.", "norm_out.", "conv_norm_out.")
	return func(key string) string {
		m := vaeLevel.FindStringSubmatch(key)
		if m == nil {
			return names.Replace(key)
		}
		level, _ := strconv.Atoi(m[3])
		if m[2] == "up" {
			level = levels - 1 - level
		}
		block := fmt.Sprintf("%s.%s_blocks.%d.", m[1], m[2], level)
		switch m[4] {
		case "downsample":
			return block + "downsamplers.0." + m[5]
		case "upsample":
			return block + "upsamplers.0." + m[5]
		}
		return block + "resnets." + strings.Replace(m[5], "nin_shortcut.", "conv_shortcut.", 1)
	}
}

var openCLIPKeys = strings.NewReplacer("transformer.resblocks.", "text_model.encoder.layers.", "token_embedding.", "text_model.embeddings.token_embedding.",
	"positional_embedding", "text_model.embeddings.position_embedding.weight", "ln_final.", "text_model.final_layer_norm.",
	".ln_1.", ".layer_norm1.", ".ln_2.", ".layer_norm2.", ".attn.out_proj.", ".self_attn.out_proj.", ".mlp.c_fc.", ".mlp.fc1.", ".mlp.c_proj.", ".mlp.fc2.")

// openCLIPNames gives the keys of open_clip's text transformer transformers'
// names; in_proj holds the projections of q, k and v one below the other.
func openCLIPNames(sd checkpoint.StateDict) checkpoint.StateDict {
	out := checkpoint.StateDict{}
	for key, t := range sd {
		name := openCLIPKeys.Replace(key)
		layer, kind, ok := strings.Cut(name, ".attn.in_proj_")
		if !ok || len(t.Shape) == 0 || t.Shape[0]%3 != 0 {
			out[name] = t
			continue
		}
		for i, p := range []string{"q", "k", "v"} {
			out[fmt.Sprintf("%s.self_attn.%s_proj.%s", layer, p, kind)] = third(t, i)
		}
	}
	return out
}

// third is the i-th third of a tensor's rows.
func third(t checkpoint.Tensor, i int) checkpoint.Tensor {
	part := t
	part.Shape = append([]int{t.Shape[0] / 3}, t.Shape[1:]...)
	part.Size = t.Size / 3
	if t.Raw != nil {
		part.Raw = t.Raw[int64(i)*part.Size : int64(i+1)*part.Size]
	} else {
		part.Offset += int64(i) * part.Size
	}
	return part
}
