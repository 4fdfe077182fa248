package models

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// SiT is the transformer of "SiT: Exploring Flow and Diffusion-based Generative Models
// with Scalable Interpolant Transformers" (arXiv 2401.08740), willisma/SiT models.py
// SiT: that of DiT, which is told the time t from 0, noise, to 1, data, and of which
// half the outputs are left aside where learn_sigma is set. What it predicts, and on
// which path, are the arguments of transport/ create_transport.
type SiT struct {
	Model            string  `yaml:"model" doc:"published size, such as SiT-XL/2: sets hidden_size, depth, num_heads and patch_size"`
	InputSize        int     `yaml:"input_size" min:"1" max:"4096" doc:"height and width of the latent: that of the image over 8"`
	PatchSize        int     `yaml:"patch_size" min:"0" max:"4096" doc:"height and width of a token; 0 = of the model, or 2"`
	InChannels       int     `yaml:"in_channels" min:"1" max:"1024" doc:"channels of the latent"`
	HiddenSize       int     `yaml:"hidden_size" min:"0" max:"65536" doc:"width of the transformer; 0 = of the model, or 1152"`
	Depth            int     `yaml:"depth" min:"0" max:"1024" doc:"blocks, at most 1024; 0 = of the model, or 28"`
	NumHeads         int     `yaml:"num_heads" min:"0" max:"1024" doc:"attention heads of a block; 0 = of the model, or 16"`
	MLPRatio         float64 `yaml:"mlp_ratio" min:"0" max:"1024" doc:"width of a block's MLP over hidden_size"`
	ClassDropoutProb float64 `yaml:"class_dropout_prob" min:"0" max:"1" doc:"of training; above 0 the network has a null class, which cfg needs"`
	NumClasses       int     `yaml:"num_classes" min:"1" max:"1000000" doc:"number of labels, without the null class"`
	LearnSigma       bool    `yaml:"learn_sigma" doc:"the final layer has twice the channels, of which the first half counts, as in the published file"`

	PathType   string  `yaml:"path_type" doc:"path from noise to data that the network was trained on: Linear, GVP or VP"`
	Prediction string  `yaml:"prediction" doc:"what the network predicts: velocity, score or noise"`
	SampleEps  float64 `yaml:"sample_eps" min:"0" max:"0.1" doc:"how far sampling stays from the ends of the time where what the network predicts is not finite there; velocities on the Linear and the GVP path need none (the official code takes its own 0.001 unless train_eps is given too)"`

	VAE              sampling.Ref `yaml:"vae" doc:"autoencoder that decodes the latents: the path of its folder, or a model block; without one, no images can be drawn"`
	VAEScalingFactor float64      `yaml:"vae_scaling_factor" min:"-1000000" max:"1000000" doc:"what x_0 is divided by before it is decoded"`
}

// NewSiT is SiT with its authors' defaults, for 256×256 pixels.
func NewSiT() *SiT {
	d := NewDiT()
	return &SiT{
		InputSize: d.InputSize, InChannels: d.InChannels, MLPRatio: d.MLPRatio, ClassDropoutProb: d.ClassDropoutProb, NumClasses: d.NumClasses, LearnSigma: true,
		PathType: "Linear", Prediction: "velocity", SampleEps: 1e-3, VAE: d.VAE, VAEScalingFactor: d.VAEScalingFactor,
	}
}

// sitPredictions are what a network's output can stand for.
var sitPredictions = map[string]sampling.Parametrization{"velocity": sampling.Flow, "score": sampling.Score, "noise": sampling.Epsilon}

// dit is the network, which is DiT's.
func (c *SiT) dit() *DiT {
	d := NewDiT()
	if rest := len("SiT"); len(c.Model) > rest && c.Model[:rest] == "SiT" {
		d.Model = "DiT" + c.Model[rest:]
	} else {
		d.Model = c.Model
	}
	d.InputSize, d.PatchSize, d.InChannels, d.HiddenSize, d.Depth, d.NumHeads = c.InputSize, c.PatchSize, c.InChannels, c.HiddenSize, c.Depth, c.NumHeads
	d.MLPRatio, d.ClassDropoutProb, d.NumClasses, d.LearnSigma = c.MLPRatio, c.ClassDropoutProb, c.NumClasses, c.LearnSigma
	d.VAE, d.VAEScalingFactor = c.VAE, c.VAEScalingFactor
	return d
}

// Validate fills in the sizes that the model stands for, and tells everything that is
// wrong with the flags.
func (c *SiT) Validate() error {
	d := c.dit()
	err := d.Validate()
	c.PatchSize, c.HiddenSize, c.Depth, c.NumHeads = d.PatchSize, d.HiddenSize, d.Depth, d.NumHeads
	if c.Model != "" && d.Model == c.Model {
		err = fmt.Errorf("model %q is no published size; SiT has those of DiT, such as SiT-XL/2", c.Model)
	}
	var errs []error
	if !slices.Contains(sampling.Interpolants, c.PathType) {
		errs = append(errs, fmt.Errorf("path_type is %q, expected one of %v", c.PathType, sampling.Interpolants))
	}
	if _, known := sitPredictions[c.Prediction]; !known {
		errs = append(errs, fmt.Errorf("prediction is %q, expected velocity, score or noise", c.Prediction))
	}
	if !(c.SampleEps >= 0 && c.SampleEps < 0.5) || c.SampleEps == 0 && !c.finite() {
		errs = append(errs, fmt.Errorf("sample_eps is %g, expected a little more than 0, such as 0.001", c.SampleEps))
	}
	return errors.Join(append(errs, err)...)
}

// IdleFlags are the flags that change no pixel.
func (*SiT) IdleFlags() []string { return []string{"model", "vae"} }

// Diffusion implements Diffusing.
func (c *SiT) Diffusion() sampling.ScheduleConfig {
	p := sampling.Interpolant{Type: c.PathType, Velocity: c.Prediction == "velocity"}
	if !c.finite() {
		p.Eps = c.SampleEps
	}
	return sampling.ScheduleConfig{Path: p}
}

// finite tells whether what the network predicts is finite from one end of the time
// to the other.
func (c *SiT) finite() bool { return c.Prediction == "velocity" && c.PathType != "VP" }

// Conditioning implements Conditional.
func (c *SiT) Conditioning() Conditioning { return c.dit().Conditioning() }

// ImageSides implements WithImageSide: with the autoencoder of Stable Diffusion.
func (c *SiT) ImageSides(path string) (height, width int) { return c.dit().ImageSides(path) }

// Parts implements Composite.
func (c *SiT) Parts() []Part { return c.dit().Parts() }

// Files implements FileLister: the checkpoint, and the autoencoder's files.
func (c *SiT) Files(path string) ([]string, error) { return c.dit().Files(path) }

// Parameters lists the parameters of the network by key with their shapes.
func (c *SiT) Parameters() (map[string][]int, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("models: sit: %w", err)
	}
	return c.dit().Parameters()
}

// Size implements WithParameters.
func (c *SiT) Size() (Size, error) {
	if err := c.Validate(); err != nil {
		return Size{}, fmt.Errorf("models: sit: %w", err)
	}
	return c.dit().Size()
}

// Open implements Family.
func (c *SiT) Open(path string, opt Options) (Model, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("models: sit: %w", err)
	}
	m, err := c.dit().Open(path, opt)
	if err != nil {
		return nil, err
	}
	return &sitNet{m.(*ditNet), c}, nil
}

// Guess implements Guesser: what is read off the shapes is what DiT's would be.
func (c *SiT) Guess(sd checkpoint.StateDict) (Guess, bool) {
	g, ok := NewDiT().Guess(sd)
	if !ok {
		return g, false
	}
	g.Evidence += ", which SiT has as well: whose it is only its authors' name for it tells"
	for i, f := range g.Flags {
		if f.Name == "model" {
			g.Flags[i].Value = `"S` + f.Value[len(`"D`):]
		}
	}
	g.Flags = append(g.Flags, NewFlag("path_type", c.PathType, Assumed), NewFlag("prediction", c.Prediction, Assumed))
	return g, true
}

// A sitNet is a prepared SiT with its autoencoder.
type sitNet struct {
	*ditNet
	flags *SiT
}

var (
	_ LatentGenerator = (*sitNet)(nil)
	_ Unconditional   = (*sitNet)(nil)
	_ Composite       = (*SiT)(nil)
	_ Diffusing       = (*SiT)(nil)
)

// Process implements Generator: latents are not clipped.
func (n *sitNet) Process() Process {
	return Process{Schedule: n.flags.Diffusion(), Predicts: sitPredictions[n.flags.Prediction]}
}

// Forward implements Model: x [N,C,H,W], t [N] in [0,1], y [N] → model [N,C,H,W],
// attention, attention_1, … [N,HW].
func (n *sitNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	out, err := n.ditNet.Forward(ctx, in)
	if err == nil {
		first, _ := SplitVariance(out["model"].Tensor(), n.flags.InChannels)
		out["model"] = ort.Floats(first)
	}
	return out, err
}

// Denoise implements sampling.Denoiser: the network at x √(α²+σ²), the path's state.
func (n *sitNet) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	length := float32(n.flags.Diffusion().Path.At(t.Value).Length())
	state := x.Like()
	for i, v := range x.Data {
		state.Data[i] = length * v
	}
	p, err := n.ditNet.Denoise(ctx, state, t, c)
	p.Var = tensor.Tensor{} // the half that is left aside
	return p, err
}

// Call implements Callable: the graph sees the path's state.
func (n *sitNet) Call(images int, t sampling.Timestep, c sampling.Cond) (*Call, error) {
	call, err := n.ditNet.Call(images, t, c)
	if err == nil {
		call.In, call.NoVariance = float32(n.flags.Diffusion().Path.At(t.Value).Length()), true
	}
	return call, err
}
