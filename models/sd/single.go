package sd

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
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
// Stability-AI/stablediffusion (ldm/models/diffusion/ddpm.py LatentDiffusion) or
// Stability-AI/generative-models (sgm/models/diffusion.py DiffusionEngine), its
// parts under the names of diffusers and transformers. No tensor is copied.
type singleFile struct {
	weights   *weights
	unet, vae checkpoint.StateDict
	names     map[string]string // the file's keys of both by their new ones
	texts     []singleText
	blocks    int  // residual blocks a level of the U-Net
	predictsV bool // the file says so (v_pred)
	zeroSNR   bool // the file says so (ztsnr)
}

// inDiffusers is a key of every U-Net in diffusers' names.
const inDiffusers = "down_blocks.0.resnets.0.conv1.weight"

// A singleText is a text encoder of a single file.
type singleText struct {
	tensors  checkpoint.StateDict
	names    map[string]string // the file's keys by their new ones
	openCLIP bool              // it is one of OpenCLIP
	spare    int               // as textPart has it
}

// The prefixes of the parts; those of text encoders are the generation's.
const (
	ldmUNet = "model.diffusion_model."
	ldmEMA  = "model_ema.diffusion_model" // without the dots of the rest of the key
	ldmVAE  = "first_stage_model."
)

// ldmUnused are the buffers and other state of LatentDiffusion and DiffusionEngine,
// what textual inversion, CLIP's other half and a safety checker left in files, and
// the keys by which merging tools mark what a network predicts.
var ldmUnused = regexp.MustCompile(`^(betas|(log_one_minus_|sqrt_|sqrt_one_minus_|sqrt_recip_|sqrt_recipm1_)?alphas_cumprod(_prev)?|` +
	`posterior_\w+|lvlb_weights|logvar|scale_factor|model_ema\..*|first_stage_model\.loss\..*|denoiser\.sigmas|` +
	`cond_stage_model\.model\.(logit_scale|text_projection|attn_mask)|cond_stage_model\.logit_scale|` +
	`conditioner\.embedders\.\d\.((model|transformer)\.)?(logit_scale|attn_mask)|` +
	`first_stage_model\.model_ema\..*|cond_stage_model\.transformer\.(vision_model\..*|visual_projection\.weight|logit_scale)|` +
	`(embedding_manager|safety_checker)\..*|v_pred|ztsnr)$`)

// split sorts the tensors of a single file by part and renames them. The file has
// to hold the component that the flags name, or all where they name none.
func (p pipeline) split(w *weights) (*singleFile, error) {
	s := &singleFile{weights: w, names: map[string]string{}, predictsV: w.tensors.Has("v_pred"), zeroSNR: w.tensors.Has("ztsnr")}
	raw := map[string]checkpoint.StateDict{}
	parts := p.singleParts()
	for _, part := range parts {
		for _, prefix := range part.prefixes {
			raw[prefix] = checkpoint.StateDict{}
		}
	}
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
	if err := p.checkSingle(parts, raw, unknown); err != nil {
		return nil, fmt.Errorf("models: %s: %w", w.path, err)
	}
	if p.ExtractEMA {
		if err := averaged(raw[ldmUNet], w.tensors); err != nil {
			return nil, fmt.Errorf("models: %s: %w", w.path, err)
		}
	}
	s.blocks = ldmBlocks(raw[ldmUNet])
	s.unet = renamed(ldmUNet, raw[ldmUNet], s.names, func(key string) string { return unetName(key, s.blocks, raw[ldmUNet]) })
	s.vae = renamedVAE(ldmVAE, raw[ldmVAE], s.names)
	for _, t := range p.textParts {
		text := singleText{spare: t.spare, openCLIP: len(raw[t.openCLIP]) > 0, names: map[string]string{}}
		if text.openCLIP {
			text.tensors = openCLIPNames(t.openCLIP, raw[t.openCLIP], text.names)
		} else {
			text.tensors = renamed(t.transformers, raw[t.transformers], text.names, func(key string) string { return key })
		}
		s.texts = append(s.texts, text)
	}
	return s, nil
}

// A singlePart is a part of a single file by the component that it is.
type singlePart struct {
	component, name string
	prefixes        []string
}

func (g *generation) singleParts() []singlePart {
	all := []singlePart{{"unet", "U-Net", []string{ldmUNet}}, {"vae", "autoencoder", []string{ldmVAE}}}
	for _, t := range g.textParts {
		prefixes := slices.DeleteFunc([]string{t.transformers, t.openCLIP}, func(p string) bool { return p == "" })
		all = append(all, singlePart{t.encoder, t.name(), prefixes})
	}
	return all
}

// name is what messages call the text encoder.
func (t textPart) name() string { return strings.ReplaceAll(t.encoder, "_", " ") }

func (p pipeline) checkSingle(parts []singlePart, raw map[string]checkpoint.StateDict, unknown []string) error {
	var has, lacks []string
	for _, part := range parts {
		switch {
		case slices.ContainsFunc(part.prefixes, func(prefix string) bool { return len(raw[prefix]) > 0 }):
			has = append(has, part.name)
		case p.Component == "" || p.Component == part.component:
			lacks = append(lacks, fmt.Sprintf("no %s (no key begins with %s)", part.name, strings.Join(part.prefixes, " or ")))
		}
	}
	diffusers := func(key string) bool {
		return strings.HasPrefix(key, "down_blocks.") || strings.HasPrefix(key, "decoder.mid_block.") || strings.HasPrefix(key, "text_model.")
	}
	switch {
	case len(has) == 0 && slices.ContainsFunc(unknown, diffusers):
		return fmt.Errorf("the file is one part of a folder of diffusers (its keys begin with %s); give the folder of the whole pipeline, the one with model_index.json", examples(unknown))
	case len(has) == 0:
		return fmt.Errorf("no key begins with %s; expected a %s checkpoint in %s layout (a folder of diffusers is given as a folder); its keys begin with %s", ldmUNet, p.name, p.original.whose, examples(unknown))
	case len(lacks) > 0:
		return fmt.Errorf("the file holds %s, only: %s; give the whole checkpoint, or the folder of diffusers", strings.Join(lacks, ", "), strings.Join(has, ", "))
	case len(unknown) > 0:
		return fmt.Errorf("%d keys belong to no part of %s: %s", len(unknown), p.versions, examples(unknown))
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

// renamed gives every tensor of a part, whose keys began with the prefix, its new
// name, and keeps the file's own in names; of two that would get the same one the
// second keeps its own, so that it is reported as unexpected.
func renamed(prefix string, sd checkpoint.StateDict, names map[string]string, name func(string) string) checkpoint.StateDict {
	out := checkpoint.StateDict{}
	for _, key := range sd.Names() {
		to := name(key)
		if _, taken := out[to]; taken {
			to = key
		}
		out[to], names[to] = sd[key], prefix+key
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
		"label_emb.0.0.": "add_embedding.linear_1.", "label_emb.0.2.": "add_embedding.linear_2.",
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
func renamedVAE(prefix string, sd checkpoint.StateDict, names map[string]string) checkpoint.StateDict {
	vae := renamed(prefix, sd, names, vaeNames(sd))
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

// openCLIPNames is renamed for open_clip's text transformer, to transformers' names;
// in_proj holds the projections of q, k and v one below the other.
func openCLIPNames(prefix string, sd checkpoint.StateDict, names map[string]string) checkpoint.StateDict {
	return openCLIPNamed(prefix, sd, names, openCLIPKeys.Replace)
}

func openCLIPNamed(prefix string, sd checkpoint.StateDict, names map[string]string, name func(string) string) checkpoint.StateDict {
	out := renamed(prefix, sd, names, name)
	for name, t := range maps.Clone(out) {
		layer, kind, ok := strings.Cut(name, ".attn.in_proj_")
		if !ok || len(t.Shape) == 0 || t.Shape[0]%3 != 0 {
			continue
		}
		for i, p := range []string{"q", "k", "v"} {
			to := fmt.Sprintf("%s.self_attn.%s_proj.%s", layer, p, kind)
			out[to], names[to] = third(t, i), names[name]
		}
		delete(out, name)
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

// openSingle opens a checkpoint of one file.
func (p pipeline) openSingle(path string, opt models.Options) (models.Model, error) {
	if p.Variant != "" {
		return nil, fmt.Errorf("models: %s: variant %q: a single file has no variants", path, p.Variant)
	}
	w, err := fileWeights(path, opt.Weights)
	if err != nil {
		return nil, err
	}
	m, err := p.single(w, opt)
	if err != nil {
		w.Close()
		return nil, err
	}
	return m, nil
}

func (p pipeline) single(w *weights, opt models.Options) (models.Model, error) {
	if what := cmp.Or(models.Foreign(w.tensors), p.otherGeneration(w.tensors)); what != "" {
		return nil, fmt.Errorf("models: %s: %s", w.path, what)
	}
	if p.Component == "unet" && w.tensors.Has(inDiffusers) {
		return p.loneUNet(w, opt)
	}
	s, err := p.split(w)
	if err != nil {
		return nil, err
	}
	d, err := p.describe(s)
	if err != nil {
		return nil, err
	}
	part := func(sd checkpoint.StateDict, names map[string]string) *weights {
		return &weights{path: w.path, tensors: sd, files: w.files, names: names}
	}
	plain := models.Options{Options: opt.Options}
	unet := func() (*sdUNet, error) {
		if !p.unetFile.IsZero() {
			return p.otherUNet(d.unet, opt)
		}
		return p.newUNet(d.unet, part(s.unet, s.names), opt)
	}
	switch p.Component {
	case "":
	case "unet":
		return unet()
	case "vae":
		return newVAE(d.vae, part(s.vae, s.names), plain)
	default:
		i := slices.IndexFunc(p.textParts, func(t textPart) bool { return t.encoder == p.Component })
		return newTextNet(d.texts[i], part(s.texts[i].tensors, s.texts[i].names), plain)
	}
	n := &Net{pipeline: p, path: w.path, scheduler: d.scheduler}
	var errUNet, errVAE, errTokens, errTexts error
	n.unet, errUNet = unet()
	n.vae, errVAE = newVAE(d.vae, part(s.vae, s.names), plain)
	for i, t := range s.texts {
		text, err := newTextNet(d.texts[i], part(t.tensors, t.names), plain)
		n.texts, errTexts = append(n.texts, text), errors.Join(errTexts, err)
	}
	n.tokens, errTokens = p.singleTokens(s, d)
	return n.checked(errors.Join(errUNet, errVAE, errTexts, errTokens))
}

// singleTokens are, for each text encoder, the tokenizer that the flags name, or
// CLIP's own where the encoder has its vocabulary; nil where there is neither.
func (p pipeline) singleTokens(s *singleFile, d description) ([]*clipTokens, error) {
	var all []*clipTokens
	var errs []error
	for i, stated := range p.stated {
		t, err := stated.tokens(s.texts[i].openCLIP, d.texts[i])
		all, errs = append(all, t), append(errs, err)
	}
	return all, errors.Join(errs...)
}

func (t statedText) tokens(openCLIP bool, text *clipTextConfig) (*clipTokens, error) {
	if !t.tokenizer.IsZero() {
		folder, err := t.tokenizer.Find()
		if err != nil {
			return nil, err
		}
		return openCLIPTokens(folder)
	}
	if text.VocabSize != clipbpe.PublishedSize {
		return nil, nil
	}
	own, err := clipbpe.Published(openCLIP)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	return &clipTokens{own, min(clipLength, text.MaxPositionEmbeddings)}, nil
}

// A description is what a folder's JSON files say, for a single file.
type description struct {
	unet      *sdUNetConfig
	vae       *vaeConfig
	texts     []*clipTextConfig
	scheduler *sampling.SchedulerConfig
}

// shaped is what the shapes tell.
func (p pipeline) shaped(s *singleFile) description {
	d := description{unet: s.unetConfig(), vae: vaeConfigOf(s.vae), scheduler: compVisScheduler()}
	for i, t := range s.texts {
		d.texts = append(d.texts, t.config(p.stated[i].sizes))
	}
	return d
}

// describe reads the dimensions off the shapes and the rest from
// original_config, or from what the published models have.
func (p pipeline) describe(s *singleFile) (d description, err error) {
	d = p.shaped(s)
	if p.OriginalConfig.IsZero() {
		err = p.published(p, s, &d)
	} else if path, errPath := p.OriginalConfig.Find(); errPath != nil {
		err = errPath
	} else {
		err = d.readOriginal(path, s, p.original)
	}
	if err != nil {
		return d, err
	}
	if err := p.marked(s, &d); err != nil {
		return d, err
	}
	configs := []interface{ Validate() error }{d.unet, d.vae}
	for _, t := range d.texts {
		configs = append(configs, t)
	}
	for i, part := range p.singleParts() {
		if p.Component == "" || p.Component == part.component {
			if e := configs[i].Validate(); e != nil {
				err = errors.Join(err, fmt.Errorf("models: %s: the shapes of the %s make no sense: %w", s.weights.path, part.name, e))
			}
		}
	}
	return d, err
}

// marked adds what the file itself says of its process.
func (p pipeline) marked(s *singleFile, d *description) error {
	if s.zeroSNR {
		yes, spacing := true, "trailing" // as arXiv 2305.08891, whose schedule it is, has it
		d.scheduler.RescaleBetasZeroSNR, d.scheduler.TimestepSpacing = &yes, &spacing
	}
	if !s.predictsV {
		return nil
	}
	for _, said := range []struct{ by, prediction string }{{"prediction_type", p.PredictionType}, {"original_config", *d.scheduler.PredictionType}} {
		given := said.by == "prediction_type" && said.prediction != "" || said.by == "original_config" && !p.OriginalConfig.IsZero()
		if given && said.prediction != "v_prediction" {
			return fmt.Errorf("models: %s: its key v_pred says that the network predicts v, %s says %s", s.weights.path, said.by, said.prediction)
		}
	}
	*d.scheduler.PredictionType = "v_prediction"
	return nil
}
