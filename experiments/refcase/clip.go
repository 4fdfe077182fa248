package refcase

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"sagbench/eval"
	"sagbench/experiments/plan"
	"sagbench/models"
	"sagbench/models/features"
	"sagbench/models/ort"
)

// embeddingOutput computes cmmd, clip_score.DEFINITION and cosine of embeddings that the
// case holds. A suffix behind such a name stands for a set of its own, whose inputs
// have it as well.
func (c *metricCase) embeddingOutput(name string) (values []float64, known bool, err error) {
	for _, base := range []string{"cmmd", "clip_score." + eval.TorchMetrics, "clip_score." + eval.JMHessel, "cosine"} {
		suffix, ok := strings.CutPrefix(name, base)
		if !ok || suffix != "" && !strings.HasPrefix(suffix, ".") {
			continue
		}
		values, err = c.embedding(base, suffix)
		return values, true, err
	}
	return nil, false, nil
}

func (c *metricCase) embedding(base, suffix string) ([]float64, error) {
	first, second := "in.reference"+suffix, "in.generated"+suffix
	if base != "cmmd" {
		first, second = "in.text_embeds"+suffix, "in.image_embeds"+suffix
	}
	a, errA := c.features(first)
	b, errB := c.features(second)
	if err := cmp.Or(errA, errB); err != nil {
		return nil, err
	}
	for _, set := range []*eval.Features{a, b} {
		if set.Pool == nil {
			return nil, fmt.Errorf("%s is missing", set.Source)
		}
	}
	var m eval.Metric = &eval.CMMD{}
	if base != "cmmd" {
		if len(a.Pool) != len(b.Pool) || a.D != b.D {
			return nil, fmt.Errorf("%s and %s differ in shape", first, second)
		}
		if b.Texts = a.Pool; base == "cosine" {
			return eval.Cosines(b.Pool, b.Texts, b.D), nil
		}
		m = &eval.CLIPScore{Definition: strings.TrimPrefix(base, "clip_score.")}
	}
	s, err := m.Score(c.ctx, a, b)
	if errors.Is(err, eval.ErrNoDirection) {
		return []float64{math.NaN()}, nil // as the reference
	}
	if err != nil {
		return nil, err
	}
	return []float64{s[0].Value}, nil
}

// checkClip computes the scores of the images in.images with the captions of
// prompts.json by the case's network, and what leads to them: pixels, ids,
// ids_prefixed, image_embeds, text_embeds and text_embeds_prefixed, those with the
// authors' prefix.
func (c *referenceCase) checkClip(ctx context.Context) (map[string]ort.Array, error) {
	spec, err := plan.DecodeNetwork(c.Model)
	if err != nil {
		return nil, err
	}
	m, cleanup, err := c.open(spec, models.Options{Options: c.options})
	if err != nil {
		return nil, err
	}
	defer cleanup()
	x, ok := m.(features.Texting)
	if !ok {
		return nil, c.Model.Errorf("family %s embeds no texts", spec.Family)
	}
	captions, err := c.captions()
	if err != nil {
		return nil, err
	}
	in, err := c.array("in.images")
	if err != nil {
		return nil, err
	}
	if len(in.Shape) != 4 || in.Shape[0] != len(captions) {
		return nil, fmt.Errorf("check: %s: %d prompts for images of shape %v", filepath.Join(c.dir, "prompts.json"), len(captions), in.Shape)
	}
	out, err := x.Forward(ctx, map[string]ort.Array{"images": in})
	if err != nil {
		return nil, err
	}
	for definition, suffix := range map[string]string{eval.TorchMetrics: "", eval.JMHessel: "_prefixed"} {
		form := features.TextForms[definition]
		ids, _, err := x.TextIDs(captions, form)
		if err != nil {
			return nil, err
		}
		texts, err := x.Texts(ctx, captions, form, func(int) {})
		if err != nil {
			return nil, err
		}
		out["ids"+suffix], out["text_embeds"+suffix] = ids, ort.Floats(texts)
		metric := &eval.CLIPScore{Definition: definition}
		images, err := models.ImagesIn(map[string]ort.Array{"images": in})
		if err != nil {
			return nil, err
		}
		embeds, err := features.Of(ctx, x, features.Resize(metric.Resize()), images, features.Pool)
		if err != nil {
			return nil, err
		}
		s, err := metric.Score(ctx, nil, &eval.Features{Source: "in.images", N: len(captions), D: x.Width(), Pool: embeds[features.Pool].Tensor().Data, Texts: texts.Data})
		if err != nil {
			return nil, err
		}
		out["clip_score."+definition] = doubles([]float64{s[0].Value})
	}
	return out, nil
}

// captions are those of prompts.json, {prompts: [texts]}.
func (c *referenceCase) captions() ([]string, error) {
	path := filepath.Join(c.dir, "prompts.json")
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	var all struct {
		Prompts []string `json:"prompts"`
	}
	if err := json.Unmarshal(data, &all); err != nil || len(all.Prompts) == 0 {
		return nil, fmt.Errorf("check: %s: expected {\"prompts\": [texts]}: %w", path, err)
	}
	return all.Prompts, nil
}
