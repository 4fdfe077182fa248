package models

import (
	"context"
	"fmt"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// A network is a prepared denoiser of images with at most a class label: x, t
// and y go in, ε, the learned variance and the tapped map come out.
type network struct {
	*graph
	labels        int // rows of the label table; 0 = it takes no label
	tapped        bool
	perturbations []sampling.Perturbation
}

// openTapped prepares the network that build describes, with the taps of opt.
func openTapped(path string, opt Options, build func(*onnx.Module, *taps) error, hint func(checkpoint.StateDict) string) (*graph, error) {
	if err := validTaps(opt.Taps); err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	var tapErr error
	g, err := openGraph(path, opt, func(m *onnx.Module) { tapErr = build(m, newTaps(opt.Taps, opt.Perturbations...)) }, hint)
	if err != nil {
		return nil, err
	}
	if tapErr != nil {
		g.Close()
		return nil, fmt.Errorf("models: %s: %w", path, tapErr)
	}
	return g, nil
}

// Forward implements Model: x [N,C,H,W], t [N] (int64 or float32), y [N] →
// model [N,C or 2C,H,W], attention, attention_1, … [N,HW].
func (n *network) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	return n.Run(ctx, floatTimesteps(in))
}

// floatTimesteps gives the network its timesteps as float32, which the official
// code casts them to before it does anything else with them.
func floatTimesteps(in map[string]ort.Array) map[string]ort.Array {
	ints, ok := in["t"].Data.([]int64)
	if !ok {
		return in
	}
	t := tensor.New(len(ints))
	for i, v := range ints {
		t.Data[i] = float32(v)
	}
	out := map[string]ort.Array{}
	for k, v := range in {
		out[k] = v
	}
	out["t"] = ort.Floats(t)
	return out
}

// Denoise implements sampling.Denoiser.
func (n *network) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	images := x.Rows()
	steps := tensor.New(images)
	for i := range steps.Data {
		steps.Data[i] = float32(t.Value)
	}
	in := map[string]ort.Array{"x": ort.Floats(x), "t": ort.Floats(steps)}
	if n.labels > 0 {
		if err := checkLabels(c.Labels, images, n.labels); err != nil {
			return sampling.Prediction{}, err
		}
		in["y"] = ort.Array{Shape: []int{images}, Data: c.Labels}
	}
	if err := perturbation(in, n.perturbations, c.Perturbed, images); err != nil {
		return sampling.Prediction{}, err
	}
	out, err := n.Run(ctx, in)
	if err != nil {
		return sampling.Prediction{}, err
	}
	var p sampling.Prediction
	p.Eps, p.Var = splitVariance(out["model"].Tensor(), x.Shape[1])
	if n.tapped {
		p.Attn = out[tapName(0)].Tensor()
	}
	return p, nil
}

func checkLabels(labels []int64, images, classes int) error {
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

// splitVariance cuts [N,2C,H,W] into ε and v, both [N,C,H,W]; without a learned
// variance the output is ε.
func splitVariance(out tensor.Tensor, channels int) (eps, v tensor.Tensor) {
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
