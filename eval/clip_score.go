package eval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
)

// CLIPScore is the cosine of CLIP's embeddings of an image and of its caption, on the
// average over all images, by one of two definitions that both bear the name:
//
//	torchmetrics: max(1/N Σᵢ 100·cosᵢ, 0)
//	jmhessel:     1/N Σᵢ 2.5·max(cosᵢ, 0)
//
// torchmetrics (functional/multimodal/clip_score.py) clamps the mean, in spite of its
// documentation, which clamps each pair; it hands captions over as they are. The
// authors (Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image
// Captioning", arXiv 2104.08718, eq. 1; jmhessel/clipscore clipscore.py) clamp each
// pair and put "A photo depicts " before each caption. The two also crop
// images and cut captions in different ways, see Resize and TextForm. No reference
// is looked at. Cosines are in float64.
type CLIPScore struct {
	Definition string `yaml:"definition" doc:"whose: torchmetrics = 100·cos, clamped at 0 after the mean, captions as they are; jmhessel = 2.5·cos, clamped at 0 before it, with \"A photo depicts \" before each caption"`
	Pixels     string `yaml:"resize" doc:"how images come to the network's size: clip, openai or another one of the network's resizes; empty = the definition's, clip of torchmetrics and openai of jmhessel"`
}

// The definitions of CLIPScore.
const (
	TorchMetrics = "torchmetrics"
	JMHessel     = "jmhessel"
)

var (
	_ Resampler = (*CLIPScore)(nil)
	_ OnNetwork = (*CLIPScore)(nil)
	_ Resized   = (*CLIPScore)(nil)
	_ Captioned = (*CLIPScore)(nil)
	_ Published = (*CLIPScore)(nil)
)

// Validate implements the check after decoding.
func (m *CLIPScore) Validate() error {
	if m.Definition != TorchMetrics && m.Definition != JMHessel {
		return fmt.Errorf("definition is %q, expected %s or %s", m.Definition, TorchMetrics, JMHessel)
	}
	return checkResize(m.Pixels)
}

// Column implements Metric.
func (m *CLIPScore) Column() Column {
	if m.Definition == JMHessel {
		return Column{"clip_score", "CLIP-S", Higher, 3}
	}
	return Column{"clip_score", "CLIP score", Higher, 2}
}

// Network implements OnNetwork.
func (*CLIPScore) Network() string { return "clip" }

// Resize implements Resized.
func (m *CLIPScore) Resize() string {
	return cmp.Or(m.Pixels, map[string]string{TorchMetrics: "clip", JMHessel: "openai"}[m.Definition])
}

// TextForm implements Captioned: it bears the definition's name.
func (m *CLIPScore) TextForm() string { return m.Definition }

// PublishedOn implements Published: the authors' network. Of torchmetrics' definition
// there are values of many.
func (m *CLIPScore) PublishedOn() string {
	if m.Definition == JMHessel {
		return "ViT-B/32"
	}
	return ""
}

// Needs implements Metric.
func (*CLIPScore) Needs() Needs { return Needs{Generated: Parts{Pool: true}} }

// MinImages implements Metric.
func (*CLIPScore) MinImages() int { return 1 }

// Bounds implements Bounded.
func (m *CLIPScore) Bounds() (low, high float64) {
	if m.Definition == JMHessel {
		return 0, 2.5
	}
	return 0, 100
}

// Score implements Metric.
func (m *CLIPScore) Score(_ context.Context, _, gen *Features) ([]Score, error) {
	cosines, err := m.cosines(gen)
	if err != nil {
		return nil, err
	}
	s := m.Column().score(m.mean(len(cosines), func(i int) float64 { return cosines[i] }), m.Definition)
	s.Numerics = "cosines in float64"
	negative := 0
	for _, c := range cosines {
		if c < 0 {
			negative++
		}
	}
	if negative > 0 {
		s.Note += fmt.Sprintf(", %d of %d cosines are negative", negative, len(cosines))
	}
	return []Score{s}, nil
}

// mean is the score of n cosines.
func (m *CLIPScore) mean(n int, cosine func(int) float64) float64 {
	sum := 0.0
	for i := range n {
		c := cosine(i)
		if m.Definition == JMHessel {
			c = 2.5 * max(c, 0)
		} else {
			c *= 100
		}
		sum += c
	}
	return max(sum/float64(n), 0)
}

// cosines are those of each image with its caption.
func (m *CLIPScore) cosines(gen *Features) ([]float64, error) {
	if err := cmp.Or(gen.requirePool(), m.Validate()); err != nil {
		return nil, err
	}
	switch {
	case gen.Texts == nil:
		return nil, errors.New("there are no captions; give them with --captions FILE")
	case len(gen.Texts) != len(gen.Pool):
		return nil, fmt.Errorf("%s: %d values of embeddings of images, %d of captions", gen.name(), len(gen.Pool), len(gen.Texts))
	}
	if err := cmp.Or(gen.requireDirections(gen.Pool, "the embedding of"), gen.requireDirections(gen.Texts, "the embedding of the caption of")); err != nil {
		return nil, err
	}
	return Cosines(gen.Pool, gen.Texts, gen.D), nil
}

// Cosines are the cosines of row i of a [N,d] and row i of b [N,d]; NaN where one is
// all zeros.
func Cosines(a, b []float32, d int) []float64 {
	out := make([]float64, len(a)/d)
	for i := range out {
		var aa, bb, ab float64
		for j := i * d; j < (i+1)*d; j++ {
			x, y := float64(a[j]), float64(b[j])
			aa, bb, ab = aa+x*x, bb+y*y, ab+x*y
		}
		out[i] = ab / (math.Sqrt(aa) * math.Sqrt(bb))
	}
	return out
}

// Replicates implements Resampler: an image is drawn with its caption.
func (m *CLIPScore) Replicates(_ context.Context, _, gen *Features, d *Draws) ([]float64, error) {
	cosines, err := m.cosines(gen)
	if err != nil {
		return nil, err
	}
	out := make([]float64, d.Len())
	for b, list := range d.index {
		out[b] = m.mean(len(list), func(i int) float64 { return cosines[list[i]] })
	}
	return out, nil
}
