package sampling

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sagbench/sampling/tensor"
)

// A Predictor is a denoiser under guidance, with its schedule.
type Predictor struct {
	Denoiser     Denoiser
	Guidances    []Guidance
	Schedule     *Schedule
	Predicts     Parametrization // what the network's output stands for; empty: ε
	Cond         Cond
	Null         Cond    // what stands for ∅ in classifier-free guidance: the null class, the empty prompt; zero where the network was trained without it
	ClipDenoised bool    // clip x̂0 to [-1,1]: pixels yes, latents no
	Random       Uniform // of guidances that draw; nil where none does

	// Trace, where not nil, is shown every step's tensors by name: "x", the
	// state after the step, in the sampler's own terms; "state", x_t; "output", the network's
	// unguided output, and "eps_guided", that after every guidance of it and before
	// Score; "variance",
	// the learned v in [-1,1], where there is one; "attention_step", the map of
	// the unperturbed pass, where a layer is tapped; and what guidances show by
	// Step.Trace. A tensor is valid during the call only.
	Trace func(name string, t Timestep, v tensor.Tensor)
	// Detail has guidances show to Trace also what they compute on the way, which
	// takes memory.
	Detail bool

	states map[any]any // of the guidances, from x_T to x_0
}

// Step is the state x = x_t = √ᾱ x_0 + √(1−ᾱ) ε, [N,C,H,W], at t, of which
// guidances ask predictions.
func (p *Predictor) Step(x tensor.Tensor, t Timestep) *Step {
	return &Step{X: x, T: t, predictor: p}
}

// Predict returns the guided prediction at (x_t, t), and the sum of the
// guidances' Scores (zero where none gave one). Var and Attn are those of the
// unguided conditional pass.
func (p *Predictor) Predict(ctx context.Context, x tensor.Tensor, t Timestep) (guided Prediction, score tensor.Tensor, err error) {
	s := p.Step(x, t)
	if err := s.gather(ctx); err != nil {
		return Prediction{}, tensor.Tensor{}, err
	}
	if guided, err = s.Predict(ctx, p.Cond); err != nil {
		return Prediction{}, tensor.Tensor{}, err
	}
	var eps tensor.Tensor // Σ Delta.Eps
	for _, g := range p.Guidances {
		d, err := g.Delta(ctx, s)
		if err != nil {
			return Prediction{}, tensor.Tensor{}, err
		}
		if err := errors.Join(wantShape("a guidance's Eps", d.Eps, x), wantShape("a guidance's Score", d.Score, x)); err != nil {
			return Prediction{}, tensor.Tensor{}, fmt.Errorf("sampling: %w", err)
		}
		if n, broken := FirstNotFinite(d.Eps, d.Score); broken {
			return Prediction{}, tensor.Tensor{}, &NotFinite{Step: t, Image: n, What: "a guidance's correction", Of: g}
		}
		eps, score = sum(eps, d.Eps), sum(score, d.Score)
	}
	p.trace("output", t, guided.Eps)
	guided.Eps = sum(eps, guided.Eps)
	p.trace("state", t, x)
	p.trace("eps_guided", t, guided.Eps)
	if !guided.Var.IsZero() {
		p.trace("variance", t, guided.Var)
	}
	if !guided.Attn.IsZero() {
		p.trace("attention_step", t, guided.Attn)
	}
	return guided, score, nil
}

func (p *Predictor) trace(name string, t Timestep, v tensor.Tensor) {
	if p.Trace != nil {
		p.Trace(name, t, v)
	}
}

// sum is a + b, written to a's memory; a zero tensor is nothing to add.
func sum(a, b tensor.Tensor) tensor.Tensor {
	if a.IsZero() {
		return b
	}
	if !b.IsZero() {
		EachImage(a.Rows(), func(i int) {
			dst, src := a.Row(i), b.Row(i)
			for j := range dst {
				dst[j] += src[j]
			}
		})
	}
	return a
}

// wantShape is an error unless v is zero or has x's shape and its data.
func wantShape(name string, v, x tensor.Tensor) error {
	if !v.IsZero() && (!slices.Equal(v.Shape, x.Shape) || len(v.Data) != len(x.Data)) {
		return fmt.Errorf("%s has shape %v (%d values), expected %v as the state has", name, v.Shape, len(v.Data), x.Shape)
	}
	return nil
}

// A Step is one (x_t, t). Predictions at x_t are remembered, so that guidances
// share them with each other and with the unguided pass; those that are wanted
// beforehand (Wanter) come from one network call.
type Step struct {
	X tensor.Tensor // x_t = √ᾱ x_0 + √(1−ᾱ) ε, [N,C,H,W], with every sampler; not to be written to
	T Timestep

	predictor *Predictor
	memo      []remembered
}

type remembered struct {
	cond       Cond
	prediction Prediction
}

// Schedule is the schedule that the step belongs to.
func (s *Step) Schedule() *Schedule { return s.predictor.Schedule }

// Coefficients are those of the step.
func (s *Step) Coefficients() Coefficients { return s.Schedule().Coefficients(s.T) }

// Cond is the condition of the unguided pass.
func (s *Step) Cond() Cond { return s.predictor.Cond }

// Null is what stands for ∅, as Predictor.Null.
func (s *Step) Null() Cond { return s.predictor.Null }

// Predicts is what the network's output stands for.
func (s *Step) Predicts() Parametrization { return s.predictor.Predicts }

// Guidances are all guidances of the predictor, the asking one included.
func (s *Step) Guidances() []Guidance { return s.predictor.Guidances }

// ClipDenoised tells whether x̂0 is clipped to [-1,1].
func (s *Step) ClipDenoised() bool { return s.predictor.ClipDenoised }

// Trace shows a tensor to the predictor's Trace, if there is one.
func (s *Step) Trace(name string, v tensor.Tensor) { s.predictor.trace(name, s.T, v) }

// Detail tells whether what is computed on the way is to be shown to Trace.
func (s *Step) Detail() bool { return s.predictor.Trace != nil && s.predictor.Detail }

// Random sets dst, [N,…], to numbers that are uniform on [0,1), a function of the
// seed, the image and the step.
func (s *Step) Random(dst tensor.Tensor) error {
	if s.predictor.Random == nil {
		return errors.New("sampling: a guidance draws random numbers, but the predictor has no source of them (Random)")
	}
	return s.predictor.Random.Uniform(s.T.Index, dst)
}

// State is what the owner, a guidance, keeps from step to step of one batch: the
// zero T at x_T, and whatever the owner made of it since.
func State[T any](s *Step, owner any) *T {
	state, ok := s.predictor.states[owner].(*T)
	if !ok {
		state = new(T)
		if s.predictor.states == nil {
			s.predictor.states = map[any]any{}
		}
		s.predictor.states[owner] = state
	}
	return state
}

// Predict is the network's prediction at x_t under c. It is computed once a
// step and condition; its tensors are shared, so they are not to be written to.
func (s *Step) Predict(ctx context.Context, c Cond) (Prediction, error) {
	for _, m := range s.memo {
		if m.cond.Equal(c) {
			return m.prediction, nil
		}
	}
	p, err := s.PredictAt(ctx, s.X, c)
	if err == nil {
		s.memo = append(s.memo, remembered{c, p})
	}
	return p, err
}

// PredictAt is the network's prediction at another state, xHat [N,C,H,W], at
// the same t. It is not remembered, and its tensors are the caller's.
func (s *Step) PredictAt(ctx context.Context, xHat tensor.Tensor, c Cond) (Prediction, error) {
	return s.predict(ctx, s.predictor.Denoiser, xHat, c)
}

// PredictBy is another network's prediction at (x_t, t). It is not remembered.
func (s *Step) PredictBy(ctx context.Context, d Denoiser, c Cond) (Prediction, error) {
	return s.predict(ctx, d, s.X, c)
}

func (s *Step) predict(ctx context.Context, d Denoiser, x tensor.Tensor, c Cond) (Prediction, error) {
	p, err := d.Denoise(ctx, x, s.T, c)
	if err != nil {
		return Prediction{}, err
	}
	if err := p.check(x); err != nil {
		return Prediction{}, fmt.Errorf("sampling: step %d (t = %g): the network's prediction: %w", s.T.Index, s.T.Value, err)
	}
	for _, out := range []struct {
		name string
		tensor.Tensor
	}{{"output", p.Eps}, {"learned variance", p.Var}, {"attention map", p.Attn}} {
		if n, broken := FirstNotFinite(out.Tensor); broken {
			return Prediction{}, &NotFinite{Step: s.T, Image: n, What: "the network's " + out.name, Of: d}
		}
	}
	return p, nil
}

// check tells what is wrong with the shapes of a prediction at x.
func (p Prediction) check(x tensor.Tensor) error {
	var attn error
	if !p.Attn.IsZero() && (len(p.Attn.Shape) != 2 || p.Attn.Shape[0] != x.Shape[0] || len(p.Attn.Data) != tensor.Size(p.Attn.Shape)) {
		attn = fmt.Errorf("the map Attn has shape %v (%d values), expected [%d, H·W of the tapped layer]", p.Attn.Shape, len(p.Attn.Data), x.Shape[0])
	}
	if p.Eps.IsZero() {
		return errors.Join(errors.New("no Eps"), attn)
	}
	return errors.Join(wantShape("Eps", p.Eps, x), wantShape("Var", p.Var, x), attn)
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
	p, err := s.PredictAt(ctx, concatenated(slices.Repeat([]tensor.Tensor{s.X}, len(conds))), Join(conds, n))
	if err != nil {
		return renumbered(err, func(image int) int { return image % n })
	}
	for i, c := range conds {
		s.memo = append(s.memo, remembered{c, p.images(i*n, (i+1)*n)})
	}
	return nil
}

// PredictRows is PredictAt for the images rows of the batch alone, ascending
// numbers from 0: its tensors have as many entries as rows. Without rows it makes
// no network call.
func (s *Step) PredictRows(ctx context.Context, xHat tensor.Tensor, c Cond, rows []int) (Prediction, error) {
	switch len(rows) {
	case 0:
		return Prediction{}, nil
	case xHat.Rows():
		return s.PredictAt(ctx, xHat, c)
	}
	p, err := s.PredictAt(ctx, pick(xHat, rows), c.Pick(rows))
	return p, renumbered(err, func(image int) int { return rows[image] })
}

// Pick is the condition of the images rows, in that order; one may be there more
// than once.
func (c Cond) Pick(rows []int) Cond {
	picked := Cond{Context: pick(c.Context, rows), Vector: pick(c.Vector, rows)}
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

// pick is the entries rows of t; the zero tensor of the zero tensor.
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
	return (c.Labels == nil) == (d.Labels == nil) && slices.Equal(c.Context.Shape, d.Context.Shape) && slices.Equal(c.Vector.Shape, d.Vector.Shape)
}

// Join is the conditions of as many images each after one another: [k·N] labels
// and perturbations, [k·N,L,D] context, [k·N,V] vector. All are of one kind.
func Join(conds []Cond, images int) Cond {
	var joined Cond
	contexts, vectors := make([]tensor.Tensor, len(conds)), make([]tensor.Tensor, len(conds))
	perturbed := slices.ContainsFunc(conds, func(c Cond) bool { return c.Perturbed != nil })
	for i, c := range conds {
		joined.Labels = append(joined.Labels, c.Labels...)
		contexts[i], vectors[i] = c.Context, c.Vector
		if perturbed {
			joined.Perturbed = append(joined.Perturbed, c.perturbations(images)...)
		}
	}
	joined.Context, joined.Vector = concatenated(contexts), concatenated(vectors)
	return joined
}

// concatenated is tensors of one shape along the batch; the zero tensor of zero ones or none.
func concatenated(parts []tensor.Tensor) tensor.Tensor {
	if len(parts) == 0 || parts[0].IsZero() {
		return tensor.Tensor{}
	}
	shape := slices.Clone(parts[0].Shape)
	shape[0] *= len(parts)
	out := tensor.Tensor{Shape: shape, Data: make([]float32, 0, tensor.Size(shape))}
	for _, t := range parts {
		out.Data = append(out.Data, t.Data...)
	}
	return out
}

// images is the prediction of images [from, to); it shares memory with p.
func (p Prediction) images(from, to int) Prediction {
	for _, t := range []*tensor.Tensor{&p.Eps, &p.Var, &p.Attn} {
		if !t.IsZero() {
			*t = t.Slice(from, to)
		}
	}
	return p
}
