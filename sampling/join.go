package sampling

import (
	"context"
	"slices"

	"sagbench/models/tensor"
)

// A Wanter is a guidance that knows beforehand which predictions at x_t it will
// ask for, so that they come from one network call together with the unguided
// one. What it does not name here is still answered, by a call of its own.
type Wanter interface {
	Guidance
	// Wants are the conditions of these predictions, none where the guidance is
	// off or cannot work.
	Wants(s *Step) []Cond
}

// gather makes the step's predictions that the guidances want, and the unguided
// one, in as few network calls as their conditions allow.
func (s *Step) gather(ctx context.Context) error {
	wanted := []Cond{s.Cond()}
	for _, g := range s.Guidances() {
		w, ok := g.(Wanter)
		if !ok {
			continue
		}
		for _, c := range w.Wants(s) {
			if !slices.ContainsFunc(wanted, c.Equal) {
				wanted = append(wanted, c)
			}
		}
	}
	for len(wanted) > 0 {
		var together, rest []Cond
		for _, c := range wanted {
			if c.joins(wanted[0]) {
				together = append(together, c)
			} else {
				rest = append(rest, c)
			}
		}
		if err := s.predictTogether(ctx, together); err != nil {
			return err
		}
		wanted = rest
	}
	return nil
}

// predictTogether makes and remembers the predictions at x_t under conditions
// that join: one call of len(conds) times the batch.
func (s *Step) predictTogether(ctx context.Context, conds []Cond) error {
	if len(conds) == 1 {
		_, err := s.Predict(ctx, conds[0])
		return err
	}
	n := s.X.Rows()
	p, err := s.PredictAt(ctx, repeated(s.X, len(conds)), join(conds, n))
	if err != nil {
		return err
	}
	for i, c := range conds {
		s.memo = append(s.memo, remembered{c, p.slice(i*n, (i+1)*n)})
	}
	return nil
}

// PredictRows is PredictAt for some images of the batch alone, those with the
// numbers rows, ascending: its tensors have as many entries. Without any it
// makes no network call.
func (s *Step) PredictRows(ctx context.Context, xHat tensor.Tensor, c Cond, rows []int) (Prediction, error) {
	switch len(rows) {
	case 0:
		return Prediction{}, nil
	case xHat.Rows():
		return s.PredictAt(ctx, xHat, c)
	}
	return s.PredictAt(ctx, pick(xHat, rows), c.pick(rows))
}

// pick is the condition of the images with the given numbers.
func (c Cond) pick(rows []int) Cond {
	picked := Cond{Context: pick(c.Context, rows)}
	for _, n := range rows {
		if c.Labels != nil {
			picked.Labels = append(picked.Labels, c.Labels[n])
		}
		if c.Perturbed != nil {
			picked.Perturbed = append(picked.Perturbed, c.Perturbed[n])
		}
	}
	return picked
}

// pick is the entries of t with the given numbers; nothing of the zero tensor.
func pick(t tensor.Tensor, rows []int) tensor.Tensor {
	if t.IsZero() {
		return t
	}
	parts := make([]tensor.Tensor, len(rows))
	for i, n := range rows {
		parts[i] = t.Slice(n, n+1)
	}
	return concatenated(parts)
}

// joins tells whether one network call can take both conditions.
func (c Cond) joins(d Cond) bool {
	return (c.Labels == nil) == (d.Labels == nil) && slices.Equal(c.Context.Shape, d.Context.Shape)
}

// join is the conditions of as many images each after one another: [k·N] labels
// and perturbations, [k·N,L,D] context.
func join(conds []Cond, images int) Cond {
	var joined Cond
	contexts := make([]tensor.Tensor, len(conds))
	perturbed := slices.ContainsFunc(conds, func(c Cond) bool { return c.Perturbed != nil })
	for i, c := range conds {
		joined.Labels = append(joined.Labels, c.Labels...)
		contexts[i] = c.Context
		if perturbed {
			joined.Perturbed = append(joined.Perturbed, c.perturbations(images)...)
		}
	}
	if !contexts[0].IsZero() {
		joined.Context = concatenated(contexts)
	}
	return joined
}

// repeated is x k times, along the batch.
func repeated(x tensor.Tensor, k int) tensor.Tensor {
	return concatenated(slices.Repeat([]tensor.Tensor{x}, k))
}

// concatenated is tensors of one shape along the batch.
func concatenated(parts []tensor.Tensor) tensor.Tensor {
	shape := slices.Clone(parts[0].Shape)
	shape[0] *= len(parts)
	out := tensor.Tensor{Shape: shape, Data: make([]float32, 0, tensor.Size(shape))}
	for _, t := range parts {
		out.Data = append(out.Data, t.Data...)
	}
	return out
}

// slice is the prediction of images [from, to); it shares memory with p.
func (p Prediction) slice(from, to int) Prediction {
	cut := func(t tensor.Tensor) tensor.Tensor {
		if t.IsZero() {
			return t
		}
		return t.Slice(from, to)
	}
	return Prediction{Eps: cut(p.Eps), Var: cut(p.Var), Attn: cut(p.Attn)}
}
