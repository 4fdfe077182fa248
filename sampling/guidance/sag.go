package guidance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/sampling"
)

var (
	_ sampling.Tapper = (*SAG)(nil)
	_ sampling.Wanter = (*SAG)(nil)
)

// SAG is self-attention guidance: away from what the network sees when the
// places that it attends to are blurred. With A the attention mass that each
// position of a layer receives, ε = ε(x_t), G the Gaussian blur:
//
//	M   = 1[A > ψ], enlarged to the image by nearest neighbours, or as Mask says
//	x̂0  = clip(√(1/ᾱ) x_t − √(1/ᾱ − 1) ε)
//	x̂_t = √ᾱ (M ⊙ G(x̂0) + (1−M) ⊙ x̂0) + √(1−ᾱ) ε          (the same ε)
//	Δε  = s (ε − ε(x̂_t))
//
// Where x̂_t is x_t, because no position is above ψ and clipping changed nothing,
// Δε is 0 without a second pass of that image: what the official code adds there
// is the rounding of x̂_t, times s.
//
// Where Mask is none, M = 1, this is the paper's blur guidance, which looks at no
// layer.
//
// The unguided prediction's variance stays. A network that predicts v is guided
// in v, Δv = s (v − v(x̂_t)), as diffusers does; x̂0 and ε follow from its v.
//
// Beside classifier-free guidance, which adds its own difference, ε and ε(x̂_t)
// are both those of ∅ (the paper's equation 25, and diffusers), unless Condition
// says otherwise.
//
// Sources: Hong et al. 2023 (arXiv:2210.00939), algorithm 1;
// KU-CVLAB/Self-Attention-Guidance gaussian_diffusion.py p_sample and
// attention_masking, whose guide_scale is 1 + s; diffusers
// pipeline_stable_diffusion_sag.py, whose readings differ as the presets do.
type SAG struct {
	Preset         string  `yaml:"preset" doc:"defaults of the other options: paper (clip, blur_kernel 31, blur_sigma 9) or diffusers (no clip, blur_kernel 9, blur_sigma 1, scale 0.75, the middle block of Stable Diffusion's U-Net); options that are given go before it"`
	Scale          float64 `yaml:"scale" doc:"s: 0 switches the guidance off, without a second network call; the official guide_scale is 1 + s"`
	BlurSigma      float64 `yaml:"blur_sigma" doc:"standard deviation of the blur, in pixels"`
	BlurKernel     int     `yaml:"blur_kernel" doc:"width of the blur's kernel, in pixels; odd"`
	Mask           string  `yaml:"mask" doc:"what is blurred: self_attention (or empty), or for comparison none (all of it: blur guidance), random (as many positions of the layer, any), square (as many pixels, at a random place), high_frequency (pixels where the blur takes more than ψ times the mean energy of what it takes)"`
	MaskThreshold  float64 `yaml:"mask_threshold" doc:"ψ: positions that receive more attention are blurred; the mean is 1, and 0 blurs everything"`
	Clip           *bool   `yaml:"clip" doc:"x̂0 is clipped to [-1,1] before it is blurred; absent: as the family samples (pixels yes, latents no)"`
	Condition      string  `yaml:"condition" doc:"the prediction that is degraded: conditional, unconditional, or empty for the unconditional one where cfg guides too and else the conditional one"`
	Layer          string  `yaml:"layer" doc:"the attention layer whose map makes the mask, such as output_blocks.8.1; the masks none and high_frequency look at none"`
	Heads          int     `yaml:"heads" doc:"heads with which the map is computed; 0 for the layer's own (the official fork takes 4 whatever the layer has)"`
	AttentionOrder string  `yaml:"attention_order" doc:"order of q, k and v for the map: empty for the layer's own, legacy as the official fork takes it"`
	Start          *int    `yaml:"start" doc:"guide only the last steps, where the respaced step's index is below this; absent for all (the official guide_start)"`
}

// NewSAG is SAG with the official defaults; the layer is still to be named.
func NewSAG() *SAG {
	return &SAG{Scale: 0.5, BlurSigma: 9, BlurKernel: 31, MaskThreshold: 1}
}

// sagPresets are the two readings of the method.
var sagPresets = map[string]func() SAG{
	"paper": func() SAG {
		g := *NewSAG()
		g.Clip = new(true)
		return g
	},
	"diffusers": func() SAG {
		return SAG{Scale: 0.75, BlurSigma: 1, BlurKernel: 9, MaskThreshold: 1, Clip: new(false),
			Layer: "mid_block.attentions.0.transformer_blocks.0.attn1"}
	},
}

// The predictions that can be degraded.
const (
	conditional   = "conditional"
	unconditional = "unconditional"
)

// UnmarshalBlock puts the preset's options below those that are given, after
// which the preset is of no more use, and drops what the mask does not look at.
func (g *SAG) UnmarshalBlock(b configs.Block) error {
	name := struct {
		Preset string `yaml:"preset"`
	}{}
	if err := b.Only("preset").Decode(&name); err != nil {
		return err
	}
	if name.Preset != "" {
		preset, ok := sagPresets[name.Preset]
		if !ok {
			at, _ := b.At("preset")
			return at.Errorf("%q is no preset; known: %s", name.Preset, strings.Join(slices.Sorted(maps.Keys(sagPresets)), ", "))
		}
		*g = preset()
	}
	type plain SAG // without this method
	err := b.Decode((*plain)(g))
	g.Preset = ""
	if g.Mask == selfAttention {
		g.Mask = "" // as it was called before there were others
	}
	if kind, known := maskKinds[g.mask()]; known && !kind.mapped {
		g.Layer, g.Heads, g.AttentionOrder = "", 0, ""
	}
	if g.Mask == noMask {
		g.MaskThreshold = 0
	}
	return err
}

// mask is the name of the mask.
func (g *SAG) mask() string {
	if g.Mask == "" {
		return selfAttention
	}
	return g.Mask
}

// Tap is the layer whose map the network has to return, the zero Tap where the
// mask looks at none. It does not depend on the scale, so that the rows of a sweep over scales run the same network.
func (g *SAG) Tap() sampling.Tap {
	return sampling.Tap{Layer: g.Layer, Heads: g.Heads, Order: g.AttentionOrder}
}

// maxBlurKernel bounds the blur's operator against a mistyped width.
const maxBlurKernel = 1025

// Validate tells everything that is wrong with the options.
func (g *SAG) Validate() error {
	f := faults{name: "sag"}
	f.when(!finite(g.Scale), "scale is %g, expected a finite number (0 is off; the official guide_scale minus 1)", g.Scale)
	f.when(!finite(g.BlurSigma) || float32(g.BlurSigma) <= 0, "blur_sigma is %g, expected a positive number of pixels", g.BlurSigma)
	f.when(g.BlurKernel < 1 || g.BlurKernel > maxBlurKernel, "blur_kernel is %d, expected an odd number of pixels from 1 to %d", g.BlurKernel, maxBlurKernel)
	f.when(g.BlurKernel > 0 && g.BlurKernel%2 == 0, "blur_kernel is %d, expected an odd number of pixels such as %d", g.BlurKernel, g.BlurKernel+1)
	f.when(math.IsNaN(g.MaskThreshold), "mask_threshold is NaN, expected a number (1 is the mean attention a position receives)")
	kind, known := maskKinds[g.mask()]
	f.when(!known, "mask is %q, expected one of %s", g.Mask, strings.Join(slices.Sorted(maps.Keys(maskKinds)), ", "))
	f.when(g.Layer == "" && kind.mapped, "layer is missing: name the attention layer whose map makes the mask, such as output_blocks.8.1")
	f.when(!slices.Contains([]string{"", conditional, unconditional}, g.Condition), "condition is %q, expected conditional, unconditional, or empty for the unconditional one beside cfg", g.Condition)
	f.when(g.Heads < 0, "heads is %d, expected a positive number, or 0 for the layer's own", g.Heads)
	f.when(g.AttentionOrder != "" && g.AttentionOrder != "legacy", "attention_order is %q, expected legacy, or empty for the layer's own", g.AttentionOrder)
	f.when(g.Start != nil && *g.Start < 0, "start is %d, expected the number of steps to guide; leave it out to guide all", deref(g.Start))
	return f.join()
}

func deref(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}

// on tells whether the guidance is on at the step.
func (g *SAG) on(s *sampling.Step) bool {
	return g.Scale != 0 && (g.Start == nil || s.T.Index < *g.Start)
}

// Wants is the prediction that is degraded.
func (g *SAG) Wants(s *sampling.Step) []sampling.Cond {
	cond, err := g.degraded(s)
	if err != nil || !g.on(s) {
		return nil
	}
	return []sampling.Cond{cond}
}

// Delta is s (ε − ε(x̂_t)); where the guidance is off, nothing, without any
// network call.
func (g *SAG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	if !g.on(s) {
		return sampling.Delta{}, nil
	}
	cond, err := g.degraded(s)
	if err != nil {
		return sampling.Delta{}, err
	}
	p, err := s.Predict(ctx, cond)
	if err != nil {
		return sampling.Delta{}, err
	}
	xHat, moved, err := g.degrade(s, p)
	if err != nil {
		return sampling.Delta{}, fmt.Errorf("guidance: sag: %w", err)
	}
	if !p.Attn.IsZero() {
		s.Trace("attention", p.Attn)
	}
	s.Trace("degraded", xHat)
	degraded, err := s.PredictRows(ctx, xHat, cond, moved)
	if err != nil {
		return sampling.Delta{}, err
	}
	scale, delta := float32(g.Scale), p.Eps.Like()
	sampling.EachImage(len(moved), func(k int) {
		n := moved[k]
		d, eps, theirs := delta.Row(n), p.Eps.Row(n), degraded.Eps.Row(k)
		for j, e := range eps {
			d[j] = scale * (e - theirs[j])
		}
	})
	return sampling.Delta{Eps: delta}, nil
}

// degraded is the condition of the prediction that is degraded.
func (g *SAG) degraded(s *sampling.Step) (sampling.Cond, error) {
	if g.Condition == unconditional || g.Condition == "" && contrasts(s) {
		if s.Null().IsZero() && !s.Cond().IsZero() {
			return sampling.Cond{}, errors.New("guidance: sag: condition is unconditional, but the network has no null condition")
		}
		return s.Null(), nil
	}
	return s.Cond(), nil
}
