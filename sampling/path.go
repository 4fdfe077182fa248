package sampling

import (
	"context"
	"fmt"
	"math"

	"sagbench/sampling/tensor"
)

// A Path is a process in continuous time, x(t) = α(t) x_0 + σ(t) ε, of a network
// that is told the time itself and not one of T timesteps. Samplers keep their
// states in these terms; networks and guidances see x(t)/√(α²+σ²), which is
// √ᾱ x_0 + √(1−ᾱ) ε.
type Path interface {
	// At is the path at the time t, as the network is told it.
	At(t float64) Point
	// String describes the path in messages: "noise levels, as EDM's".
	String() string
	// Samplers names the samplers that go along it, for messages.
	Samplers() string
}

// A Point is a path at a time.
type Point struct {
	Alpha, Sigma   float64 // of x_0 and of ε
	DAlpha, DSigma float64 // their derivatives by the time
}

// NoiseLevels is EDM's path, x_0 + σ ε, on which the time is σ itself. Source:
// Karras et al. 2022 (arXiv:2206.00364), table 1.
type NoiseLevels struct {
	Min, Max float64               // σ that the network supports
	Round    func(float64) float64 // the level nearest to σ that the network knows; nil where it knows all
}

// At implements Path.
func (NoiseLevels) At(sigma float64) Point { return Point{1, sigma, 0, 1} }

// String implements Path.
func (NoiseLevels) String() string { return "noise levels, as EDM's" }

// Samplers implements Path.
func (NoiseLevels) Samplers() string { return "edm or edm_ablation" }

// round is the level nearest to sigma that the network knows.
func (l NoiseLevels) round(sigma float64) float64 {
	if l.Round == nil {
		return sigma
	}
	return l.Round(sigma)
}

// Length is √(α²+σ²): what a state in the path's own terms is longer than x_t.
func (p Point) Length() float64 { return math.Hypot(p.Alpha, p.Sigma) }

// stands is what an output of the given kind stands for at the point, p x_0 + q ε.
func (p Point) stands(kind Parametrization) (ofXStart, ofEps float64) {
	switch kind {
	case XStart:
		return 1, 0
	case V:
		return -p.Sigma / p.Length(), p.Alpha / p.Length()
	case Velocity:
		return -1, 1
	case Flow:
		return p.DAlpha, p.DSigma
	case Score:
		return 0, -1 / p.Sigma
	}
	return 0, 1
}

// split reads an output of the given kind at the state x, in the path's own terms.
func (p Point) split(kind Parametrization, x, output float64) (xStart, eps float64) {
	ofXStart, ofEps := p.stands(kind)
	d := float64(p.Alpha*ofEps) - float64(p.Sigma*ofXStart)
	return (float64(ofEps*x) - float64(p.Sigma*output)) / d, (float64(p.Alpha*output) - float64(ofXStart*x)) / d
}

// coefficients are those of a state √ᾱ x_0 + √(1−ᾱ) ε at the point.
func (p Point) coefficients() Coefficients {
	a, b := p.Alpha/p.Length(), p.Sigma/p.Length()
	return Coefficients{
		AlphaBar: float32(a * a), sqrtAlphaBar: float32(a), sqrtOneMinusAlphaBar: float32(b),
		sqrtRecipAlphaBar: float32(1 / a), sqrtRecipM1AlphaBar: float32(b / a), point: p,
	}
}

// along is the schedule of a sampler that calls the network at these times of
// c.Path, in the order of the calls; scale is the standard deviation of x_T.
func (c ScheduleConfig) along(times []float64, scale float64) *Schedule {
	s := &Schedule{config: c, initNoiseSigma: scale}
	next := 1.0
	for k, t := range times {
		i := len(times) - 1 - k
		t = times[i]
		a := c.Path.At(t)
		bar := a.Alpha * a.Alpha / (a.Length() * a.Length())
		s.timesteps = append(s.timesteps, Timestep{Index: k, Value: t})
		s.alphaBar, s.alphaBarPrev = append(s.alphaBar, bar), append(s.alphaBarPrev, next)
		next = bar
	}
	return s
}

// A course is a batch on its way along a path, in float64 and the path's own
// terms.
type course struct {
	p     *Predictor
	x     []float64 // the state
	rows  int
	shown tensor.Tensor
	calls int // of the network, so far
}

// begin is the course of xT, [N,C,H,W].
func (p *Predictor) begin(xT tensor.Tensor) (*course, error) {
	if err := p.Check(xT); err != nil {
		return nil, fmt.Errorf("sampling: %w", err)
	}
	p.states = nil
	c := &course{p: p, x: make([]float64, len(xT.Data)), rows: xT.Rows(), shown: xT.Like()}
	scale := p.Schedule.InitNoiseSigma()
	for i, v := range xT.Data {
		c.x[i] = float64(float64(v) * scale)
	}
	return c, nil
}

// each calls f for every value of the states, those of an image by one goroutine.
func (c *course) each(f func(i int)) {
	n := len(c.x) / c.rows
	EachImage(c.rows, func(row int) {
		for i := row * n; i < (row+1)*n; i++ {
			f(i)
		}
	})
}

// next is the timestep of the next call.
func (c *course) next() Timestep { return c.p.Schedule.Timestep(c.p.Schedule.Len() - 1 - c.calls) }

// ask is the guided output at a state x of the path at t, scores followed.
func (c *course) ask(ctx context.Context, t Timestep, x []float64) (tensor.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return tensor.Tensor{}, fmt.Errorf("sampling: stopped before call %d: %w", c.calls, err)
	}
	c.calls++
	at := c.p.Schedule.config.Path.At(t.Value)
	length := at.Length()
	c.each(func(i int) { c.shown.Data[i] = float32(x[i] / length) })
	guided, score, err := c.p.Predict(ctx, c.shown, t)
	if err != nil {
		return tensor.Tensor{}, err
	}
	k := at.coefficients()
	v := visit{x: c.shown, guided: guided, score: score}
	v.follow(&k, c.p.Predicts)
	return v.guided.Eps, nil
}

// arrive shows the state after a step, t that of its last call, and returns it. A
// state that is not finite is an error.
func (c *course) arrive(t Timestep) (tensor.Tensor, error) {
	x := c.shown.Like()
	c.each(func(i int) { x.Data[i] = float32(c.x[i]) })
	if n, broken := FirstNotFinite(x); broken {
		return x, &NotFinite{Step: t, Image: n, What: "the update, which overflowed"}
	}
	c.p.trace("x", t, x)
	return x, nil
}
