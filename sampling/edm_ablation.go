package sampling

import (
	"context"
	"fmt"
	"math"
	"slices"

	"sagbench/sampling/tensor"
)

var _ Sampler = (*EDMAblation)(nil)

// EDMAblation is the superset of samplers that EDM's authors compare: EDM's, with a
// choice of solver, of the steps' noise levels (disc), of the noise level as a
// function of time (schedule) and of the scale of the state (scaling), for a state
// s(t) (x_0 + σ(t) ε). With h = t_{i+1} − t̂ and dx/dt = (σ'/σ + s'/s) x − (σ' s/σ) D(x/s; σ):
//
//	d = dx/dt at (x̂, t̂)
//	x = x̂ + h d                                                  (euler, and the last step)
//	x = x̂ + h ((1 − 1/2α) d + 1/2α dx/dt at (x̂ + α h d, t̂ + α h))   (heun)
//
// Sources: Karras et al. 2022 (arXiv:2206.00364), algorithm 1, table 1 and appendix
// C; NVlabs/edm generate.py ablation_sampler.
type EDMAblation struct {
	Steps         int      `yaml:"steps" min:"2" max:"10000" doc:"steps; heun calls the network twice in each but the last one"`
	SigmaMin      *float64 `yaml:"sigma_min" min:"1e-9" max:"1000000" doc:"noise level of the last step, before 0; absent: that of disc (vp 0.0090, ve 0.02, iddpm and edm 0.002)"`
	SigmaMax      *float64 `yaml:"sigma_max" min:"1e-9" max:"1000000" doc:"noise level that sampling begins at; absent: that of disc (vp 152, ve 100, iddpm 81, edm 80)"`
	Rho           float64  `yaml:"rho" min:"0.01" max:"1000" doc:"ρ of disc edm: noise levels are at equal distances of σ^(1/ρ)"`
	Solver        string   `yaml:"solver" doc:"euler or heun"`
	Disc          string   `yaml:"disc" doc:"the steps' noise levels: those of vp, ve, iddpm or edm"`
	NoiseSchedule string   `yaml:"schedule" doc:"the noise level as a function of time: vp, ve or linear"`
	Scaling       string   `yaml:"scaling" doc:"the scale of the state: vp (constant variance) or none"`
	EpsilonS      float64  `yaml:"epsilon_s" min:"1e-9" max:"0.5" doc:"time of the last step of disc vp, and of the process that schedule vp is made of"`
	C1            float64  `yaml:"C_1" min:"0" max:"1" doc:"of disc iddpm: the least ratio of two ᾱ"`
	C2            float64  `yaml:"C_2" min:"0" max:"1" doc:"of disc iddpm: offset of the cosine"`
	M             int      `yaml:"M" min:"1" max:"100000" doc:"of disc iddpm: noise levels to choose from"`
	Alpha         float64  `yaml:"alpha" min:"0.01" max:"1" doc:"α of heun: where in a step the network is called again; 1 at its end, 0.5 in its middle"`
	Churn         `yaml:",inline"`
}

// NewEDMAblation is EDM's own choice, with the defaults of its generate.py.
func NewEDMAblation() *EDMAblation {
	return &EDMAblation{
		Steps: 18, Rho: 7, Solver: "heun", Disc: "edm", NoiseSchedule: "linear", Scaling: "none",
		EpsilonS: 1e-3, C1: 0.001, C2: 0.008, M: 1000, Alpha: 1, Churn: Churn{SNoise: 1},
	}
}

// Validate tells everything that is wrong with the options.
func (d *EDMAblation) Validate() error {
	var f Faults
	oneOf := func(name, v string, values ...string) {
		f.When(!slices.Contains(values, v), "%s is %q, expected one of %v", name, v, values)
	}
	f.When(d.Steps < 2, "steps is %d, expected at least 2: sigma_max and sigma_min", d.Steps)
	oneOf("solver", d.Solver, "euler", "heun")
	oneOf("disc", d.Disc, "vp", "ve", "iddpm", "edm")
	oneOf("schedule", d.NoiseSchedule, "vp", "ve", "linear")
	oneOf("scaling", d.Scaling, "vp", "none")
	low, high := or(d.SigmaMin, 1e-9), or(d.SigmaMax, math.Inf(1))
	f.When(!(low > 0 && low <= high), "sigma_min is %g and sigma_max %g, expected positive noise levels, sigma_min the lower one", low, high)
	f.When(!(d.Rho > 0), "rho is %g, expected a positive number", d.Rho)
	f.When(!(d.Alpha > 0 && d.Alpha <= 1), "alpha is %g, expected more than 0 and at most 1", d.Alpha)
	f.When(!(d.EpsilonS > 0 && d.EpsilonS < 1), "epsilon_s is %g, expected a time between 0 and 1", d.EpsilonS)
	f.When(d.M < 1, "M is %d, expected a number of noise levels", d.M)
	return f.Join()
}

// Schedule is the noise levels of the network's calls.
func (d *EDMAblation) Schedule(c ScheduleConfig) (*Schedule, error) {
	w, err := d.way(c)
	if err != nil {
		return nil, fmt.Errorf("sampling: edm_ablation: %w", err)
	}
	start := w.times[0]
	return c.along(w.calls(), w.noise.sigma(start)*w.noise.s(start)), nil
}

// Sample takes x_T to x_0 over all steps of p.Schedule. Without S_churn no noise is
// asked for, and the Noise may be nil.
func (d *EDMAblation) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, noise Noise) (tensor.Tensor, error) {
	w, err := d.way(p.Schedule.Config())
	if err != nil {
		return tensor.Tensor{}, fmt.Errorf("sampling: edm_ablation: %w", err)
	}
	return w.sample(ctx, p, xT, noise)
}

func (d *EDMAblation) way(c ScheduleConfig) (*edmWay, error) {
	usual := vpNoise(19.9, 0.1)
	low := or(d.SigmaMin, map[string]float64{"vp": usual.sigma(d.EpsilonS), "ve": 0.02, "iddpm": 0.002, "edm": 0.002}[d.Disc])
	high := or(d.SigmaMax, map[string]float64{"vp": usual.sigma(1), "ve": 100, "iddpm": 81, "edm": 80}[d.Disc])
	levels, low, high, err := c.levels(low, high)
	if err != nil {
		return nil, err
	}
	// the process of the variance-preserving SDE that has these levels at its ends
	logLow, logHigh := math.Log(low*low+1), math.Log(high*high+1)
	betaD := 2 * (logLow/d.EpsilonS - logHigh) / (d.EpsilonS - 1)
	vp := vpNoise(betaD, logHigh-0.5*betaD)
	w := &edmWay{levels: levels, noise: linearNoise, heun: d.Solver == "heun", alpha: d.Alpha, churn: d.Churn}
	switch d.NoiseSchedule {
	case "vp":
		w.noise = vp
	case "ve":
		w.noise = veNoise
	}
	w.noise.scaled = d.Scaling == "vp"
	sigmas, err := d.sigmas(vp, low, high)
	for _, sigma := range sigmas {
		w.times = append(w.times, w.noise.inverse(levels.round(sigma)))
	}
	return w, err
}

// sigmas are the noise levels of the steps by disc.
func (d *EDMAblation) sigmas(vp noiseSchedule, low, high float64) ([]float64, error) {
	var out []float64
	switch d.Disc {
	case "vp":
		for _, t := range linspace(1, d.EpsilonS, d.Steps) {
			out = append(out, vp.sigma(t))
		}
	case "ve":
		for _, w := range linspace(0, 1, d.Steps) {
			out = append(out, math.Sqrt(high*high*math.Pow(low*low/(high*high), w)))
		}
	case "iddpm":
		var within []float64
		for _, u := range IDDPMLevels[float64](d.M, d.C1, d.C2) {
			if u >= low && u <= high {
				within = append(within, u)
			}
		}
		if len(within) == 0 {
			return nil, fmt.Errorf("disc iddpm has no noise level from %g to %g", low, high)
		}
		for _, at := range linspace(0, float64(len(within)-1), d.Steps) {
			out = append(out, within[int(math.RoundToEven(at))])
		}
	default:
		return rhoSpaced(high, low, d.Rho, d.Steps), nil
	}
	return out, nil
}

// IDDPMLevels are the noise levels u_0 … u_M = 0 of improved DDPM's cosine schedule,
// the highest first: u_{j−1}² = (u_j² + 1)/max(ᾱ_{j−1}/ᾱ_j, C_1) − 1, with
// ᾱ_j = sin²(π j / 2M(C_2 + 1)), computed in T (Karras et al. 2022, table 1).
func IDDPMLevels[T float32 | float64](m int, c1, c2 float64) []T {
	u := make([]T, m+1)
	alphaBar := func(j int) T {
		angle := T(0.5*math.Pi) * T(j) / T(m) / T(c2+1)
		s := T(math.Sin(float64(angle)))
		return T(s * s)
	}
	for j := m; j > 0; j-- {
		square := T(T(u[j]*u[j])+1)/max(alphaBar(j-1)/alphaBar(j), T(c1)) - 1
		u[j-1] = T(math.Sqrt(float64(square)))
	}
	return u
}

// vpNoise is the variance-preserving SDE's noise level, √(e^(β_d t²/2 + β_min t) − 1).
func vpNoise(betaD, betaMin float64) noiseSchedule {
	sigma := func(t float64) float64 { return math.Sqrt(math.Expm1(0.5*betaD*t*t + betaMin*t)) }
	return noiseSchedule{
		sigma:  sigma,
		dSigma: func(t float64) float64 { return 0.5 * (betaMin + betaD*t) * (sigma(t) + 1/sigma(t)) },
		inverse: func(s float64) float64 {
			return (math.Sqrt(betaMin*betaMin+2*betaD*math.Log1p(s*s)) - betaMin) / betaD
		},
	}
}

// veNoise is the variance-exploding SDE's, √t.
var veNoise = noiseSchedule{
	sigma:   math.Sqrt,
	dSigma:  func(t float64) float64 { return 0.5 / math.Sqrt(t) },
	inverse: func(s float64) float64 { return s * s },
}
