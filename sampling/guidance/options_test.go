package guidance

import (
	"context"
	"fmt"
	"math"
	values "reflect"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// plain is a network without a tapped layer.
type plain struct{ attention tensor.Tensor }

func (d plain) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, _ sampling.Cond) (sampling.Prediction, error) {
	return sampling.Prediction{Eps: x.Clone(), Attn: d.attention}, nil
}

func TestSAGErrors(t *testing.T) {
	s := schedule(t)
	g := NewSAG()
	g.Layer = "output_blocks.1.1"
	for _, c := range []struct {
		x         tensor.Tensor
		attention tensor.Tensor
		want      string
	}{
		{tensor.New(1, 3, 8, 8), tensor.Tensor{}, `guidance: sag: the network returned no attention map; it has to be built with layer "output_blocks.1.1" tapped`},
		{tensor.New(1, 3, 8, 8), tensor.New(1, 12), `layer "output_blocks.1.1": its attention map has 12 positions, which are no grid in the proportion of the 8×8 image`},
		{tensor.New(1, 64), tensor.New(1, 64), "expected [N,C,H,W]"},
	} {
		p := &sampling.Predictor{Denoiser: plain{c.attention}, Schedule: s}
		_, err := g.Delta(t.Context(), p.Step(c.x, s.Timestep(3)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v lacks %q", err, c.want)
		}
	}
}

func show(g *SAG) string {
	clip := "as the family"
	if g.Clip != nil {
		clip = fmt.Sprint(*g.Clip)
	}
	return fmt.Sprintf("scale %g, blur %g over %d, threshold %g, clip %s, condition %s, layer %s, heads %d, order %s, start %v%s",
		g.Scale, g.BlurSigma, g.BlurKernel, g.MaskThreshold, clip, g.Condition, g.Layer, g.Heads, g.AttentionOrder, g.Start, g.Preset)
}

func TestSAGFromYAML(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"{sag: {layer: output_blocks.2.1}}", "scale 0.5, blur 9 over 31, threshold 1, clip as the family, condition , layer output_blocks.2.1, heads 0, order , start <nil>"},
		{"{sag: {scale: 0, blur_sigma: 1.5, blur_kernel: 9, mask_threshold: 0, layer: middle_block.1, heads: 4, attention_order: legacy, start: null}}",
			"scale 0, blur 1.5 over 9, threshold 0, clip as the family, condition , layer middle_block.1, heads 4, order legacy, start <nil>"},
		{"{sag: {preset: diffusers}}",
			"scale 0.75, blur 1 over 9, threshold 1, clip false, condition , layer mid_block.attentions.0.transformer_blocks.0.attn1, heads 0, order , start <nil>"},
		{"{sag: {scale: 1, preset: diffusers, layer: up_blocks.1.attentions.0.transformer_blocks.0.attn1, clip: true, condition: conditional}}",
			"scale 1, blur 1 over 9, threshold 1, clip true, condition conditional, layer up_blocks.1.attentions.0.transformer_blocks.0.attn1, heads 0, order , start <nil>"},
		{"{sag: {preset: paper, layer: blocks.3.attn, blur_sigma: 3, condition: unconditional}}",
			"scale 0.5, blur 3 over 31, threshold 1, clip true, condition unconditional, layer blocks.3.attn, heads 0, order , start <nil>"},
		{"{sag: {preset: paper}}", "layer is missing"},
		{"{sag: {preset: webui}}", `guidance.sag.preset: "webui" is no preset; known: diffusers, paper`},
		{"{sag: {preset: diffusers, sclae: 1}}", `unknown key "sclae" in guidance.sag; did you mean "scale"`},
		{"{sag: {layer: a, condition: both}}", `condition is "both", expected conditional, unconditional, or empty`},
		{"sag", "layer is missing: name the attention layer"},
		{"{sag: {mask: none}}", "threshold 0, clip as the family, condition , layer , heads 0"},
		{"{sag: {mask: none, preset: diffusers, heads: 4}}", "threshold 0, clip false, condition , layer , heads 0"},
		{"{sag: {mask: high_frequency, layer: a, mask_threshold: 2}}", "threshold 2, clip as the family, condition , layer , heads 0"},
		{"{sag: {mask: random, layer: a}}", "layer a"},
		{"{sag: {mask: square}}", "layer is missing"},
		{"{sag: {mask: circle, layer: a}}", `mask is "circle", expected one of high_frequency, none, random, self_attention, square`},
		{"{sag: {layer: a, blur_kernel: 30}}", "blur_kernel is 30, expected an odd number of pixels such as 31"},
		{"{sag: {layer: a, blur_kernel: -1}}", "blur_kernel is -1, expected an odd number of pixels from 1"},
		{"{sag: {layer: a, blur_kernel: 100001}}", "blur_kernel is 100001"},
		{"{sag: {layer: a, blur_sigma: 0}}", "blur_sigma is 0, expected a positive number"},
		{"{sag: {layer: a, blur_sigma: -3}}", "blur_sigma is -3"},
		{"{sag: {layer: a, heads: -1}}", "heads is -1"},
		{"{sag: {layer: a, attention_order: new}}", `attention_order is "new", expected legacy`},
		{"{sag: {layer: a, start: -5}}", "start is -5"},
		{"{sag: {layer: a, blursigma: 3}}", `unknown key "blursigma"`},
	} {
		g, err := fromYAML(t, c.yaml)
		got := fmt.Sprint(err)
		if err == nil {
			got = show(g[0].Value.(*SAG))
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s lacks %q", c.yaml, got, c.want)
		}
	}
	g := &SAG{Scale: math.Inf(1), BlurSigma: math.NaN(), BlurKernel: 2, MaskThreshold: math.NaN()}
	err := g.Validate()
	for _, want := range []string{"scale is +Inf", "blur_sigma is NaN", "blur_kernel is 2", "mask_threshold is NaN", "layer is missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	g = NewSAG()
	g.Scale, g.Layer, g.Heads, g.AttentionOrder = 0, "output_blocks.8.1", 4, "legacy"
	if got, want := g.Tap(), (sampling.Tap{Layer: "output_blocks.8.1", Heads: 4, Order: "legacy"}); got != want {
		t.Errorf("Tap() = %v, want %v, whatever the scale", got, want)
	}
}

// fromYAML reads the guidances of an experiment, where every model is known.
func fromYAML(t *testing.T, text string) ([]configs.Named[sampling.Guidance], error) {
	t.Helper()
	b, err := configs.Parse("test.yaml", []byte("guidance: "+text))
	if err != nil {
		t.Fatal(err)
	}
	b, _ = b.With(configs.Hooks{values.TypeFor[sampling.Ref](): func(b configs.Block, v values.Value) (err error) {
		r := sampling.Ref{Flags: "of a network"}
		r.Written, err = configs.Canonical(b)
		v.Set(values.ValueOf(r))
		return err
	}}).At("guidance")
	return configs.Registry[sampling.Guidance](Registry).Many(b)
}
