package sd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"sagbench/models"
	"sagbench/models/onnx"
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

// newUNet compares the keys with the configuration and looks for the taps; graphs
// are made for the sizes that come.
func (g *generation) newUNet(c *sdUNetConfig, w *weights, opt models.Options) (*sdUNet, error) {
	if xl := c.AdditionEmbedType != nil; xl != g.added {
		return nil, fmt.Errorf("models: %s: %s", w.path, map[bool]string{
			true:  "the U-Net has addition_embed_type text_time: it is one of Stable Diffusion XL (family: sdxl)",
			false: "the U-Net has no addition_embed_type: it is none of Stable Diffusion XL (family: sd)",
		}[xl])
	}
	build := func(m *onnx.Module, s sdSize) error { return c.build(m, s, models.NewTaps(opt)) }
	var tapErr error
	_, err := onnx.Build(w.tensors, func(m *onnx.Module) { tapErr = build(m, sdSize{size{1, 1}, 1}) })
	if err = errors.Join(err, tapErr); err != nil {
		return nil, w.fault(err)
	}
	return &sdUNet{config: c, weights: w, net: sessions(w, w.tensors, opt, build), tapped: len(opt.Taps) > 0, perturbations: opt.Perturbations}, nil
}

// Forward implements Model: x [N,C,H,W], t [N] (int64 or float32), context
// [N,L,D] and, for SDXL, text_embeds [N,P] and time_ids [N,6] → model [N,C,H,W],
// attention, attention_1, … [N,HW].
func (n *sdUNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	s, err := sizeOf("x", in["x"], n.config.InChannels)
	if err != nil {
		return nil, err
	}
	length, err := n.contextLength(in, in["x"].Shape[0])
	if err != nil {
		return nil, err
	}
	return n.net.Run(ctx, sdSize{s, length}, models.FloatTimesteps(in))
}

// contextLength is L of the inputs for as many images, whose shapes it checks.
func (n *sdUNet) contextLength(in map[string]ort.Array, images int) (int, error) {
	c := in["context"]
	if len(c.Shape) != 3 || c.Shape[1] < 1 || c.Shape[2] != n.config.CrossAttentionDim || c.Shape[0] != images {
		return 0, fmt.Errorf("models: context has shape %v, expected [%d,L,%d]", c.Shape, images, n.config.CrossAttentionDim)
	}
	for name, width := range n.config.addedInputs() {
		if a := in[name]; !slices.Equal(a.Shape, []int{images, width}) {
			return 0, fmt.Errorf("models: %s has shape %v, expected [%d,%d]", name, a.Shape, images, width)
		}
	}
	return c.Shape[1], nil
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
	pipeline  pipeline
	path      string // of the folder or the file
	unet      *sdUNet
	vae       *vaeNet
	texts     []*textNet
	tokens    []*clipTokens // of each; nil where a single file came without one and CLIP's does not fit
	scheduler *sampling.SchedulerConfig

	mu   sync.Mutex
	null sampling.Cond // of one image
}

var (
	_ models.LatentGenerator = (*Net)(nil)
	_ models.Unconditional   = (*Net)(nil)
	_ models.Prompted        = (*Net)(nil)
	_ models.Incomplete      = (*Net)(nil)
)

// checked is n where nothing was wrong with its parts and they fit each other.
func (n *Net) checked(err error) (models.Model, error) {
	if err == nil {
		err = n.fit()
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	if p := n.pipeline.PredictionType; p != "" {
		n.scheduler.PredictionType = &p
	}
	return n, nil
}

// fit holds the parts against each other.
func (n *Net) fit() error {
	var errs []error
	fault := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("models: %s: "+format, append([]any{n.path}, args...)...))
		}
	}
	u, latent, f := n.unet.config, n.vae.LatentChannels(), n.vae.config.factor()
	fault(u.InChannels != latent, "the U-Net has in_channels %d, the autoencoder %d latent_channels; inpainting, depth and upscaling models are not supported", u.InChannels, latent)
	fault(u.OutChannels != latent, "the U-Net has out_channels %d, the autoencoder %d latent_channels", u.OutChannels, latent)
	width := 0
	for i, text := range n.texts {
		width += text.config.HiddenSize
		if t := n.tokens[i]; t != nil {
			fault(t.Size() > text.config.VocabSize, "the tokenizer has %d tokens, the text encoder vocab_size %d; they do not belong together", t.Size(), text.config.VocabSize)
			fault(t.length > text.config.MaxPositionEmbeddings, "the tokenizer makes prompts of %d tokens, the text encoder has max_position_embeddings %d", t.length, text.config.MaxPositionEmbeddings)
		}
	}
	fault(u.CrossAttentionDim != width, "the U-Net has cross_attention_dim %d, the text encoder hidden_size %d", u.CrossAttentionDim, width)
	fault(n.pipeline.check(n) != nil, "%w", n.pipeline.check(n))
	s := n.latentSize()
	fault(s.height < 1 || s.width < 1, "height and width are needed: the U-Net's config.json has no sample_size")
	fault(n.pipeline.Height%f != 0, "height is %d, expected a multiple of %d, the autoencoder's factor", n.pipeline.Height, f)
	fault(n.pipeline.Width%f != 0, "width is %d, expected a multiple of %d, the autoencoder's factor", n.pipeline.Width, f)
	return errors.Join(errs...)
}

// latentSize is that of the latents that are drawn.
func (n *Net) latentSize() size { return n.pipeline.latentSize(n.unet.config, n.vae.config) }

// Forward implements Model as the U-Net alone does.
func (n *Net) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	return n.unet.Forward(ctx, in)
}

// inputs are those of the U-Net beside x, for as many images.
func (n *Net) inputs(images int, t sampling.Timestep, c sampling.Cond) (map[string]ort.Array, error) {
	if c.Context.IsZero() {
		return nil, errors.New("models: sd: the condition has no prompt; Encode makes one, Null the empty one")
	}
	in := map[string]ort.Array{"t": models.Timesteps(images, t), "context": ort.Floats(c.Context)}
	if err := n.unet.config.putAdded(in, c.Vector); err != nil {
		return nil, err
	}
	return in, models.SwitchPerturbations(in, n.unet.perturbations, c.Perturbed, images)
}

// Call implements models.Callable.
func (n *Net) Call(images int, t sampling.Timestep, c sampling.Cond) (*models.Call, error) {
	in, err := n.inputs(images, t, c)
	if err != nil {
		return nil, err
	}
	length, err := n.unet.contextLength(in, images)
	if err != nil {
		return nil, err
	}
	call := &models.Call{Inputs: in, In: 1, Out: 1, Run: func(ctx context.Context, in map[string]ort.Operand, crossed *ort.Traffic, fetched ...string) (map[string]*ort.Resident, map[string]ort.Array, error) {
		return n.unet.net.RunOn(ctx, sdSize{n.latentSize(), length}, in, crossed, fetched...)
	}}
	if n.unet.tapped {
		call.Attention = models.TapName(0)
	}
	return call, nil
}

// Denoise implements sampling.Denoiser. The context is what Encode returns.
func (n *Net) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	in, err := n.inputs(x.Rows(), t, c)
	if err != nil {
		return sampling.Prediction{}, err
	}
	in["x"] = ort.Floats(x)
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
	for i, t := range n.tokens {
		if t == nil {
			return fmt.Errorf("models: %s holds no tokenizer, and its %s has other tokens than CLIP's; give %s: the path of a folder with its vocab.json and merges.txt",
				n.path, n.pipeline.textParts[i].name(), n.pipeline.textParts[i].tokenizer)
		}
	}
	return nil
}

// Encode implements Prompted. A prompt that occurs several times is encoded once.
func (n *Net) Encode(ctx context.Context, prompts []string) (sampling.Cond, error) {
	return n.encode(ctx, prompts, false)
}

// EncodeNegative implements Prompted.
func (n *Net) EncodeNegative(ctx context.Context, prompts []string) (sampling.Cond, error) {
	return n.encode(ctx, prompts, true)
}

func (n *Net) encode(ctx context.Context, prompts []string, negative bool) (none sampling.Cond, err error) {
	if err := n.Lacks(); err != nil {
		return none, err
	}
	var distinct []string
	rows, row := make([]int, len(prompts)), map[string]int{}
	for i, p := range prompts {
		if _, known := row[p]; !known {
			row[p] = len(distinct)
			distinct = append(distinct, p)
		}
		rows[i] = row[p]
	}
	ids := make([]ort.Array, len(n.tokens))
	for i, t := range n.tokens {
		if ids[i], _, err = t.Tokenize(distinct); err != nil {
			return none, err
		}
	}
	c, err := n.pipeline.condition(ctx, n, ids, negative)
	if err != nil {
		return none, err
	}
	if i, broken := sampling.FirstNotFinite(c.Context, c.Vector); broken {
		var files []string
		for _, t := range n.texts {
			files = append(files, t.weights.path)
		}
		return none, fmt.Errorf("models: %s: the embedding of %q is not finite; check the checkpoint", strings.Join(files, " and "), shortened(distinct[i]))
	}
	return c.Pick(rows), nil
}

// Null is ∅ for n images: the condition of negative_prompt or, where the flags
// give none, the generation's.
func (n *Net) Null(ctx context.Context, images int) (sampling.Cond, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.null.IsZero() {
		var blank bool
		if n.pipeline.NegativePrompt == "" {
			n.null, blank = n.pipeline.blank(n)
		}
		if !blank {
			c, err := n.encode(ctx, []string{n.pipeline.NegativePrompt}, true)
			if err != nil {
				return sampling.Cond{}, err
			}
			n.null = c
		}
	}
	return n.null.Pick(make([]int, images)), nil
}

// Process implements Generator: that of scheduler_config.json. x̂0 is a latent,
// which diffusers' pipelines never clip, whatever the file says.
func (n *Net) Process() models.Process {
	return models.Process{Schedule: sampling.ScheduleConfig{Scheduler: n.scheduler}, Predicts: n.scheduler.Predicts()}
}

// SampleShape implements Generator: [C,h,w] of a latent.
func (n *Net) SampleShape() []int {
	s := n.latentSize()
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
	for _, t := range n.texts {
		if t != nil {
			t.Close()
		}
	}
}
