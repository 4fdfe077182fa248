package models

import (
	"context"
	"fmt"

	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// A pixelUNet is a prepared U-Net over RGB pixels, ADM's or IDDPM's.
type pixelUNet struct {
	network
	process Process
	size    int // height and width
}

var _ Generator = (*pixelUNet)(nil)

// open prepares the U-Net with the weights at path.
func (u *unet) open(path string, opt Options, p Process, hint func(checkpoint.StateDict) string) (Model, error) {
	g, err := openTapped(path, opt, u.build, hint)
	if err != nil {
		return nil, err
	}
	return &pixelUNet{network{graph: g, labels: u.classes, tapped: len(opt.Taps) > 0, perturbations: opt.Perturbations}, p, u.size}, nil
}

// Process implements Generator.
func (u *pixelUNet) Process() Process { return u.process }

// SampleShape implements Generator.
func (u *pixelUNet) SampleShape() []int { return []int{3, u.size, u.size} }

// Classes implements Generator.
func (u *pixelUNet) Classes() int { return u.labels }

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

// imagesIn are the images [N,H,W,3] uint8 among the inputs of a network.
func imagesIn(in map[string]ort.Array) (Images, error) {
	a := in["images"]
	pixels, ok := a.Data.([]uint8)
	if !ok || len(a.Shape) != 4 || a.Shape[3] != 3 {
		return Images{}, fmt.Errorf("models: images %v hold %T: expected uint8 [N,H,W,3]", a.Shape, a.Data)
	}
	return Images{N: a.Shape[0], Height: a.Shape[1], Width: a.Shape[2], Pixels: pixels}, nil
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
