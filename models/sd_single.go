package models

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
)

// A singleFile is a checkpoint in the layout of CompVis/stable-diffusion and
// Stability-AI/stablediffusion (ldm/models/diffusion/ddpm.py LatentDiffusion),
// its parts under the names of diffusers and transformers. No tensor is copied.
type singleFile struct {
	weights         *weights
	unet, vae, text checkpoint.StateDict
	names           map[string]string // the file's keys by their new ones
	blocks          int               // residual blocks a level of the U-Net
	openCLIP        bool              // the text encoder is SD 2.x's
}

// The prefixes of the parts.
const (
	ldmUNet     = "model.diffusion_model."
	ldmEMA      = "model_ema.diffusion_model" // without the dots of the rest of the key
	ldmVAE      = "first_stage_model."
	ldmText     = "cond_stage_model.transformer."
	ldmOpenCLIP = "cond_stage_model.model."
)

// ldmUnused are the buffers and other state of LatentDiffusion.
var ldmUnused = regexp.MustCompile(`^(betas|(log_one_minus_|sqrt_|sqrt_one_minus_|sqrt_recip_|sqrt_recipm1_)?alphas_cumprod(_prev)?|` +
	`posterior_\w+|lvlb_weights|logvar|scale_factor|model_ema\..*|first_stage_model\.loss\..*|` +
	`cond_stage_model\.model\.(logit_scale|text_projection|attn_mask)|cond_stage_model\.logit_scale)$`)

// splitSingle sorts the tensors of a single file by part and renames them.
// With ema the U-Net's averaged weights are taken.
func splitSingle(w *weights, ema bool) (*singleFile, error) {
	s := &singleFile{weights: w, names: map[string]string{}}
	raw := map[string]checkpoint.StateDict{ldmUNet: {}, ldmVAE: {}, ldmText: {}, ldmOpenCLIP: {}}
	var unknown []string
	for _, key := range w.tensors.Names() {
		prefix := ""
		for p := range raw {
			if strings.HasPrefix(key, p) {
				prefix = p
			}
		}
		switch {
		case ldmUnused.MatchString(key):
		case prefix == "":
			unknown = append(unknown, key)
		default:
			raw[prefix][key[len(prefix):]] = w.tensors[key]
		}
	}
	if err := checkSingle(raw, unknown); err != nil {
		return nil, fmt.Errorf("models: %s: %w", w.path, err)
	}
	if ema {
		if err := averaged(raw[ldmUNet], w.tensors); err != nil {
			return nil, fmt.Errorf("models: %s: %w", w.path, err)
		}
	}
	s.blocks = ldmBlocks(raw[ldmUNet])
	s.unet = s.renamed(ldmUNet, raw, func(key string) string { return unetName(key, s.blocks, raw[ldmUNet]) })
	s.vae = s.renamed(ldmVAE, raw, vaeNames(raw[ldmVAE]))
	for key, t := range s.vae { // 1×1 convolutions of the attention, as linear layers
		if strings.Contains(key, ".attentions.") && len(t.Shape) == 4 && t.Shape[2] == 1 && t.Shape[3] == 1 {
			t.Shape = t.Shape[:2]
			s.vae[key] = t
		}
	}
	s.text = s.renamed(ldmText, raw, func(key string) string { return key })
	if s.openCLIP = len(raw[ldmOpenCLIP]) > 0; s.openCLIP {
		s.text = openCLIPNames(raw[ldmOpenCLIP])
	}
	return s, nil
}

func checkSingle(raw map[string]checkpoint.StateDict, unknown []string) error {
	if len(raw[ldmUNet]) == 0 {
		return fmt.Errorf("no key begins with %s; expected a Stable Diffusion checkpoint in CompVis' layout (a folder of diffusers is given as a folder); its keys begin with %s", ldmUNet, examples(append(unknown, slices.Sorted(maps.Keys(raw[ldmVAE]))...)))
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%d keys belong to no part of Stable Diffusion 1.x or 2.x: %s", len(unknown), examples(unknown))
	}
	return nil
}

// examples are the first of some keys.
func examples(keys []string) string {
	if len(keys) > 5 {
		return strings.Join(keys[:5], ", ") + ", …"
	}
	return strings.Join(keys, ", ")
}

// averaged puts the moving averages of ldm/modules/ema.py LitEma, whose names
// have lost their dots, in the place of the U-Net's weights.
func averaged(unet, all checkpoint.StateDict) error {
	for key := range unet {
		t, ok := all[ldmEMA+strings.ReplaceAll(key, ".", "")]
		if !ok {
			return fmt.Errorf("extract_ema: the file has no average of %s%s; leave extract_ema out", ldmUNet, key)
		}
		unet[key] = t
	}
	return nil
}

// renamed gives every tensor of a part its new name; of two that would get the
// same one the second keeps its own, so that it is reported as unexpected.
func (s *singleFile) renamed(prefix string, raw map[string]checkpoint.StateDict, name func(string) string) checkpoint.StateDict {
	out := checkpoint.StateDict{}
	for _, key := range raw[prefix].Names() {
		to := name(key)
		if _, taken := out[to]; taken {
			to = key
		}
		out[to], s.names[to] = raw[prefix][key], prefix+key
	}
	return out
}

// ldmBlocks is the number of residual blocks a level: those between conv_in and
// the first downsampling layer, or where there is none, all.
func ldmBlocks(unet checkpoint.StateDict) int {
	n := 0
	for ; ; n++ {
		if _, res := unet[fmt.Sprintf("input_blocks.%d.0.in_layers.0.weight", n+1)]; !res {
			return n
		}
	}
}

var ldmBlock = regexp.MustCompile(`^(input_blocks|output_blocks|middle_block)\.(\d+)\.(.*)$`)

// unetName is the diffusers name of a key of openaimodel.py UNetModel with n
// residual blocks a level. What has no counterpart keeps its name, and is then
// reported as unexpected.
func unetName(key string, n int, unet checkpoint.StateDict) string {
	for from, to := range map[string]string{
		"time_embed.0.": "time_embedding.linear_1.", "time_embed.2.": "time_embedding.linear_2.",
		"input_blocks.0.0.": "conv_in.", "out.0.": "conv_norm_out.", "out.2.": "conv_out.",
	} {
		if rest, ok := strings.CutPrefix(key, from); ok {
			return to + rest
		}
	}
	m := ldmBlock.FindStringSubmatch(key)
	if m == nil {
		return key
	}
	at, err := strconv.Atoi(m[2])
	if err != nil {
		return key
	}
	switch m[1] {
	case "middle_block":
		if at > 2 {
			return key
		}
		return [...]string{"mid_block.resnets.0.", "mid_block.attentions.0.", "mid_block.resnets.1."}[at] + resnetName(m[3])
	case "input_blocks":
		level, j := (at-1)/(n+1), (at-1)%(n+1)
		return layerName("down_blocks", level, j, m[3], "0.op.", "downsamplers", key)
	}
	level, j := at/(n+1), at%(n+1)
	up := "1.conv."
	if _, attends := unet[fmt.Sprintf("output_blocks.%d.1.norm.weight", at)]; attends {
		up = "2.conv."
	}
	return layerName("up_blocks", level, j, m[3], up, "upsamplers", key)
}

func layerName(side string, level, j int, rest, resample, resampler, key string) string {
	if r, ok := strings.CutPrefix(rest, resample); ok {
		return fmt.Sprintf("%s.%d.%s.0.conv.%s", side, level, resampler, r)
	}
	if r, ok := strings.CutPrefix(rest, "0."); ok {
		return fmt.Sprintf("%s.%d.resnets.%d.%s", side, level, j, resnetName(r))
	}
	if r, ok := strings.CutPrefix(rest, "1."); ok {
		return fmt.Sprintf("%s.%d.attentions.%d.%s", side, level, j, r)
	}
	return key
}

var resnetNames = strings.NewReplacer("in_layers.0.", "norm1.", "in_layers.2.", "conv1.", "emb_layers.1.", "time_emb_proj.",
	"out_layers.0.", "norm2.", "out_layers.3.", "conv2.", "skip_connection.", "conv_shortcut.")

func resnetName(rest string) string { return resnetNames.Replace(rest) }
