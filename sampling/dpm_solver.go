package sampling

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"sagbench/sampling/tensor"
)

var _ Sampler = (*DPMSolver2M)(nil)

// DPMSolver2M is DPM-Solver++(2M), the second-order multistep solver of the
// probability flow in x̂0. With α = √ᾱ, σ = √(1−ᾱ), λ = log(α/σ), D_i the guided
// x̂0 in step i, primes for the state to which the step goes and h = λ' − λ_i:
//
//	x' = (σ'/σ_i) x − α'(e^{−h} − 1) D_i                     (first order)
//	   − ½ α'(e^{−h} − 1) (D_i − D_{i+1})/r                  (second; midpoint)
//	   + α'((e^{−h} − 1)/h + 1) (D_i − D_{i+1})/r            (second; heun)
//	r  = (λ_i − λ_{i+1}) / h
//
// With algorithm_type sde-dpmsolver++ it solves the reverse SDE instead: x is
// multiplied by e^{−h} as well, h in the terms of D is 2h, and σ' √(1−e^{−2h}) z
// is added, z ~ N(0, I) of the step.
//
// The first step is of the first order, and so is the last one where it goes to
// σ' = 0, or where lower_order_final and there are fewer than 15 steps.
//
// Sources: Lu et al. 2022 (arXiv:2211.01095), algorithm 2; diffusers
// DPMSolverMultistepScheduler with algorithm_type dpmsolver++.
type DPMSolver2M struct {
	Steps           int `yaml:"steps" min:"1" max:"10000" doc:"denoising steps, one network call each"`
	Spacing         `yaml:",inline"`
	Algorithm       string `yaml:"algorithm_type" doc:"dpmsolver++, which is deterministic, or sde-dpmsolver++, which adds noise in every step; empty for the checkpoint's own"`
	SolverOrder     *int   `yaml:"solver_order" min:"1" max:"2" doc:"1 (the same as DDIM) or 2; absent for the checkpoint's own"`
	SolverType      string `yaml:"solver_type" doc:"form of the second order: midpoint or heun; empty for the checkpoint's own"`
	LowerOrderFinal *bool  `yaml:"lower_order_final" doc:"the last step is of the first order where there are fewer than 15; absent for the checkpoint's own"`
	EulerAtFinal    *bool  `yaml:"euler_at_final" doc:"the last step is always of the first order; absent for the checkpoint's own"`
	FinalSigmas     string `yaml:"final_sigmas_type" doc:"the last step goes to σ = 0 (zero) or to that of timestep 0 (sigma_min); empty for the checkpoint's own"`
	KarrasSigmas    *bool  `yaml:"use_karras_sigmas" doc:"noise levels at equal steps of σ^(1/7) in place of timestep_spacing; absent for the checkpoint's own"`
}

// dpmAlgorithms are the values of algorithm_type that predict x̂0; the two that
// predict ε are deprecated in diffusers.
var dpmAlgorithms = []string{"dpmsolver++", "sde-dpmsolver++"}

// Validate tells everything that is wrong with the options.
func (d *DPMSolver2M) Validate() error {
	var f Faults
	f.steps(d.Steps)
	f.When(!slices.Contains(append(dpmAlgorithms, ""), d.Algorithm), "algorithm_type is %q, expected %s", d.Algorithm, strings.Join(dpmAlgorithms, " or "))
	f.When(d.SolverOrder != nil && *d.SolverOrder != 1 && *d.SolverOrder != 2, "solver_order is %d, expected 1 or 2", or(d.SolverOrder, 0))
	f.When(!slices.Contains([]string{"", "midpoint", "heun"}, d.SolverType), "solver_type is %q, expected midpoint or heun", d.SolverType)
	f.When(!slices.Contains([]string{"", "zero", "sigma_min"}, d.FinalSigmas), "final_sigmas_type is %q, expected zero or sigma_min", d.FinalSigmas)
	return f.Join()
}

// Schedule is the timesteps and noise levels of diffusers'
// DPMSolverMultistepScheduler.
func (d *DPMSolver2M) Schedule(c ScheduleConfig) (*Schedule, error) {
	const name = "dpm_solver_2m"
	p, err := c.processFor(name)
	if err != nil {
		return nil, err
	}
	f := &p.from
	err = refuse(name, option{"thresholding", f.Thresholding},
		option{"use_flow_sigmas", f.UseFlowSigmas}, option{"use_dynamic_shifting", f.UseDynamicShifting})
	if kind := or(f.AlgorithmType, "dpmsolver++"); d.Algorithm == "" && !slices.Contains(dpmAlgorithms, kind) {
		err = errors.Join(err, fmt.Errorf("sampling: %s: scheduler config: algorithm_type is %q, expected %s; the sampler's own algorithm_type overrides it", name, kind, strings.Join(dpmAlgorithms, " or ")))
	}
	if order := or(f.SolverOrder, 2); d.SolverOrder == nil && order != 1 && order != 2 {
		err = errors.Join(err, fmt.Errorf("sampling: %s: scheduler config: solver_order is %d, expected 1 or 2", name, order))
	}
	if err != nil {
		return nil, err
	}
	sigmas := p.sigmas()
	// λ below lambda_min_clipped is left out; it falls with t
	limit := len(sigmas)
	for limit > 1 && -math.Log(sigmas[limit-1]) < float64(or(f.LambdaMinClipped, extended(math.Inf(-1)))) {
		limit--
	}
	s := d.spacer(&p, "linspace")
	s.inner = true
	times, err := s.times(len(sigmas), limit, d.Steps)
	if err != nil {
		return nil, fmt.Errorf("sampling: %s: %w", name, err)
	}
	times, levels := d.levels(&p, times, sigmas)
	return p.atLevels(times, levels, p.finalLevel(d.FinalSigmas, sigmas)), nil
}

// levels is σ of the steps: those of the times, or others, with the timesteps
// nearest to them in place of the times, as the network knows no others.
func (d *DPMSolver2M) levels(p *process, times, sigmas []float64) (at, levels []float64) {
	f := &p.from
	karras, lu := chosen(d.KarrasSigmas, f.UseKarrasSigmas, false), or(f.UseLuLambdas, false)
	if levels = p.respacedLevels(d.KarrasSigmas, lu, sigmas[len(sigmas)-1], sigmas[0], d.Steps); levels == nil {
		for _, t := range times {
			levels = append(levels, sigmas[int(t)])
		}
		return times, levels
	}
	for _, sigma := range levels {
		t := timeOf(sigma, sigmas)
		if (karras || lu) && or(f.BetaSchedule, "linear") != "squaredcos_cap_v2" {
			t = math.RoundToEven(t)
		}
		at = append(at, math.Trunc(t)) // the class keeps whole timesteps
	}
	return at, levels
}

// Sample takes x_T to x_0 over all steps of p.Schedule. dpmsolver++ asks for no
// noise, and the Noise may be nil.
func (d *DPMSolver2M) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, noise Noise) (tensor.Tensor, error) {
	now, before, eps, z := xT.Like(), xT.Like(), xT.Like(), xT.Like() // D_i, D_{i+1}, ε, z
	return p.walk(ctx, xT, loop{next: func(v *visit) error {
		s := p.Schedule
		c := s.At(v.i)
		v.follow(&c, p.Predicts)
		w := d.weights(s, v.i)
		if d.stochastic(s) {
			if err := noise.Fill(v.k, z); err != nil {
				return err
			}
		}
		EachImage(xT.Rows(), func(n int) {
			x, d0, d1, z := v.x.Row(n), now.Row(n), before.Row(n), z.Row(n)
			v.split(p, &c, n, d0, eps.Row(n))
			for j, xj := range x {
				x[j] = float32(w.x*xj) + float32(w.now*d0[j]) + float32(w.before*d1[j]) + float32(w.noise*z[j])
			}
		})
		now, before = before, now
		return nil
	}})
}

// A multistep is the next state as a linear function of x, D_i, D_{i+1} and z.
type multistep struct{ x, now, before, noise float32 }

// weights is step i of the solver.
func (d *DPMSolver2M) weights(s *Schedule, i int) multistep {
	log := func(bar float64) float64 { return (math.Log(bar) - math.Log1p(-bar)) / 2 } // λ
	bar, next := s.AlphaBar(i), s.AlphaBarPrev(i)
	h := log(next) - log(bar)
	if h == 0 { // Karras' levels end at that of timestep 0, and so may the schedule
		return multistep{x: 1}
	}
	x, hD := math.Sqrt((1-next)/(1-bar)), h // hD is h in the terms of D
	var noise float64
	if d.stochastic(s) {
		x, hD = x*math.Exp(-h), 2*h
		noise = math.Sqrt(-(1 - next) * math.Expm1(-hD))
	}
	toXStart := -math.Sqrt(next) * math.Expm1(-hD)
	if d.order(s, i) == 1 {
		return multistep{float32(x), float32(toXStart), 0, float32(noise)}
	}
	r := (log(bar) - log(s.AlphaBar(i+1))) / h
	slope := toXStart / 2
	if d.solverType(s) == "heun" {
		slope = math.Sqrt(next) * (math.Expm1(-hD)/hD + 1)
	}
	slope /= r
	return multistep{float32(x), float32(toXStart + slope), float32(-slope), float32(noise)}
}

// stochastic tells whether noise is added.
func (d *DPMSolver2M) stochastic(s *Schedule) bool {
	return chosen(optional(d.Algorithm), d.config(s).AlgorithmType, "dpmsolver++") == "sde-dpmsolver++"
}

// order is the order of step i.
func (d *DPMSolver2M) order(s *Schedule, i int) int {
	f := d.config(s)
	switch {
	case i == s.Len()-1, chosen(d.SolverOrder, f.SolverOrder, 2) == 1:
		return 1
	case i > 0:
		return 2
	case s.AlphaBarPrev(0) == 1, chosen(d.EulerAtFinal, f.EulerAtFinal, false),
		chosen(d.LowerOrderFinal, f.LowerOrderFinal, true) && s.Len() < 15:
		return 1
	}
	return 2
}

// solverType is midpoint or heun; the other names that diffusers knows are of
// other classes, and mean midpoint.
func (d *DPMSolver2M) solverType(s *Schedule) string {
	return chosen(optional(d.SolverType), d.config(s).SolverType, "midpoint")
}

// config is the scheduler_config.json behind a schedule, empty without one.
func (d *DPMSolver2M) config(s *Schedule) *SchedulerConfig {
	if s.config.Scheduler == nil {
		return &SchedulerConfig{}
	}
	return s.config.Scheduler
}
