package guidance_test

import (
	"context"
	"fmt"
	"math"

	"sagbench/sampling"
	"sagbench/sampling/guidance"
	"sagbench/sampling/tensor"
)

// A noisePredictor is the best prediction of ε for images of independent pixels
// N(0, ½²): √(1−ᾱ) x/V, where V = ᾱ/4 + 1−ᾱ is the variance of x. Its attention
// layer has 4×4 positions, of which those in the upper half receive more.
type noisePredictor struct{ schedule *sampling.Schedule }

func (d noisePredictor) Denoise(_ context.Context, x tensor.Tensor, t sampling.Timestep, _ sampling.Cond) (sampling.Prediction, error) {
	p := sampling.Prediction{Eps: x.Like(), Attn: tensor.New(x.Rows(), 16)}
	bar := d.schedule.AlphaBar(t.Index)
	factor := math.Sqrt(1-bar) / (bar/4 + 1 - bar)
	for j, v := range x.Data {
		p.Eps.Data[j] = float32(factor * float64(v))
	}
	for n := range x.Rows() {
		for j := range 16 {
			p.Attn.Row(n)[j] = 1.5 - float32(j/8)
		}
	}
	return p, nil
}

// Self-attention guidance of a toy denoiser. It changes the image where the
// network attends to, here in the upper half. As this network's ε grows with the
// contrast of the image, going away from the ε of a blurred image takes contrast
// from it.
func ExampleSAG() {
	sampler := &sampling.DDIM{Steps: 25}
	schedule, err := sampler.Schedule(sampling.DefaultSchedule())
	if err != nil {
		fmt.Println(err)
		return
	}
	noise := sampling.Keyed{Seed: 1, Images: []int{0}}
	xT := tensor.New(1, 3, 8, 8)
	if err := noise.Fill(-1, xT); err != nil {
		fmt.Println(err)
		return
	}
	sag := guidance.NewSAG()
	sag.Layer, sag.BlurKernel, sag.BlurSigma = "attention", 5, 1
	for _, sag.Scale = range []float64{0, 0.5} {
		p := &sampling.Predictor{Denoiser: noisePredictor{schedule}, Guidances: []sampling.Guidance{sag}, Schedule: schedule}
		x, err := sampler.Sample(context.Background(), p, xT, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("scale %g: standard deviation %.2f in the upper half, %.2f in the lower\n", sag.Scale, deviation(x, 0), deviation(x, 1))
	}
	// Output:
	// scale 0: standard deviation 0.44 in the upper half, 0.43 in the lower
	// scale 0.5: standard deviation 0.35 in the upper half, 0.43 in the lower
}

// deviation is the root mean square of a half of the only image of x.
func deviation(x tensor.Tensor, half int) float64 {
	sum, plane := 0.0, len(x.Data)/3
	for c := range 3 {
		for _, v := range x.Data[c*plane:][half*plane/2:][:plane/2] {
			sum += float64(v) * float64(v)
		}
	}
	return math.Sqrt(sum / float64(len(x.Data)/2))
}
