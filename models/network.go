package models

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// A graph is one network in one session, with what it was read from.
type graph struct {
	*ort.Session
	file *checkpoint.File
}

// Build is onnx.Build for a network that can tell beside what the checkpoint
// lacks what else is wrong with it, such as a tap of a layer that it has not.
func Build(sd checkpoint.StateDict, network func(*onnx.Module) error) (*onnx.Model, error) {
	return BuildHalf(sd, "", network)
}

// BuildHalf is Build with onnx.BuildHalf.
func BuildHalf(sd checkpoint.StateDict, half checkpoint.DType, network func(*onnx.Module) error) (*onnx.Model, error) {
	var fault error
	m, err := onnx.BuildHalf(sd, half, func(m *onnx.Module) { fault = network(m) })
	if err == nil {
		err = fault
	}
	return m, err
}

// openGraph reads a checkpoint and prepares the network that build describes.
// hint tells from the shapes which flags the checkpoint was trained with; it is
// asked only when they do not fit.
func openGraph(path string, opt Options, build func(*onnx.Module) error, hint func(checkpoint.StateDict) string) (*graph, error) {
	f, err := checkpoint.OpenSet(path, opt.Weights)
	if err != nil {
		return nil, err
	}
	return graphOf(f, opt, build, hint)
}

// graphOf is openGraph of a checkpoint that is open. The graph closes it, and so does
// an error.
func graphOf(f *checkpoint.File, opt Options, build func(*onnx.Module) error, hint func(checkpoint.StateDict) string) (*graph, error) {
	s, err := openSession(f, opt, build, hint)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("models: %s: %w", f.Path, err)
	}
	return &graph{s, f}, nil
}

// openTold opens a checkpoint and sets the flags that it says.
func openTold(c SelfDescribing, path string, opt Options) (*checkpoint.File, error) {
	f, err := checkpoint.OpenSet(path, opt.Weights)
	if err != nil {
		return nil, err
	}
	if err := c.ReadFlags(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func openSession(f *checkpoint.File, opt Options, build func(*onnx.Module) error, hint func(checkpoint.StateDict) string) (*ort.Session, error) {
	m, err := BuildHalf(f.Tensors, opt.Half(), build)
	var mismatch *onnx.MismatchError
	if errors.As(err, &mismatch) {
		if what := Foreign(f.Tensors); what != "" {
			return nil, errors.New(what)
		}
		if hint != nil {
			mismatch.Hint = hint(f.Tensors)
		}
	}
	if err != nil {
		return nil, err
	}
	opt.Content = f.SHA256
	return ort.Open(m, opt.Options)
}

func (g *graph) Close() {
	g.Session.Close()
	g.file.Close()
}

// A network is a prepared denoiser of images with at most a class label: x, t
// and y go in, ε, the learned variance and the tapped map come out.
type network struct {
	*graph
	labels        int // rows of the label table; 0 = it takes no label
	tapped        bool
	perturbations []sampling.Perturbation
}

// openNetwork prepares the denoiser that build describes, with the taps and
// perturbations of opt. labels are the rows of its label table.
func openNetwork(path string, opt Options, labels int, build func(*onnx.Module, *Taps) error, hint func(checkpoint.StateDict) string) (network, error) {
	f, err := checkpoint.OpenSet(path, opt.Weights)
	if err != nil {
		return network{}, err
	}
	return networkOf(f, opt, labels, build, hint)
}

// networkOf is openNetwork of a checkpoint that is open. The network closes it, and so
// does an error.
func networkOf(f *checkpoint.File, opt Options, labels int, build func(*onnx.Module, *Taps) error, hint func(checkpoint.StateDict) string) (network, error) {
	if err := CheckTaps(opt.Taps); err != nil {
		f.Close()
		return network{}, fmt.Errorf("models: %w", err)
	}
	g, err := graphOf(f, opt, func(m *onnx.Module) error { return build(m, NewTaps(opt)) }, hint)
	return network{g, labels, len(opt.Taps) > 0, opt.Perturbations}, err
}

// untapped is a network as it is, without taps and perturbations.
func untapped(build func(*onnx.Module, *Taps) error) func(*onnx.Module) {
	return func(m *onnx.Module) { build(m, NewTaps(Options{})) }
}

// Forward implements Model: x [N,C,H,W], t [N] (int64 or float32), y [N] →
// model [N,C or 2C,H,W], attention, attention_1, … [N,HW].
func (n *network) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	return n.Run(ctx, FloatTimesteps(in))
}

// FloatTimesteps gives the network its timesteps as float32, which the official
// code casts them to before it does anything else with them.
func FloatTimesteps(in map[string]ort.Array) map[string]ort.Array {
	ints, ok := in["t"].Data.([]int64)
	if !ok {
		return in
	}
	t := tensor.New(len(ints))
	for i, v := range ints {
		t.Data[i] = float32(v)
	}
	out := maps.Clone(in)
	out["t"] = ort.Floats(t)
	return out
}

// Timesteps is the timestep of as many images, t [N].
func Timesteps(images int, t sampling.Timestep) ort.Array {
	steps := tensor.New(images)
	for i := range steps.Data {
		steps.Data[i] = float32(t.Value)
	}
	return ort.Floats(steps)
}

// DenoiserInputs are x [N,…] and the timestep of all its images, as x and t [N].
func DenoiserInputs(x tensor.Tensor, t sampling.Timestep) map[string]ort.Array {
	return map[string]ort.Array{"x": ort.Floats(x), "t": Timesteps(x.Rows(), t)}
}

// inputs are those of the graph beside x, for as many images.
func (n *network) inputs(images int, t sampling.Timestep, c sampling.Cond) (map[string]ort.Array, error) {
	in := map[string]ort.Array{"t": Timesteps(images, t)}
	if n.labels > 0 {
		if err := CheckLabels(c.Labels, images, n.labels); err != nil {
			return nil, err
		}
		in["y"] = ort.Array{Shape: []int{images}, Data: c.Labels}
	}
	return in, SwitchPerturbations(in, n.perturbations, c.Perturbed, images)
}

// call is Call of a network whose output is the prediction.
func (n *network) call(images int, t sampling.Timestep, c sampling.Cond) (*Call, error) {
	in, err := n.inputs(images, t, c)
	if err != nil {
		return nil, err
	}
	call := &Call{Run: n.RunOn, Inputs: in, In: 1, Out: 1}
	if n.tapped {
		call.Attention = TapName(0)
	}
	return call, nil
}

// Denoise implements sampling.Denoiser.
func (n *network) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	in, err := n.inputs(x.Rows(), t, c)
	if err != nil {
		return sampling.Prediction{}, err
	}
	in["x"] = ort.Floats(x)
	out, err := n.Run(ctx, in)
	if err != nil {
		return sampling.Prediction{}, err
	}
	var p sampling.Prediction
	p.Eps, p.Var = SplitVariance(out["model"].Tensor(), x.Shape[1])
	if n.tapped {
		p.Attn = out[TapName(0)].Tensor()
	}
	return p, nil
}

// CheckLabels is an error unless there is a label for each image and the network,
// which has so many classes, knows it.
func CheckLabels(labels []int64, images, classes int) error {
	if len(labels) != images {
		return fmt.Errorf("models: %d labels for %d images: a class-conditional network needs one each", len(labels), images)
	}
	for _, y := range labels {
		if y < 0 || y >= int64(classes) {
			return fmt.Errorf("models: label %d: the network knows 0 to %d", y, classes-1)
		}
	}
	return nil
}

// SplitVariance cuts [N,2C,H,W] into ε and v, both [N,C,H,W]; without a learned
// variance the output is ε.
func SplitVariance(out tensor.Tensor, channels int) (eps, v tensor.Tensor) {
	if out.Shape[1] == channels {
		return out, tensor.Tensor{}
	}
	eps = tensor.New(out.Shape[0], channels, out.Shape[2], out.Shape[3])
	v = eps.Like()
	half := eps.RowLen()
	for i := range out.Rows() {
		row := out.Row(i)
		copy(eps.Row(i), row[:half])
		copy(v.Row(i), row[half:])
	}
	return eps, v
}

// ImagesIn are the images [N,H,W,3] uint8 among the inputs of a network.
func ImagesIn(in map[string]ort.Array) (Images, error) {
	a := in["images"]
	pixels, ok := a.Data.([]uint8)
	if !ok || len(a.Shape) != 4 || a.Shape[3] != 3 {
		return Images{}, fmt.Errorf("models: images %v hold %T: expected uint8 [N,H,W,3]", a.Shape, a.Data)
	}
	return Images{N: a.Shape[0], Height: a.Shape[1], Width: a.Shape[2], Pixels: pixels}, nil
}

// ImagesOf maps x [N,3,H,W], or grey x [N,1,H,W], to levels, clamps them to [0,255]
// and truncates. A value that is not finite, which no level stands for, is an error,
// which names the network that gave x.
func ImagesOf(x tensor.Tensor, level func(float32) float32, network string) (Images, error) {
	if err := CheckFinite(x, network, "the decoded image"); err != nil {
		return Images{}, err
	}
	n, h, w := x.Shape[0], x.Shape[2], x.Shape[3]
	im := Images{N: n, Height: h, Width: w, Pixels: make([]uint8, n*h*w*3)}
	sampling.EachImage(n, func(i int) {
		row, out := x.Row(i), im.Pixels[i*h*w*3:]
		for c := range 3 {
			plane := min(c, x.Shape[1]-1) * h * w
			for p, v := range row[plane : plane+h*w] {
				out[3*p+c] = uint8(min(max(level(v), 0), 255))
			}
		}
	})
	return im, nil
}

// A NotFinite is the error about a NaN or an infinity in what a network makes of
// its input.
type NotFinite struct {
	Network string // path of its file, "" where it is not known
	Image   int    // its number
	What    string // is not finite: "the decoded image"
}

// CheckFinite is a NotFinite where x [N,…], which messages call what, has one.
func CheckFinite(x tensor.Tensor, network, what string) error {
	if n, broken := sampling.FirstNotFinite(x); broken {
		return &NotFinite{network, n, what}
	}
	return nil
}

func (e *NotFinite) Error() string {
	network := ""
	if e.Network != "" {
		network = e.Network + ": "
	}
	return fmt.Sprintf("models: %simage %d: %s is not finite; check the checkpoint and its flags, and that its weights were not saved in a type that is too narrow, such as float16", network, e.Image, e.What)
}
