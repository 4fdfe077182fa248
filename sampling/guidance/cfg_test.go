package guidance

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// labelled predicts ε = x/2 + label/8 + channel/16, v = label, and counts its
// calls and the images in them; label 10 is ∅.
type labelled struct{ calls, images int }

func labelledEps(x float32, label int64, channel int) float32 {
	return x/2 + float32(label)/8 + float32(channel)/16
}

func (d *labelled) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	d.calls, d.images = d.calls+1, d.images+x.Rows()
	p := sampling.Prediction{Eps: x.Like(), Var: x.Like(), Attn: tensor.New(x.Shape[0], 4)}
	area := x.Shape[2] * x.Shape[3]
	for n := range x.Rows() {
		for j, v := range x.Row(n) {
			p.Eps.Row(n)[j] = labelledEps(v, c.Labels[n], j/area)
			p.Var.Row(n)[j] = float32(c.Labels[n])
		}
	}
	return p, nil
}

func labelledPredictor(t *testing.T, d sampling.Denoiser, gs ...sampling.Guidance) *sampling.Predictor {
	return &sampling.Predictor{
		Denoiser: d, Guidances: gs, Schedule: schedule(t),
		Cond: sampling.Cond{Labels: []int64{3, 7}}, Null: sampling.Cond{Labels: []int64{10, 10}},
	}
}

// TestCFG compares with forward_with_cfg's formula on each half of the channels.
func TestCFG(t *testing.T) {
	x := tensor.New(2, 4, 3, 3)
	for i := range x.Data {
		x.Data[i] = float32(math.Sin(float64(i)))
	}
	for _, c := range []struct {
		scale    float64
		channels int
		guided   int
	}{{4, 3, 3}, {4, 0, 4}, {1.5, 4, 4}, {0, 1, 1}, {7.5, 9, 4}, {-1, 2, 2}} {
		d := &labelled{}
		p := labelledPredictor(t, d, &CFG{c.scale, ClassifierFree{Contrast: Contrast{Channels: c.channels}}})
		got, score, err := p.Predict(t.Context(), x, p.Schedule.Timestep(3))
		if err != nil || !score.IsZero() {
			t.Fatal(score, err)
		}
		for n := range 2 {
			label := p.Cond.Labels[n]
			for j, v := range x.Row(n) {
				want := float64(labelledEps(v, label, j/9))
				if j/9 < c.guided {
					null := float64(labelledEps(v, 10, j/9))
					want = null + c.scale*(want-null)
				}
				if e := math.Abs(float64(got.Eps.Row(n)[j]) - want); e > 2e-6 {
					t.Fatalf("%+v: image %d, element %d: %g, want %g", c, n, j, got.Eps.Row(n)[j], want)
				}
				if got.Var.Row(n)[j] != float32(label) {
					t.Fatalf("%+v: the variance is not that of the conditional pass", c)
				}
			}
		}
		if d.calls != 1 || d.images != 4 {
			t.Errorf("%+v: %d network calls with %d images, want one with 4", c, d.calls, d.images)
		}
	}
}

// TestCFGOff counts the calls where nothing is to be guided, and those that
// guidances share.
func TestCFGOff(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	x := tensor.New(2, 4, 2, 2)
	sag := &SAG{Scale: 0.5, BlurSigma: 1, BlurKernel: 3, MaskThreshold: -1, Layer: "blocks.0.attn"}
	s := schedule(t)
	at := s.Timestep(3)
	for _, c := range []struct {
		guidances []sampling.Guidance
		calls     int
		passes    int
	}{
		{[]sampling.Guidance{&CFG{Scale: 1}}, 1, 1},
		{[]sampling.Guidance{&CFG{2, ClassifierFree{Contrast: Contrast{Start: f(at.Value - 1)}}}}, 1, 1},
		{[]sampling.Guidance{&CFG{2, ClassifierFree{Contrast: Contrast{Stop: f(at.Value + 1)}}}}, 1, 1},
		{[]sampling.Guidance{&CFG{2, ClassifierFree{Contrast: Contrast{Start: f(at.Value), Stop: f(at.Value)}}}}, 1, 2},
		{[]sampling.Guidance{&CFG{Scale: 2}, &CFG{3, ClassifierFree{Contrast: Contrast{Channels: 1}}}}, 1, 2},
		{[]sampling.Guidance{&CFG{Scale: 2}, sag}, 2, 3},
		{[]sampling.Guidance{sag}, 2, 2},
	} {
		d := &labelled{}
		p := labelledPredictor(t, d, c.guidances...)
		if _, _, err := p.Predict(t.Context(), x, at); err != nil || d.calls != c.calls || d.images != 2*c.passes {
			t.Errorf("%v: %d network calls with %d images, want %d with %d: %v", c.guidances, d.calls, d.images, c.calls, 2*c.passes, err)
		}
	}
	p := labelledPredictor(t, &labelled{}, &CFG{Scale: 2})
	p.Null = sampling.Cond{}
	if _, _, err := p.Predict(t.Context(), x, at); err == nil || !strings.Contains(err.Error(), "no null condition") {
		t.Errorf("a network without ∅: %v", err)
	}
}

func TestCFGFromYAML(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"cfg", "{Space: Rescale:0 Channels:0 Start:<nil> Stop:<nil> "},
		{"{cfg: {scale: 4, channels: 3, rescale: 0.7}}", "{Space: Rescale:0.7 Channels:3 Start:<nil> Stop:<nil> "},
		{"{cfg: {rescale: 1.1}}", "rescale is 1.1, expected 0 (off) to 1"},
		{"{cfg: {scale: .inf}}", "guidance.cfg.scale: expected a finite number"},
		{"{cfg: {channels: -1}}", "channels is -1"},
		{"{cfg: {start: 100, stop: 200}}", "start has to be at least stop"},
		{"{cfg: {start: .nan}}", "guidance.cfg.start: expected a finite number"},
		{"{cfg: {scal: 3}}", `unknown key "scal"`},
	} {
		g, err := fromYAML(t, c.yaml)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprintf("%+v", *g[0].Value.(*CFG))
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s lacks %q", c.yaml, got, c.want)
		}
	}
	nan := math.NaN()
	err := (&CFG{nan, ClassifierFree{Contrast: Contrast{Start: &nan}}}).Validate()
	for _, want := range []string{"scale is NaN", "expected timesteps"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}
