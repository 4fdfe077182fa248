package sampling

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sagbench/sampling/tensor"
)

// linear predicts ε = 3x under labels and 2x without, and counts its calls.
type linear struct{ calls int }

func (l *linear) Denoise(_ context.Context, x tensor.Tensor, _ Timestep, c Cond) (Prediction, error) {
	l.calls++
	k := 2.0
	if c.Labels != nil {
		k = 3
	}
	return Prediction{Eps: each(x, func(v float64) float64 { return k * v }), Attn: tensor.New(x.Rows(), 4)}, nil
}

// Guidances see the unguided prediction, share its calls, and add up.
func TestComposition(t *testing.T) {
	classifierFree := guide(func(ctx context.Context, s *Step) (Delta, error) {
		c, err := s.Predict(ctx, s.Cond())
		if err != nil {
			return Delta{}, err
		}
		u, err := s.Predict(ctx, Cond{})
		if err != nil {
			return Delta{}, err
		}
		d := c.Eps.Like()
		for i := range d.Data {
			d.Data[i] = 6.5 * (c.Eps.Data[i] - u.Eps.Data[i])
		}
		return Delta{Eps: d}, nil
	})
	shifted := guide(func(ctx context.Context, s *Step) (Delta, error) {
		u, err := s.Predict(ctx, Cond{})
		if err != nil {
			return Delta{}, err
		}
		q, err := s.PredictAt(ctx, each(s.X, func(v float64) float64 { return v + 0.5 }), Cond{})
		if err != nil {
			return Delta{}, err
		}
		d := u.Eps.Like()
		for i := range d.Data {
			d.Data[i] = 0.75 * (u.Eps.Data[i] - q.Eps.Data[i])
		}
		return Delta{Eps: d, Score: each(s.X, func(v float64) float64 { return v })}, nil
	})
	nothing := guide(func(context.Context, *Step) (Delta, error) { return Delta{}, nil })
	s := schedule(t, "10")
	x := tensor.Of([]float32{1, -2}, 1, 1, 1, 2)
	for _, c := range []struct {
		guidances []Guidance
		labels    []int64
		eps       []float32 // of x = 1 and −2
		score     []float32
		calls     int
	}{
		{nil, []int64{7}, []float32{3, -6}, nil, 1},
		{[]Guidance{nothing}, nil, []float32{2, -4}, nil, 1},
		{[]Guidance{classifierFree}, []int64{7}, []float32{9.5, -19}, nil, 2},
		{[]Guidance{classifierFree, nothing, shifted}, []int64{7}, []float32{8.75, -19.75}, []float32{1, -2}, 3},
		{[]Guidance{shifted, shifted}, []int64{7}, []float32{1.5, -7.5}, []float32{2, -4}, 4},
		{[]Guidance{shifted}, nil, []float32{1.25, -4.75}, []float32{1, -2}, 2},
	} {
		l := &linear{}
		var traced []string
		p := &Predictor{Denoiser: l, Guidances: c.guidances, Schedule: s, Cond: Cond{Labels: c.labels},
			Trace: func(name string, at Timestep, v tensor.Tensor) {
				traced = append(traced, fmt.Sprintf("%s %d %v", name, at.Index, v.Shape))
				if name == "eps_guided" && !slices.Equal(v.Data, c.eps) {
					t.Errorf("traced ε is %v, want %v", v.Data, c.eps)
				}
			}}
		got, score, err := p.Predict(t.Context(), x, s.Timestep(4))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Eps.Data, c.eps) || !slices.Equal(score.Data, c.score) || l.calls != c.calls {
			t.Errorf("%d guidances: ε %v, score %v after %d calls, want %v, %v after %d", len(c.guidances), got.Eps.Data, score.Data, l.calls, c.eps, c.score, c.calls)
		}
		if want := []string{"output 4 [1 1 1 2]", "state 4 [1 1 1 2]", "eps_guided 4 [1 1 1 2]", "attention_step 4 [1 4]"}; !slices.Equal(traced, want) {
			t.Errorf("traced %q, want %q", traced, want)
		}
	}
}

// tapped is a Guidance that needs a map.
type tapped struct {
	guide
	tap Tap
}

func (g tapped) Tap() Tap { return g.tap }

func TestTapOf(t *testing.T) {
	a, b := tapped{tap: Tap{Layer: "middle_block.1", Heads: 4}}, tapped{tap: Tap{Layer: "middle_block.1"}}
	for _, c := range []struct {
		guidances []Guidance
		tap       Tap
		needed    bool
		fails     bool
	}{
		{nil, Tap{}, false, false},
		{[]Guidance{guide(nil)}, Tap{}, false, false},
		{[]Guidance{tapped{}}, Tap{}, false, false},
		{[]Guidance{a, tapped{}}, a.tap, true, false},
		{[]Guidance{guide(nil), a, guide(nil), a}, a.tap, true, false},
		{[]Guidance{a, b}, Tap{}, false, true},
	} {
		tap, needed, err := TapOf(c.guidances)
		if tap != c.tap || needed != c.needed || (err != nil) != c.fails {
			t.Errorf("%d guidances: %v, %v, %v, want %v, %v", len(c.guidances), tap, needed, err, c.tap, c.needed)
		}
	}
}

func TestCondEqual(t *testing.T) {
	context1, context2 := tensor.New(1, 2, 3), tensor.New(1, 2, 3)
	context3 := tensor.New(1, 3, 2)
	context4 := tensor.New(1, 2, 3)
	context4.Data[5] = 1
	for _, c := range []struct {
		a, b Cond
		want bool
	}{
		{Cond{}, Cond{}, true},
		{Cond{Labels: []int64{1, 2}}, Cond{Labels: []int64{1, 2}}, true},
		{Cond{Labels: []int64{1, 2}}, Cond{Labels: []int64{1, 3}}, false},
		{Cond{Labels: []int64{0}}, Cond{}, false},
		{Cond{Context: context1}, Cond{Context: context2}, true},
		{Cond{Context: context1}, Cond{Context: context1}, true},
		{Cond{Context: context1}, Cond{Context: context3}, false},
		{Cond{Context: context1}, Cond{Context: context4}, false},
		{Cond{Context: context1}, Cond{}, false},
		{Cond{Context: context1, Vector: tensor.New(1, 2)}, Cond{Context: context2, Vector: tensor.New(1, 2)}, true},
		{Cond{Context: context1, Vector: tensor.New(1, 2)}, Cond{Context: context1, Vector: tensor.Of([]float32{0, 1}, 1, 2)}, false},
		{Cond{Context: context1, Vector: tensor.New(1, 2)}, Cond{Context: context1}, false},
	} {
		if c.a.Equal(c.b) != c.want || c.b.Equal(c.a) != c.want {
			t.Errorf("%v equals %v: not %v", c.a, c.b, c.want)
		}
	}
}

// A network that predicts x_0 or v samples as the one that predicts ε.
func TestPredicts(t *testing.T) {
	g := gaussian{0.2, 0.5}
	x := start(t, 21, 2, 1, 6)
	for _, sampler := range every(12) {
		s := scheduleOf(t, sampler, DefaultSchedule())
		run := func(kind Parametrization, f func(x, eps, bar float64) float64) []float32 {
			t.Helper()
			d := denoise(func(x tensor.Tensor, at Timestep, c Cond) (Prediction, error) {
				p, err := g.denoiser(s, true).Denoise(t.Context(), x, at, c)
				for i, e := range p.Eps.Data {
					p.Eps.Data[i] = float32(f(float64(x.Data[i]), float64(e), s.AlphaBar(at.Index)))
				}
				return p, err
			})
			out, err := sampler.Sample(t.Context(), &Predictor{Denoiser: d, Schedule: s, Predicts: kind}, x, Keyed{21, numbers(2)})
			if err != nil {
				t.Fatal(err)
			}
			return out.Data
		}
		want := run(Epsilon, func(_, eps, _ float64) float64 { return eps })
		_, multistep := sampler.(*PNDM)
		if !multistep {
			got := run(XStart, func(x, eps, bar float64) float64 { return (x - math.Sqrt(1-bar)*eps) / math.Sqrt(bar) })
			if far(got, want) > 1e-4 {
				t.Errorf("%T: x_0: distance %.2g", sampler, far(got, want))
			}
		}
		got := run(V, func(x, eps, bar float64) float64 {
			return math.Sqrt(bar)*eps - math.Sqrt(1-bar)*(x-math.Sqrt(1-bar)*eps)/math.Sqrt(bar)
		})
		// linear multistep in v is not that in ε, but of the same order
		if tolerance := map[bool]float64{false: 1e-4, true: 0.3}[multistep]; far(got, want) > tolerance {
			t.Errorf("%T: v: distance %.2g", sampler, far(got, want))
		}
	}
	s := schedule(t, "12")
	for _, c := range []struct {
		sampler Sampler
		kind    Parametrization
		want    string
	}{
		{&DDIM{Steps: 12}, "score", `the network predicts "score", expected epsilon, x_start or v`},
		{&PNDM{Steps: 12}, XStart, "pndm combines predictions of several timesteps"},
	} {
		p := &Predictor{Denoiser: g.denoiser(s, false), Schedule: s, Predicts: c.kind}
		if _, err := c.sampler.Sample(t.Context(), p, x, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%T, %s: %v lacks %q", c.sampler, c.kind, err, c.want)
		}
	}
}

// What follows from x_t, x_0 and ε inverts each other and agrees with the tables.
func TestCoefficients(t *testing.T) {
	s := schedule(t, "50")
	xStart, eps := start(t, 31, 2, 3, 4), start(t, 32, 2, 3, 4)
	each := func(f func(a, b float32) float32, a, b tensor.Tensor) tensor.Tensor {
		out := a.Like()
		for j := range out.Data {
			out.Data[j] = f(a.Data[j], b.Data[j])
		}
		return out
	}
	for _, i := range []int{0, 20, 49} {
		c := s.At(i)
		x := each(c.Noised, xStart, eps)
		for j, v := range x.Data {
			want := math.Sqrt(s.AlphaBar(i))*float64(xStart.Data[j]) + math.Sqrt(1-s.AlphaBar(i))*float64(eps.Data[j])
			if math.Abs(float64(v)-want) > 1e-6 {
				t.Fatalf("x_t of step %d, [%d] = %g, want %g", i, j, v, want)
			}
		}
		// the rounding of x grows by 1/√ᾱ or 1/√(1−ᾱ)
		if d := far(each(c.XStart, x, eps).Data, xStart.Data); d > 2e-7/math.Sqrt(s.AlphaBar(i)) {
			t.Errorf("x_0 of step %d comes back at distance %.2g", i, d)
		}
		if d := far(each(c.Eps, x, xStart).Data, eps.Data); d > 4e-7/math.Sqrt(1-s.AlphaBar(i)) {
			t.Errorf("ε of step %d comes back at distance %.2g", i, d)
		}
		mean := each(c.PosteriorMean, xStart, x)
		for j, v := range mean.Data {
			want := s.posteriorMean1[i]*float64(xStart.Data[j]) + s.posteriorMean2[i]*float64(x.Data[j])
			if math.Abs(float64(v)-want) > 1e-6 {
				t.Fatalf("PosteriorMean of step %d, [%d] = %g, want %g", i, j, v, want)
			}
		}
	}
}

// What an output says in another parametrization follows from x_0 and ε, and
// slopes are how far each moves beside the others.
func TestExpress(t *testing.T) {
	s := schedule(t, "50")
	kinds := []Parametrization{Epsilon, XStart, V, Velocity}
	of := func(kind Parametrization, bar, x0, eps float64) float64 {
		return map[Parametrization]float64{Epsilon: eps, XStart: x0, V: math.Sqrt(bar)*eps - math.Sqrt(1-bar)*x0, Velocity: eps - x0}[kind]
	}
	for _, i := range []int{0, 20, 49} {
		c, bar := s.At(i), s.AlphaBar(i)
		x := 0.4
		at := func(kind Parametrization, eps float64) float64 {
			return of(kind, bar, (x-math.Sqrt(1-bar)*eps)/math.Sqrt(bar), eps)
		}
		for _, kind := range kinds[:3] {
			for _, as := range kinds {
				var got [1]float32
				c.Express([]float32{float32(at(kind, 0.7))}, kind, []float32{float32(x)}, as, got[:])
				if want := at(as, 0.7); math.Abs(float64(got[0])-want) > 2e-4*(1+math.Abs(want)) {
					t.Errorf("step %d: %s as %s: %g, want %g", i, kind, as, got[0], want)
				}
				moved := (at(as, 0.8) - at(as, 0.7)) / (at(kind, 0.8) - at(kind, 0.7))
				if ratio := float64(c.Slope(as) / c.Slope(kind)); math.Abs(ratio/moved-1) > 1e-4 {
					t.Errorf("step %d: %s moves %g times as far as %s, want %g", i, as, ratio, kind, moved)
				}
			}
		}
	}
}

// States last from x_T to x_0 and no longer, each with its owner.
func TestState(t *testing.T) {
	var seen []int
	count := guide(func(_ context.Context, s *Step) (Delta, error) {
		n := State[int](s, "a")
		*n++
		seen = append(seen, *n, *State[int](s, "b"))
		return Delta{}, nil
	})
	s := schedule(t, "3")
	p := &Predictor{Denoiser: &linear{}, Guidances: []Guidance{count}, Schedule: s, ClipDenoised: true}
	for range 2 {
		if _, err := (&DDIM{Steps: 3}).Sample(t.Context(), p, start(t, 1, 1, 1, 2), nil); err != nil {
			t.Fatal(err)
		}
	}
	if want := []int{1, 0, 2, 0, 3, 0, 1, 0, 2, 0, 3, 0}; !slices.Equal(seen, want) {
		t.Errorf("states %v, want %v", seen, want)
	}
}
