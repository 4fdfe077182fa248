package sampling

import "math"

// An Interpolant is SiT's path: time runs from 0, noise, to 1, data. Its types are
// Linear (α = t, σ = 1−t), GVP (α = sin πt/2, σ = cos πt/2) and VP (the
// variance-preserving SDE with β from 0.1 to 20). Source: Ma et al. 2024
// (arXiv:2401.08740), section 2.4; willisma/SiT transport/path.py ICPlan, GVPCPlan,
// VPCPlan.
type Interpolant struct {
	Type     string
	Velocity bool    // the network predicts the velocity, which is finite at both ends
	Eps      float64 // how far from an end that is not finite sampling stays (sample_eps)
}

// The types of an Interpolant.
var Interpolants = []string{"Linear", "GVP", "VP"}

// At implements Path. A solver may look a little beyond 1.
func (p Interpolant) At(t float64) Point {
	switch p.Type {
	case "GVP":
		sin, cos := math.Sincos(t * math.Pi / 2)
		return Point{sin, cos, math.Pi / 2 * cos, -math.Pi / 2 * sin}
	case "VP":
		const least, most = 0.1, 20
		log := -0.25*(1-t)*(1-t)*(most-least) - 0.5*(1-t)*least // of α
		dLog := 0.5*(1-t)*(most-least) + 0.5*least
		alpha := math.Exp(log)
		sigma := math.Sqrt(max(-math.Expm1(2*log), 1e-12))
		return Point{alpha, sigma, alpha * dLog, -alpha * alpha * dLog / sigma}
	}
	return Point{t, 1 - t, 1, -1}
}

// String implements Path.
func (p Interpolant) String() string {
	return "a " + p.Type + " path from noise, 0, to data, 1, as SiT's"
}

// Samplers implements Path.
func (Interpolant) Samplers() string { return "ode or sde" }

// interval is where sampling begins and ends: transport.py check_interval.
func (p Interpolant) interval(stochastic, sbdm bool, lastStep float64) (from, to float64) {
	end := 1 - p.Eps
	if stochastic && lastStep > 0 {
		end = 1 - lastStep
	}
	switch {
	case p.Type == "VP":
		return 0, end
	case p.Velocity && !stochastic:
		return 0, 1
	case !p.Velocity || sbdm:
		from = p.Eps
	}
	return from, end
}

// flowGrid is n times from one to another as torch's linspace has them, in float32.
func flowGrid(from, to float64, n int) []float64 {
	grid, out := make([]float32, n), make([]float64, n)
	linspace32(grid, from, to)
	for i, t := range grid {
		out[i] = float64(t)
	}
	return out
}

// interpolant is the path of a network that is told SiT's time.
func (c ScheduleConfig) interpolant() (Interpolant, error) {
	p, ok := c.Path.(Interpolant)
	if !ok {
		return p, c.otherPath("a network that is told a time from 0, noise, to 1, data, such as those of family sit")
	}
	return p, nil
}

// velocity sets v to dx/dt at the states x, by the network's output there.
func (c *course) velocity(t Timestep, x []float64, output []float32, v []float64) {
	at, kind := c.p.Schedule.config.Path.At(t.Value), c.p.Predicts
	c.each(func(i int) {
		if v[i] = float64(output[i]); kind != Flow {
			xStart, eps := at.split(kind, x[i], v[i])
			v[i] = float64(at.DAlpha*xStart) + float64(at.DSigma*eps)
		}
	})
}
