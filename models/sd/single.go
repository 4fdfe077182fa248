package sd

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/clipbpe"
	"sagbench/sampling"
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
	predictsV       bool              // the file says so (v_pred)
	zeroSNR         bool              // the file says so (ztsnr)
}

// The prefixes of the parts.
const (
	ldmUNet     = "model.diffusion_model."
	ldmEMA      = "model_ema.diffusion_model" // without the dots of the rest of the key
	ldmVAE      = "first_stage_model."
	ldmText     = "cond_stage_model.transformer."
	ldmOpenCLIP = "cond_stage_model.model."
)

// ldmUnused are the buffers and other state of LatentDiffusion, what textual
// inversion, CLIP's other half and a safety checker left in files, and the keys
// by which merging tools mark what a network predicts.
var ldmUnused = regexp.MustCompile(`^(betas|(log_one_minus_|sqrt_|sqrt_one_minus_|sqrt_recip_|sqrt_recipm1_)?alphas_cumprod(_prev)?|` +
	`posterior_\w+|lvlb_weights|logvar|scale_factor|model_ema\..*|first_stage_model\.loss\..*|` +
	`cond_stage_model\.model\.(logit_scale|text_projection|attn_mask)|cond_stage_model\.logit_scale|` +
	`first_stage_model\.model_ema\..*|cond_stage_model\.transformer\.(vision_model\..*|visual_projection\.weight|logit_scale)|` +
	`(embedding_manager|safety_checker)\..*|v_pred|ztsnr)$`)

// splitSingle sorts the tensors of a single file by part and renames them. With
// ema the U-Net's averaged weights are taken. The file has to hold the component,
// or all where that is "".
func splitSingle(w *weights, ema bool, component string) (*singleFile, error) {
	s := &singleFile{weights: w, names: map[string]string{}, predictsV: w.tensors.Has("v_pred"), zeroSNR: w.tensors.Has("ztsnr")}
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
	if err := checkSingle(raw, unknown, component); err != nil {
		return nil, fmt.Errorf("models: %s: %w", w.path, err)
	}
	if ema {
		if err := averaged(raw[ldmUNet], w.tensors); err != nil {
			return nil, fmt.Errorf("models: %s: %w", w.path, err)
		}
	}
	s.blocks = ldmBlocks(raw[ldmUNet])
	s.unet = s.renamed(ldmUNet, raw, func(key string) string { return unetName(key, s.blocks, raw[ldmUNet]) })
	s.vae = s.renamedVAE(ldmVAE, raw)
	s.text = s.renamed(ldmText, raw, func(key string) string { return key })
	if s.openCLIP = len(raw[ldmOpenCLIP]) > 0; s.openCLIP {
		s.text = openCLIPNames(raw[ldmOpenCLIP])
	}
	return s, nil
}

// ldmParts are the parts of a single file by the component that each is.
var ldmParts = []struct {
	component, name string
	prefixes        []string
}{
	{"unet", "U-Net", []string{ldmUNet}},
	{"vae", "autoencoder", []string{ldmVAE}},
	{"text_encoder", "text encoder", []string{ldmText, ldmOpenCLIP}},
}

func checkSingle(raw map[string]checkpoint.StateDict, unknown []string, component string) error {
	var has, lacks []string
	for _, p := range ldmParts {
		switch {
		case slices.ContainsFunc(p.prefixes, func(prefix string) bool { return len(raw[prefix]) > 0 }):
			has = append(has, p.name)
		case component == "" || component == p.component:
			lacks = append(lacks, fmt.Sprintf("no %s (no key begins with %s)", p.name, strings.Join(p.prefixes, " or ")))
		}
	}
	diffusers := func(key string) bool {
		return strings.HasPrefix(key, "down_blocks.") || strings.HasPrefix(key, "decoder.mid_block.") || strings.HasPrefix(key, "text_model.")
	}
	switch {
	case len(has) == 0 && slices.ContainsFunc(unknown, diffusers):
		return fmt.Errorf("the file is one part of a folder of diffusers (its keys begin with %s); give the folder of the whole pipeline, the one with model_index.json", examples(unknown))
	case len(has) == 0:
		return fmt.Errorf("no key begins with %s; expected a Stable Diffusion checkpoint in CompVis' layout (a folder of diffusers is given as a folder); its keys begin with %s", ldmUNet, examples(unknown))
	case len(lacks) > 0:
		return fmt.Errorf("the file holds %s, only: %s; give the whole checkpoint, or the folder of diffusers", strings.Join(lacks, ", "), strings.Join(has, ", "))
	case len(unknown) > 0:
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
	for unet.Has("input_blocks.%d.0.in_layers.0.weight", n+1) {
		n++
	}
	return n
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
		return [...]string{"mid_block.resnets.0.", "mid_block.attentions.0.", "mid_block.resnets.1."}[at] + resnetNames.Replace(m[3])
	case "input_blocks":
		level, j := (at-1)/(n+1), (at-1)%(n+1)
		return layerName("down_blocks", level, j, m[3], "0.op.", "downsamplers", key)
	}
	level, j := at/(n+1), at%(n+1)
	up := "1.conv."
	if unet.Has("output_blocks.%d.1.norm.weight", at) {
		up = "2.conv."
	}
	return layerName("up_blocks", level, j, m[3], up, "upsamplers", key)
}

func layerName(side string, level, j int, rest, resample, resampler, key string) string {
	if r, ok := strings.CutPrefix(rest, resample); ok {
		return fmt.Sprintf("%s.%d.%s.0.conv.%s", side, level, resampler, r)
	}
	if r, ok := strings.CutPrefix(rest, "0."); ok {
		return fmt.Sprintf("%s.%d.resnets.%d.%s", side, level, j, resnetNames.Replace(r))
	}
	if r, ok := strings.CutPrefix(rest, "1."); ok {
		return fmt.Sprintf("%s.%d.attentions.%d.%s", side, level, j, r)
	}
	return key
}

var resnetNames = strings.NewReplacer("in_layers.0.", "norm1.", "in_layers.2.", "conv1.", "emb_layers.1.", "time_emb_proj.",
	"out_layers.0.", "norm2.", "out_layers.3.", "conv2.", "skip_connection.", "conv_shortcut.")

// renamedVAE is renamed for the autoencoder, the 1×1 convolutions of its attention
// as linear layers.
func (s *singleFile) renamedVAE(prefix string, raw map[string]checkpoint.StateDict) checkpoint.StateDict {
	vae := s.renamed(prefix, raw, vaeNames(raw[prefix]))
	for key, t := range vae {
		if strings.Contains(key, ".attentions.") && len(t.Shape) == 4 && t.Shape[2] == 1 && t.Shape[3] == 1 {
			t.Shape = t.Shape[:2]
			vae[key] = t
		}
	}
	return vae
}

var vaeLevel = regexp.MustCompile(`^(encoder|decoder)\.(down|up)\.(\d+)\.(block|downsample|upsample)\.(.*)$`)

// vaeNames gives the keys of ldm/modules/diffusionmodules/model.py Encoder and
// Decoder diffusers' names. The decoder's levels are counted from the other end.
func vaeNames(vae checkpoint.StateDict) func(string) string {
	levels := vae.Count("decoder.up.%d.block.0.norm1.weight")
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

// Parts implements Composite.
func (c *SD) Parts() []models.Part {
	return slices.DeleteFunc([]models.Part{
		{File: c.OriginalConfig, Kind: "original_config", Check: func(path string) error { _, err := originalDocument(path); return err }},
		{File: c.Tokenizer, Kind: "tokenizer", Check: func(path string) error { _, err := openCLIPTokens(path); return err }},
	}, func(p models.Part) bool { return p.IsZero() })
}

// openSingle opens a checkpoint of one file.
func (c *SD) openSingle(path string, opt models.Options) (models.Model, error) {
	if c.Variant != "" {
		return nil, fmt.Errorf("models: %s: variant %q: a single file has no variants", path, c.Variant)
	}
	w, err := fileWeights(path, opt.Weights)
	if err != nil {
		return nil, err
	}
	var s *singleFile
	if what := models.Foreign(w.tensors); what != "" {
		err = fmt.Errorf("models: %s: %s", path, what)
	} else {
		s, err = splitSingle(w, c.ExtractEMA, c.Component)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	m, err := c.single(s, opt)
	if err != nil {
		w.Close()
		return nil, err
	}
	return m, nil
}

func (c *SD) single(s *singleFile, opt models.Options) (models.Model, error) {
	d, err := c.describe(s)
	if err != nil {
		return nil, err
	}
	part := func(sd checkpoint.StateDict) *weights {
		return &weights{path: s.weights.path, tensors: sd, files: s.weights.files, names: s.names}
	}
	plain := models.Options{Options: opt.Options}
	switch c.Component {
	case "unet":
		return newSDUNet(d.unet, part(s.unet), opt)
	case "vae":
		return newVAE(d.vae, part(s.vae), plain)
	case "text_encoder":
		return newTextNet(d.text, part(s.text), plain)
	}
	n := &Net{flags: c, scheduler: d.scheduler}
	var errs [4]error
	n.unet, errs[0] = newSDUNet(d.unet, part(s.unet), opt)
	n.vae, errs[1] = newVAE(d.vae, part(s.vae), plain)
	n.text, errs[2] = newTextNet(d.text, part(s.text), plain)
	n.tokens, errs[3] = c.singleTokens(s, d)
	return n.checked(s.weights.path, errors.Join(errs[:]...))
}

// singleTokens is the tokenizer that the flags name, or CLIP's own where the
// text encoder has its vocabulary; nil where there is neither.
func (c *SD) singleTokens(s *singleFile, d description) (*clipTokens, error) {
	if !c.Tokenizer.IsZero() {
		folder, err := c.Tokenizer.Find()
		if err != nil {
			return nil, err
		}
		return openCLIPTokens(folder)
	}
	if d.text.VocabSize != clipbpe.PublishedSize {
		return nil, nil
	}
	t, err := clipbpe.Published(s.openCLIP)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	return &clipTokens{t, min(clipLength, d.text.MaxPositionEmbeddings)}, nil
}

// A description is what a folder's JSON files say, for a single file.
type description struct {
	unet      *sdUNetConfig
	vae       *vaeConfig
	text      *clipTextConfig
	scheduler *sampling.SchedulerConfig
}

// describe reads the dimensions off the shapes and the rest from
// original_config, or from what the published models have.
func (c *SD) describe(s *singleFile) (d description, err error) {
	d = description{s.unetConfig(), vaeConfigOf(s.vae), s.textConfig(c.TextEncoder), compVisScheduler()}
	if c.OriginalConfig.IsZero() {
		err = c.published(s, &d)
	} else if path, errPath := c.OriginalConfig.Find(); errPath != nil {
		err = errPath
	} else {
		err = d.readOriginal(path, s)
	}
	if err != nil {
		return d, err
	}
	if err := c.marked(s, &d); err != nil {
		return d, err
	}
	for i, v := range []interface{ Validate() error }{d.unet, d.vae, d.text} {
		if p := ldmParts[i]; c.Component == "" || c.Component == p.component {
			if e := v.Validate(); e != nil {
				err = errors.Join(err, fmt.Errorf("models: %s: the shapes of the %s make no sense: %w", s.weights.path, p.name, e))
			}
		}
	}
	return d, err
}

// marked adds what the file itself says of its process.
func (c *SD) marked(s *singleFile, d *description) error {
	if s.zeroSNR {
		yes, spacing := true, "trailing" // as arXiv 2305.08891, whose schedule it is, has it
		d.scheduler.RescaleBetasZeroSNR, d.scheduler.TimestepSpacing = &yes, &spacing
	}
	if !s.predictsV {
		return nil
	}
	for _, said := range []struct{ by, prediction string }{{"prediction_type", c.PredictionType}, {"original_config", *d.scheduler.PredictionType}} {
		given := said.by == "prediction_type" && said.prediction != "" || said.by == "original_config" && !c.OriginalConfig.IsZero()
		if given && said.prediction != "v_prediction" {
			return fmt.Errorf("models: %s: its key v_pred says that the network predicts v, %s says %s", s.weights.path, said.by, said.prediction)
		}
	}
	*d.scheduler.PredictionType = "v_prediction"
	return nil
}

// published fills in what leaves no trace in the shapes. SD 2.x was published
// for both predictions under the same shapes.
func (c *SD) published(s *singleFile, d *description) error {
	side := 64
	if s.openCLIP && c.Component == "" {
		prediction := c.PredictionType
		if s.predictsV {
			prediction = "v_prediction"
		}
		switch prediction {
		case "":
			return fmt.Errorf("models: %s is an SD 2.x checkpoint, which does not tell what it predicts; give prediction_type: v_prediction (768-v) or epsilon (512-base), or original_config", s.weights.path)
		case "v_prediction":
			side = 96
		}
	}
	d.unet.SampleSize = new(one(side))
	return nil
}
