package sampling

import (
	"context"
	"errors"
	"math"

	"sagbench/sampling/tensor"
)

var _ Sampler = (*PNDM)(nil)

// PNDM is the pseudo linear multi-step method. With e_k the guided output of
// the network in call k, δ the stride between timesteps, it goes
//
//	x_{t−δ} = φ(x_t, e, t, t−δ)
//	φ       = √(ᾱ'/ᾱ) x − (ᾱ'−ᾱ) ε(e) / (ᾱ √(1−ᾱ') + √(ᾱ (1−ᾱ) ᾱ'))
//
// with the Adams-Bashforth combination of the last four outputs,
//
//	e = (55 e_t − 59 e_{t+δ} + 37 e_{t+2δ} − 9 e_{t+3δ}) / 24
//
// and those of lower order before there are four. The first step is Heun's: e_0
// leads to a trial state, whose output e_1 is averaged with e_0, and the step is
// done again from x_T; thus Steps+1 network calls, the second timestep twice.
// This is what diffusers calls skip_prk_steps; the Runge-Kutta start of the paper
// is not there. The history holds the network's own terms: v stays v until it
// has been combined.
//
// Sources: Liu et al. 2022 (arXiv:2202.09778), equations 9 and 12; diffusers
// PNDMScheduler step_plms. x̂0 is never formed, so nothing is clipped.
type PNDM struct {
	Steps         int `yaml:"steps" min:"1" max:"10000" doc:"denoising steps; the network is called once more"`
	Spacing       `yaml:",inline"`
	SetAlphaToOne *bool `yaml:"set_alpha_to_one" doc:"the last step goes to x_0 (true) or to timestep 0 (false); absent for the checkpoint's own"`
}

// Validate tells whether the number of steps can be one.
func (d *PNDM) Validate() error {
	var f Faults
	f.steps(d.Steps)
	return f.Join()
}

// Schedule is the timesteps of diffusers' PNDMScheduler.
func (d *PNDM) Schedule(c ScheduleConfig) (*Schedule, error) {
	p, err := c.processFor("pndm")
	if err != nil {
		return nil, err
	}
	if own := p.from.ClassName == "PNDMScheduler"; !or(p.from.SkipPRKSteps, !own) {
		return nil, errors.New("sampling: pndm: scheduler config: skip_prk_steps is false, so it starts with Runge-Kutta steps, which this sampler does not do; every published Stable Diffusion has it true")
	}
	if p.from.Predicts() == XStart {
		return nil, errors.New("sampling: pndm: scheduler config: prediction_type is sample, expected epsilon or v_prediction")
	}
	// official schedules end at x_0, diffusers' class at timestep 0
	return p.strided("pndm", d.spacer(&p, "leading"), d.Steps, chosen(d.SetAlphaToOne, p.from.SetAlphaToOne, c.Scheduler == nil))
}

// calls are the steps of the network calls: the second one twice.
func (d *PNDM) calls(s *Schedule) []int {
	steps := s.downwards()
	if len(steps) < 2 {
		return steps
	}
	return append(steps[:2:2], steps[1:]...)
}

// Sample takes x_T to x_0 over all steps of p.Schedule. No noise is asked for.
func (d *PNDM) Sample(ctx context.Context, p *Predictor, xT tensor.Tensor, _ Noise) (tensor.Tensor, error) {
	if p.Predicts == XStart {
		return tensor.Tensor{}, errors.New("sampling: pndm combines predictions of several timesteps, which needs a network that predicts ε or v; it predicts x_0")
	}
	s := p.Schedule
	var history []tensor.Tensor // the last outputs, the newest first
	combined := xT.Like()
	return p.walk(ctx, xT, loop{steps: d.calls, next: func(v *visit) error {
		c := s.At(v.i)
		v.follow(&c, p.Predicts)
		bar, next := s.AlphaBar(v.i), s.AlphaBarPrev(v.i)
		outputs := append([]tensor.Tensor{v.guided.Eps}, history...)
		weights := adamsBashforth[min(len(outputs), 4)-1]
		if v.k == 1 { // again from x_T, with the average of both ends
			copy(v.x.Data, xT.Data)
			from := int(s.original[v.i]) + s.TrainedSteps()/s.Len()
			bar, next = s.TrainedAlphaBar(min(from, s.TrainedSteps()-1)), bar
			weights = []float32{0.5, 0.5}
		} else {
			history = outputs[:min(len(outputs), 3)]
		}
		combine(combined, outputs, weights)
		step := newTransfer(bar, next, p.Predicts)
		EachImage(xT.Rows(), func(n int) {
			x, e := v.x.Row(n), combined.Row(n)
			for j, xj := range x {
				x[j] = float32(step.x*xj) + float32(step.e*e[j])
			}
		})
		return nil
	}})
}

// adamsBashforth are the weights of the last one to four outputs, the newest
// first.
var adamsBashforth = [4][]float32{
	{1},
	{3.0 / 2, -1.0 / 2},
	{23.0 / 12, -16.0 / 12, 5.0 / 12},
	{55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24},
}

// combine sets dst to Σ weights·outputs.
func combine(dst tensor.Tensor, outputs []tensor.Tensor, weights []float32) {
	EachImage(dst.Rows(), func(n int) {
		out := dst.Row(n)
		clear(out)
		for i, w := range weights {
			for j, e := range outputs[i].Row(n) {
				out[j] += float32(w * e)
			}
		}
	})
}

// A transfer is φ as a linear function of x and the network's output.
type transfer struct{ x, e float32 }

// newTransfer is φ from ᾱ to ᾱ'. For v, ε = √ᾱ v + √(1−ᾱ) x is put in.
func newTransfer(bar, next float64, kind Parametrization) transfer {
	x := math.Sqrt(next / bar)
	e := -(next - bar) / (bar*math.Sqrt(1-next) + math.Sqrt(bar*(1-bar)*next))
	if kind == V {
		// the same in a form that is finite at ᾱ = 0
		root, next1 := math.Sqrt(bar*next), math.Sqrt((1-bar)*(1-next))
		return transfer{float32(root + next1), float32(math.Sqrt(bar*(1-next)) - math.Sqrt((1-bar)*next))}
	}
	return transfer{float32(x), float32(e)}
}
