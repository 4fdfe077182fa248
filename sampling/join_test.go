package sampling

import (
	"context"
	"errors"
	"slices"
	"testing"

	"sagbench/sampling/tensor"
)

// wanting is a guidance that wants predictions and adds them up.
type wanting []Cond

func (w wanting) Wants(*Step) []Cond { return w }

func (w wanting) Delta(ctx context.Context, s *Step) (Delta, error) {
	var d Delta
	for _, c := range w {
		p, err := s.Predict(ctx, c)
		if err != nil {
			return Delta{}, err
		}
		d.Eps = sum(d.Eps, p.Eps.Clone())
	}
	return d, nil
}

// described predicts label + the context's mean + the vector's second number + x everywhere, a map of the
// label, and keeps the number of images of each call.
type described struct {
	calls []int
	fails error
}

func (d *described) Denoise(_ context.Context, x tensor.Tensor, _ Timestep, c Cond) (Prediction, error) {
	d.calls = append(d.calls, x.Rows())
	p := Prediction{Eps: x.Clone(), Var: x.Like(), Attn: tensor.New(x.Rows(), 4)}
	for n := range x.Rows() {
		var add float32
		if c.Labels != nil {
			add = float32(c.Labels[n])
		}
		if !c.Context.IsZero() {
			for _, v := range c.Context.Row(n) {
				add += v / float32(c.Context.RowLen())
			}
		}
		if !c.Vector.IsZero() {
			add += c.Vector.Row(n)[1]
		}
		for j := range p.Eps.Row(n) {
			p.Eps.Row(n)[j] += add
			p.Var.Row(n)[j] = add
		}
		p.Attn.Row(n)[0] = add
	}
	return p, d.fails
}

// Predictions that are wanted beforehand come in as few calls as their
// conditions allow, and are those of calls of their own.
func TestJoin(t *testing.T) {
	labels := func(y ...int64) Cond { return Cond{Labels: y} }
	text := func(length int, v float32) Cond {
		c := Cond{Context: tensor.New(2, length, 2)}
		for i := range c.Context.Data {
			c.Context.Data[i] = v
		}
		return c
	}
	sized := func(c Cond, v ...float32) Cond {
		c.Vector = tensor.Of(v, 2, len(v)/2)
		return c
	}
	s, x := schedule(t, "10"), start(t, 5, 2, 1, 3)
	for _, c := range []struct {
		name      string
		cond      Cond
		guidances []Guidance
		calls     []int // images of each
	}{
		{"none", labels(1, 2), nil, []int{2}},
		{"the unguided one alone", labels(1, 2), []Guidance{wanting{labels(1, 2)}}, []int{2}},
		{"two", labels(1, 2), []Guidance{wanting{labels(9, 9)}}, []int{4}},
		{"shared", labels(1, 2), []Guidance{wanting{labels(9, 9)}, wanting{labels(9, 9), labels(1, 2)}}, []int{4}},
		{"three", labels(1, 2), []Guidance{wanting{labels(9, 9)}, wanting{labels(8, 9)}}, []int{6}},
		{"texts", text(3, 1), []Guidance{wanting{text(3, 2)}}, []int{4}},
		{"texts of two lengths", text(3, 1), []Guidance{wanting{text(5, 2), text(3, 3), text(5, 4)}}, []int{4, 4}},
		{"texts and vectors", sized(text(3, 1), 1, 2, 3, 4), []Guidance{wanting{sized(text(3, 1), 1, 5, 3, 7)}}, []int{4}},
		{"with and without a vector", sized(text(3, 1), 1, 2, 3, 4), []Guidance{wanting{text(3, 1)}}, []int{2, 2}},
		{"labels and ∅", labels(1, 2), []Guidance{wanting{Cond{}, labels(3, 3)}}, []int{4, 2}},
	} {
		d := &described{}
		p := &Predictor{Denoiser: d, Guidances: c.guidances, Schedule: s, Cond: c.cond}
		got, _, err := p.Predict(t.Context(), x, s.Timestep(4))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(d.calls, c.calls) {
			t.Errorf("%s: calls of %v images, want %v", c.name, d.calls, c.calls)
		}
		alone := &Predictor{Denoiser: &described{}, Schedule: s, Cond: c.cond}
		for _, g := range c.guidances {
			alone.Guidances = append(alone.Guidances, guide(g.Delta)) // wants nothing
		}
		want, _, err := alone.Predict(t.Context(), x, s.Timestep(4))
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]tensor.Tensor{{got.Eps, want.Eps}, {got.Var, want.Var}, {got.Attn, want.Attn}} {
			if !slices.Equal(pair[0].Shape, pair[1].Shape) || !slices.Equal(pair[0].Data, pair[1].Data) {
				t.Errorf("%s: %v, want %v", c.name, pair[0], pair[1])
			}
		}
	}
	broken := errors.New("broken")
	p := &Predictor{Denoiser: &described{fails: broken}, Guidances: []Guidance{wanting{labels(9, 9)}}, Schedule: s, Cond: labels(1, 2)}
	if _, _, err := p.Predict(t.Context(), x, s.Timestep(4)); !errors.Is(err, broken) {
		t.Errorf("a failing network: %v", err)
	}
}
