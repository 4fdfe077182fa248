package guidance

import (
	"context"
	"errors"
	"fmt"
	"math"

	"sagbench/sampling"
)

var (
	_ contrast        = (*CFG)(nil)
	_ sampling.Wanter = (*CFG)(nil)
)

// CFG is classifier-free guidance: along the difference that the condition
// makes. With ε_c the prediction under the condition and ε_∅ that under ∅,
//
//	Δε = (s − 1) (ε_c − ε_∅),  so that  ε = ε_∅ + s (ε_c − ε_∅)
//
// on the first Channels channels; the others, and the learned variance, stay
// those of the conditional pass. Rescale, φ, takes back some of the contrast
// that a large s brings, image by image, std over all of an image's values:
//
//	ε = φ ε std(ε_c)/std(ε) + (1 − φ) ε
//
// A network that predicts v is guided in v. Sources: Ho and Salimans 2022
// (arXiv:2207.12598), equation 6, whose w is s − 1; facebookresearch/DiT
// models.py forward_with_cfg, where Channels is 3; Kynkäänniemi et al. 2024
// (arXiv:2404.07724) for guidance in an interval; Lin et al. 2023
// (arXiv:2305.08891), equations 15 and 16, and diffusers rescale_noise_cfg.
type CFG struct {
	Scale    float64  `yaml:"scale" doc:"s: 1 switches the guidance off, without a second network call; 0 is the unconditional prediction"`
	Rescale  float64  `yaml:"rescale" doc:"φ: 1 gives the guided output the standard deviation of the conditional one, 0 leaves it as it is (diffusers' guidance_rescale)"`
	Channels int      `yaml:"channels" doc:"only the first n channels are guided; 0 for all (DiT's official code guides 3 of 4)"`
	Start    *float64 `yaml:"start" doc:"guide only where the network's timestep is at most this; absent from the first step"`
	Stop     *float64 `yaml:"stop" doc:"guide only where the network's timestep is at least this; absent to the last step"`
}

// NewCFG is CFG with the scale of DiT's official sample_ddp.py, on all channels.
func NewCFG() *CFG { return &CFG{Scale: 1.5} }

// Validate tells everything that is wrong with the options.
func (g *CFG) Validate() error {
	var errs []error
	fault := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("cfg: "+format, args...))
		}
	}
	fault(!finite(g.Scale), "scale is %g, expected a finite number (1 is off)", g.Scale)
	fault(g.Channels < 0, "channels is %d, expected the number of channels to guide, or 0 for all", g.Channels)
	fault(!(g.Rescale >= 0 && g.Rescale <= 1), "rescale is %g, expected 0 (off) to 1", g.Rescale)
	start, stop := g.interval()
	fault(math.IsNaN(start) || math.IsNaN(stop), "start is %g and stop %g, expected timesteps", start, stop)
	fault(start < stop, "start is %g and stop %g: sampling goes from high timesteps to low ones, so start has to be at least stop", start, stop)
	return errors.Join(errs...)
}

// interval is the timesteps that are guided.
func (g *CFG) interval() (start, stop float64) {
	start, stop = math.Inf(1), math.Inf(-1)
	if g.Start != nil {
		start = *g.Start
	}
	if g.Stop != nil {
		stop = *g.Stop
	}
	return start, stop
}

// Contrasts tells whether the guidance is on at the step.
func (g *CFG) Contrasts(s *sampling.Step) bool {
	start, stop := g.interval()
	return g.Scale != 1 && s.T.Value <= start && s.T.Value >= stop
}

// Wants is ∅.
func (g *CFG) Wants(s *sampling.Step) []sampling.Cond {
	if !g.Contrasts(s) || s.Null().IsZero() {
		return nil
	}
	return []sampling.Cond{s.Null()}
}

// Delta is (s − 1)(ε_c − ε_∅), rescaled; where the guidance is off, nothing,
// without any network call.
func (g *CFG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	if !g.Contrasts(s) {
		return sampling.Delta{}, nil
	}
	if s.Null().IsZero() {
		return sampling.Delta{}, errors.New("guidance: cfg: the network has no null condition: it was trained without one (DiT: class_dropout_prob 0), or it takes no condition at all")
	}
	conditional, err := s.Predict(ctx, s.Cond())
	if err != nil {
		return sampling.Delta{}, err
	}
	null, err := s.Predict(ctx, s.Null())
	if err != nil {
		return sampling.Delta{}, err
	}
	delta, guided := conditional.Eps.Like(), conditional.Eps.RowLen()
	if g.Channels > 0 {
		guided = min(guided, g.Channels*guided/max(1, conditional.Eps.Shape[1]))
	}
	scale := float32(g.Scale - 1)
	sampling.EachImage(delta.Rows(), func(n int) {
		d, c, u := delta.Row(n)[:guided], conditional.Eps.Row(n), null.Eps.Row(n)
		for j := range d {
			d[j] = scale * (c[j] - u[j])
		}
		if g.Rescale > 0 {
			g.rescale(delta.Row(n), c)
		}
	})
	return sampling.Delta{Eps: delta}, nil
}

// rescale turns the difference d to the guided ε = c + d of an image into that
// to the rescaled one.
func (g *CFG) rescale(d, c []float32) {
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
