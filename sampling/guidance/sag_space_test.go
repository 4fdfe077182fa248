package guidance

import (
	"fmt"
	"math"
	"testing"

	"sagbench/sampling"
)

// spaced is a schedule of 10 steps, or one along a path.
func spaced(t *testing.T, path sampling.Path) *sampling.Schedule {
	t.Helper()
	if path == nil {
		return schedule(t)
	}
	var sampler sampling.Sampler = sampling.NewEDM()
	if _, flows := path.(sampling.Interpolant); flows {
		sampler = &sampling.ODE{Steps: 11, SamplingMethod: "euler"}
	}
	s, err := sampler.Schedule(sampling.ScheduleConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Whatever a network predicts, the guided output says that the noise is
// ε + s (ε − ε̂), ε̂ the noise in x̂_t by the output there; it vanishes where there is
// hardly any noise. Guiding the output itself is another method.
func TestSAGInEps(t *testing.T) {
	levels, flow := sampling.NoiseLevels{Max: math.Inf(1)}, sampling.Interpolant{Type: "Linear", Velocity: true}
	for _, c := range []struct {
		path     sampling.Path
		predicts sampling.Parametrization
		space    string
		clip     bool
		same     bool // as guiding ε
	}{
		{nil, "", "", true, true}, {nil, "", "epsilon", true, true}, {nil, "", "output", true, true},
		{nil, sampling.V, "epsilon", false, true}, {nil, sampling.XStart, "epsilon", true, true},
		{nil, sampling.V, "", false, false}, {nil, sampling.XStart, "", true, false},
		{levels, sampling.XStart, "", true, true}, {levels, sampling.V, "", false, true}, {levels, "", "", false, true},
		{levels, sampling.XStart, "output", true, false}, {flow, sampling.Flow, "", false, true}, {flow, sampling.Flow, "output", false, false},
	} {
		s := spaced(t, c.path)
		at := s.Timestep(s.Len() / 2)
		d := &toy{rows: 4, columns: 4, predicts: c.predicts, s: s}
		g := &SAG{Scale: 0.8, BlurSigma: 1, BlurKernel: 5, MaskThreshold: 1, Layer: "middle", Space: c.space}
		p := &sampling.Predictor{Denoiser: d, Guidances: []sampling.Guidance{g}, Schedule: s, Predicts: c.predicts, ClipDenoised: c.clip}
		x := noise(t, 1, 3, 8, 8)
		guided, _, err := p.Predict(t.Context(), x, at)
		if err != nil {
			t.Fatal(err)
		}
		k := s.Coefficients(at)
		eps := func(x, output []float32) []float32 {
			x0, e := make([]float32, len(x)), make([]float32, len(x))
			k.Split(c.predicts, x, output, x0, e)
			return e
		}
		out := func(x []float32) []float32 {
			y := make([]float32, len(x))
			for j, v := range x {
				y[j] = float32(d.output(float64(v), at))
			}
			return y
		}
		xHat := d.asked[1].Data
		ours, theirs := eps(x.Data, out(x.Data)), eps(xHat, out(xHat))
		want := make([]float32, len(ours))
		for j, e := range ours {
			want[j] = float32(float64(e) + 0.8*(float64(e)-float64(theirs[j])))
		}
		if err := near(eps(x.Data, guided.Eps.Data), want, 2e-4); (err == nil) != c.same {
			t.Errorf("%s: %v", fmt.Sprint(c), err)
		}
	}
}

// Guidance is on at the noise levels of (σ_lo, σ_hi] alone, which are those of x_0 + σ ε
// whatever the network is told.
func TestIntervalOfNoiseLevels(t *testing.T) {
	for _, s := range []*sampling.Schedule{schedule(t), spaced(t, sampling.NoiseLevels{Max: math.Inf(1)})} {
		for i := range s.Len() {
			at := s.Timestep(i)
			bar := s.AlphaBar(i)
			level := math.Sqrt((1 - bar) / bar)
			p := &sampling.Predictor{Denoiser: &toy{rows: 4, columns: 4}, Schedule: s}
			step := p.Step(noise(t, 1, 1, 8, 8), at)
			lo, hi := 0.5, 3.0
			for _, on := range []bool{
				(&SAG{Scale: 1, Interval: Interval{&lo, &hi}}).on(step), (&CFG{Scale: 2, ClassifierFree: ClassifierFree{Contrast: Contrast{Interval: Interval{&lo, &hi}}}}).on(step),
			} {
				if on != (level > lo && level <= hi) {
					t.Errorf("on %v at %g", on, level)
				}
			}
			exact := s.Level(at)
			if !(&Interval{SigmaHi: &exact}).holds(step) || (&Interval{SigmaLo: &exact}).holds(step) {
				t.Errorf("the ends of the interval at %g", level)
			}
		}
	}
	if err := (&SAG{Interval: Interval{new(2.0), new(1.0)}}).Validate(); err == nil {
		t.Error("an empty interval is right")
	}
}
