package guidance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// A Contrast is common to the guidances that follow the difference between a
// prediction and a worse one, ε_c and ε_∅ in classifier-free guidance: where
// they are on, what they guide, and how much of the contrast is taken back that a
// large scale brings. Each of them is a rule for an image's correction Δ; with
// Rescale = φ and std over all of an image's values, the guided prediction is
//
//	p = φ (c+Δ) std(c)/std(c+Δ) + (1 − φ) (c+Δ)
//
// on the first Channels channels; the others, and the learned variance, stay
// those of the better prediction. Sources: Kynkäänniemi et al. 2024
// (arXiv:2404.07724) for guidance in an interval; Lin et al. 2023
// (arXiv:2305.08891), equations 15 and 16, and diffusers rescale_noise_cfg.
type Contrast struct {
	Space    string   `yaml:"space" doc:"what the difference is taken of: output (as it is, as diffusers; also where empty), epsilon, x_start, v, or velocity (ε − x_0, flow matching's)"`
	Rescale  float64  `yaml:"rescale" min:"0" max:"1" doc:"φ: 1 gives the guided output the standard deviation of the conditional one, 0 leaves it as it is (diffusers' guidance_rescale)"`
	Channels int      `yaml:"channels" min:"0" max:"65536" doc:"only the first n channels are guided; 0 for all (DiT's official code guides 3 of 4)"`
	Start    *float64 `yaml:"start" min:"0" max:"1000000" doc:"guide only where the network's timestep is at most this; absent from the first step"`
	Stop     *float64 `yaml:"stop" min:"0" max:"1000000" doc:"guide only where the network's timestep is at least this; absent to the last step"`
	Interval `yaml:",inline"`
}

// output is the space of what the network predicts.
const output = "output"

// spaces are the values of Space beside "".
var spaces = []string{output, string(sampling.Epsilon), string(sampling.XStart), string(sampling.V), string(sampling.Velocity)}

// check tells everything that is wrong with the options of the guidance of the
// given name: those of its own, which are checked first, and those of Contrast.
func (g *Contrast) check(name string, own func(f *sampling.Faults)) error {
	f := sampling.Faults{Of: name}
	own(&f)
	f.When(g.Space != "" && !slices.Contains(spaces, g.Space), "space is %q, expected one of %v", g.Space, spaces)
	f.When(g.Channels < 0, "channels is %d, expected the number of channels to guide, or 0 for all", g.Channels)
	f.When(!(g.Rescale >= 0 && g.Rescale <= 1), "rescale is %g, expected 0 (off) to 1", g.Rescale)
	start, stop := g.interval()
	f.When(math.IsNaN(start) || math.IsNaN(stop), "start is %g and stop %g, expected timesteps", start, stop)
	f.When(start < stop, "start is %g and stop %g: sampling goes from high timesteps to low ones, so start has to be at least stop", start, stop)
	g.Interval.check(&f)
	return f.Join()
}

func checkScale(f *sampling.Faults, scale float64) {
	f.When(!finite(scale), "scale is %g, expected a finite number (1 is off)", scale)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// interval is the timesteps that are guided.
func (g *Contrast) interval() (start, stop float64) {
	start, stop = math.Inf(1), math.Inf(-1)
	if g.Start != nil {
		start = *g.Start
	}
	if g.Stop != nil {
		stop = *g.Stop
	}
	return start, stop
}

// within tells whether the step is one of the interval's.
func (g *Contrast) within(s *sampling.Step) bool {
	start, stop := g.interval()
	return s.T.Value <= start && s.T.Value >= stop && g.Interval.holds(s)
}

// A rule sets d to the correction of image n's prediction c beside the worse u;
// all are the image's guided channels, in the space of the contrast.
type rule func(n int, d, c, u []float32)

// along is the rule of a difference that is followed k times.
func along(k float64) rule {
	scale := float32(k)
	return func(_ int, d, c, u []float32) {
		for j := range d {
			d[j] = scale * (c[j] - u[j])
		}
	}
}

// against is the correction by the rule of the conditional prediction beside a
// worse one.
func (g *Contrast) against(ctx context.Context, s *sampling.Step, worse func() (sampling.Prediction, error), r rule) (sampling.Delta, error) {
	good, err := s.Predict(ctx, s.Cond())
	if err != nil {
		return sampling.Delta{}, err
	}
	bad, err := worse()
	if err != nil {
		return sampling.Delta{}, err
	}
	kind, space := s.Predicts(), sampling.Parametrization(g.Space)
	if kind == "" {
		kind = sampling.Epsilon
	}
	if space == "" || space == output {
		space = kind
	}
	s.Trace("output_worse", bad.Eps)
	c := s.Coefficients()
	slope := c.Slope(space)
	if slope == 0 {
		return sampling.Delta{}, saysNothing(space)
	}
	ratio := c.Slope(kind) / slope
	delta, guided := good.Eps.Like(), g.guided(good.Eps)
	sampling.EachImage(delta.Rows(), func(n int) {
		d, better, worse := delta.Row(n), good.Eps.Row(n), bad.Eps.Row(n)
		if space != kind {
			x := s.X.Row(n)
			both := make([]float32, 2*len(d))
			c.Express(better, kind, x, space, both[:len(d)])
			c.Express(worse, kind, x, space, both[len(d):])
			better, worse = both[:len(d)], both[len(d):]
		}
		r(n, d[:guided], better[:guided], worse[:guided])
		if g.Rescale > 0 {
			g.rescale(d, better)
		}
		if space != kind {
			for j := range d {
				d[j] *= ratio
			}
		}
	})
	return sampling.Delta{Eps: delta}, nil
}

// saysNothing is the error about a step at which what a space is of follows from x_t
// alone, whatever the network predicts.
func saysNothing(space sampling.Parametrization) error {
	if space == sampling.XStart {
		return errors.New("guidance: space is x_start, but no noise is left at this step (time 1 of SiT, which ode with heun2 or dopri5 looks at), where x_0 says nothing; choose output, velocity or v")
	}
	return fmt.Errorf("guidance: space is %s, but no signal is left at this step (rescale_betas_zero_snr, or time 0 of SiT), where ε says nothing; choose v or x_start", space)
}

// guided is how many values of an image the first Channels channels have.
func (g *Contrast) guided(output tensor.Tensor) int {
	all := output.RowLen()
	if g.Channels == 0 {
		return all
	}
	return min(all, g.Channels*all/max(1, output.Shape[1]))
}

// rescale turns the difference d to the guided c + d of an image into that to
// the rescaled one.
func (g *Contrast) rescale(d, c []float32) {
	guided, own := deviation(c, d), deviation(c, nil)
	if guided == 0 {
		return // constant, so there is no contrast to take back
	}
	factor := float32(g.Rescale*own/guided + 1 - g.Rescale)
	for j, e := range c {
		d[j] = float32(factor*(e+d[j])) - e
	}
}

// deviation is the standard deviation of a + b, or of a where b is nil.
func deviation(a, b []float32) float64 {
	at := func(j int) float64 {
		if b == nil {
			return float64(a[j])
		}
		return float64(a[j] + b[j])
	}
	mean, square := 0.0, 0.0
	for j := range a {
		mean += at(j)
	}
	mean /= float64(len(a))
	for j := range a {
		d := at(j) - mean
		square += float64(d * d)
	}
	return math.Sqrt(square / float64(len(a)))
}

// dot is Σ a b.
func dot(a, b []float32) float64 {
	sum := 0.0
	for j, v := range a {
		sum += float64(float64(v) * float64(b[j]))
	}
	return sum
}

func norm(v []float32) float64 { return math.Sqrt(dot(v, v)) }
