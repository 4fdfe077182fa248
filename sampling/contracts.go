// Package sampling draws images from a trained denoiser.
//
// In go a network (Denoiser), the guidances that correct its prediction, a
// noise schedule with its respacing, a batch of pure noise x_T and the source
// of the noise that the steps add; out come the denoised batch x_0, both
// [N,C,H,W] float32 with pixels in [-1,1], and, for who asks, every state in
// between. The numbers follow openai/guided-diffusion's gaussian_diffusion.py
// and respace.py: tables are float64, coefficients are rounded to float32
// before they meet a float32 tensor.
//
// Every image's result depends on that image alone: the size of the batch, the
// number of cores and the position in the batch change no bit outside the
// network.
package sampling

import (
	"context"
	"fmt"
	"slices"

	"sagbench/models/tensor"
)

// A Timestep is one step of a respaced schedule.
type Timestep struct {
	Index int     // counts the respaced steps down: len-1 … 0
	Value float64 // what the network receives: the original timestep, times 1000/diffusion_steps where rescale_timesteps is set
}

// Cond is what a prediction is conditioned on; the zero Cond is ∅.
type Cond struct {
	Labels    []int64        // [N] class labels; nil where there are none
	Context   tensor.Tensor  // [N,L,D] text embeddings; zero where there are none
	Perturbed []Perturbation // [N] what is wrong with the network; nil where nothing is
}

// IsZero reports whether c is ∅.
func (c Cond) IsZero() bool { return c.Labels == nil && c.Context.IsZero() }

// Equal reports whether both conditions hold the same labels and context, for
// the same network.
func (c Cond) Equal(d Cond) bool {
	return slices.Equal(c.Labels, d.Labels) && slices.Equal(c.Perturbed, d.Perturbed) &&
		slices.Equal(c.Context.Shape, d.Context.Shape) &&
		(sameMemory(c.Context.Data, d.Context.Data) || slices.Equal(c.Context.Data, d.Context.Data))
}

func sameMemory(a, b []float32) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// A Prediction is the network's answer at one (x_t, t).
type Prediction struct {
	Eps  tensor.Tensor // ε, [N,C,H,W]; of a network that predicts v or x_0 (Predictor.Predicts) these, in ε's place
	Var  tensor.Tensor // learned-range interpolation v in [-1,1], [N,C,H,W]; zero where σ is fixed
	Attn tensor.Tensor // [N,HW] attention mass that each key position receives (mean over heads, sum over queries); zero where no layer is tapped
}

// A Denoiser is a trained network ε_θ(x_t, t, c).
//
// x has the variance of the diffusion, √ᾱ x_0 + √(1−ᾱ) ε, whichever the terms
// are in which a sampler keeps its states.
//
// Denoise neither changes x nor keeps it. The tensors it returns are the
// caller's: they share no memory with x or with those of another call.
type Denoiser interface {
	Denoise(ctx context.Context, x tensor.Tensor, t Timestep, c Cond) (Prediction, error)
}

// A Delta is a guidance's correction at one step; a zero tensor corrects
// nothing. Its tensors are handed over: the predictor may write to them.
type Delta struct {
	Eps   tensor.Tensor // added to the network's output, Prediction.Eps, [N,C,H,W]
	Score tensor.Tensor // ∇ₓ log p, [N,C,H,W], which the sampler turns into its own terms: DDIM ε −= √(1−ᾱ)·Score, DDPM mean += σ²·Score
}

// A Guidance corrects the prediction at one step.
type Guidance interface {
	Delta(ctx context.Context, s *Step) (Delta, error)
}

// A Tap names the attention layer whose map the network returns.
type Tap struct {
	Layer string // module path of the attention block in the checkpoint, such as output_blocks.8.1
	Heads int    // heads with which the map is computed; 0 = the layer's own
	Order string // how q, k, v are split for the map: "" = the layer's own, "legacy" = per head q, k, v
}

// A Tapper is a guidance that needs an attention map, unless its Tap is zero.
type Tapper interface {
	Guidance
	Tap() Tap
}

// TapOf is the attention map that the guidances need, and whether any needs
// one. A network returns one map, so guidances that need different ones are an
// error.
func TapOf(guidances []Guidance) (tap Tap, needed bool, err error) {
	for _, g := range guidances {
		t, ok := g.(Tapper)
		if !ok || t.Tap() == (Tap{}) {
			continue
		}
		if needed && t.Tap() != tap {
			return Tap{}, false, fmt.Errorf("sampling: the guidances need the attention maps of two layers, %+v and %+v; a network returns one", tap, t.Tap())
		}
		tap, needed = t.Tap(), true
	}
	return tap, needed, nil
}

// A Sampler takes x_T to x_0.
type Sampler interface {
	// Schedule is the process of c on the timesteps that the sampler visits.
	Schedule(c ScheduleConfig) (*Schedule, error)

	// Sample runs all steps of p.Schedule, which the sampler's own Schedule
	// made, from x = x_T ~ N(0, I), [N,C,H,W], and returns x_0; x itself is left
	// as it is. The context is looked at in every step.
	Sample(ctx context.Context, p *Predictor, x tensor.Tensor, n Noise) (tensor.Tensor, error)
}

// Noise is the source of everything random in a batch.
type Noise interface {
	// Fill sets dst, [N,C,H,W], to standard normal noise: step -1 is x_T, step
	// k ≥ 0 the noise of the k-th step of the loop. A sampler that uses noise
	// at all asks for it in every step, also where it multiplies it by zero.
	Fill(step int, dst tensor.Tensor) error
}

// A Uniform is the source of what guidances draw.
type Uniform interface {
	// Uniform sets dst, [N,…], to numbers that are uniform on [0,1); step is a
	// Timestep's Index.
	Uniform(step int, dst tensor.Tensor) error
}
