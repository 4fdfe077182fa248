// Package models holds the networks, one file a family. A checkpoint as its
// authors publish it and their flags go in; what comes out maps a network's
// inputs to its outputs (Model), and for generative families also draws images
// (Generator). Every network is one Build function that names its weights
// where it uses them.
package models

import (
	"context"
	"errors"
	"fmt"

	"sagbench/configs"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// Families maps a family's name in a model block to its defaults. The fields
// of the value are the family's flags, spelled as its authors spell them.
var Families = configs.Registry[Family]{
	"adm":        func() Family { return newADM() },
	"classifier": func() Family { return newClassifier() },
	"clip_text":  func() Family { return &CLIPText{} },
	"dinov2":     func() Family { return newDINOv2() },
	"dit":        func() Family { return newDiT() },
	"iddpm":      func() Family { return newIDDPM() },
	"inception":  func() Family { return newInception() },
	"onnx":       func() Family { return newONNXFile() },
	"sd":         func() Family { return &SD{} },
	"vae":        func() Family { return &VAE{} },
}

// A Family is a kind of network with its flags.
type Family interface {
	// Open prepares the network whose weights lie in the checkpoint at path.
	Open(path string, opt Options) (Model, error)
}

// A Sized is a Family that knows the shapes of its parameters without a
// checkpoint.
type Sized interface {
	Family
	// Parameters lists the parameters of the network by key with their shapes.
	Parameters() (map[string][]int, error)
}

// Options say how a network is prepared.
type Options struct {
	ort.Options
	Taps []sampling.Tap // attention layers whose map the network returns as well
	// Perturbations are those that an image's prediction can be under
	// (sampling.Cond). Without any the graph is that of the network as it is.
	Perturbations []sampling.Perturbation
	// Find is the path of the file or folder that a value of the flags names;
	// nil takes it as it is written.
	Find func(configs.Block) (string, error)
}

// A Composite is a Family whose flags name further checkpoints, such as the
// autoencoder of a diffusion model over latents.
type Composite interface {
	Family
	// Parts are the values of the flags that name them, for Options.Find.
	Parts() []configs.Block
}

// A Conditional is a Family whose flags tell what its network is conditioned on.
type Conditional interface {
	Family
	Conditioning() Conditioning
}

// A Conditioning is what a network is conditioned on.
type Conditioning struct {
	Labels, Text bool // class labels, a prompt
	Null         bool // and it knows ∅
}

// A Model is a network that is ready to run.
type Model interface {
	// Forward maps inputs to outputs by the names that FORMAT.md of the
	// reference cases uses: x, t, y, images → model, attention, pool, …
	Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error)
	Close()
}

// A Generator is a Model that images can be drawn from.
type Generator interface {
	Model
	sampling.Denoiser
	// Process is the authors' diffusion process.
	Process() Process
	// SampleShape is [C,H,W] of x_t.
	SampleShape() []int
	// Classes is the number of labels, 0 for an unconditional network.
	Classes() int
	// Pixels turns x_0 into images as the authors do.
	Pixels(ctx context.Context, x tensor.Tensor) (Images, error)
}

// An Unconditional is a Generator that knows a condition that says nothing, ∅,
// which classifier-free guidance needs.
type Unconditional interface {
	Generator
	// Null is ∅ for n images; the zero Cond where the network was trained
	// without it.
	Null(n int) (sampling.Cond, error)
}

// A Prompted is a Generator that is conditioned on text.
type Prompted interface {
	Generator
	// Encode is the condition for one prompt an image.
	Encode(ctx context.Context, prompts []string) (sampling.Cond, error)
}

// An Incomplete is a Generator that may lack what drawing takes beyond the
// network, such as the autoencoder that decodes its latents.
type Incomplete interface {
	Generator
	// Lacks says what is missing and how to give it; nil where nothing is.
	Lacks() error
}

// A LatentGenerator is a Generator whose x_0 is decoded to an image.
type LatentGenerator interface {
	Generator
	// Decode turns x_0 into images [N,3,H,W] in [-1,1] but for overshoot.
	Decode(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error)
}

// A Decoder is a Model that turns latents into images: an autoencoder.
type Decoder interface {
	Model
	// LatentChannels is the number of channels of a latent.
	LatentChannels() int
	// Decode turns latents [N,C,h,w], without any scaling, into images [N,3,H,W]
	// in [-1,1] but for overshoot.
	Decode(ctx context.Context, z tensor.Tensor) (tensor.Tensor, error)
}

// A Process is a diffusion process as a family's flags describe it. The sampler
// picks the steps of the schedule.
type Process struct {
	Schedule     sampling.ScheduleConfig
	Predicts     sampling.Parametrization // what the network's output stands for
	ClipDenoised bool                     // clip x̂0 to [-1,1]: pixels yes, latents no
}

// A graph is one network in one session, with what it was read from.
type graph struct {
	*ort.Session
	file *checkpoint.File
}

// openGraph reads a checkpoint and prepares the network that build describes.
// hint tells from the shapes which flags the checkpoint was trained with; it is
// asked only when they do not fit.
func openGraph(path string, opt Options, build func(*onnx.Module), hint func(checkpoint.StateDict) string) (*graph, error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	g, err := fileGraph(f, opt, build, hint)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	return g, nil
}

func fileGraph(f *checkpoint.File, opt Options, build func(*onnx.Module), hint func(checkpoint.StateDict) string) (*graph, error) {
	m, err := onnx.Build(f.Tensors, build)
	var mismatch *onnx.MismatchError
	if errors.As(err, &mismatch) && hint != nil {
		mismatch.Hint = hint(f.Tensors)
	}
	if err != nil {
		return nil, err
	}
	opt.Content = f.SHA256
	s, err := ort.Open(m, opt.Options)
	if err != nil {
		return nil, err
	}
	return &graph{Session: s, file: f}, nil
}

func (g *graph) Close() {
	g.Session.Close()
	g.file.Close()
}
