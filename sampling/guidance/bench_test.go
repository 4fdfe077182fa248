package guidance

import (
	"context"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// instant is a network that costs nothing: it returns one of two predictions
// that were made before, so that the one that SAG may write to is not the one
// that it reads.
type instant struct {
	p, second sampling.Prediction
	x         *float32
}

func (d *instant) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, _ sampling.Cond) (sampling.Prediction, error) {
	if d.x == nil {
		d.x = &x.Data[0]
	}
	if &x.Data[0] == d.x {
		return d.p, nil
	}
	return d.second, nil
}

// BenchmarkStep is a DDPM step with SAG outside the network, an image of
// 3×32×32 with learned variance, 8×8 map, 31-wide kernel, on one core.
func BenchmarkStep(b *testing.B) {
	const images = 64
	s, err := sampling.NewSchedule(sampling.ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "10"})
	if err != nil {
		b.Fatal(err)
	}
	numbers := make([]int, images)
	for i := range numbers {
		numbers[i] = i
	}
	noise := sampling.Keyed{Seed: 1, Images: numbers}
	p := sampling.Prediction{Eps: tensor.New(images, 3, 32, 32), Var: tensor.New(images, 3, 32, 32), Attn: tensor.New(images, 64)}
	for i, t := range []tensor.Tensor{p.Eps, p.Var, p.Attn} {
		if err := noise.Fill(i, t); err != nil {
			b.Fatal(err)
		}
	}
	g := NewSAG()
	g.Layer, g.MaskThreshold = "output_blocks.1.1", 0.33 // 37 % of a normal distribution lies above
	x := tensor.New(images, 3, 32, 32)
	if err := noise.Fill(-1, x); err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B, gs ...sampling.Guidance) {
		b.ReportAllocs()
		for b.Loop() {
			q := sampling.Predictor{Denoiser: &instant{p: p, second: sampling.Prediction{Eps: p.Eps.Clone()}}, Guidances: gs, Schedule: s, ClipDenoised: true}
			if _, err := (&sampling.DDPM{Steps: 10}).Sample(b.Context(), &q, x, noise); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*images*10), "µs/image-step")
	}
	b.Run("ddpm", func(b *testing.B) { run(b) })
	b.Run("ddpm+sag", func(b *testing.B) { run(b, g) })
	b.Run("noise", func(b *testing.B) {
		for b.Loop() {
			if err := noise.Fill(1, x); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x.Data)), "ns/normal")
	})
}
