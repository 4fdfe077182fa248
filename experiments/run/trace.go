package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// trace keeps what self-attention guidance does to the row's first images, where
// the experiment asks for it and the row is under it. The images are drawn again:
// what was drawn, and what is scored, is untouched.
func (s *session) trace(ctx context.Context, r *plan.Run) error {
	done, err := s.traced(r)
	if done || err != nil {
		return err
	}
	key, err := traceKey(r)
	if err != nil {
		return err
	}
	if err := s.prepare(ctx, r); err != nil {
		return err
	}
	s.Progress.Stage(r.NumberedTitle()+" trace", "steps", 0, r.Trace.Steps)
	defer s.Progress.End()
	found, err := drawTrace(ctx, r.Row, s.network, func() { s.Progress.Add(1) })
	if err != nil {
		return err
	}
	found.Key = key
	path := filepath.Join(r.Folder, store.TraceFile)
	return store.ExplainWrite(path, found.Write(path))
}

// traced reports whether the row has the trace that the experiment asks for, or is to
// have none. One that is damaged is none.
func (s *session) traced(r *plan.Run) (bool, error) {
	if r.Trace.Images == 0 || !detailed(r.Row) {
		return true, nil
	}
	key, err := traceKey(r)
	if err != nil {
		return false, err
	}
	kept, err := store.ReadTrace(filepath.Join(r.Folder, store.TraceFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.noteOnce(err.Error())
	}
	return err == nil && kept.Key == key, nil
}

// traceKey is a hash of what the row's trace depends on.
func traceKey(r *plan.Run) (string, error) {
	return plan.ID(map[string]any{"run": r.ID, "images": min(r.Trace.Images, r.Samples), "steps": r.Trace.Steps})
}

// detailed reports whether a guidance of the row shows what it does.
func detailed(r *plan.Row) bool {
	for _, g := range r.Guidances {
		if d, ok := g.Value.(sampling.Detailed); ok && d.Detailed() {
			return true
		}
	}
	return false
}

// traced are what one step shows, by name.
type traced struct {
	t     sampling.Timestep
	shown map[string]tensor.Tensor
}

// drawTrace draws the first images and keeps what self-attention guidance shows at
// the chosen steps: of those at which it is off, nothing. step is called after each of them.
func drawTrace(ctx context.Context, r *plan.Row, n *Network, step func()) (*store.Trace, error) {
	var steps []traced
	wanted := []string{"state", "attention", "sag_x_start", "sag_degraded", "sag_mask", "eps_guided"}
	images := min(r.Trace.Images, r.Samples)
	b, err := begin(ctx, r, n, store.Span{To: images})
	if err != nil {
		return nil, err
	}
	b.Detail = true
	chosen := spread(b.Schedule.Len(), r.Trace.Steps)
	b.Trace = func(name string, t sampling.Timestep, v tensor.Tensor) {
		if !slices.Contains(chosen, t.Index) || !slices.Contains(wanted, name) {
			return
		}
		if len(steps) == 0 || steps[len(steps)-1].t.Index != t.Index {
			steps = append(steps, traced{t, map[string]tensor.Tensor{}})
			step()
		}
		last := steps[len(steps)-1]
		// A sampler of the second order comes by twice; the first time counts.
		if _, again := last.shown[name]; !again {
			last.shown[name] = v.Clone()
		}
	}
	if _, err := b.sample(ctx); err != nil {
		return nil, err
	}
	out := &store.Trace{Images: images}
	for _, one := range steps {
		if one.shown["sag_mask"].IsZero() {
			continue // guidance was off at this step
		}
		if err := addStep(ctx, out, n, b.Predictor, one); err != nil {
			return nil, fmt.Errorf("row %q: trace: %w", r.Title(), err)
		}
	}
	return out, nil
}

// addStep decodes what a step showed.
func addStep(ctx context.Context, out *store.Trace, n *Network, p *sampling.Predictor, one traced) error {
	guided := one.shown["state"].Like()
	eps := guided.Like()
	c := p.Schedule.Coefficients(one.t)
	c.Split(p.Predicts, one.shown["state"].Data, one.shown["eps_guided"].Data, guided.Data, eps.Data)
	s := store.TraceStep{Index: one.t.Index, Time: one.t.Value, Mask: one.shown["sag_mask"], Attention: one.shown["attention"]}
	for _, picture := range []struct {
		of   tensor.Tensor
		into *[]uint8
	}{{one.shown["sag_x_start"], &s.XStart}, {one.shown["sag_degraded"], &s.Degraded}, {guided, &s.Guided}} {
		images, err := n.Pixels(ctx, picture.of)
		if err != nil {
			return err
		}
		*picture.into, out.Height, out.Width = images.Pixels, images.Height, images.Width
	}
	out.Steps = append(out.Steps, s)
	return nil
}

// spread are the indices of count of n steps, evenly spread, none twice.
func spread(n, count int) []int {
	var chosen []int
	for k := range count {
		if i := (2*k + 1) * n / (2 * count); !slices.Contains(chosen, i) {
			chosen = append(chosen, i)
		}
	}
	return chosen
}
