package sampling

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"testing"

	"sagbench/sampling/tensor"
)

// denoise is a Denoiser made of a function.
type denoise func(x tensor.Tensor, t Timestep, c Cond) (Prediction, error)

func (d denoise) Denoise(_ context.Context, x tensor.Tensor, t Timestep, c Cond) (Prediction, error) {
	return d(x, t, c)
}

// guide is a Guidance made of a function.
type guide func(ctx context.Context, s *Step) (Delta, error)

func (g guide) Delta(ctx context.Context, s *Step) (Delta, error) { return g(ctx, s) }

// each is f of every element.
func each(x tensor.Tensor, f func(v float64) float64) tensor.Tensor {
	out := x.Like()
	for i, v := range x.Data {
		out.Data[i] = float32(f(float64(v)))
	}
	return out
}

// gaussian is data of independent pixels N(mean, sd²), for which the best
// prediction is known: with V = ᾱ sd² + 1−ᾱ, ε = √(1−ᾱ)(x − √ᾱ mean)/V.
type gaussian struct{ mean, sd float64 }

func (g gaussian) variance(bar float64) float64 { return bar*g.sd*g.sd + 1 - bar }

func (g gaussian) eps(x tensor.Tensor, bar float64) tensor.Tensor {
	return each(x, func(v float64) float64 {
		return math.Sqrt(1-bar) * (v - math.Sqrt(bar)*g.mean) / g.variance(bar)
	})
}

// denoiser predicts ε and, where learned, the v that makes σ² the variance of
// q(x_{i-1} | x_i) exactly.
func (g gaussian) denoiser(s *Schedule, learned bool) Denoiser {
	return denoise(func(x tensor.Tensor, t Timestep, _ Cond) (Prediction, error) {
		p := Prediction{Eps: g.eps(x, s.AlphaBar(t.Index))}
		if learned {
			_, variance := g.posterior(s, t.Index, 0)
			low, high := s.PosteriorLogVariance(t.Index), math.Log(s.Beta(t.Index))
			v := 2*(math.Log(variance)-low)/(high-low) - 1
			p.Var = each(x, func(float64) float64 { return v })
		}
		return p, nil
	})
}

// posterior is mean and variance of q(x_{i-1} | x_i) from the joint normal
// distribution of the two, whose covariance is √α V_{i-1}.
func (g gaussian) posterior(s *Schedule, i int, x float64) (mean, variance float64) {
	bar, prev := s.AlphaBar(i), s.AlphaBar(i-1)
	alpha := bar / prev
	v, vPrev := g.variance(bar), g.variance(prev)
	return math.Sqrt(prev)*g.mean + math.Sqrt(alpha)*vPrev/v*(x-math.Sqrt(bar)*g.mean), vPrev - alpha*vPrev*vPrev/v
}

func schedule(t *testing.T, respacing string) *Schedule {
	t.Helper()
	s, err := NewSchedule(ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: respacing})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// every is each sampler with as many steps.
func every(steps int) []Sampler {
	return []Sampler{
		&DDPM{Steps: steps}, &DDIM{Steps: steps}, &DDIM{Steps: steps, Eta: 0.3}, &PNDM{Steps: steps},
		&DPMSolver2M{Steps: steps}, &DPMSolver2M{Steps: steps, KarrasSigmas: new(true)}, &Euler{Steps: steps},
	}
}

// scheduleOf is what the sampler makes of a process.
func scheduleOf(t *testing.T, sampler Sampler, c ScheduleConfig) *Schedule {
	t.Helper()
	s, err := sampler.Schedule(c)
	if err != nil {
		t.Fatalf("%T: %v", sampler, err)
	}
	return s
}

// start is x_T of images 0 … n-1.
func start(t *testing.T, seed uint64, n, channels, size int) tensor.Tensor {
	t.Helper()
	x := tensor.New(n, channels, size, size)
	if err := (Keyed{seed, numbers(n)}).Fill(-1, x); err != nil {
		t.Fatal(err)
	}
	return x
}

// far is the largest distance of got from want, over the largest of want.
func far(got, want []float32) float64 {
	distance, size := 0.0, 0.0
	for i, w := range want {
		d := math.Abs(float64(got[i]) - float64(w))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		distance, size = max(distance, d), max(size, math.Abs(float64(w)))
	}
	return distance / size
}

// reference reads the float32 tensors of a reference case.
func reference(t *testing.T, file string) map[string]tensor.Tensor {
	t.Helper()
	data, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(data)
	var header map[string]struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(data[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	out := map[string]tensor.Tensor{}
	for name, h := range header {
		if h.DType != "F32" {
			continue
		}
		v := tensor.New(h.Shape...)
		for i := range v.Data {
			v.Data[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[int(8+n)+h.Offsets[0]+4*i:]))
		}
		out[name] = v
	}
	return out
}

// step is entry k of a tensor's first axis.
func step(v tensor.Tensor, k int) tensor.Tensor { return tensor.Of(v.Row(k), v.Shape[1:]...) }
