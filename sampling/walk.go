package sampling

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"sagbench/sampling/tensor"
)

// A loop is how a sampler goes through its schedule.
type loop struct {
	// steps are the schedule's steps in the order of the network calls; nil for
	// Schedule.downwards.
	steps func(*Schedule) []int

	// shown is the state as the network and the guidances see it, of variance
	// ᾱ_i Var x_0 + 1 − ᾱ_i; nil where it is the sampler's own.
	shown func(i int, x tensor.Tensor) tensor.Tensor

	// next takes the visit's state to the next one, in place.
	next func(v *visit) error
}

// A visit is one network call of a loop and what it leads to.
type visit struct {
	k      int           // counts the calls up from 0
	i      int           // step of the schedule
	x      tensor.Tensor // the sampler's state
	shown  tensor.Tensor // what the network saw
	guided Prediction    // as Predictor.Predict returned it
	score  tensor.Tensor
}

// walk takes a copy of xT, in the sampler's own terms, through a loop and returns
// the state that it ends in. It stops at a cancelled context, and at a state that
// is not finite, which nothing later could repair.
func (p *Predictor) walk(ctx context.Context, xT tensor.Tensor, l loop) (tensor.Tensor, error) {
	if err := p.Check(xT); err != nil {
		return tensor.Tensor{}, fmt.Errorf("sampling: %w", err)
	}
	if l.steps == nil {
		l.steps = (*Schedule).downwards
	}
	p.states = nil
	x := scaled(xT.Like(), xT, p.Schedule.InitNoiseSigma())
	for k, i := range l.steps(p.Schedule) {
		t := p.Schedule.Timestep(i)
		if err := ctx.Err(); err != nil {
			return tensor.Tensor{}, fmt.Errorf("sampling: stopped before step %d: %w", i, err)
		}
		v := visit{k: k, i: i, x: x, shown: x}
		if l.shown != nil {
			v.shown = l.shown(i, x)
		}
		var err error
		if v.guided, v.score, err = p.Predict(ctx, v.shown, t); err != nil {
			return tensor.Tensor{}, err
		}
		if err := l.next(&v); err != nil {
			return tensor.Tensor{}, err
		}
		if err := finite(x, v.guided, v.score, t); err != nil {
			return tensor.Tensor{}, err
		}
		p.trace("x", t, x)
	}
	return x, nil
}

// downwards is all steps, the last one first.
func (s *Schedule) downwards() []int {
	steps := make([]int, s.Len())
	for k := range steps {
		steps[k] = s.Len() - 1 - k
	}
	return steps
}

// follow adds the score to the guided output, for samplers of the probability
// flow, which have no other use for it.
func (v *visit) follow(c *Coefficients, kind Parametrization) {
	if v.score.IsZero() {
		return
	}
	shift := c.Shift(kind)
	EachImage(v.x.Rows(), func(n int) {
		out, g := v.guided.Eps.Row(n), v.score.Row(n)
		for j, s := range g {
			out[j] += float32(shift * s)
		}
	})
}

// split sets xStart, clipped where the predictor clips, and eps of image n.
func (v *visit) split(p *Predictor, c *Coefficients, n int, xStart, eps []float32) {
	x := v.shown.Row(n)
	c.Split(p.Predicts, x, v.guided.Eps.Row(n), xStart, eps)
	if !p.ClipDenoised {
		return
	}
	limit := p.limit()
	for j, x0 := range xStart {
		xStart[j] = max(-limit, min(x0, limit))
		eps[j] = (x[j] - float32(c.sqrtAlphaBar*xStart[j])) / c.sqrtOneMinusAlphaBar
	}
}

// limit is the largest magnitude that x̂0 may have, infinite without clipping.
func (p *Predictor) limit() float32 {
	switch c := p.Schedule.config.Scheduler; {
	case !p.ClipDenoised:
		return float32(math.Inf(1))
	case c != nil:
		return float32(or(c.ClipSampleRange, 1))
	}
	return 1
}

// RowOf is image n of a tensor, nil of the zero tensor.
func RowOf(t tensor.Tensor, n int) []float32 {
	if t.IsZero() {
		return nil
	}
	return t.Row(n)
}

// Check tells everything that keeps p from sampling from x, [N,C,H,W].
func (p *Predictor) Check(x tensor.Tensor) error {
	var f Faults
	f.When(p.Denoiser == nil, "the predictor has no Denoiser")
	f.When(p.Schedule == nil, "the predictor has no Schedule")
	if continuous := p.Schedule != nil && p.Schedule.Continuous(); !continuous || p.Predicts != Flow && p.Predicts != Score {
		f.When(!slices.Contains([]Parametrization{"", Epsilon, XStart, V}, p.Predicts), "the network predicts %q, expected %s, %s or %s", p.Predicts, Epsilon, XStart, V)
	}
	if p.Schedule != nil && (p.Predicts == "" || p.Predicts == Epsilon) {
		last := p.Schedule.Len() - 1
		f.When(p.Schedule.AlphaBar(last) == 0, "step %d (t = %g) has no signal left (rescale_betas_zero_snr): x_0 does not follow from ε there; such a schedule needs a network that predicts v or x_0", last, p.Schedule.Timestep(last).Value)
	}
	if len(x.Shape) != 4 || x.Rows() < 1 || len(x.Data) != tensor.Size(x.Shape) {
		f.When(true, "x_T has shape %v (%d values), expected [N,C,H,W] with N ≥ 1", x.Shape, len(x.Data))
		return f.Join()
	}
	for i, name := range []string{"condition", "null condition"} {
		c := []Cond{p.Cond, p.Null}[i]
		labels, texts, vector := c.Labels, c.Context, c.Vector
		f.When(labels != nil && len(labels) != x.Rows(), "the %s has %d labels for a batch of %d", name, len(labels), x.Rows())
		f.When(!texts.IsZero() && (len(texts.Shape) != 3 || texts.Rows() != x.Rows()),
			"the %s's Context has shape %v, expected [%d,L,D]", name, texts.Shape, x.Rows())
		f.When(!vector.IsZero() && (len(vector.Shape) != 2 || vector.Rows() != x.Rows()),
			"the %s's Vector has shape %v, expected [%d,V]", name, vector.Shape, x.Rows())
	}
	return f.Join()
}

// finite is an error that tells which image of the state x, of the guided
// prediction or of the score is not finite.
func finite(x tensor.Tensor, guided Prediction, score tensor.Tensor, t Timestep) error {
	if n, broken := FirstNotFinite(x, guided.Eps, score); broken {
		from := "the update, which overflowed"
		switch {
		case !finiteRow(guided.Eps.Row(n)):
			from = "the guided ε"
		case !score.IsZero() && !finiteRow(score.Row(n)):
			from = "the sum of the guidances' Scores"
		}
		return &NotFinite{Step: t, Image: n, What: from}
	}
	return nil
}

// A NotFinite is the error about a NaN or an infinity, which nothing later could
// repair, and which the conversion to pixels would hide.
type NotFinite struct {
	Step  Timestep
	Image int    // number in the batch
	What  string // is not finite: "the network's output"
	Of    any    // the Denoiser or Guidance that gave it; nil: none of them alone
}

func (e *NotFinite) Error() string {
	return fmt.Sprintf("sampling: step %d (t = %g): image %d of the batch is not finite, from %s; check the checkpoint, its flags and the guidance scale", e.Step.Index, e.Step.Value, e.Image, e.What)
}

// renumbered is err with the image of a NotFinite in the numbers of another batch.
func renumbered(err error, image func(int) int) error {
	var e *NotFinite
	if errors.As(err, &e) {
		e.Image = image(e.Image)
	}
	return err
}

// FirstNotFinite is the first image of tensors [N,…] that holds a NaN or an
// infinity; ok is false where there is none.
func FirstNotFinite(tensors ...tensor.Tensor) (image int, ok bool) {
	image = math.MaxInt
	for _, t := range tensors {
		if t.IsZero() {
			continue
		}
		broken := make([]bool, t.Rows())
		EachImage(t.Rows(), func(n int) { broken[n] = !finiteRow(t.Row(n)) })
		if n := slices.Index(broken, true); n >= 0 {
			image = min(image, n)
		}
	}
	return image, image < math.MaxInt
}

// finiteRow is false where v holds a NaN or an infinity: v−v is 0 otherwise.
func finiteRow(v []float32) bool {
	var sum float32
	for _, f := range v {
		sum += f - f
	}
	return sum == 0
}

// EachImage calls f(0) … f(n-1), each once, on all cores. Calls for different
// images run at the same time, in no order; f(i) may write to what belongs to
// image i alone, which makes the result independent of the number of cores.
func EachImage(n int, f func(i int)) {
	workers := min(n, runtime.GOMAXPROCS(0))
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(i)
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}
