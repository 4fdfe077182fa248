// Package models holds the networks, one file a family. A checkpoint as its
// authors publish it and their flags go in; what comes out maps a network's
// inputs to its outputs (Model), and for generative families also draws images
// (Generator). Every network is one Build function that names its weights
// where it uses them.
//
// This file holds the contracts between a family and the rest of the program. A
// family needs Open, and its network to be a Generator; everything else is
// optional, and what lacks it is done without. Package families is the table of
// all of them.
package models

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// A Family is a kind of network with its flags: a pointer to a struct whose
// fields are spelled as the family's authors spell them.
type Family interface {
	// Open prepares the network whose weights lie in the checkpoint at path.
	Open(path string, opt Options) (Model, error)
}

// Options say how a network is prepared.
type Options struct {
	ort.Options
	Taps []sampling.Tap // attention layers whose map the network returns as well
	// Perturbations are those that an image's prediction can be under
	// (sampling.Cond). Without any the graph is that of the network as it is.
	Perturbations []sampling.Perturbation
	// Weights is which of several sets of weights in the checkpoint is used, as
	// checkpoint.OpenSet takes it; "" = the usual one.
	Weights string
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

// A Process is a diffusion process as a family's flags describe it. The sampler
// picks the steps of the schedule.
type Process struct {
	Schedule     sampling.ScheduleConfig
	Predicts     sampling.Parametrization // what the network's output stands for
	ClipDenoised bool                     // clip x̂0 to [-1,1]: pixels yes, latents no
}

// Images are uint8 RGB pixels [N,Height,Width,3].
type Images struct {
	N, Height, Width int
	Pixels           []uint8
}

// What a family's flags can tell before there is a network.
type (
	// A Diffusing tells the diffusion process that its network was trained on;
	// flags that embed sampling.ScheduleConfig do. The plan asks it for the steps
	// that a sampler visits. Without it the process is known once the network is
	// open.
	Diffusing interface {
		Family
		Diffusion() sampling.ScheduleConfig
	}

	// A Conditional tells what its network is conditioned on. The plan asks it, to
	// try guidances on conditions of the right kind. Without it the network may be
	// conditioned on a label and know ∅.
	Conditional interface {
		Family
		Conditioning() Conditioning
	}

	// A Captioned tells whether its network is Prompted. The plan asks it whether
	// an experiment needs texts, or may have any.
	Captioned interface {
		Family
		// TakesPrompts reports whether Open returns a Prompted.
		TakesPrompts() bool
		// Negative is the text that stands for ∅ by the flags; "" = none is given.
		Negative() string
	}

	// A WithImageSide tells the height and width of its images in pixels; 0 where
	// neither the flags nor the checkpoint at path do. The plan asks it how much
	// disk they take.
	WithImageSide interface {
		Family
		ImageSides(path string) (height, width int)
	}

	// A WithParameters knows the shapes of its parameters, by key, without a checkpoint, and
	// what the network takes. Benchmarks and tests ask it, to write checkpoints of
	// the true size, and the plan, to refuse what the machine cannot hold.
	WithParameters interface {
		Family
		Parameters() (map[string][]int, error)
		Size() (Size, error)
	}

	// A Measured tells what its network at path takes, where the flags alone do not.
	// height and width are those of its input, where neither do; else they are ignored.
	// What cannot be read has the zero Size: opening it tells why. The plan asks it
	// as it asks WithParameters.
	Measured interface {
		Family
		Measure(path string, height, width int) (Size, error)
	}

	// A Noter tells what a result has to say of its network at path beside the
	// settings: flags that change nothing though they are set, text of the prompts
	// that is cut off. Runs ask it, and put it into metrics.json.
	Noter interface {
		Family
		Notes(path string, prompts []string, opt Options) ([]string, error)
	}

	// A WithPrecision has a flag of its authors' for the precision that the network
	// computes in, which holds where the model block does not say: Precision is what it
	// asks for, "" where it is not set.
	WithPrecision interface{ Precision() string }

	// A SelfDescribing has checkpoints that say some of its flags. ReadFlags sets those
	// that are not set to what the open checkpoint says; one that is set to something
	// else is an error. The plan asks it as soon as there is a file, so that an
	// experiment need not repeat what the file says.
	SelfDescribing interface {
		Family
		ReadFlags(f *checkpoint.File) error
	}

	// A WithIdleFlags names the flags that change no pixel, such as those of
	// training that are accepted because published commands contain them. Run ids
	// leave them out.
	WithIdleFlags interface{ IdleFlags() []string }
)

// A Size is what a network takes at least.
type Size = onnx.Size

// A Conditioning is what a network is conditioned on.
type Conditioning struct {
	Labels, Text bool // class labels, a prompt
	Null         bool // and it knows ∅
}

// A Part is a further file or folder that a family's flags name.
type Part struct {
	sampling.File
	Kind    string // what it is, for messages
	Weights string // set of weights in a checkpoint, as Options has it
	// Check opens the file at path without loading it; nil for a checkpoint.
	Check func(path string) error
}

// What a family can tell of files.
type (
	// A Composite has flags that name further files, such as the checkpoint of the
	// autoencoder of a diffusion model over latents. They are looked for before an
	// experiment begins.
	Composite interface {
		Family
		Parts() []Part
	}

	// A FileLister knows the files that the output of the network at path depends
	// on, in an order that is always the same. Files asks it, for run ids. Without it
	// they are the checkpoint, or all that lies in its folder.
	FileLister interface {
		Family
		Files(path string) ([]string, error)
	}

	// A Guesser recognizes the keys and shapes of its checkpoints; ok is false
	// where they are another's. It is asked with the default flags, by inspect.
	Guesser interface {
		Guess(sd checkpoint.StateDict) (g Guess, ok bool)
	}

	// A FileGuesser recognizes its checkpoints by more than keys and shapes: by what
	// File tells beside the tensors. It is asked with the default flags, by inspect.
	FileGuesser interface {
		GuessFile(f *checkpoint.File) (g Guess, ok bool)
	}

	// A FolderGuesser recognizes the folders that its checkpoints are, and sets the
	// flags that it finds. It is asked with the default flags, by inspect.
	FolderGuesser interface {
		Family
		GuessFolder(path string) (g Guess, ok bool)
	}

	// A Tokenizing can open the tokenizer of its checkpoints alone. Reference cases
	// of tokenizers ask it.
	Tokenizing interface {
		OpenTokenizer(path string) (Tokenizer, error)
	}
)

// A Tokenizer turns prompts into the ids that a text encoder takes.
type Tokenizer interface {
	// Tokenize gives ids and attention mask, int64 [P,L] each: begin token,
	// prompt, end token, padding; what does not fit is cut off.
	Tokenize(prompts []string) (ids, mask ort.Array, err error)
}

// What a network can do beside being a Generator.
type (
	// A Halved knows how much of its half precision the device has no kernels for. A
	// run asks a network that computes in one, for the notes of its results.
	Halved interface{ Widened() ort.Widened }

	// An Unconditional knows a condition that says nothing, ∅, for n images: the
	// zero Cond where it was trained without. Classifier-free guidance needs it.
	Unconditional interface {
		Generator
		Null(ctx context.Context, n int) (sampling.Cond, error)
	}

	// A Prompted makes conditions of texts, one an image. Rows with prompts need it.
	Prompted interface {
		Generator
		Encode(ctx context.Context, prompts []string) (sampling.Cond, error)
		// EncodeNegative is Encode for texts that stand for ∅.
		EncodeNegative(ctx context.Context, prompts []string) (sampling.Cond, error)
	}

	// A Callable tells how its graph is called, so that a loop over steps can keep the
	// state and the predictions on the device that computes them. Package loop asks it.
	Callable interface {
		Generator
		// Call is the call that Denoise makes for as many images.
		Call(images int, t sampling.Timestep, c sampling.Cond) (*Call, error)
	}

	// An Incomplete may lack what drawing takes beyond the network, such as the
	// autoencoder that decodes its latents. A run asks it before it begins: the
	// error says what is missing and how to give it.
	Incomplete interface {
		Generator
		Lacks() error
	}

	// A LatentGenerator decodes x_0 to images [N,3,H,W] in [-1,1] but for
	// overshoot. Reference cases compare them.
	LatentGenerator interface {
		Generator
		Decode(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error)
	}

	// A Decoder is an autoencoder. A Generator of latents whose flags name one asks
	// it for the image.
	Decoder interface {
		Model
		// LatentChannels is the number of channels of a latent.
		LatentChannels() int
		// Decode turns latents [N,C,h,w], without any scaling, into images
		// [N,3,H,W] in [-1,1] but for overshoot.
		Decode(ctx context.Context, z tensor.Tensor) (tensor.Tensor, error)
	}
)

// A Call is a network call under a condition. The graph takes In·x [N,C,H,W] as x; with F
// the first C channels of its output model, the prediction is Skip·x + Out·F. Where there
// are C more, they are the learned variance, unless NoVariance.
type Call struct {
	Run           func(ctx context.Context, in map[string]ort.Operand, crossed *ort.Traffic, fetched ...string) (map[string]*ort.Resident, map[string]ort.Array, error)
	Inputs        map[string]ort.Array // beside x; all but t depend on the condition alone
	In, Skip, Out float32
	NoVariance    bool
	Attention     string // the output with the map; "" where no layer is tapped
}

// Open prepares the network that a setting names.
func Open(r *sampling.Ref, opt Options) (Model, error) {
	path, err := r.Checkpoint.Find()
	if err != nil {
		return nil, err
	}
	opt.Weights, opt.Precision = r.Weights, r.Precision
	return r.Flags.(Family).Open(path, opt)
}

// Notes tell what a result has to say of a network that its settings do not: which
// of several sets of weights was used, and what the family knows (Noter). prompts
// are what it draws from.
func Notes(r *sampling.Ref, prompts []string) ([]string, error) {
	path, err := r.Checkpoint.Find()
	if err != nil {
		return nil, err
	}
	notes, err := SetNotes(path, r.Weights)
	if err != nil {
		return nil, err
	}
	if c, ok := r.Flags.(Composite); ok {
		for _, p := range c.Parts() {
			if p.Check == nil {
				of, err := SetNotes(p.Path, p.Weights)
				if err != nil {
					return nil, err
				}
				notes = append(notes, of...)
			}
		}
	}
	n, ok := r.Flags.(Noter)
	if !ok {
		return notes, nil
	}
	own, err := n.Notes(path, prompts, Options{Weights: r.Weights})
	return append(notes, own...), err
}

// SetNotes tell which of several sets of weights in a checkpoint is used; nothing of
// a folder and of files that are no checkpoints, which hold one. What is wrong with a
// file of which no set is chosen, opening it tells.
func SetNotes(path, weights string) ([]string, error) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || strings.EqualFold(filepath.Ext(path), ".onnx") {
		return nil, nil
	}
	f, err := checkpoint.OpenSet(path, weights)
	if err != nil && weights == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Notes(), nil
}

// Files lists the files that a family's network at path is made of: those that
// a FileLister names, or the file itself, or all files of a folder.
func Files(f Family, path string) ([]string, error) {
	if l, ok := f.(FileLister); ok {
		return l.Files(path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(name) // links are followed, as in a cache of a hub
		if err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	return files, nil
}
