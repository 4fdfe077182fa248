package guidance

import (
	"context"
	"errors"
	"fmt"
	"math"

	"sagbench/sampling"
)

var _ sampling.Guidance = (*CFG)(nil)

// CFG is classifier-free guidance: along the difference that the condition
// makes. With ε_c the prediction under the condition and ε_∅ that under ∅,
//
//	Δε = (s − 1) (ε_c − ε_∅),  so that  ε = ε_∅ + s (ε_c − ε_∅)
//
// on the first Channels channels; the others, and the learned variance, stay
// those of the conditional pass. Sources: Ho and Salimans 2022
// (arXiv:2207.12598), equation 6, whose w is s − 1; facebookresearch/DiT
// models.py forward_with_cfg, where Channels is 3; Kynkäänniemi et al. 2024
// (arXiv:2404.07724) for guidance in an interval.
type CFG struct {
	Scale    float64  `yaml:"scale" doc:"s: 1 switches the guidance off, without a second network call; 0 is the unconditional prediction"`
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

// Delta is (s − 1)(ε_c − ε_∅); where the guidance is off, nothing, without any
// network call.
func (g *CFG) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	start, stop := g.interval()
	if g.Scale == 1 || s.T.Value > start || s.T.Value < stop {
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
	})
	return sampling.Delta{Eps: delta}, nil
}
