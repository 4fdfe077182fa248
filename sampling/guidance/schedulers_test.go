package guidance

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// recorder keeps what a guidance answers.
type recorder struct {
	sampling.Guidance
	deltas []tensor.Tensor
}

func (r *recorder) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	d, err := r.Guidance.Delta(ctx, s)
	r.deltas = append(r.deltas, d.Eps.Clone())
	return d, err
}

// latents is the process of Stable Diffusion at timesteps 999, 899, …
func latents(prediction string) sampling.ScheduleConfig {
	return sampling.ScheduleConfig{Scheduler: &sampling.SchedulerConfig{
		BetaStart: new(0.00085), BetaEnd: new(0.012), BetaSchedule: new("scaled_linear"), TimestepSpacing: new("trailing"),
		SetAlphaToOne: new(true), PredictionType: &prediction,
	}}
}

var schedulers = []sampling.Sampler{
	&sampling.DDPM{Steps: 10}, &sampling.DDIM{Steps: 10}, &sampling.PNDM{Steps: 10},
	&sampling.DPMSolver2M{Steps: 10}, &sampling.Euler{Steps: 10},
}

// Whichever scheduler visits a state, SAG says the same about it: the first
// state, which is theirs all, and any later one that is brought about.
func TestSAGSameWhicheverScheduler(t *testing.T) {
	x := noise(t, 2, 4, 9, 14) // what the network is to see first; 72×112 pixels are no multiple of 64
	for _, kind := range []struct {
		predicts   sampling.Parametrization
		prediction string
	}{{"", "epsilon"}, {sampling.V, "v_prediction"}} {
		var want []float32
		for _, sampler := range schedulers {
			s, err := sampler.Schedule(latents(kind.prediction))
			if err != nil {
				t.Fatal(err)
			}
			for i := range s.Len() {
				if at := s.Timestep(i).Value; at != float64(100*i+99) {
					t.Fatalf("%T: step %d is at t = %g", sampler, i, at)
				}
			}
			g := &recorder{Guidance: &SAG{Scale: 0.75, BlurSigma: 1, BlurKernel: 9, MaskThreshold: 1, Layer: "mid"}}
			d := &toy{rows: 3, columns: 4, predicts: kind.predicts, s: s}
			p := &sampling.Predictor{Denoiser: d, Guidances: []sampling.Guidance{g}, Schedule: s, Predicts: kind.predicts}
			// x_T in the terms of the sampler
			factor := float32(math.Sqrt(1/s.AlphaBar(9)) / s.InitNoiseSigma())
			if s.InitNoiseSigma() == 1 {
				factor = 1
			}
			xT := x.Clone()
			for j := range xT.Data {
				xT.Data[j] *= factor
			}
			images := sampling.Keyed{Seed: 1, Images: []int{0, 1}}
			if _, err := sampler.Sample(t.Context(), p, xT, images); err != nil {
				t.Fatalf("%T: %v", sampler, err)
			}
			if len(g.deltas) < 10 {
				t.Fatalf("%T: %d steps", sampler, len(g.deltas))
			}
			first := g.deltas[0].Data
			if want == nil {
				want = first
				if slices.Max(first) < 1e-3 {
					t.Fatal("nothing is guided")
				}
			}
			if err := near(first, want, 1e-5); err != nil {
				t.Errorf("%T, %s: the first Δ: %v", sampler, kind.prediction, err)
			}
			// a state in the middle, asked about directly
			delta, err := g.Guidance.Delta(t.Context(), p.Step(x, s.Timestep(4)))
			if err != nil {
				t.Fatal(err)
			}
			ref, err := schedulers[1].Schedule(latents(kind.prediction))
			if err != nil {
				t.Fatal(err)
			}
			d.s = ref
			other := &sampling.Predictor{Denoiser: d, Schedule: ref, Predicts: kind.predicts}
			same, err := g.Guidance.Delta(t.Context(), other.Step(x, ref.Timestep(4)))
			if err != nil {
				t.Fatal(err)
			}
			if err := near(delta.Eps.Data, same.Eps.Data, 1e-5); err != nil {
				t.Errorf("%T, %s: Δ at t = 499: %v", sampler, kind.prediction, err)
			}
		}
	}
}

// Under SAG and classifier-free guidance the samplers of the first order follow
// the same path, and those of higher order end near it.
func TestSAGSameFlow(t *testing.T) {
	x := noise(t, 2, 4, 8, 8)
	run := func(sampler sampling.Sampler, prediction string, predicts sampling.Parametrization) []float32 {
		c := latents(prediction)
		c.Scheduler.RescaleBetasZeroSNR = new(predicts == sampling.V)
		s, err := sampler.Schedule(c)
		if err != nil {
			t.Fatal(err)
		}
		guided := &conditioned{toy{rows: 4, columns: 4}} // its closed form, bounded, is ε or v
		p := &sampling.Predictor{
			Denoiser: guided, Schedule: s, Predicts: predicts,
			Guidances: []sampling.Guidance{&CFG{3, ClassifierFree{Contrast: Contrast{Rescale: 0.7}}}, &SAG{Scale: 0.75, BlurSigma: 1, BlurKernel: 9, MaskThreshold: 1, Layer: "mid"}},
			Cond:      sampling.Cond{Labels: []int64{1, 2}}, Null: sampling.Cond{Labels: []int64{0, 0}},
		}
		xT := x.Clone()
		if s.InitNoiseSigma() > 1 {
			for j := range xT.Data {
				xT.Data[j] *= float32(math.Sqrt(1/s.AlphaBar(s.Len()-1)) / s.InitNoiseSigma())
			}
		}
		out, err := sampler.Sample(t.Context(), p, xT, nil)
		if err != nil {
			t.Fatalf("%T: %v", sampler, err)
		}
		return out.Data
	}
	for _, kind := range []struct {
		predicts   sampling.Parametrization
		prediction string
		tolerance  float64
	}{{"", "epsilon", 1e-4}, {sampling.V, "v_prediction", 2e-3}} { // Euler starts at σ = 4096 where the SNR is zero, in float32
		want := run(&sampling.DDIM{Steps: 50}, kind.prediction, kind.predicts)
		for _, sampler := range []sampling.Sampler{&sampling.Euler{Steps: 50}, &sampling.DPMSolver2M{Steps: 50, SolverOrder: new(1)}} {
			if err := near(run(sampler, kind.prediction, kind.predicts), want, kind.tolerance); err != nil {
				t.Errorf("%T, %s: %v", sampler, kind.prediction, err)
			}
		}
		for _, sampler := range []sampling.Sampler{&sampling.PNDM{Steps: 50}, &sampling.DPMSolver2M{Steps: 50}} {
			if err := near(run(sampler, kind.prediction, kind.predicts), want, 0.3); err != nil {
				t.Errorf("%T, %s: %v", sampler, kind.prediction, err)
			}
		}
	}
}

// conditioned is a toy with labels: label l adds l/10 to the output.
type conditioned struct{ toy }

func (d *conditioned) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	p, err := d.toy.Denoise(ctx, x, t, c)
	for n := range x.Rows() {
		for j := range p.Eps.Row(n) {
			p.Eps.Row(n)[j] += float32(c.Labels[n]) / 10
		}
	}
	return p, err
}

// output and the conditions that the network was asked with.
type asked struct {
	labelled
	labels []int64
}

func (d *asked) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	for n := 0; n < len(c.Labels); n += 2 { // the first of each batch of two
		d.labels = append(d.labels, c.Labels[n])
	}
	return d.labelled.Denoise(ctx, x, t, c)
}

// Which prediction is degraded: of label 3, or of ∅, label 10.
func TestSAGCondition(t *testing.T) {
	x := tensor.New(2, 4, 2, 2)
	late := 100.0
	for _, c := range []struct {
		condition string
		cfg       *CFG
		want      []int64 // labels of the passes
	}{
		{"", nil, []int64{3, 3}},
		{"", &CFG{Scale: 2}, []int64{3, 10, 10}},
		{"", &CFG{Scale: 1}, []int64{3, 3}},
		{"", &CFG{2, ClassifierFree{Contrast: Contrast{Start: &late}}}, []int64{3, 3}},
		{conditional, &CFG{Scale: 2}, []int64{3, 10, 3}},
		{unconditional, nil, []int64{3, 10, 10}},
		{unconditional, &CFG{Scale: 2}, []int64{3, 10, 10}},
	} {
		d := &asked{}
		g := &SAG{Scale: 0.5, BlurSigma: 1, BlurKernel: 3, MaskThreshold: -1, Layer: "a", Condition: c.condition}
		gs := []sampling.Guidance{g}
		if c.cfg != nil {
			gs = append(gs, c.cfg)
		}
		for range 2 { // the order of the guidances makes no difference
			d.labels = nil
			p := labelledPredictor(t, d, gs...)
			if _, _, err := p.Predict(t.Context(), x, p.Schedule.Timestep(3)); err != nil {
				t.Fatal(err)
			}
			slices.Sort(d.labels[1:])
			slices.Sort(c.want[1:])
			if !slices.Equal(d.labels, c.want) {
				t.Errorf("condition %q, %+v: passes with labels %v, want %v", c.condition, c.cfg, d.labels, c.want)
			}
			slices.Reverse(gs)
		}
	}
	g := &SAG{Scale: 1, Condition: unconditional, Layer: "a"}
	p := labelledPredictor(t, &labelled{}, g)
	p.Null = sampling.Cond{}
	if _, _, err := p.Predict(t.Context(), x, p.Schedule.Timestep(3)); fmt.Sprint(err) != "guidance: sag: condition is unconditional, but the network has no null condition" {
		t.Error(err)
	}
}

// Lin et al.'s rescaling in float64, with the unbiased deviation of torch.
func TestCFGRescale(t *testing.T) {
	std := func(v []float64) float64 {
		mean, sum := 0.0, 0.0
		for _, x := range v {
			mean += x / float64(len(v))
		}
		for _, x := range v {
			sum += (x - mean) * (x - mean)
		}
		return math.Sqrt(sum / float64(len(v)-1))
	}
	x := noise(t, 2, 4, 5, 3)
	for _, phi := range []float64{0, 0.3, 1} {
		p := labelledPredictor(t, &labelled{}, &CFG{7.5, ClassifierFree{Contrast: Contrast{Rescale: phi, Channels: 3}}})
		got, _, err := p.Predict(t.Context(), x, p.Schedule.Timestep(3))
		if err != nil {
			t.Fatal(err)
		}
		for n := range 2 {
			var c, guided []float64
			for j, v := range x.Row(n) {
				e, null := float64(labelledEps(v, p.Cond.Labels[n], j/15)), float64(labelledEps(v, 10, j/15))
				c = append(c, e)
				if j/15 < 3 {
					e = null + 7.5*(e-null)
				}
				guided = append(guided, e)
			}
			factor := phi*std(c)/std(guided) + 1 - phi
			for j, e := range guided {
				want := factor * e
				if j/15 == 3 && phi == 0 {
					want = c[j]
				}
				if d := math.Abs(float64(got.Eps.Row(n)[j]) - want); d > 1e-5 {
					t.Fatalf("φ = %g, image %d, value %d: %g, want %g", phi, n, j, got.Eps.Row(n)[j], want)
				}
			}
		}
	}
	// a guided output without contrast stays as it is
	flat := tensor.New(2, 1, 2, 2)
	p := labelledPredictor(t, &labelled{}, &CFG{3, ClassifierFree{Contrast: Contrast{Rescale: 1}}})
	got, _, err := p.Predict(t.Context(), flat, p.Schedule.Timestep(3))
	if err != nil || math.IsNaN(float64(got.Eps.Data[0])) {
		t.Error(got.Eps.Data, err)
	}
}
