package models

import (
	"fmt"
	"slices"
	"strings"

	"sagbench/models/checkpoint"
)

// A foreign is a kind of file that people hand over and that no family here is.
type foreign struct {
	// is tells whether a key is one that no other kind of file has.
	is func(key string) bool
	// keys is how such keys are named in messages.
	keys string
	// what it is, and what to do.
	what, advice string
}

// within is a foreign.is: the key begins with one of the prefixes or has it behind
// the name that a wrapper gives the network.
func within(prefixes ...string) func(string) bool {
	return func(key string) bool {
		key = strings.TrimPrefix(strings.TrimPrefix(key, "model."), "diffusion_model.")
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
	}
}

// part is a foreign.is: the key holds one of the texts.
func part(texts ...string) func(string) bool {
	return func(key string) bool {
		return slices.ContainsFunc(texts, func(p string) bool { return strings.Contains(key, p) })
	}
}

const unsupported = "such networks are not supported"

// foreigns are looked for in this order. LoRA stands first: its keys name the
// network that it changes.
var foreigns = []foreign{
	{within("lora_unet_", "lora_te", "lora_transformer_"), "lora_unet_…", "a LoRA", "merge it into its base model first"},
	{part(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora.down.", ".lora.up.", "_lora.down.", "_lora.up."), "…lora…", "a LoRA", "merge it into its base model first"},
	{part(".hada_w1_a", ".lokr_w1"), "….hada_w1_a or ….lokr_w1", "a LyCORIS file", "merge it into its base model first"},
	{within("control_model.", "controlnet_cond_embedding.", "controlnet_down_blocks."), "control_model.… or controlnet_…", "a ControlNet", "such additions to a network are not supported; give the base model"},
	{within("ip_adapter.", "image_proj."), "ip_adapter.… or image_proj.…", "an IP-Adapter", "such additions to a network are not supported; give the base model"},
	{within("motion_module.", "temporal_decoder."), "motion_module.…", "a motion module of AnimateDiff", "such additions to a network are not supported; give the base model"},
	{part("motion_modules."), "…motion_modules.…", "a motion module of AnimateDiff", "such additions to a network are not supported; give the base model"},
	{within("double_blocks.", "single_blocks.", "single_transformer_blocks."), "double_blocks.… or single_…", "a Flux model", unsupported},
	{within("joint_blocks."), "joint_blocks.…", "a Stable Diffusion 3 model", unsupported},
	{part(".attn.add_q_proj."), "….attn.add_q_proj", "a Stable Diffusion 3 model in the layout of diffusers", unsupported},
	{within("conditioner.embedders.0.model."), "conditioner.embedders.0.model.…", "Stable Diffusion XL's refiner", "it works on images of the base model and draws none from prompts alone; give the base model"},
	{within("edm_mean"), "edm_mean", "a Playground v2.5 model, which is SDXL's network trained in another process", unsupported},
}

// Foreign says what a checkpoint is where it is one of the well-known kinds of file
// that no family here is, and what to do; "" where it is not.
func Foreign(sd checkpoint.StateDict) string {
	for _, f := range foreigns {
		n := 0
		for key := range sd {
			if f.is(key) {
				n++
			}
		}
		if n > 0 {
			what := f.what
			if strings.Contains(what, "LoRA") {
				what += loraBase(sd)
			}
			return fmt.Sprintf("this is %s: %d tensors named %s; %s", what, n, f.keys, f.advice)
		}
	}
	if width := inversionWidth(sd); width > 0 {
		return fmt.Sprintf("this is a textual inversion: vectors of %d channels that stand for a word%s, no network; they are not supported", width, ofWidth(width))
	}
	if sd.Dim("input_blocks.0.0.weight", 1) == 6 && sd.Has("output_blocks.0.0.in_layers.2.weight") {
		return "this is a super-resolution model (upsampler) of guided-diffusion: its first layer takes 6 channels, x and the small image; " + unsupported
	}
	return ""
}

// loraBase is the base model that the widths of a LoRA tell, " for …" or "".
func loraBase(sd checkpoint.StateDict) string {
	for key, t := range sd {
		switch {
		case strings.HasPrefix(key, "lora_te2_"):
			return " for Stable Diffusion XL"
		case within("lora_unet_double_blocks", "lora_transformer_single", "transformer.single_transformer_blocks.")(key):
			return " for Flux"
		case strings.Contains(key, "attn2") && strings.Contains(key, "to_k") && strings.Contains(key, "down") && len(t.Shape) >= 2,
			strings.Contains(key, "attn2") && strings.Contains(key, "to_k") && strings.Contains(key, "lora_A") && len(t.Shape) >= 2:
			if base := ofWidth(t.Shape[1]); base != "" {
				return base
			}
		}
	}
	return ""
}

// ofWidth is the published model whose prompts have so many channels.
func ofWidth(channels int) string {
	switch channels {
	case 768:
		return " for Stable Diffusion 1.x"
	case 1024:
		return " for Stable Diffusion 2.x"
	case 2048:
		return " for Stable Diffusion XL"
	}
	return ""
}

// inversionWidth is the length of the vectors of a textual inversion, 0 where the
// file is something else: AUTOMATIC1111's string_to_param or emb_params, or with
// diffusers the word itself, a matrix or a vector and nothing beside it.
func inversionWidth(sd checkpoint.StateDict) int {
	if len(sd) != 1 {
		return 0
	}
	for key, t := range sd {
		width := 0
		if n := len(t.Shape); n == 1 || n == 2 {
			width = t.Shape[n-1]
		}
		if key == "*" || key == "emb_params" || strings.HasPrefix(key, "<") || width == 768 || width == 1024 {
			return width
		}
	}
	return 0
}

// ownKind says which family of this package a checkpoint is of, for the message of
// another.
func ownKind(sd checkpoint.StateDict) string {
	if _, ok := guessUNet(sd); ok {
		return "its keys are those of a U-Net that draws images, of guided-diffusion or improved-diffusion (family: adm or iddpm)"
	}
	if _, ok := guessClassifier(sd); ok {
		return "its keys are those of a classifier of noisy images, guided-diffusion's EncoderUNetModel (family: classifier)"
	}
	if _, ok := guessDiT(sd); ok {
		return "its keys are those of a DiT (family: dit)"
	}
	if sd.Has("model.map_layer0.weight") {
		return "its keys are those of a U-Net of EDM (family: edm)"
	}
	if sd.Has("unet.emb_fourier.freqs") {
		return "its keys are those of EDM2's U-Net (family: edm2)"
	}
	for key := range sd {
		if within("conditioner.embedders.", "add_embedding.linear_1.")(key) {
			return "its keys are those of Stable Diffusion XL (family: sdxl)"
		}
	}
	return ""
}
