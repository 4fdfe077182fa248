package sd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// An openCLIPModel is model_cfg of an open_clip_config.json (open_clip/model.py
// CLIPVisionCfg and CLIPTextCfg), what is supported of it.
type openCLIPModel struct {
	EmbedDim  int  `json:"embed_dim"`
	QuickGELU bool `json:"quick_gelu"`
}

type openCLIPImage struct {
	ImageSize int     `json:"image_size"`
	Layers    int     `json:"layers"`
	Width     int     `json:"width"`
	HeadWidth int     `json:"head_width"`
	MLPRatio  float64 `json:"mlp_ratio"`
	PatchSize int     `json:"patch_size"`
}

type openCLIPText struct {
	ContextLength int     `json:"context_length"`
	VocabSize     int     `json:"vocab_size"`
	Width         int     `json:"width"`
	Heads         int     `json:"heads"`
	Layers        int     `json:"layers"`
	MLPRatio      float64 `json:"mlp_ratio"`
}

// openCLIPNeutral are keys whose one value changes nothing; other keys that are not
// known are an error unless they are switched off.
var openCLIPNeutral = map[string]string{
	"pool_type": "tok", "pos_embed_type": "learnable", "proj_type": "linear", "no_ln_pre": "false", "attentional_pool": "false",
	"hf_tokenizer_name": "", "text_mask": "first", "final_ln_after_pool": "false",
}

// openCLIPUnused are keys of training, and of initial weights.
var openCLIPUnused = []string{"patch_dropout", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "custom_text", "pad_id", "tokenizer_kwargs"}

// decodeOpenCLIP reads the keys of a mapping that a struct has. Others are an error
// where they may change the numbers.
func decodeOpenCLIP(v value, into any, inside ...string) error {
	if v.kind() != yaml.MappingNode {
		return v.errorf("expected keys and values, found %s", v.found())
	}
	fields, known := configFields(into)
	var errs []error
	for _, inner := range v.values() {
		key := inner.key[strings.LastIndexByte(inner.key, '.')+1:]
		neutral, has := openCLIPNeutral[key]
		switch field, ours := fields[key]; {
		case ours && inner.kind() != 0:
			errs = append(errs, inner.decode(field.Addr().Interface()))
		case ours, slices.Contains(openCLIPUnused, key), slices.Contains(inside, key), off(inner), has && inner.text() == neutral, key == "pool_type" && inner.text() == "argmax":
		default:
			errs = append(errs, inner.errorf("%s is not supported; known: %s", inner, strings.Join(known, ", ")))
		}
	}
	return errors.Join(errs...)
}

// readOpenCLIP reads an open_clip_config.json. A text half that is not supported is
// an error where it is asked for.
func (c *CLIP) readOpenCLIP(path string) error {
	doc, err := readJSON(path)
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	c.files = append(c.files, path)
	model, ok := doc.at("model_cfg")
	if !ok {
		return fmt.Errorf("models: %s: model_cfg is missing", path)
	}
	image, ok := model.at("model_cfg.vision_cfg")
	if !ok {
		return fmt.Errorf("models: %s: model_cfg.vision_cfg is missing", path)
	}
	m := openCLIPModel{}
	i := openCLIPImage{ImageSize: 224, Layers: 12, Width: 768, HeadWidth: 64, MLPRatio: 4, PatchSize: 16}
	if timm, ok := image.at("model_cfg.vision_cfg.timm_model_name"); ok && timm.kind() != 0 {
		return fmt.Errorf("models: %w", timm.errorf("image halves of timm are not supported; supported: OpenCLIP's own vision transformers"))
	}
	err = errors.Join(decodeOpenCLIP(model, &m, "vision_cfg", "text_cfg"), decodeOpenCLIP(image, &i))
	if err == nil && i.HeadWidth < 1 {
		err = image.errorf("head_width is %d, expected at least 1", i.HeadWidth)
	}
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	c.Image = newCLIPImage()
	c.Image.HiddenSize, c.Image.NumHiddenLayers, c.Image.ImageSize, c.Image.PatchSize = i.Width, i.Layers, i.ImageSize, i.PatchSize
	c.Image.IntermediateSize, c.Image.NumAttentionHeads = int(float64(i.Width)*i.MLPRatio), i.Width/i.HeadWidth
	c.Image.ProjectionDim, c.Image.HiddenAct = m.EmbedDim, "gelu"
	if m.QuickGELU {
		c.Image.HiddenAct = "quick_gelu"
	}
	if err := c.Image.Validate(); err != nil {
		return fmt.Errorf("models: %w", image.errorf("%w", err))
	}
	c.readOpenCLIPText(model)
	return c.readOpenCLIPPixels(path, doc)
}

// readOpenCLIPText reads the text half's sizes.
func (c *CLIP) readOpenCLIPText(model value) {
	text, ok := model.at("model_cfg.text_cfg")
	if !ok {
		c.textFault = fmt.Errorf("models: %w", model.errorf("text_cfg is missing"))
		return
	}
	if hf, ok := text.at("model_cfg.text_cfg.hf_model_name"); ok && hf.kind() != 0 {
		c.textFault = fmt.Errorf("models: %w", hf.errorf("text halves of transformers are not supported; supported: OpenCLIP's own"))
		return
	}
	t := openCLIPText{ContextLength: 77, VocabSize: 49408, Width: 512, Heads: 8, Layers: 12, MLPRatio: 4}
	err := decodeOpenCLIP(text, &t)
	c.text = newCLIPTextConfig()
	c.text.VocabSize, c.text.HiddenSize, c.text.NumHiddenLayers, c.text.NumAttentionHeads = t.VocabSize, t.Width, t.Layers, t.Heads
	c.text.IntermediateSize, c.text.MaxPositionEmbeddings = int(float64(t.Width)*t.MLPRatio), t.ContextLength
	c.text.ProjectionDim, c.text.HiddenAct, c.text.EOSTokenID = c.Image.ProjectionDim, c.Image.HiddenAct, 2
	if err == nil {
		if err = c.text.Validate(); err != nil {
			err = text.errorf("%w", err)
		}
	}
	if err != nil {
		c.textFault = fmt.Errorf("models: %w", err)
	}
}

// readOpenCLIPPixels reads preprocess_cfg (open_clip/transform.py PreprocessCfg).
func (c *CLIP) readOpenCLIPPixels(path string, doc value) error {
	p, ok := doc.at("preprocess_cfg")
	if !ok {
		c.Notes = append(c.Notes, openCLIPConfig+": there is no preprocess_cfg; OpenAI's mean and standard deviation of the channels were taken")
		return nil
	}
	err := c.readChannels(p, "preprocess_cfg.mean", "preprocess_cfg.std")
	for key, want := range map[string]string{"interpolation": "bicubic", "resize_mode": "shortest"} {
		if v, ok := p.at("preprocess_cfg." + key); ok && v.kind() != 0 && !is(v, want) {
			err = errors.Join(err, v.errorf("%s is not supported; supported: %s", v, want))
		}
	}
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	return nil
}
