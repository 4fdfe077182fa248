// Package sampling draws images from a trained denoiser.
//
// In go a network (Denoiser), the guidances that correct its prediction, a
// noise schedule with its respacing, a batch of pure noise x_T and the source
// of the noise that the steps add; out come the denoised batch x_0, both
// [N,C,H,W] float32 with pixels in [-1,1], and on request (Predictor.Trace)
// every state in between. The numbers follow openai/guided-diffusion's
// gaussian_diffusion.py and respace.py: tables are float64, coefficients are
// rounded to float32 before they meet a float32 tensor.
//
// Every image's result depends on that image alone: outside the network, the size
// of the batch, the image's place in it and the number of cores change no bit.
package sampling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sagbench/sampling/tensor"
)

// A Timestep is one step of a respaced schedule.
type Timestep struct {
	Index int     // counts the respaced steps down: len-1 … 0; along a Path the calls of the network
	Value float64 // what the network receives: the original timestep, times 1000/diffusion_steps where rescale_timesteps is set; along a Path the time
}

// Cond is what a prediction is conditioned on; the zero Cond is ∅.
type Cond struct {
	Labels    []int64        // [N] class labels; nil where there are none
	Context   tensor.Tensor  // [N,L,D] text embeddings; zero where there are none
	Vector    tensor.Tensor  // [N,V] further numbers, such as a pooled text embedding and the sizes of images; zero where there are none
	Perturbed []Perturbation // [N] how the network is perturbed; nil where it is not
}

// IsZero reports whether c is ∅, of whatever network.
func (c Cond) IsZero() bool { return c.Labels == nil && c.Context.IsZero() && c.Vector.IsZero() }

// Equal reports whether both conditions hold the same labels, context and vector,
// for the same network.
func (c Cond) Equal(d Cond) bool {
	return slices.Equal(c.Labels, d.Labels) && slices.Equal(c.Perturbed, d.Perturbed) && same(c.Context, d.Context) && same(c.Vector, d.Vector)
}

// same reports whether two tensors hold the same numbers.
func same(a, b tensor.Tensor) bool {
	return slices.Equal(a.Shape, b.Shape) && (len(a.Data) > 0 && &a.Data[0] == &b.Data[0] || slices.Equal(a.Data, b.Data))
}

// A Prediction is the network's answer at one (x_t, t).
type Prediction struct {
	Eps  tensor.Tensor // the network's output, [N,C,H,W]: ε, or another Parametrization as Predictor.Predicts says
	Var  tensor.Tensor // learned-range interpolation v in [-1,1], [N,C,H,W]; zero where σ is fixed
	Attn tensor.Tensor // [N,HW] attention mass that each key position receives (mean over heads, sum over queries); zero where no layer is tapped
}

// A Denoiser is a trained network ε_θ(x_t, t, c).
//
// x is always √ᾱ x_0 + √(1−ᾱ) ε, also where a sampler keeps its states in other
// terms.
//
// Denoise neither changes x nor keeps it. The tensors it returns are the
// caller's: they share no memory with x or with those of another call.
type Denoiser interface {
	// Denoise is the prediction at x, [N,C,H,W], and t under the condition c.
	Denoise(ctx context.Context, x tensor.Tensor, t Timestep, c Cond) (Prediction, error)
}

// A Delta is a guidance's correction at one step; a zero tensor corrects
// nothing. The predictor may write to its tensors.
type Delta struct {
	Eps   tensor.Tensor // added to the network's output, Prediction.Eps, [N,C,H,W]
	Score tensor.Tensor // ∇ₓ log p, [N,C,H,W], which the sampler turns into its own terms: DDIM ε −= √(1−ᾱ)·Score, DDPM mean += σ²·Score
}

// A Guidance corrects the prediction at one step.
type Guidance interface {
	// Delta is the correction at a step, of which the guidance asks predictions.
	Delta(ctx context.Context, s *Step) (Delta, error)
}

// A Wanter is a guidance that knows beforehand which predictions at x_t it will
// ask for, so that they come from one network call together with the unguided
// one. What it does not name here is still answered, by a call of its own.
type Wanter interface {
	Guidance
	// Wants are the conditions of these predictions, none where the guidance is
	// off or cannot work.
	Wants(s *Step) []Cond
}

// A Detailed is a guidance that shows to Predictor.Trace, where Predictor.Detail
// asks for it, what it computes on the way: sag_x_start and sag_degraded [N,C,H,W],
// x̂0 and what it becomes; sag_mask [N,1,H,W], 1 where it is changed.
type Detailed interface {
	Guidance
	// Detailed reports whether it does anything, and thus shows something.
	Detailed() bool
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
	// Tap is the layer whose map the guidance reads.
	Tap() Tap
}

// TapOf is the layer whose attention map the guidances need, and whether any of
// them needs one. A network returns one map, so guidances that need those of
// different layers are an error.
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
	// as it is. A context that is cancelled ends it before the next step.
	Sample(ctx context.Context, p *Predictor, x tensor.Tensor, n Noise) (tensor.Tensor, error)
}

// An Adaptive is a Sampler that may choose as it goes how often it calls the network.
type Adaptive interface {
	Sampler
	// Least is a sampler that calls it as often as this one does at least; nil where
	// this one does not choose.
	Least() Sampler
}

// Noise is the source of everything random in a batch.
type Noise interface {
	// Fill sets dst, [N,C,H,W], to standard normal noise: step -1 is x_T, step
	// k ≥ 0 the noise of the k-th step of the loop. A sampler that uses noise
	// at all asks for it in every step, also where it multiplies it by zero.
	Fill(step int, dst tensor.Tensor) error
}

// A Uniform is the source of the random numbers of guidances.
type Uniform interface {
	// Uniform sets dst, [N,…], to numbers that are uniform on [0,1); step is a
	// Timestep's Index.
	Uniform(step int, dst tensor.Tensor) error
}

// A Kind of perturbation says how a layer is made worse.
type Kind string

// The kinds of perturbations.
const (
	IdentityAttention Kind = "identity attention" // each position of an attention layer attends to itself alone: its output is the values
	BlurredQueries    Kind = "blurred queries"    // an attention layer's queries are blurred over the image
	SkippedBlock      Kind = "skipped block"      // a residual block's output is its input
)

// A Perturbation makes a network a worse one, in some layers, for some images of
// a call. The zero Perturbation is the network as it is.
type Perturbation struct {
	Kind   Kind
	Layers string  // module paths in the checkpoint, separated by commas: blocks.3.attn,blocks.4.attn
	Sigma  float64 // of BlurredQueries: standard deviation in positions of the layer; above MaxQuerySigma the queries are their mean
}

// MaxQuerySigma is the largest blur of queries that is computed as one; above it
// they are their mean over the image, as SusungHong/SEG-SDXL has it.
const MaxQuerySigma = 9999

// Perturb is a perturbation of the layers with the given module paths.
func Perturb(k Kind, sigma float64, layers []string) Perturbation {
	return Perturbation{Kind: k, Layers: strings.Join(layers, ","), Sigma: sigma}
}

// Paths are the module paths of the layers.
func (p Perturbation) Paths() []string { return strings.Split(p.Layers, ",") }

// A Perturber is a guidance that needs predictions of a perturbed network.
type Perturber interface {
	Wanter
	// Perturbation is how the network is perturbed. It does not depend on the
	// scale, so that the rows of a sweep over scales run the same network.
	Perturbation() Perturbation
}

// PerturbationsOf are the perturbations that the guidances need, each once.
func PerturbationsOf(guidances []Guidance) []Perturbation {
	var all []Perturbation
	for _, g := range guidances {
		if p, ok := g.(Perturber); ok && !slices.Contains(all, p.Perturbation()) {
			all = append(all, p.Perturbation())
		}
	}
	return all
}

// Under is the condition c of as many images, for a perturbed network.
func (c Cond) Under(p Perturbation, images int) Cond {
	c.Perturbed = slices.Repeat([]Perturbation{p}, images)
	return c
}

// perturbations are those of as many images, zero where the network is as it is.
func (c Cond) perturbations(images int) []Perturbation {
	if c.Perturbed == nil {
		return make([]Perturbation, images)
	}
	return c.Perturbed
}

// Samplers are the samplers by the name that an experiment gives them, each
// with its defaults.
var Samplers = map[string]func() Sampler{
	"ddpm":          func() Sampler { return &DDPM{Steps: 250} },
	"ddim":          func() Sampler { return &DDIM{Steps: 25} },
	"pndm":          func() Sampler { return &PNDM{Steps: 50} },
	"dpm_solver_2m": func() Sampler { return &DPMSolver2M{Steps: 20} },
	"euler":         func() Sampler { return &Euler{Steps: 30} },
	"edm":           func() Sampler { return NewEDM() },
	"edm_ablation":  func() Sampler { return NewEDMAblation() },
	"ode":           func() Sampler { return NewODE() },
	"sde":           func() Sampler { return NewSDE() },
}

// Faults collects everything that is wrong with the options of a sampler or a
// guidance.
type Faults struct {
	Of   string // what messages begin with: "sag"; empty for nothing
	errs []error
}

// When notes a fault if it is there; format and args are the message.
func (f *Faults) When(wrong bool, format string, args ...any) {
	if !wrong {
		return
	}
	if f.Of != "" {
		format = f.Of + ": " + format
	}
	f.errs = append(f.errs, fmt.Errorf(format, args...))
}

// steps notes a number of denoising steps that cannot be one.
func (f *Faults) steps(n int) { f.When(n < 1, "steps is %d, expected at least 1", n) }

// Join is the faults as one error, nil if there is none.
func (f *Faults) Join() error { return errors.Join(f.errs...) }
