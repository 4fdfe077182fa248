package models

import (
	"context"
	"fmt"

	"sagbench/models/ort"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// A pixelUNet is a prepared U-Net over RGB pixels, ADM's or IDDPM's.
type pixelUNet struct {
	*graph
	process Process
	size    int // height and width
	classes int // 0 = unconditional
	tapped  bool
}

var _ Generator = (*pixelUNet)(nil)

// Forward implements Model: x [N,3,S,S], t [N] (int64 or float32), y [N] →
// model [N,3 or 6,S,S], attention, attention_1, … [N,HW].
func (u *pixelUNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	return u.Run(ctx, floatTimesteps(in))
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
func (u *pixelUNet) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	n := x.Rows()
	steps := tensor.New(n)
	for i := range steps.Data {
		steps.Data[i] = float32(t.Value)
	}
	in := map[string]ort.Array{"x": ort.Floats(x), "t": ort.Floats(steps)}
	if u.classes > 0 {
		if err := checkLabels(c.Labels, n, u.classes); err != nil {
			return sampling.Prediction{}, err
		}
		in["y"] = ort.Array{Shape: []int{n}, Data: c.Labels}
	}
	out, err := u.Run(ctx, in)
	if err != nil {
		return sampling.Prediction{}, err
	}
	var p sampling.Prediction
	p.Eps, p.Var = splitVariance(out["model"].Tensor(), x.Shape[1])
	if u.tapped {
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

// Process implements Generator.
func (u *pixelUNet) Process() Process { return u.process }

// SampleShape implements Generator.
func (u *pixelUNet) SampleShape() []int { return []int{3, u.size, u.size} }

// Classes implements Generator.
func (u *pixelUNet) Classes() int { return u.classes }

// Pixels implements Generator: (x+1)·127.5 clamped to [0,255] and truncated, as
// guided-diffusion's and improved-diffusion's image_sample.py do.
func (u *pixelUNet) Pixels(_ context.Context, x tensor.Tensor) (Images, error) {
	return imagesOf(x, func(v float32) float32 { return float32(v+1) * 127.5 }), nil
}

// Images are uint8 RGB pixels [N,Height,Width,3].
type Images struct {
	N, Height, Width int
	Pixels           []uint8
}

// imagesOf maps x [N,3,H,W] to levels, clamps them to [0,255] and truncates.
func imagesOf(x tensor.Tensor, level func(float32) float32) Images {
	n, h, w := x.Shape[0], x.Shape[2], x.Shape[3]
	im := Images{N: n, Height: h, Width: w, Pixels: make([]uint8, n*h*w*3)}
	sampling.EachImage(n, func(i int) {
		row, out := x.Row(i), im.Pixels[i*h*w*3:]
		for c := range 3 {
			for p, v := range row[c*h*w : (c+1)*h*w] {
				out[3*p+c] = uint8(min(max(level(v), 0), 255))
			}
		}
	})
	return im
}
