package models

import (
	"errors"
	"fmt"

	"sagbench/configs"
	"sagbench/models/checkpoint"
	"sagbench/models/clipbpe"
	"sagbench/sampling"
)

var _ Composite = (*SD)(nil)

// Parts implements Composite.
func (c *SD) Parts() []configs.Block {
	var parts []configs.Block
	for _, b := range []configs.Block{c.OriginalConfig, c.Tokenizer} {
		if !b.IsNull() {
			parts = append(parts, b)
		}
	}
	return parts
}

// openSingle opens a checkpoint of one file.
func (c *SD) openSingle(path string, opt Options) (Model, error) {
	if c.Variant != "" {
		return nil, fmt.Errorf("models: %s: variant %q: a single file has no variants", path, c.Variant)
	}
	w, err := fileWeights(path)
	if err != nil {
		return nil, err
	}
	s, err := splitSingle(w, c.ExtractEMA)
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

func (c *SD) single(s *singleFile, opt Options) (Model, error) {
	d, err := c.describe(s, opt.Find)
	if err != nil {
		return nil, err
	}
	part := func(sd checkpoint.StateDict) *weights {
		return &weights{path: s.weights.path, tensors: sd, files: s.weights.files, names: s.names}
	}
	plain := Options{Options: opt.Options}
	switch c.Component {
	case "unet":
		return newSDUNet(d.unet, part(s.unet), opt)
	case "vae":
		return newVAENet(d.vae, part(s.vae), plain)
	case "text_encoder":
		return newCLIPTextNet(d.text, part(s.text), plain)
	}
	n := &SDNet{flags: c, scheduler: d.scheduler}
	var errs [4]error
	n.unet, errs[0] = newSDUNet(d.unet, part(s.unet), opt)
	n.vae, errs[1] = newVAENet(d.vae, part(s.vae), plain)
	n.text, errs[2] = newCLIPTextNet(d.text, part(s.text), plain)
	n.tokens, errs[3] = c.singleTokens(s, d, opt.Find)
	return n.checked(s.weights.path, errors.Join(errs[:]...))
}

// singleTokens is the tokenizer that the flags name, or CLIP's own where the
// text encoder has its vocabulary; nil where there is neither.
func (c *SD) singleTokens(s *singleFile, d description, lookUp func(configs.Block) (string, error)) (*clipTokens, error) {
	if !c.Tokenizer.IsNull() {
		folder, err := find(lookUp, c.Tokenizer)
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

// find is the path that a value of the flags names.
func find(lookUp func(configs.Block) (string, error), b configs.Block) (string, error) {
	if lookUp != nil {
		return lookUp(b)
	}
	path, _ := b.Text()
	return path, nil
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
func (c *SD) describe(s *singleFile, lookUp func(configs.Block) (string, error)) (d description, err error) {
	d = description{s.unetConfig(), s.vaeConfig(), s.textConfig(c.TextEncoder), compVisScheduler()}
	if c.OriginalConfig.IsNull() {
		err = c.published(s, &d)
	} else {
		err = c.original(s, &d, lookUp)
	}
	if err != nil {
		return d, err
	}
	for part, v := range map[string]configs.Validator{"U-Net": d.unet, "autoencoder": d.vae, "text encoder": d.text} {
		if e := v.Validate(); e != nil {
			err = errors.Join(err, fmt.Errorf("models: %s: the shapes of the %s make no sense: %w", s.weights.path, part, e))
		}
	}
	return d, err
}

func (c *SD) original(s *singleFile, d *description, lookUp func(configs.Block) (string, error)) error {
	path, err := find(lookUp, c.OriginalConfig)
	if err != nil {
		return err
	}
	o, err := readOriginal(path, s)
	if err != nil {
		return err
	}
	d.scheduler = o.scheduler()
	return o.apply(d.unet, d.vae)
}

// published fills in what leaves no trace in the shapes. SD 2.x was published
// for both predictions under the same shapes.
func (c *SD) published(s *singleFile, d *description) error {
	side := one(64)
	if s.openCLIP && c.Component == "" {
		switch c.PredictionType {
		case "":
			return fmt.Errorf("models: %s is an SD 2.x checkpoint, which does not tell what it predicts; give prediction_type: v_prediction (768-v) or epsilon (512-base), or original_config", s.weights.path)
		case "v_prediction":
			side = one(96)
		}
	}
	d.unet.SampleSize = &side
	return nil
}
