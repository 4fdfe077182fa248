package guidance

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// toy is a network with a closed form: ε = sin(x)/2 + t/4000, said in the
// terms that it predicts, and a map that depends on the state, of positions
// [rows, columns]. It counts its calls and keeps the states that it was asked
// about.
type toy struct {
	rows, columns int
	predicts      sampling.Parametrization
	s             *sampling.Schedule // of the predictor, where it predicts x_0 or v
	asked         []tensor.Tensor
}

// output is what the toy says at step i.
func (d *toy) output(x float64, t sampling.Timestep) float64 {
	eps := toyEps(x, t.Value)
	if d.predicts == "" {
		return eps
	}
	bar := d.s.AlphaBar(t.Index)
	x0 := (x - math.Sqrt(1-bar)*eps) / math.Sqrt(bar)
	switch d.predicts {
	case sampling.XStart:
		return x0
	case sampling.Flow: // on SiT's linear path
		return x0 - eps
	}
	return math.Sqrt(bar)*eps - math.Sqrt(1-bar)*x0
}

func toyEps(x, t float64) float64 { return math.Sin(x)/2 + t/4000 }

// toyMass is between 0.5 and 1.5, and never near 1.
func toyMass(x0, position float64) float64 {
	m := 1 + 0.5*math.Sin(3*x0+position)
	if math.Abs(m-1) < 1e-3 {
		return 1.1
	}
	return m
}

func (d *toy) Denoise(_ context.Context, x tensor.Tensor, t sampling.Timestep, _ sampling.Cond) (sampling.Prediction, error) {
	d.asked = append(d.asked, x.Clone())
	p := sampling.Prediction{Eps: x.Like(), Attn: tensor.New(x.Rows(), d.rows*d.columns)}
	for i, v := range x.Data {
		p.Eps.Data[i] = float32(d.output(float64(v), t))
	}
	for n := range x.Rows() {
		for j := range p.Attn.Row(n) {
			p.Attn.Row(n)[j] = float32(toyMass(float64(x.Row(n)[0]), float64(j)))
		}
	}
	return p, nil
}

// naive is x̂_t of one image, [C,H,W], as attention_masking says it: a mask
// enlarged by repetition, a kernel of width×width pixels, x̂0 padded by
// reflection, in float64 throughout.
func naive(g *SAG, d *toy, s *sampling.Schedule, i int, x []float32, attention []float32, height, width int, clip bool) []float32 {
	bar := s.AlphaBar(i)
	t := s.Timestep(i).Value
	x0 := make([]float64, len(x))
	for j, v := range x {
		x0[j] = (float64(v) - math.Sqrt(1-bar)*toyEps(float64(v), t)) / math.Sqrt(bar)
		if clip {
			x0[j] = math.Max(-1, math.Min(1, x0[j]))
		}
	}
	half := g.BlurKernel / 2
	weight := func(dy, dx int) float64 { return math.Exp(-float64(dy*dy+dx*dx) / (2 * g.BlurSigma * g.BlurSigma)) }
	total := 0.0
	for dy := -half; dy <= half; dy++ {
		for dx := -half; dx <= half; dx++ {
			total += weight(dy, dx)
		}
	}
	out := make([]float32, len(x))
	for j, v := range x {
		channel, y, column := j/(height*width)*height*width, j/width%height, j%width
		clean := x0[j]
		if attention[y*d.rows/height*d.columns+column*d.columns/width] > float32(g.MaskThreshold) {
			clean = 0
			for dy := -half; dy <= half; dy++ {
				for dx := -half; dx <= half; dx++ {
					clean += weight(dy, dx) / total * x0[channel+bounce(y+dy, height)*width+bounce(column+dx, width)]
				}
			}
		}
		out[j] = float32(math.Sqrt(bar)*clean + math.Sqrt(1-bar)*toyEps(float64(v), t))
	}
	return out
}

// bounce walks from 0 to i, turning round at both ends of n pixels.
func bounce(i, n int) int {
	at, direction := 0, 1
	if i < 0 {
		i = -i
	}
	for ; i > 0 && n > 1; i-- {
		if at+direction < 0 || at+direction >= n {
			direction = -direction
		}
		at += direction
	}
	return at
}

func schedule(t testing.TB) *sampling.Schedule {
	t.Helper()
	s, err := sampling.NewSchedule(sampling.ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "10"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func noise(t testing.TB, shape ...int) tensor.Tensor {
	t.Helper()
	images := make([]int, shape[0])
	for i := range images {
		images[i] = i
	}
	x := tensor.New(shape...)
	if err := (sampling.Keyed{Seed: 17, Images: images}).Fill(-1, x); err != nil {
		t.Fatal(err)
	}
	return x
}

// near is an error unless got equals want to within tolerance, relative above 1.
func near(got, want []float32, tolerance float64) error {
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - float64(w)); !(d <= tolerance*math.Max(1, math.Abs(float64(w)))) {
			return fmt.Errorf("value %d is %g, want %g", i, got[i], w)
		}
	}
	return nil
}

func TestSAGNaive(t *testing.T) {
	s := schedule(t)
	for _, c := range []struct {
		name                         string
		height, width, rows, columns int
		kernel                       int
		sigma, threshold             float64
		clip                         bool
		predicts                     sampling.Parametrization
	}{
		{"fashion", 32, 32, 8, 8, 31, 1.5, 1, true, ""},
		{"wide blur", 32, 32, 16, 16, 31, 9, 1, true, ""},
		{"latent, not clipped", 16, 16, 8, 8, 9, 1, 1, false, ""},
		{"folds more than once", 6, 6, 3, 3, 31, 9, 1, true, ""},
		{"odd sizes", 15, 21, 5, 7, 7, 2, 1, true, ""},
		{"rows of groups cut", 10, 10, 5, 5, 5, 0.7, 1, true, ""},
		{"taller than wide", 24, 8, 6, 2, 31, 3, 1, true, ""},
		{"everything masked", 12, 12, 6, 6, 31, 3, 0, true, ""},
		{"nothing masked", 12, 12, 6, 6, 31, 3, 2, true, ""},
		{"identity kernel", 8, 8, 4, 4, 1, 3, 1, true, ""},
		{"one pixel", 1, 1, 1, 1, 31, 3, 0, true, ""},
		{"v, latent", 16, 16, 8, 8, 9, 1, 1, false, sampling.V},
		{"v, clipped", 12, 20, 3, 5, 31, 9, 1, true, sampling.V},
		{"x_0", 16, 8, 8, 4, 9, 1, 1, false, sampling.XStart},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &toy{rows: c.rows, columns: c.columns, predicts: c.predicts, s: s}
			g := &SAG{Scale: 0.8, BlurSigma: c.sigma, BlurKernel: c.kernel, MaskThreshold: c.threshold, Layer: "output_blocks.1.1"}
			p := &sampling.Predictor{Denoiser: d, Guidances: []sampling.Guidance{g}, Schedule: s, Predicts: c.predicts, ClipDenoised: c.clip}
			x := noise(t, 2, 3, c.height, c.width)
			const i = 4
			delta, err := g.Delta(t.Context(), p.Step(x, s.Timestep(i)))
			if err != nil {
				t.Fatal(err)
			}
			if len(d.asked) != 2 || !delta.Score.IsZero() {
				t.Fatalf("%d calls, score %v", len(d.asked), delta.Score.Shape)
			}
			for n := range x.Rows() {
				attention := make([]float32, c.rows*c.columns)
				for j := range attention {
					attention[j] = float32(toyMass(float64(x.Row(n)[0]), float64(j)))
				}
				xHat := naive(g, d, s, i, x.Row(n), attention, c.height, c.width, c.clip)
				if err := near(d.asked[1].Row(n), xHat, 2e-6); err != nil {
					t.Errorf("image %d, x̂_t: %v", n, err)
				}
				want := make([]float32, len(xHat))
				for j, v := range xHat {
					at := s.Timestep(i)
					want[j] = float32(0.8 * (d.output(float64(x.Row(n)[j]), at) - d.output(float64(v), at)))
				}
				if err := near(delta.Eps.Row(n), want, 2e-6); err != nil {
					t.Errorf("image %d, Δε: %v", n, err)
				}
			}
		})
	}
}

// The guided ε is the official ε̂ + (1+s)(ε − ε̂), with the unguided variance,
// in one more network call; off, it is ε after one call.
func TestSAGSwitches(t *testing.T) {
	s := schedule(t)
	x := noise(t, 2, 1, 8, 8)
	three, zero := 3, 0
	for _, c := range []struct {
		scale float64
		start *int
		index int
		on    bool
	}{
		{0.5, nil, 9, true}, {0.5, nil, 0, true}, {0, nil, 5, false},
		{0.5, &three, 9, false}, {0.5, &three, 3, false}, {0.5, &three, 2, true}, {0.5, &three, 0, true}, {0.5, &zero, 0, false},
	} {
		d := &toy{rows: 4, columns: 4}
		g := NewSAG()
		g.Scale, g.Start, g.Layer = c.scale, c.start, "middle_block.1"
		p := &sampling.Predictor{Denoiser: d, Guidances: []sampling.Guidance{g}, Schedule: s, ClipDenoised: true}
		at := s.Timestep(c.index)
		got, score, err := p.Predict(t.Context(), x, at)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{false: 1, true: 2}[c.on]; len(d.asked) != want || !score.IsZero() {
			t.Errorf("%+v: %d calls, want %d", c, len(d.asked), want)
		}
		want := x.Like()
		for j, v := range x.Data {
			e := toyEps(float64(v), at.Value)
			if c.on {
				degraded := toyEps(float64(d.asked[1].Data[j]), at.Value)
				e = degraded + (1+c.scale)*(e-degraded)
			}
			want.Data[j] = float32(e)
		}
		if err := near(got.Eps.Data, want.Data, 1e-6); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// An image comes out with the same bits alone, in a batch of 7 and of 64.
func TestSAGBatchInvariance(t *testing.T) {
	s := schedule(t)
	run := func(images []int) tensor.Tensor {
		keyed := sampling.Keyed{Seed: 4, Images: images}
		x := tensor.New(len(images), 3, 8, 8)
		if err := keyed.Fill(-1, x); err != nil {
			t.Fatal(err)
		}
		g := NewSAG()
		g.Layer = "output_blocks.1.1"
		p := &sampling.Predictor{Denoiser: &toy{rows: 4, columns: 4}, Guidances: []sampling.Guidance{g}, Schedule: s, ClipDenoised: true}
		out, err := (&sampling.DDPM{Steps: 10}).Sample(t.Context(), p, x, keyed)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var all []int
	for i := range 64 {
		all = append(all, i)
	}
	want := run(all)
	for _, images := range [][]int{{33}, {32, 33, 1, 63, 0, 9, 5}} {
		got := run(images)
		for n, image := range images {
			if !slices.Equal(got.Row(n), want.Row(image)) {
				t.Errorf("image %d differs between batches of %d and 64", image, len(images))
			}
		}
	}
}
