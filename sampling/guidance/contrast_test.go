package guidance

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// waves predicts ε = sin(x + label + j/7)/2 + x/3 for value j, said in the terms
// that it predicts; label 10 is ∅.
type waves struct {
	s        *sampling.Schedule
	predicts sampling.Parametrization
}

func wave(x float64, label int64, j int) float64 {
	return math.Sin(x+float64(label)+float64(j)/7)/2 + x/3
}

func (d waves) Denoise(_ context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	p := sampling.Prediction{Eps: x.Like(), Attn: tensor.New(x.Rows(), 4)}
	bar := d.s.AlphaBar(t.Index)
	for n := range x.Rows() {
		for j, v := range x.Row(n) {
			eps := wave(float64(v), c.Labels[n], j)
			x0 := (float64(v) - math.Sqrt(1-bar)*eps) / math.Sqrt(bar)
			switch d.predicts {
			case sampling.XStart:
				eps = x0
			case sampling.V:
				eps = math.Sqrt(bar)*eps - math.Sqrt(1-bar)*x0
			}
			p.Eps.Row(n)[j] = float32(eps)
		}
	}
	return p, nil
}

// wavesPredictor is of a network that predicts ε, v or x_0, for images of the
// labels 3, 7, 3, …
func wavesPredictor(t *testing.T, kind sampling.Parametrization, images int, g ...sampling.Guidance) *sampling.Predictor {
	s := schedule(t)
	p := &sampling.Predictor{Denoiser: waves{s, kind}, Guidances: g, Schedule: s, Predicts: kind, ClipDenoised: true}
	for n := range images {
		p.Cond.Labels, p.Null.Labels = append(p.Cond.Labels, int64(3+4*(n%2))), append(p.Null.Labels, 10)
	}
	return p
}

// spoken is c, u and the difference that a guidance made of them, of image n, in
// a space, all from first principles.
func spoken(s *sampling.Schedule, i int, x []float32, label int64, delta []float32, space sampling.Parametrization) (c, u, d []float64) {
	bar := s.AlphaBar(i)
	of := func(x, eps float64) float64 {
		x0 := (x - math.Sqrt(1-bar)*eps) / math.Sqrt(bar)
		return map[sampling.Parametrization]float64{
			sampling.Epsilon: eps, sampling.XStart: x0,
			sampling.V: math.Sqrt(bar)*eps - math.Sqrt(1-bar)*x0, sampling.Velocity: eps - x0,
		}[space]
	}
	for j, v := range x {
		x := float64(v)
		eps, null := wave(x, label, j), wave(x, 10, j)
		c, u = append(c, of(x, eps)), append(u, of(x, null))
		d = append(d, of(x, eps+float64(delta[j]))-of(x, eps))
	}
	return c, u, d
}

func inner(a, b []float64) float64 {
	sum := 0.0
	for j := range a {
		sum += a[j] * b[j]
	}
	return sum
}

// combined is a·x + b·y.
func combined(a float64, x []float64, b float64, y []float64) []float64 {
	out := make([]float64, len(x))
	for j := range out {
		out[j] = a*x[j] + b*y[j]
	}
	return out
}

// Each method against its formula in float64, in each space.
func TestContrastFormulas(t *testing.T) {
	x := noise(t, 2, 2, 4, 4)
	s := schedule(t)
	spaces := []sampling.Parametrization{sampling.Epsilon, sampling.XStart, sampling.V, sampling.Velocity}
	for _, space := range spaces {
		for _, m := range []struct {
			name string
			g    sampling.Guidance
			want func(c, u []float64) []float64
		}{
			{"cfg", &CFG{2.5, inSpace(space)}, func(c, u []float64) []float64 { return combined(1.5, c, -1.5, u) }},
			{"apg", &APG{Scale: 3, Eta: 0.25, NormThreshold: 0.5, ClassifierFree: inSpace(space)}, func(c, u []float64) []float64 {
				d := combined(1, c, -1, u)
				if length := math.Sqrt(inner(d, d)); length > 0.5 {
					d = combined(0.5/length, d, 0, d)
				}
				return combined(2, d, -2*0.75*inner(d, c)/inner(c, c), c)
			}},
			{"cfg_zero_star", &CFGZeroStar{Scale: 4, ClassifierFree: inSpace(space)}, func(c, u []float64) []float64 {
				return combined(3, c, -3*inner(c, u)/inner(u, u), u)
			}},
			{"mambo_g", &MAMBOG{5, 2, inSpace(space)}, func(c, u []float64) []float64 {
				d := combined(1, c, -1, u)
				return combined(4*math.Exp(-2*math.Sqrt(inner(d, d)/inner(u, u))), d, 0, d)
			}},
			{"tcfg", &TCFG{2, inSpace(space)}, func(c, u []float64) []float64 {
				var svd mat.SVD
				if !svd.Factorize(mat.NewDense(2, len(c), slices.Concat(c, u)), mat.SVDThin) {
					t.Fatal("no singular values")
				}
				var v mat.Dense
				svd.VTo(&v)
				first := mat.Col(nil, 0, &v)
				return combined(1, c, -inner(u, first), first)
			}},
			{"fdg", &FDG{Scales: []float64{3, 3}, ClassifierFree: inSpace(space)}, func(c, u []float64) []float64 { return combined(2, c, -2, u) }},
		} {
			p := wavesPredictor(t, "", 2, m.g)
			delta, err := m.g.Delta(t.Context(), p.Step(x, s.Timestep(5)))
			if err != nil {
				t.Fatal(err)
			}
			for n := range 2 {
				c, u, got := spoken(s, 5, x.Row(n), p.Cond.Labels[n], delta.Eps.Row(n), space)
				want, worst := m.want(c, u), 0.0
				for j := range want {
					worst = max(worst, math.Abs(got[j]-want[j])/math.Sqrt(inner(want, want)))
				}
				if worst > 2e-5 {
					t.Errorf("%s in %s: image %d: off by %.2g of its length", m.name, space, n, worst)
				}
			}
		}
	}
}

// A guidance whose space is given guides the same, whatever the network predicts.
func TestContrastParametrizations(t *testing.T) {
	x := noise(t, 2, 1, 8, 8)
	for _, name := range []string{"apg", "cfg_zero_star", "mambo_g", "tcfg"} {
		run := func(kind sampling.Parametrization) []float32 {
			out, err := (&sampling.DDIM{Steps: 10}).Sample(t.Context(), wavesPredictor(t, kind, 2, Registry[name]()), x, nil)
			if err != nil {
				t.Fatal(err)
			}
			return out.Data
		}
		want := run("")
		for _, kind := range []sampling.Parametrization{sampling.V, sampling.XStart} {
			if err := near(run(kind), want, 2e-3); err != nil {
				t.Errorf("%s of %s: %v", name, kind, err)
			}
		}
	}
}

// CFG-Zero* leaves the state of the straight path where it is in its first steps.
func TestZeroVelocity(t *testing.T) {
	x := noise(t, 2, 1, 4, 4)
	p := wavesPredictor(t, "", 2, &CFGZeroStar{Scale: 3, ZeroInitSteps: 2, ClassifierFree: inSpace("velocity")})
	for i := 9; i >= 7; i-- {
		got, _, err := p.Predict(t.Context(), x, p.Schedule.Timestep(i))
		if err != nil {
			t.Fatal(err)
		}
		bar := p.Schedule.AlphaBar(i)
		stands := true
		for j, v := range x.Data {
			stands = stands && math.Abs(float64(got.Eps.Data[j])-float64(v)/(math.Sqrt(bar)+math.Sqrt(1-bar))) < 1e-5
		}
		if stands != (i >= 8) {
			t.Errorf("step %d: velocity 0: %v", i, stands)
		}
	}
}

// The bands of FDG: a constant difference is of the lowest frequency alone, a
// chequered one of the highest.
func TestFDGBands(t *testing.T) {
	for _, c := range []struct {
		name  string
		at    func(x, y int) float32
		scale float32
	}{
		{"constant", func(x, y int) float32 { return 0.5 }, 3},
		{"chequered", func(x, y int) float32 { return 0.5 - float32((x+y)%2) }, 7},
	} {
		conditional, null := eighths(7, 3, 11), tensor.New(2, 2, 8, 8)
		for j, v := range conditional.Data {
			null.Data[j] = v - c.at(j%8, j/8%8)
		}
		g := &FDG{Scales: []float64{8, 4}}
		p := labelledPredictor(t, &pair{[]tensor.Tensor{conditional}, []tensor.Tensor{null}}, g)
		delta, err := g.Delta(t.Context(), p.Step(tensor.New(2, 2, 8, 8), p.Schedule.Timestep(9)))
		if err != nil {
			t.Fatal(err)
		}
		for j, got := range delta.Eps.Data {
			if want := c.scale * c.at(j%8, j/8%8); math.Abs(float64(got-want)) > 1e-5 {
				t.Fatalf("%s: value %d: %g, want %g", c.name, j, got, want)
			}
		}
	}
	p := labelledPredictor(t, &labelled{}, NewFDG())
	if _, _, err := p.Predict(t.Context(), tensor.New(2, 1, 6, 7), p.Schedule.Timestep(3)); err == nil || !strings.Contains(err.Error(), "2 scales halve the 6×7 image 1 times") {
		t.Errorf("an odd size: %v", err)
	}
}

// What APG remembers belongs to an image and a run: batches do not change it, nor
// does what the predictor drew before.
func TestMomentumOfImages(t *testing.T) {
	g := &APG{Scale: 3, Momentum: -0.75, NormThreshold: 1, ClassifierFree: inSpace("x_start")}
	x := noise(t, 4, 1, 4, 4)
	draw := func(p *sampling.Predictor, x tensor.Tensor) tensor.Tensor {
		out, err := (&sampling.DDIM{Steps: 10}).Sample(t.Context(), p, x, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	p := wavesPredictor(t, "", 4, g)
	want := draw(p, x)
	if again := draw(p, x); !slices.Equal(again.Data, want.Data) {
		t.Error("a second run of the same predictor differs")
	}
	alone := wavesPredictor(t, "", 2, g)
	if got := draw(alone, x.Slice(2, 4)); !slices.Equal(got.Data, want.Slice(2, 4).Data) {
		t.Error("images differ between batches of 2 and 4")
	}
	forgetful := *g
	forgetful.Momentum = 0
	if got := draw(wavesPredictor(t, "", 4, &forgetful), x); slices.Equal(got.Data, want.Data) {
		t.Error("momentum changes nothing")
	}
}

// Where a guidance is off, it makes no network call and no difference.
func TestContrastSwitches(t *testing.T) {
	late, x := 100.0, tensor.New(2, 1, 8, 8)
	off := ClassifierFree{Contrast: Contrast{Start: &late}}
	for _, c := range []struct {
		name   string
		g      contrast
		passes int
	}{
		{"apg, s = 1", &APG{Scale: 1, CFGScale: 3}, 1},
		{"apg, out of the interval", &APG{Scale: 3, ClassifierFree: off}, 1},
		{"apg", NewAPG(), 2},
		{"cfg_zero_star, s = 1", &CFGZeroStar{Scale: 1}, 1},
		{"cfg_zero_star, first step", NewCFGZeroStar(), 1},
		{"cfg_zero_star", &CFGZeroStar{Scale: 3}, 2},
		{"fdg, all 1", &FDG{Scales: []float64{1, 1}}, 1},
		{"fdg, out of the interval", &FDG{Scales: []float64{3, 1}, ClassifierFree: off}, 1},
		{"fdg", &FDG{Scales: []float64{1, 3}}, 2},
		{"mambo_g, s = 1", &MAMBOG{Scale: 1, Alpha: 8}, 1},
		{"mambo_g", NewMAMBOG(), 2},
		{"tcfg, s = 1", &TCFG{Scale: 1}, 1},
		{"tcfg", NewTCFG(), 2},
	} {
		d := &labelled{}
		p := labelledPredictor(t, d, c.g)
		step := p.Schedule.Timestep(9)
		if _, _, err := p.Predict(t.Context(), x, step); err != nil {
			t.Fatal(err)
		}
		if d.images != 2*c.passes || c.g.on(p.Step(x, step)) != (c.passes == 2) {
			t.Errorf("%s: %d images through the network, want %d", c.name, d.images, 2*c.passes)
		}
		p.Null = sampling.Cond{}
		if _, _, err := p.Predict(t.Context(), x, step); (err != nil) != (c.passes == 2) {
			t.Errorf("%s without ∅: %v", c.name, err)
		}
	}
}
