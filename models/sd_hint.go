package models

import (
	"fmt"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/clipbpe"
	"sagbench/models/onnx"
)

var (
	_ Guesser = (*CLIPText)(nil)
	_ Guesser = (*SD)(nil)
	_ Guesser = (*VAE)(nil)
)

// Guess implements Guesser for single files and for the U-Net of a folder.
func (c *SD) Guess(sd checkpoint.StateDict) (Guess, bool) {
	if has(sd, "down_blocks.0.resnets.0.conv1.weight") && has(sd, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight") {
		return Guess{
			Evidence: "down_blocks, mid_block and up_blocks with cross-attention, the U-Net of a diffusers folder; give the folder of the whole pipeline, or of unet, as checkpoint",
			Flags:    []Flag{flag("component", "unet")},
		}, true
	}
	if !has(sd, ldmUNet+"input_blocks.0.0.weight") {
		return Guess{}, false
	}
	g := Guess{Evidence: "model.diffusion_model, first_stage_model and cond_stage_model of CompVis' LatentDiffusion in one file"}
	s, err := splitSingle(&weights{path: "the file", tensors: sd}, false)
	if err != nil {
		g.Mismatches = []string{strings.TrimPrefix(err.Error(), "models: the file: ")}
		return g, true
	}
	u := s.unetConfig()
	version, prediction := "1.x", Flag{Name: "prediction_type", Value: `"epsilon"`, Note: "as published; not in the shapes"}
	if s.openCLIP {
		version, prediction = "2.x", Flag{Name: "prediction_type", Value: "?", Note: "v_prediction (768-v) or epsilon (512-base); not in the shapes"}
	}
	g.Evidence += fmt.Sprintf("; context of %d channels: Stable Diffusion %s", u.CrossAttentionDim, version)
	g.Flags = []Flag{prediction}
	if s.textConfig(nil).VocabSize != clipbpe.PublishedSize {
		g.Flags = append(g.Flags, Flag{Name: "tokenizer", Value: "?", Note: "a folder with its vocab.json and merges.txt: the vocabulary is not CLIP's"})
	}
	g.Mismatches = mismatches(s.unet, func(m *onnx.Module) { u.build(m, sdSize{size{1, 1}, 1}, newTaps(nil)) })
	return g, true
}

// Guess implements Guesser.
func (c *VAE) Guess(sd checkpoint.StateDict) (Guess, bool) {
	return Guess{Evidence: "encoder, decoder and quant_conv of diffusers' AutoencoderKL; give its folder, with config.json, as checkpoint"},
		has(sd, "decoder.mid_block.resnets.0.conv1.weight") && has(sd, "decoder.conv_in.weight") && has(sd, "encoder.conv_in.weight")
}

// Guess implements Guesser.
func (c *CLIPText) Guess(sd checkpoint.StateDict) (Guess, bool) {
	return Guess{Evidence: "embeddings and encoder.layers of transformers' CLIPTextModel; give its folder, with config.json, as checkpoint"},
		has(sd, "text_model.embeddings.token_embedding.weight") && !has(sd, "visual_projection.weight") || has(sd, "embeddings.token_embedding.weight")
}
