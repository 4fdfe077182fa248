package guidance

import (
	"context"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// pair answers each step with two predictions, the second one for label 10, ∅.
type pair struct{ conditional, null []tensor.Tensor } // by the number of steps taken

func (d *pair) Denoise(_ context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	k := 9 - t.Index
	p := sampling.Prediction{Eps: x.Like(), Attn: tensor.New(x.Rows(), 4)}
	for n, label := range c.Labels {
		from := d.conditional[k]
		if label == 10 {
			from = d.null[k]
		}
		copy(p.Eps.Row(n), from.Row(n%2))
	}
	return p, nil
}

// eighths is [2,2,8,8] of ((a j + b) mod m − ⌊m/2⌋)/8, exact in float32.
func eighths(a, b, m int) tensor.Tensor {
	v := tensor.New(2, 2, 8, 8)
	for j := range v.Data {
		v.Data[j] = float32((a*j+b)%m-m/2) / 8
	}
	return v
}

// What diffusers 0.38's guiders make of the same predictions in two steps, of
// values 0, 77, 130 and 255; where they know use_original_formulation, with it,
// and a guidance_scale that is lower by 1.
func TestDiffusersGuiders(t *testing.T) {
	as := inSpace(output)
	for _, c := range []struct {
		name string
		g    sampling.Guidance
		want [2][4]float64
	}{
		{"ClassifierFreeGuidance", &CFG{3, ClassifierFree{Contrast: Contrast{Rescale: 0.7}}},
			[2][4]float64{{-0.257794, -0.257794, -0.575501, 0.063945}, {-1.082983, 0.191115, -0.829324, -1.275882}}},
		{"AdaptiveProjectedGuidance", &APG{Scale: 3.5, Eta: 0.25, NormThreshold: 2, Momentum: -0.5, ClassifierFree: as},
			[2][4]float64{{-0.191438, -0.191438, -0.409429, 0.035562}, {-0.771061, 0.215765, -0.561176, -0.953057}}},
		{"AdaptiveProjectedGuidance, no bound", &APG{Scale: 3.5, ClassifierFree: ClassifierFree{Contrast: Contrast{Space: output, Rescale: 0.5}}},
			[2][4]float64{{0.04612, 0.04612, 0.275638, -0.151122}, {-0.679585, -0.437372, -0.219266, -1.300453}}},
		{"AdaptiveProjectedMixGuidance", &APG{Scale: 3.5, NormThreshold: 3, Momentum: -0.5, CFGSteps: 1, CFGScale: 2.5, ClassifierFree: as},
			[2][4]float64{{-0.4375, -0.4375, -1.0, 0.125}, {-0.674659, 0.034489, -0.362322, -1.046031}}},
		{"ClassifierFreeZeroStarGuidance", &CFGZeroStar{3.5, 1, as},
			[2][4]float64{{0, 0, 0, 0}, {-2.173644, 1.354069, -2.195897, -1.716413}}},
		{"FrequencyDecoupledGuidance", &FDG{Scales: []float64{4, 2}},
			[2][4]float64{{-0.554231, -0.626816, -1.358149, -0.03007}, {-3.064879, 0.62018, -2.113915, -3.29537}}},
		{"FrequencyDecoupledGuidance, three bands", &FDG{Scales: []float64{4, 2.5, 1.5}, ParallelWeights: []float64{0.5, 0, 1}},
			[2][4]float64{{-0.215683, -0.244976, -0.387772, -0.164926}, {-2.079301, -0.027327, -1.170628, -2.560237}}},
		{"TangentialClassifierFreeGuidance", &TCFG{3.5, as},
			[2][4]float64{{-0.870939, -0.870939, -2.261971, 0.452092}, {-2.250299, 1.348388, -2.226028, -1.781744}}},
		{"MagnitudeAwareGuidance", &MAMBOG{6, 0.5, as},
			[2][4]float64{{-0.495361, -0.495361, -1.105137, 0.125}, {-2.158757, 0.375, -1.656235, -2.562469}}},
	} {
		d := &pair{[]tensor.Tensor{eighths(7, 3, 11), eighths(5, 1, 13)}, []tensor.Tensor{eighths(3, 2, 7), eighths(4, 5, 9)}}
		p := labelledPredictor(t, d, c.g)
		for k, want := range c.want {
			got, _, err := p.Predict(t.Context(), tensor.New(2, 2, 8, 8), p.Schedule.Timestep(9-k))
			if err != nil {
				t.Fatal(c.name, err)
			}
			for i, at := range []int{0, 77, 130, 255} {
				if e := float64(got.Eps.Data[at]) - want[i]; e > 3e-6 || e < -3e-6 {
					t.Errorf("%s: step %d, value %d: %g, want %g", c.name, k, at, got.Eps.Data[at], want[i])
				}
			}
		}
	}
}
