package sd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// An sdUNet is the U-Net with its weights at hand.
type sdUNet struct {
	config  *sdUNetConfig
	weights *weights
	net     *models.Sessions[sdSize]
	tapped  bool

	perturbations []sampling.Perturbation
}

var _ models.Model = (*sdUNet)(nil)

// Forward implements Model: x [N,C,H,W], t [N] (int64 or float32), context
// [N,L,D] → model [N,C,H,W], attention, attention_1, … [N,HW].
func (n *sdUNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	s, err := sizeOf("x", in["x"], n.config.InChannels)
	if err != nil {
		return nil, err
	}
	c := in["context"]
	if len(c.Shape) != 3 || c.Shape[1] < 1 || c.Shape[2] != n.config.CrossAttentionDim || c.Shape[0] != in["x"].Shape[0] {
		return nil, fmt.Errorf("models: context has shape %v, expected [%d,L,%d]", c.Shape, in["x"].Shape[0], n.config.CrossAttentionDim)
	}
	return n.net.Run(ctx, sdSize{s, c.Shape[1]}, models.FloatTimesteps(in))
}

// Widened implements models.Halved. Every size has as many nodes.
func (n *sdUNet) Widened() ort.Widened { return n.net.Widened(sdSize{size{8, 8}, 1}) }

// Close frees all sessions.
func (n *sdUNet) Close() {
	n.net.Close()
	n.weights.Close()
}

// A Net is Stable Diffusion, ready to draw images.
type Net struct {
	flags     *SD
	unet      *sdUNet
	vae       *vaeNet
	text      *textNet
	tokens    *clipTokens // nil where a single file came without one and CLIP's does not fit
	scheduler *sampling.SchedulerConfig

	mu   sync.Mutex
	null tensor.Tensor // [1,L,D]
}

var (
	_ models.LatentGenerator = (*Net)(nil)
	_ models.Unconditional   = (*Net)(nil)
	_ models.Prompted        = (*Net)(nil)
	_ models.Incomplete      = (*Net)(nil)
)

// checked is n where nothing was wrong with its parts and they fit each other.
func (n *Net) checked(path string, err error) (models.Model, error) {
	if err == nil {
		err = n.check(path)
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	if p := n.flags.PredictionType; p != "" {
		n.scheduler.PredictionType = &p
	}
	return n, nil
}

// check holds the parts against each other.
func (n *Net) check(path string) error {
	var errs []error
	fault := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("models: %s: "+format, append([]any{path}, args...)...))
		}
	}
	u, latent, f := n.unet.config, n.vae.LatentChannels(), n.vae.config.factor()
	fault(u.InChannels != latent, "the U-Net has in_channels %d, the autoencoder %d latent_channels; inpainting, depth and upscaling models are not supported", u.InChannels, latent)
	fault(u.OutChannels != latent, "the U-Net has out_channels %d, the autoencoder %d latent_channels", u.OutChannels, latent)
	fault(u.CrossAttentionDim != n.text.config.HiddenSize, "the U-Net has cross_attention_dim %d, the text encoder hidden_size %d", u.CrossAttentionDim, n.text.config.HiddenSize)
	if n.tokens != nil {
		fault(n.tokens.Size() > n.text.config.VocabSize, "the tokenizer has %d tokens, the text encoder vocab_size %d; they do not belong together", n.tokens.Size(), n.text.config.VocabSize)
		fault(n.tokens.length > n.text.config.MaxPositionEmbeddings, "the tokenizer makes prompts of %d tokens, the text encoder has max_position_embeddings %d", n.tokens.length, n.text.config.MaxPositionEmbeddings)
	}
	fault(n.flags.ClipSkip > n.text.config.NumHiddenLayers, "clip_skip is %d, the text encoder has %d layers", n.flags.ClipSkip, n.text.config.NumHiddenLayers)
	s := n.flags.latentSize(u, n.vae.config)
	fault(s.height < 1 || s.width < 1, "height and width are needed: the U-Net's config.json has no sample_size")
	fault(n.flags.Height%f != 0, "height is %d, expected a multiple of %d, the autoencoder's factor", n.flags.Height, f)
	fault(n.flags.Width%f != 0, "width is %d, expected a multiple of %d, the autoencoder's factor", n.flags.Width, f)
	return errors.Join(errs...)
}

// Forward implements Model as the U-Net alone does.
func (n *Net) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	return n.unet.Forward(ctx, in)
}

// Denoise implements sampling.Denoiser. The context is what Encode returns.
func (n *Net) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	if c.Context.IsZero() {
		return sampling.Prediction{}, errors.New("models: sd: the condition has no prompt; Encode makes one, Null the empty one")
	}
	in := models.DenoiserInputs(x, t)
	in["context"] = ort.Floats(c.Context)
	if err := models.SwitchPerturbations(in, n.unet.perturbations, c.Perturbed, x.Rows()); err != nil {
		return sampling.Prediction{}, err
	}
	out, err := n.unet.Forward(ctx, in)
	if err != nil {
		return sampling.Prediction{}, err
	}
	p := sampling.Prediction{Eps: out["model"].Tensor()}
	if n.unet.tapped {
		p.Attn = out[models.TapName(0)].Tensor()
	}
	return p, nil
}

// Widened implements models.Halved.
func (n *Net) Widened() ort.Widened { return n.unet.Widened() }

// Lacks implements Incomplete.
func (n *Net) Lacks() error {
	if n.tokens == nil {
		return fmt.Errorf("models: %s holds no tokenizer, and its text encoder has other tokens than CLIP's; give tokenizer: the path of a folder with its vocab.json and merges.txt", n.unet.weights.path)
	}
	return nil
}

// Encode is what the network is conditioned on for one prompt an image: the
// text encoder's last hidden state, or with clip_skip that of an earlier layer,
// [N,L,D]. A prompt that occurs several times is encoded once.
func (n *Net) Encode(ctx context.Context, prompts []string) (sampling.Cond, error) {
	if err := n.Lacks(); err != nil {
		return sampling.Cond{}, err
	}
	var distinct []string
	row := map[string]int{}
	for _, p := range prompts {
		if _, known := row[p]; !known {
			row[p] = len(distinct)
			distinct = append(distinct, p)
		}
	}
	ids, _, err := n.tokens.Tokenize(distinct)
	if err != nil {
		return sampling.Cond{}, err
	}
	h, err := n.text.Encode(ctx, ids, n.flags.ClipSkip)
	if err != nil {
		return sampling.Cond{}, err
	}
	if i, broken := sampling.FirstNotFinite(h); broken {
		return sampling.Cond{}, fmt.Errorf("models: %s: the embedding of %q is not finite; check the checkpoint of the text encoder", n.text.weights.path, shortened(distinct[i]))
	}
	out := tensor.New(len(prompts), h.Shape[1], h.Shape[2])
	for i, p := range prompts {
		copy(out.Row(i), h.Row(row[p]))
	}
	return sampling.Cond{Context: out}, nil
}

// Null is ∅ for n images: the embedding of negative_prompt, which is empty
// unless the flags say otherwise.
func (n *Net) Null(ctx context.Context, images int) (sampling.Cond, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.null.IsZero() {
		c, err := n.Encode(ctx, []string{n.flags.NegativePrompt})
		if err != nil {
			return sampling.Cond{}, err
		}
		n.null = c.Context
	}
	out := tensor.New(images, n.null.Shape[1], n.null.Shape[2])
	for i := range images {
		copy(out.Row(i), n.null.Data)
	}
	return sampling.Cond{Context: out}, nil
}

// Process implements Generator: that of scheduler_config.json. x̂0 is a latent,
// which diffusers' pipelines never clip, whatever the file says.
func (n *Net) Process() models.Process {
	return models.Process{Schedule: sampling.ScheduleConfig{Scheduler: n.scheduler}, Predicts: n.scheduler.Predicts()}
}

// SampleShape implements Generator: [C,h,w] of a latent.
func (n *Net) SampleShape() []int {
	s := n.flags.latentSize(n.unet.config, n.vae.config)
	return []int{n.vae.LatentChannels(), s.height, s.width}
}

// Classes implements Generator: there are prompts, no labels.
func (n *Net) Classes() int { return 0 }

// Decode turns x_0 into images [N,3,H,W] in [-1,1] but for overshoot.
func (n *Net) Decode(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error) {
	return n.vae.decodeScaled(ctx, x)
}

// Pixels implements Generator: the decoded image, 255·clamp(x/2 + 0.5, 0, 1)
// rounded half to even, as diffusers' image_processor.py does.
func (n *Net) Pixels(ctx context.Context, x tensor.Tensor) (models.Images, error) {
	decoded, err := n.Decode(ctx, x)
	if err != nil {
		return models.Images{}, err
	}
	return models.ImagesOf(decoded, sdLevel, n.vae.weights.path)
}

func sdLevel(v float32) float32 {
	unit := max(0, min(v/2+0.5, 1))
	return float32(math.RoundToEven(float64(float32(unit * 255))))
}

// Close frees all sessions.
func (n *Net) Close() {
	if n.unet != nil {
		n.unet.Close()
	}
	if n.vae != nil {
		n.vae.Close()
	}
	if n.text != nil {
		n.text.Close()
	}
}
