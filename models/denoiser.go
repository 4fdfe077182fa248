package models

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// The factors of a preconditioning at a noise level: D(x; σ) = skip x + out F(in x; noise).
type factors struct{ skip, out, in, noise float32 }

// A preconditioning gives them for σ.
type preconditioning func(sigma float32) factors

// edmFactors are those of Karras et al. 2022, table 1, of EDM and EDM2, in float32
// as torch has them.
func edmFactors(sigmaData float64) preconditioning {
	square := float32(sigmaData * sigmaData)
	return func(s float32) factors {
		sum := float32(s*s) + square
		return factors{square / sum, float32(s*float32(sigmaData)) / sqrt32(sum), 1 / sqrt32(square+float32(s*s)), float32(math.Log(float64(s))) / 4}
	}
}

func sqrt32(v float32) float32 { return float32(math.Sqrt(float64(v))) }

// A denoiserNet is a network F under its preconditioning, D(x; σ). Where it has
// labels, the graph takes that of their number for none: a row of zeros.
type denoiserNet struct {
	network
	precond preconditioning
	classes int
}

// Forward implements Model: x [N,C,H,W], sigma [N] and y [N] → model, the denoised
// image [N,C,H,W], raw, the output of F, and attention, attention_1, … Without y
// images have no label.
func (n *denoiserNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	sigma, ok := in["sigma"].Data.([]float32)
	x, okX := in["x"].Data.([]float32)
	if !ok || !okX || len(in["x"].Shape) != 4 || len(sigma) != in["x"].Shape[0] {
		return nil, fmt.Errorf("models: sigma %v and x %v: expected float32 [N] and [N,C,H,W]", in["sigma"].Shape, in["x"].Shape)
	}
	state := tensor.Of(x, in["x"].Shape...)
	scaled, noise := state.Like(), tensor.New(len(sigma))
	all := make([]factors, len(sigma))
	for i, s := range sigma {
		all[i] = n.precond(s)
		noise.Data[i] = all[i].noise
		for j, v := range state.Row(i) {
			scaled.Row(i)[j] = all[i].in * v
		}
	}
	inner := maps.Clone(in)
	delete(inner, "sigma")
	inner["x"], inner["t"] = ort.Floats(scaled), ort.Floats(noise)
	if _, labelled := in["y"]; !labelled && n.classes > 0 {
		inner["y"] = ort.Array{Shape: []int{len(sigma)}, Data: slices.Repeat([]int64{int64(n.classes)}, len(sigma))}
	}
	out, err := n.Run(ctx, inner)
	if err != nil {
		return nil, err
	}
	out["raw"] = out["model"]
	f, _ := SplitVariance(out["raw"].Tensor(), state.Shape[1])
	denoised := state.Like()
	for i, k := range all {
		combine(denoised.Row(i), state.Row(i), f.Row(i), k.skip, k.out)
	}
	out["model"] = ort.Floats(denoised)
	return out, nil
}

// combine sets d to a·x + b·f.
func combine(d, x, f []float32, a, b float32) {
	for j, v := range x {
		d[j] = float32(a*v) + float32(b*f[j])
	}
}

// Denoise implements sampling.Denoiser: D at x √(1+σ²), σ the time of the path.
func (n *denoiserNet) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	k := n.precond(float32(t.Value))
	length := math.Hypot(1, t.Value) // x_t √(1+σ²) = x_0 + σ ε
	in, skip := float32(float64(k.in)*length), float32(float64(k.skip)*length)
	scaled := x.Like()
	for i, v := range x.Data {
		scaled.Data[i] = in * v
	}
	p, err := n.network.Denoise(ctx, scaled, sampling.Timestep{Index: t.Index, Value: float64(k.noise)}, c)
	if err != nil {
		return p, err
	}
	p.Var = tensor.Tensor{} // of iDDPMPrecond's network, which is not used
	combine(p.Eps.Data, x.Data, p.Eps.Data, skip, k.out)
	return p, nil
}

// Call implements Callable.
func (n *denoiserNet) Call(images int, t sampling.Timestep, c sampling.Cond) (*Call, error) {
	k := n.precond(float32(t.Value))
	call, err := n.call(images, sampling.Timestep{Index: t.Index, Value: float64(k.noise)}, c)
	if err == nil {
		length := math.Hypot(1, t.Value)
		call.In, call.Skip, call.Out, call.NoVariance = float32(float64(k.in)*length), float32(float64(k.skip)*length), k.out, true
	}
	return call, err
}

// Classes implements Generator.
func (n *denoiserNet) Classes() int { return n.classes }

// An edmNet is a prepared network of EDM.
type edmNet struct {
	denoiserNet
	flags *EDM
	unet  *edmUNet
}

var (
	_ Generator      = (*edmNet)(nil)
	_ Unconditional  = (*edmNet)(nil)
	_ Diffusing      = (*EDM)(nil)
	_ SelfDescribing = (*EDM)(nil)
)

// Process implements Generator: the sampler does not clip; guidances that look at
// x̂0 do.
func (n *edmNet) Process() Process {
	return Process{Schedule: n.flags.Diffusion(), Predicts: sampling.XStart, ClipDenoised: true}
}

// SampleShape implements Generator.
func (n *edmNet) SampleShape() []int { return []int{n.unet.channels, n.unet.size, n.unet.size} }

// Null implements Unconditional: the row of zeros, of networks that were trained
// with it.
func (n *edmNet) Null(_ context.Context, images int) (sampling.Cond, error) {
	if n.labels == n.classes {
		return sampling.Cond{}, nil
	}
	return sampling.Cond{Labels: slices.Repeat([]int64{int64(n.classes)}, images)}, nil
}

// Pixels implements Generator: 127.5·x + 128 clamped to [0,255] and truncated, as
// generate.py does.
func (n *edmNet) Pixels(_ context.Context, x tensor.Tensor) (Images, error) {
	return rgbPixels(x)
}

// rgbPixels are images of one or three channels.
func rgbPixels(x tensor.Tensor) (Images, error) {
	if c := x.Shape[1]; c != 1 && c != 3 {
		return Images{}, fmt.Errorf("models: x_0 has %d channels, which are no image: expected 3, or 1 of grey ones", c)
	}
	return ditPixels(x, "")
}

// sorted are the names of a table.
func sorted(table map[string]string) []string { return slices.Sorted(maps.Keys(table)) }
