package guidance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

var (
	_ sampling.Tapper = (*SAG)(nil)
	_ sampling.Wanter = (*SAG)(nil)

	_ sampling.Detailed = (*SAG)(nil)
)

// SAG is self-attention guidance: away from what the network sees when the
// places that it attends to are blurred. With A the attention mass that each
// position of a layer receives, ε = ε(x_t), G the Gaussian blur:
//
//	M   = 1[A > ψ], enlarged to the image by nearest neighbours, or as Mask says
//	x̂0  = clip(√(1/ᾱ) x_t − √(1/ᾱ − 1) ε)
//	x̂_t = √ᾱ (M ⊙ G(x̂0) + (1−M) ⊙ x̂0) + √(1−ᾱ) ε          (the same ε)
//	Δε  = s (ε − ε(x̂_t)),  ε(x̂_t) the noise in x̂_t by the prediction there
//
// For a network that predicts something else, F = p x_0 + q ε, that is
//
//	ΔF  = s (p x̃0 + q ε − F(x̂_t)),  x̃0 = M ⊙ G(x̂0) + (1−M) ⊙ x̂0
//
// which divides by nothing: s (x̃0 − D(x̂_t)) of a denoiser, and of a velocity
// s (v − v(x̂_t)) − s (x̂0 − x̃0). Guiding the output itself, s (F − F(x̂_t)), reads
// F(x̂_t) as a prediction at x_t, and does not vanish at low noise; Space chooses.
//
// Where x̂_t is x_t, because no position is above ψ and clipping changed nothing,
// Δε is 0 without a second pass of that image: what the official code adds there
// is the rounding of x̂_t, times s.
//
// Where Mask is none, M = 1, this is the paper's blur guidance, which needs no
// layer.
//
// The unguided prediction's variance stays.
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
	Preset         preset  `yaml:"preset" doc:"defaults of the other options: paper (clip, blur_kernel 31, blur_sigma 9) or diffusers (no clip, blur_kernel 9, blur_sigma 1, scale 0.75, the middle block of Stable Diffusion's U-Net); options that are written override it"`
	Scale          float64 `yaml:"scale" min:"-10000" max:"10000" doc:"s: 0 switches the guidance off, without a second network call; the official guide_scale is 1 + s"`
	BlurSigma      float64 `yaml:"blur_sigma" min:"0" max:"10000" doc:"standard deviation of the blur, in pixels"`
	BlurKernel     int     `yaml:"blur_kernel" min:"1" max:"1025" doc:"width of the blur's kernel, in pixels; odd"`
	Mask           string  `yaml:"mask" doc:"what is blurred: self_attention (or empty), or for comparison none (all of it: blur guidance), random (as many positions of the layer, any), square (as many pixels, at a random place), high_frequency (pixels where the blur takes more than ψ times the mean energy of what it takes)"`
	MaskThreshold  float64 `yaml:"mask_threshold" min:"0" max:"1000000" doc:"ψ: positions that receive more attention are blurred; the mean is 1, and 0 blurs everything"`
	Clip           *bool   `yaml:"clip" doc:"x̂0 is clipped to [-1,1] before it is blurred; absent: as the family samples (pixels yes, latents no)"`
	Condition      string  `yaml:"condition" doc:"the prediction that is degraded: conditional, unconditional, or empty for the unconditional one where cfg guides too and else the conditional one"`
	Layer          string  `yaml:"layer" doc:"the attention layer whose map makes the mask, such as output_blocks.8.1; the masks none and high_frequency look at none"`
	Heads          int     `yaml:"heads" min:"0" max:"1024" doc:"heads with which the map is computed; 0 for the layer's own (the official fork takes 4 whatever the layer has)"`
	AttentionOrder string  `yaml:"attention_order" doc:"order of q, k and v for the map: empty for the layer's own, legacy as the official fork takes it"`
	Start          *int    `yaml:"start" min:"0" max:"1000000" doc:"guide only the last steps, where the respaced step's index is below this; absent for all (the official guide_start)"`
	Space          string  `yaml:"space" doc:"what the difference is taken of: epsilon (the paper's, whatever the network predicts) or output (the network's output, as diffusers has it for v); empty for output with a network of a number of timesteps, epsilon with one of continuous time; a network that predicts ε knows no difference"`
	Interval       `yaml:",inline"`
}

// NewSAG is SAG with the official defaults; the layer is still to be named.
func NewSAG() *SAG {
	return &SAG{Scale: 0.5, BlurSigma: 9, BlurKernel: 31, MaskThreshold: 1}
}

// A preset is the name of one of sagPresets, or empty.
type preset string

// Validate is an error for a name that is not known.
func (p preset) Validate() error {
	if _, known := sagPresets[string(p)]; p == "" || known {
		return nil
	}
	return fmt.Errorf("%q is no preset; known: %s", string(p), strings.Join(slices.Sorted(maps.Keys(sagPresets)), ", "))
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

// UnmarshalYAML decodes the options that are written over those of the preset,
// whose name is then dropped, and drops the options that the mask does not use.
func (g *SAG) UnmarshalYAML(decode func(any) error) error {
	type plain SAG // without this method
	written := plain(*g)
	if err := decode(&written); err != nil {
		return err
	}
	if written.Preset != "" {
		*g = sagPresets[string(written.Preset)]()
	}
	err := decode((*plain)(g))
	g.Preset = ""
	if g.Mask == selfAttention {
		g.Mask = "" // both ways to write it lead to one run id
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
// mask uses none. It does not depend on the scale, so that the rows of a sweep
// over scales run the same network.
func (g *SAG) Tap() sampling.Tap {
	return sampling.Tap{Layer: g.Layer, Heads: g.Heads, Order: g.AttentionOrder}
}

// maxBlurKernel bounds the blur's operator against a mistyped width.
const maxBlurKernel = 1025

// Validate tells everything that is wrong with the options.
func (g *SAG) Validate() error {
	f := sampling.Faults{Of: "sag"}
	f.When(!finite(g.Scale), "scale is %g, expected a finite number (0 is off; the official guide_scale minus 1)", g.Scale)
	f.When(!finite(g.BlurSigma) || float32(g.BlurSigma) <= 0, "blur_sigma is %g, expected a positive number of pixels", g.BlurSigma)
	f.When(g.BlurKernel < 1 || g.BlurKernel > maxBlurKernel, "blur_kernel is %d, expected an odd number of pixels from 1 to %d", g.BlurKernel, maxBlurKernel)
	f.When(g.BlurKernel > 0 && g.BlurKernel%2 == 0, "blur_kernel is %d, expected an odd number of pixels such as %d", g.BlurKernel, g.BlurKernel+1)
	f.When(math.IsNaN(g.MaskThreshold), "mask_threshold is NaN, expected a number (1 is the mean attention a position receives)")
	kind, known := maskKinds[g.mask()]
	f.When(!known, "mask is %q, expected one of %s", g.Mask, strings.Join(slices.Sorted(maps.Keys(maskKinds)), ", "))
	f.When(g.Layer == "" && kind.mapped, "layer is missing: name the attention layer whose map makes the mask, such as output_blocks.8.1")
	f.When(!slices.Contains([]string{"", conditional, unconditional}, g.Condition), "condition is %q, expected conditional, unconditional, or empty for the unconditional one beside cfg", g.Condition)
	f.When(g.Heads < 0, "heads is %d, expected a positive number, or 0 for the layer's own", g.Heads)
	f.When(g.AttentionOrder != "" && g.AttentionOrder != "legacy", "attention_order is %q, expected legacy, or empty for the layer's own", g.AttentionOrder)
	if g.Start != nil {
		f.When(*g.Start < 0, "start is %d, expected the number of steps to guide; leave it out to guide all", *g.Start)
	}
	f.When(!slices.Contains([]string{"", output, string(sampling.Epsilon)}, g.Space), "space is %q, expected epsilon, output, or empty", g.Space)
	g.Interval.check(&f)
	return f.Join()
}

// on tells whether the guidance is on at the step.
func (g *SAG) on(s *sampling.Step) bool {
	return g.Scale != 0 && (g.Start == nil || s.T.Index < *g.Start) && g.Interval.holds(s)
}

// inEps tells whether the difference is one of ε.
func (g *SAG) inEps(s *sampling.Step) bool {
	return g.Space == string(sampling.Epsilon) || g.Space == "" && s.Schedule().Continuous()
}

// Detailed reports whether the guidance is on at any step.
func (g *SAG) Detailed() bool { return g.Scale != 0 && (g.Start == nil || *g.Start > 0) }

// Wants is the prediction that is degraded.
func (g *SAG) Wants(s *sampling.Step) []sampling.Cond {
	cond, err := g.condition(s)
	if err != nil || !g.on(s) {
		return nil
	}
	return []sampling.Cond{cond}
}

// Delta is s (ε − ε(x̂_t)), in the terms of the network; where the guidance is off, nothing, without any
// network call.
func (g *SAG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	if !g.on(s) {
		return sampling.Delta{}, nil
	}
	cond, err := g.condition(s)
	if err != nil {
		return sampling.Delta{}, err
	}
	p, err := s.Predict(ctx, cond)
	if err != nil {
		return sampling.Delta{}, err
	}
	xHat, fit, moved, err := g.degrade(s, p)
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
		d, ours, theirs := delta.Row(n), fit.Row(n), degraded.Eps.Row(k)
		for j, e := range ours {
			d[j] = scale * (e - theirs[j])
		}
	})
	return sampling.Delta{Eps: delta}, nil
}

// condition is that of the prediction that is degraded.
func (g *SAG) condition(s *sampling.Step) (sampling.Cond, error) {
	if g.Condition == unconditional || g.Condition == "" && contrasts(s) {
		if s.Null().IsZero() && !s.Cond().IsZero() {
			return sampling.Cond{}, errors.New("guidance: sag: condition is unconditional, but the network has no null condition")
		}
		return s.Null(), nil
	}
	return s.Cond(), nil
}

// degrade is x̂_t, [N,C,H,W], the output that the network's at x̂_t is compared with,
// and the images for which x̂_t is not x_t.
func (g *SAG) degrade(s *sampling.Step, p sampling.Prediction) (xHat, fit tensor.Tensor, moved []int, err error) {
	if len(s.X.Shape) != 4 {
		return xHat, fit, nil, fmt.Errorf("the state has shape %v, expected [N,C,H,W]", s.X.Shape)
	}
	d, err := g.degrader(s, p)
	if err != nil {
		return xHat, fit, nil, err
	}
	random, err := d.kind.random(s, d.masker.positions())
	if err != nil {
		return xHat, fit, nil, err
	}
	xHat, fit = s.X.Like(), p.Eps
	if g.inEps(s) {
		fit = s.X.Like()
	}
	var shown detail
	if s.Detail() {
		shown = detail{xStart: s.X.Like(), degraded: s.X.Like(), mask: tensor.New(xHat.Rows(), 1, xHat.Shape[2], xHat.Shape[3])}
	}
	changed := make([]bool, xHat.Rows())
	sampling.EachImage(xHat.Rows(), func(n int) {
		w := d.workspaces.Get().(*workspace)
		changed[n] = d.image(w, &entry{xHat.Row(n), s.X.Row(n), p.Eps.Row(n), fit.Row(n), sampling.RowOf(p.Attn, n), sampling.RowOf(random, n), shown.row(n)})
		d.workspaces.Put(w)
	})
	shown.show(s)
	for n, c := range changed {
		if c {
			moved = append(moved, n)
		}
	}
	return xHat, fit, moved, nil
}

// degrader makes x̂_t of the step's images.
func (g *SAG) degrader(s *sampling.Step, p sampling.Prediction) (*degrader, error) {
	height, width := s.X.Shape[2], s.X.Shape[3]
	d := &degrader{
		kind: maskKinds[g.mask()], threshold: float32(g.MaskThreshold),
		blur: newBlur(height, width, g.BlurKernel, g.BlurSigma),
		c:    s.Coefficients(), predicts: s.Predicts(), clip: s.ClipDenoised(), inEps: g.inEps(s),
	}
	if g.Clip != nil {
		d.clip = *g.Clip
	}
	d.workspaces.New = func() any { return d.blur.newWorkspace() }
	if !d.kind.mapped {
		return d, nil
	}
	if p.Attn.IsZero() {
		return nil, fmt.Errorf("the network returned no attention map; it has to be built with layer %q tapped", g.Layer)
	}
	var err error
	if d.masker, err = newMasker(p.Attn.Shape[1], height, width); err != nil {
		return nil, fmt.Errorf("layer %q: %w", g.Layer, err)
	}
	return d, nil
}

// A degrader makes x̂_t of the images of one step.
type degrader struct {
	kind       maskKind
	masker     masker // of masks that need a map
	threshold  float32
	blur       blur
	c          sampling.Coefficients
	predicts   sampling.Parametrization
	clip       bool
	inEps      bool
	workspaces sync.Pool
}

// An entry is an image of the batch: x̂_t, and what it is made of.
type entry struct {
	xHat, x, output []float32 // [C,H,W]; output is the network's at x
	fit             []float32 // [C,H,W]: output, or where the difference is one of ε what a network that predicts x̃0 and ε has for output
	attention       []float32 // [positions]; nil where no layer is tapped
	random          []float32 // numbers on [0,1) for the mask; nil where it needs none
	shown           detailRow
}

// A detail is what x̂_t is made of, of all images of a step: x̂0 and M ⊙ G(x̂0) +
// (1−M) ⊙ x̂0, [N,C,H,W], and the mask M, [N,1,H,W]. It is zero unless it is shown.
type detail struct{ xStart, degraded, mask tensor.Tensor }

// A detailRow is that of one image; its slices are nil unless it is shown.
type detailRow struct{ xStart, degraded, mask []float32 }

func (d *detail) row(n int) detailRow {
	return detailRow{sampling.RowOf(d.xStart, n), sampling.RowOf(d.degraded, n), sampling.RowOf(d.mask, n)}
}

func (d *detail) show(s *sampling.Step) {
	if !d.mask.IsZero() {
		s.Trace("sag_x_start", d.xStart)
		s.Trace("sag_degraded", d.degraded)
		s.Trace("sag_mask", d.mask)
	}
}

// add keeps what value j of the channel that begins at c is made of.
func (r *detailRow) add(c, j int, xStart, x0 float32, masked bool) {
	if r.mask == nil {
		return
	}
	r.xStart[c+j], r.degraded[c+j] = xStart, x0
	if masked {
		r.mask[j] = 1
	}
}

// image sets xHat, and tells whether it is another image than x but for
// rounding: something was blurred or clipped.
func (d *degrader) image(w *workspace, im *entry) (changed bool) {
	blurs := d.kind.choose(d, w, im)
	changed = blurs
	d.blur.need(w)
	size := len(w.mask)
	for c := 0; c < len(im.x); c += size {
		clipped := d.predicted(w, im.x[c:], im.output[c:])
		changed = changed || clipped
		if blurs {
			d.blur.blur(w)
		}
		for j, masked := range w.mask {
			x0 := w.xStart[j]
			if masked {
				x0 = w.blurred[j]
			}
			im.xHat[c+j] = d.c.Noised(x0, w.eps[j])
			im.shown.add(c, j, w.xStart[j], x0, masked)
			w.xStart[j] = x0
		}
		if d.inEps {
			d.c.Output(d.predicts, w.xStart, w.eps, im.fit[c:c+size])
		}
	}
	return changed
}

// predicted sets w.xStart and w.eps to those of the first channel of x and the
// output, and tells whether x̂0 was clipped.
func (d *degrader) predicted(w *workspace, x, output []float32) (clipped bool) {
	size := len(w.mask)
	d.c.Split(d.predicts, x[:size], output[:size], w.xStart, w.eps)
	if d.clip {
		for j, x0 := range w.xStart {
			w.xStart[j] = max(-1, min(x0, 1))
			clipped = clipped || w.xStart[j] != x0
		}
	}
	return clipped
}
