package guidance

import (
	"context"
	"math"
	"strings"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// means is the Bayes classifier of two classes N(±1, σ²) per pixel, of equal
// weight: log p(y|x) = log σ(2yx/v), y = ±1, v the variance of x_t.
type means struct{ calls int }

func (c *means) Classes() int { return 2 }

func (c *means) Gradient(_ context.Context, x tensor.Tensor, _ sampling.Timestep, y []int64) (tensor.Tensor, error) {
	c.calls++
	g := x.Like()
	for n, label := range y {
		sign := 2*float64(label) - 1
		for j, v := range x.Row(n) {
			g.Row(n)[j] = float32(2 * sign / (1 + math.Exp(2*sign*float64(v))))
		}
	}
	return g, nil
}

func TestClassifier(t *testing.T) {
	c := &means{}
	g := &Classifier{Scale: 3}
	if err := g.Attach(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	x := tensor.Of([]float32{-1, 0, 0.5, 2, -1, 0, 0.5, 2}, 2, 1, 2, 2)
	s := schedule(t)
	p := &sampling.Predictor{Denoiser: plain{}, Schedule: s, Cond: sampling.Cond{Labels: []int64{0, 1}}}
	d, err := g.Delta(t.Context(), p.Step(x, s.Timestep(3)))
	if err != nil || !d.Eps.IsZero() {
		t.Fatal(d, err)
	}
	for n, sign := range []float64{-1, 1} {
		for j, v := range x.Row(n) {
			logP := func(v float64) float64 { return -math.Log1p(math.Exp(-2 * sign * v)) }
			const h = 1e-5
			want := 3 * (logP(float64(v)+h) - logP(float64(v)-h)) / (2 * h)
			if got := float64(d.Score.Row(n)[j]); math.Abs(got-want) > 1e-5 {
				t.Errorf("image %d, pixel %d: score %g, want %g", n, j, got, want)
			}
		}
	}
	g.Scale = 0
	if d, err := g.Delta(t.Context(), p.Step(x, s.Timestep(3))); err != nil || !d.Score.IsZero() || c.calls != 1 {
		t.Errorf("off: %v, %v, %d calls", d, err, c.calls)
	}
	g.Scale, p.Cond = 1, sampling.Cond{}
	if _, err := g.Delta(t.Context(), p.Step(x, s.Timestep(3))); err == nil || !strings.Contains(err.Error(), "no labels") {
		t.Error(err)
	}
	if err := g.Attach(t.Context(), plain{}); err == nil || !strings.Contains(err.Error(), "gives no gradient") {
		t.Error(err)
	}
}

func TestClassifierErrors(t *testing.T) {
	for yaml, want := range map[string]string{
		"{classifier: {scale: 1}}":                          "model is missing",
		"{classifier: {scale: .nan, model: {family: a}}}":   "scale",
		"{classifier: {sclae: 1, model: {family: adm}}}":    `unknown key "sclae"`,
		"{classifier: {scale: .inf, model: {family: adm}}}": "scale",
	} {
		if _, err := fromYAML(t, yaml); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", yaml, err, want)
		}
	}
}
