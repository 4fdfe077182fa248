package sampling

// A Linear is a sampler each of whose steps is the same arithmetic on every value of a
// state, so that a device can do it without the state leaving it.
type Linear interface {
	Sampler
	// Update is the step that begins at step i of p.Schedule, all of which are visited
	// downwards.
	Update(p *Predictor, i int) Update
}

// An Update is a step of a Linear sampler, with F the network's guided output, x̂0 what
// follows from it (Readout) and z ~ N(0, I):
//
//	x' = XStart·clip(x̂0, ±Limit) + Output·F + State·x + σ z
//
// σ is Sigma or, where Learned, exp(½ ((v+1)/2·MaxLog + (1−v)/2·MinLog)) of the learned
// variance v.
type Update struct {
	XStart, Output, State float32
	Limit                 float32 // of |x̂0|; infinite: it is not clipped
	Draws                 bool    // the sampler asks for z in this step
	Sigma                 float32
	Learned               bool
	MinLog, MaxLog        float32
}

// A Readout is how x̂0 and ε follow from a state and the network's output F there, and
// what is made of them again:
//
//	x̂0 = XStart[0]·x + XStart[1]·F
//	ε  = Eps[0]·x + Eps[1]·F
//	x_t = Noised[0]·x̂0 + Noised[1]·ε
//	F  = Output[0]·x̂0 + Output[1]·ε
type Readout struct{ XStart, Eps, Noised, Output [2]float32 }

// Readout is that of a network that predicts the given kind.
func (c *Coefficients) Readout(kind Parametrization) Readout {
	var r Readout
	c.Split(kind, []float32{1, 0}, []float32{0, 1}, r.XStart[:], r.Eps[:])
	r.Noised = [2]float32{c.Noised(1, 0), c.Noised(0, 1)}
	c.Output(kind, []float32{1, 0}, []float32{0, 1}, r.Output[:])
	return r
}

var (
	_ Linear = (*DDPM)(nil)
	_ Linear = (*DDIM)(nil)
)

// Update implements Linear.
func (d *DDPM) Update(p *Predictor, i int) Update {
	c := p.Schedule.At(i)
	u := Update{XStart: c.posteriorMean1, State: c.posteriorMean2, Limit: p.limit(), Draws: true, MinLog: c.minLog, MaxLog: c.maxLog}
	if p.Schedule.noisy(i) {
		u.Sigma, u.Learned = exp32(0.5*c.fixedLog), true
	}
	return u
}

// Update implements Linear. Where ε is derived again from the clipped x̂0, its part is
// one of x and x̂0.
func (d *DDIM) Update(p *Predictor, i int) Update {
	c := p.Schedule.At(i)
	u := Update{Limit: p.limit(), Draws: d.Eta > 0}
	var toEps float32
	u.XStart, toEps, u.Sigma = c.ddim(d.Eta)
	if or(d.UseClipped, p.Schedule.config.Scheduler == nil) {
		u.XStart -= toEps / c.sqrtRecipM1AlphaBar
		u.State = toEps * c.sqrtRecipAlphaBar / c.sqrtRecipM1AlphaBar
		return u
	}
	eps := c.Readout(p.Predicts).Eps
	u.State, u.Output = toEps*eps[0], toEps*eps[1]
	return u
}
