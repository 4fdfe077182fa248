package guidance

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// flat is a network that predicts a number everywhere, and keeps the labels that
// it was asked about. Where it has classes it needs a label.
type flat struct {
	eps     float32
	classes int
	null    []int64
	asked   [][]int64
}

func (d *flat) Classes() int { return d.classes }

func (d *flat) Null(_ context.Context, n int) (sampling.Cond, error) {
	if d.null == nil {
		return sampling.Cond{}, nil
	}
	return sampling.Cond{Labels: slices.Repeat(d.null, n)}, nil
}

func (d *flat) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	d.asked = append(d.asked, c.Labels)
	if d.classes > 0 && len(c.Labels) != x.Rows() {
		return sampling.Prediction{}, errors.New("no labels")
	}
	p := sampling.Prediction{Eps: x.Like()}
	for j := range p.Eps.Data {
		p.Eps.Data[j] = d.eps
	}
	return p, nil
}

// A network without ∅ is contrasted with another one, and with none of its own
// predictions; SAG beside it degrades the condition's.
func TestNullNetwork(t *testing.T) {
	x := noise(t, 2, 4, 4, 4)
	for name, other := range map[string]*flat{"unconditional": {eps: 0.25}, "with ∅": {eps: 0.25, classes: 5, null: []int64{5}}} {
		sag := NewSAG()
		sag.Layer, sag.MaskThreshold, sag.BlurKernel = "layer", -1, 3
		g := &CFG{3, ClassifierFree{Model: sampling.Ref{Flags: "of a network"}}}
		if err := g.Attach(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		d := &labelled{}
		p := labelledPredictor(t, d, g, sag)
		p.Null = sampling.Cond{}
		at := p.Schedule.Timestep(3)
		delta, err := g.Delta(t.Context(), p.Step(x, at))
		if err != nil {
			t.Fatal(err)
		}
		for n := range 2 {
			for j, v := range x.Row(n) {
				want := 2 * (labelledEps(v, p.Cond.Labels[n], j/16) - 0.25)
				if math.Abs(float64(delta.Eps.Row(n)[j]-want)) > 1e-5 {
					t.Fatalf("%s: image %d, value %d: %g, want %g", name, n, j, delta.Eps.Row(n)[j], want)
				}
			}
		}
		if !slices.Equal(other.asked[0], slices.Repeat(other.null, 2)) {
			t.Errorf("%s: asked about %v", name, other.asked)
		}
		d.images = 0
		if _, _, err := p.Predict(t.Context(), x, at); err != nil || d.images != 4 {
			t.Errorf("%s, beside sag: %d images through the guided network, want 4: %v", name, d.images, err)
		}
	}
	g := NewCFG()
	for want, network := range map[string]any{
		"expected a network that predicts ε":       7,
		"needs one of 5 classes and knows no ∅":    &flat{classes: 5},
		"takes no condition, so there is nothing":  nil,
		"cfg: {model: {family: …, checkpoint: …}}": nil,
	} {
		var err error
		if network != nil {
			err = g.Attach(t.Context(), network)
		} else {
			p := labelledPredictor(t, &labelled{}, g)
			p.Null = sampling.Cond{}
			if strings.HasPrefix(want, "takes") {
				p.Cond = sampling.Cond{}
			}
			_, err = g.Delta(t.Context(), p.Step(x, p.Schedule.Timestep(3)))
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}

// Autoguidance moves from the worse network's prediction of the same condition,
// in one call of it, and none where it is off.
func TestAutoguidance(t *testing.T) {
	x, start := noise(t, 2, 4, 4, 4), 100.0
	for _, c := range []struct {
		scale float64
		start *float64
		calls int
	}{{2.5, nil, 1}, {0, nil, 1}, {1, nil, 0}, {2.5, &start, 0}} {
		worse := &flat{eps: -0.5, classes: 9}
		g := &Autoguidance{Scale: c.scale, Contrast: Contrast{Start: c.start}}
		if err := g.Attach(t.Context(), worse); err != nil {
			t.Fatal(err)
		}
		p := labelledPredictor(t, &labelled{}, g)
		got, _, err := p.Predict(t.Context(), x, p.Schedule.Timestep(9))
		if err != nil {
			t.Fatal(err)
		}
		for j, v := range x.Row(1) {
			want := labelledEps(v, 7, j/16)
			if c.calls > 0 {
				want = -0.5 + float32(c.scale)*(want+0.5)
			}
			if math.Abs(float64(got.Eps.Row(1)[j]-want)) > 1e-5 {
				t.Fatalf("%+v: value %d: %g, want %g", c, j, got.Eps.Row(1)[j], want)
			}
		}
		if len(worse.asked) != c.calls || c.calls > 0 && !slices.Equal(worse.asked[0], p.Cond.Labels) {
			t.Errorf("%+v: the worse network was asked about %v", c, worse.asked)
		}
	}
	if err := NewAutoguidance().Attach(t.Context(), "a network"); err == nil {
		t.Error("attached what predicts nothing")
	}
}
