package sampling

import (
	"context"
	"fmt"
	"math"

	"sagbench/sampling/tensor"
)

var _ Sampler = (*EDM)(nil)

// EDM is the stochastic Heun sampler for denoisers D(x; σ) that know every noise
// level. With N steps, σ_i^(1/ρ) at equal distances from σ_max to σ_min, σ_N = 0,
// and z ~ N(0, I), for i = 0 … N−1:
//
//	γ   = min(S_churn/N, √2 − 1) where S_min ≤ σ_i ≤ S_max, else 0
//	σ̂   = σ_i + γ σ_i
//	x̂   = x + √(σ̂² − σ_i²) S_noise z
//	d   = (x̂ − D(x̂; σ̂))/σ̂
//	x   = x̂ + (σ_{i+1} − σ̂) d
//	d'  = (x − D(x; σ_{i+1}))/σ_{i+1}                      (not in the last step)
//	x   = x̂ + (σ_{i+1} − σ̂) (d + d')/2
//
// σ_max and σ_min are cut to what the network supports, and levels rounded to those
// that it knows. D is not clipped. The state is float64, as in EDM's generate.py;
// EDM2's generate_images.py has float32, from which this differs by rounding alone.
// Guidances are asked in both calls of a step.
//
// Sources: Karras et al. 2022 (arXiv:2206.00364), algorithm 2; NVlabs/edm
// generate.py edm_sampler; NVlabs/edm2 generate_images.py edm_sampler.
type EDM struct {
	Steps    int     `yaml:"steps" min:"2" max:"10000" doc:"steps; the network is called twice in each but the last one (EDM2's authors take 32)"`
	SigmaMin float64 `yaml:"sigma_min" min:"1e-9" max:"1000000" doc:"noise level of the last step, before 0"`
	SigmaMax float64 `yaml:"sigma_max" min:"1e-9" max:"1000000" doc:"noise level that sampling begins at"`
	Rho      float64 `yaml:"rho" min:"0.01" max:"1000" doc:"ρ: noise levels are at equal distances of σ^(1/ρ)"`
	Churn    `yaml:",inline"`
}

// Churn are the options of the noise that is added in a step, by the authors'
// names.
type Churn struct {
	SChurn float64  `yaml:"S_churn" min:"0" max:"1000000" doc:"noise that is added: the level is raised by S_churn/steps of itself, at most √2−1, in each step; 0 for deterministic sampling"`
	SMin   float64  `yaml:"S_min" min:"0" max:"1000000" doc:"noise is added where the level is at least this"`
	SMax   *float64 `yaml:"S_max" min:"0" max:"1000000" doc:"noise is added where the level is at most this; absent for no bound"`
	SNoise float64  `yaml:"S_noise" min:"0" max:"1000" doc:"standard deviation of the noise that is added, above 1 to make up for what denoising takes"`
}

// NewEDM is EDM with the defaults of its generate.py.
func NewEDM() *EDM {
	return &EDM{Steps: 18, SigmaMin: 0.002, SigmaMax: 80, Rho: 7, Churn: Churn{SNoise: 1}}
}

// Validate tells everything that is wrong with the options.
func (d *EDM) Validate() error {
	var f Faults
	f.When(d.Steps < 2, "steps is %d, expected at least 2: sigma_max and sigma_min", d.Steps)
	f.When(!(d.SigmaMin > 0 && d.SigmaMin <= d.SigmaMax), "sigma_min is %g and sigma_max %g, expected positive noise levels, sigma_min the lower one", d.SigmaMin, d.SigmaMax)
	f.When(!(d.Rho > 0), "rho is %g, expected a positive number", d.Rho)
	return f.Join()
}

// Schedule is the noise levels of the network's calls.
func (d *EDM) Schedule(c ScheduleConfig) (*Schedule, error) {
	w, err := d.way(c)
	if err != nil {
		return nil, fmt.Errorf("sampling: edm: %w", err)
	}
	return c.along(w.calls(), w.times[0]), nil
}

// way is EDM as a case of its authors' ablation: σ(t) = t, s(t) = 1, Heun.
func (d *EDM) way(c ScheduleConfig) (*edmWay, error) {
	levels, low, high, err := c.levels(d.SigmaMin, d.SigmaMax)
	if err != nil {
		return nil, err
	}
	w := &edmWay{levels: levels, noise: linearNoise, heun: true, alpha: 1, churn: d.Churn}
	for _, sigma := range rhoSpaced(high, low, d.Rho, d.Steps) {
		w.times = append(w.times, levels.round(sigma))
	}
	return w, nil
}

// Sample takes x_T to x_0 over all steps of p.Schedule. Without S_churn no noise is
// asked for, and the Noise may be nil.
func (d *EDM) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, noise Noise) (tensor.Tensor, error) {
	w, err := d.way(p.Schedule.Config())
	if err != nil {
		return tensor.Tensor{}, fmt.Errorf("sampling: edm: %w", err)
	}
	return w.sample(ctx, p, xT, noise)
}

// levels is the path as noise levels, and the range of them as the network supports
// it.
func (c ScheduleConfig) levels(low, high float64) (l NoiseLevels, _, _ float64, err error) {
	l, ok := c.Path.(NoiseLevels)
	if !ok {
		return l, 0, 0, c.otherPath("a network that is told noise levels, such as those of families edm and edm2")
	}
	low, high = max(low, l.Min), min(high, l.Max)
	if !(low <= high) {
		err = fmt.Errorf("the network supports noise levels from %g to %g, none of which is from sigma_min to sigma_max", l.Min, l.Max)
	}
	return l, low, high, err
}

// otherPath is the error about a process that a sampler cannot go along.
func (c ScheduleConfig) otherPath(expected string) error {
	if c.Path == nil {
		return fmt.Errorf("the network is told one of a number of timesteps; expected %s", expected)
	}
	return fmt.Errorf("the network's time is that of %s; expected %s; the samplers for it: %s", c.Path, expected, c.Path.Samplers())
}

// rhoSpaced is n noise levels from high to low at equal steps of σ^(1/ρ) (Karras et
// al. 2022, equation 5).
func rhoSpaced(high, low, rho float64, n int) []float64 {
	out := linspace(math.Pow(high, 1/rho), math.Pow(low, 1/rho), n)
	for i, root := range out {
		out[i] = math.Pow(root, rho)
	}
	return out
}

// A noiseSchedule is σ(t) and s(t) of a state s(t) (x_0 + σ(t) ε), σ's derivative
// and its inverse.
type noiseSchedule struct {
	sigma, dSigma, inverse func(float64) float64
	scaled                 bool // s = 1/√(1+σ²), else 1
}

var linearNoise = noiseSchedule{
	sigma:   func(t float64) float64 { return t },
	dSigma:  func(float64) float64 { return 1 },
	inverse: func(sigma float64) float64 { return sigma },
}

// s is the scale of the state.
func (n *noiseSchedule) s(t float64) float64 {
	if !n.scaled {
		return 1
	}
	sigma := n.sigma(t)
	return 1 / math.Sqrt(1+sigma*sigma)
}

// slope is dx/dt as a x − b D (Karras et al. 2022, equation 4 with D for the score).
func (n *noiseSchedule) slope(t float64) (a, b float64) {
	sigma, dSigma, s := n.sigma(t), n.dSigma(t), n.s(t)
	a, b = dSigma/sigma, dSigma*s/sigma
	if n.scaled {
		a -= sigma * dSigma * s * s // s'/s
	}
	return a, b
}

// An edmWay is how the sampler goes through times, of which 0 follows the last one.
type edmWay struct {
	levels NoiseLevels
	noise  noiseSchedule
	times  []float64
	heun   bool
	alpha  float64 // where in a step the second call of Heun's is
	churn  Churn
}

// hat is the time of a step's first call.
func (w *edmWay) hat(t float64) float64 {
	sigma := w.noise.sigma(t)
	gamma := 0.0
	if sigma >= w.churn.SMin && sigma <= or(w.churn.SMax, math.Inf(1)) {
		gamma = min(w.churn.SChurn/float64(len(w.times)), math.Sqrt2-1)
	}
	if gamma == 0 && w.levels.Round == nil {
		return t
	}
	return w.noise.inverse(w.levels.round(sigma + gamma*sigma))
}

// A stride is a step: from t, raised to hat, to next; mid is the time of its second
// call, if there is one.
type stride struct {
	t, hat, next, mid float64
	twice             bool
}

func (w *edmWay) stride(i int) stride {
	s := stride{t: w.times[i]}
	s.hat = w.hat(s.t)
	if i < len(w.times)-1 {
		s.next, s.twice = w.times[i+1], w.heun
	}
	s.mid = s.hat + w.alpha*(s.next-s.hat)
	return s
}

// calls are the noise levels of the network's calls.
func (w *edmWay) calls() []float64 {
	var levels []float64
	for i := range w.times {
		s := w.stride(i)
		levels = append(levels, w.noise.sigma(s.hat))
		if s.twice {
			levels = append(levels, w.noise.sigma(s.mid))
		}
	}
	return levels
}

// sample takes xT through all steps.
func (w *edmWay) sample(ctx context.Context, p *Predictor, xT tensor.Tensor, noise Noise) (x tensor.Tensor, err error) {
	c, err := p.begin(xT)
	if err != nil {
		return tensor.Tensor{}, err
	}
	z, d, d2, trial := xT.Like(), make([]float64, len(c.x)), make([]float64, len(c.x)), make([]float64, len(c.x))
	for i := range w.times {
		s := w.stride(i)
		if w.churn.SChurn > 0 {
			if err := noise.Fill(i, z); err != nil {
				return tensor.Tensor{}, err
			}
		}
		w.raise(c, s, z)
		at := c.next()
		if err := w.derivative(ctx, c, s.hat, c.x, d); err != nil {
			return tensor.Tensor{}, err
		}
		h, first, second := s.next-s.hat, 1.0, 0.0
		if s.twice {
			c.each(func(i int) { trial[i] = c.x[i] + float64(w.alpha*h*d[i]) })
			at = c.next()
			if err := w.derivative(ctx, c, s.mid, trial, d2); err != nil {
				return tensor.Tensor{}, err
			}
			second = 1 / (2 * w.alpha)
			first = 1 - second
		}
		c.each(func(i int) { c.x[i] += float64(h * (float64(first*d[i]) + float64(second*d2[i]))) })
		if x, err = c.arrive(at); err != nil {
			return tensor.Tensor{}, err
		}
	}
	return x, nil
}

// raise takes the state from the noise of s.t to that of s.hat.
func (w *edmWay) raise(c *course, s stride, z tensor.Tensor) {
	if s.hat == s.t {
		return
	}
	from, to, scale := w.noise.sigma(s.t), w.noise.sigma(s.hat), w.noise.s(s.hat)
	keep := scale / w.noise.s(s.t)
	add := math.Sqrt(max(0, to*to-from*from)) * scale * w.churn.SNoise
	c.each(func(i int) { c.x[i] = float64(keep*c.x[i]) + float64(add*float64(z.Data[i])) })
}

// derivative sets d to dx/dt at the state x of time t: one call of the network.
func (w *edmWay) derivative(ctx context.Context, c *course, t float64, x, d []float64) error {
	scale, at := w.noise.s(t), c.next()
	c.each(func(i int) { d[i] = x[i] / scale })
	out, err := c.ask(ctx, at, d)
	if err != nil {
		return err
	}
	a, b := w.noise.slope(t)
	point := c.p.Schedule.Config().Path.At(at.Value)
	c.each(func(i int) {
		denoised, _ := point.split(c.p.Predicts, d[i], float64(out.Data[i]))
		d[i] = float64(a*x[i]) - float64(b*denoised)
	})
	return nil
}
