package models

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/models/ort"
	"sagbench/models/tensor"
)

// An Extractor is a network that images are compared with: images go in,
// features come out. It looks at images of one size, to which Input brings
// others.
type Extractor interface {
	Model
	// Width is the number of pool features of an image.
	Width() int
	// Outputs lists what Run can return; Pool is always among it.
	Outputs() []string
	// InputShape is the shape of one image as Run takes it, such as [3,S,S].
	InputShape() []int
	// Input brings images, one size for all, to InputShape and the network's
	// range. It may be called from several goroutines.
	Input(r Resize, images Images) (tensor.Tensor, error)
	// Run computes outputs of what Input gives.
	Run(ctx context.Context, x tensor.Tensor, outputs ...string) (map[string]ort.Array, error)
	// Rest gives the memory of the network's graphs back until the next Run, half
	// a gigabyte and more at full size.
	Rest()
}

// A Classifying Extractor ends in a linear layer over its pool features.
type Classifying interface {
	Extractor
	// ClassWeight is the layer's weight [K,Width], without its bias.
	ClassWeight() ([]float32, error)
}

// An ExtractorFamily is a Family of feature networks.
type ExtractorFamily interface {
	Family
	// Extractor prepares the network whose weights lie at path.
	Extractor(path string, opt Options) (Extractor, error)
	// Resize is how the authors of the network's scores resize images.
	Resize() Resize
	// Features is how many pool and spatial features of an image the network at
	// path has; 0 where its file does not tell.
	Features(path string) (pool, spatial int)
}

// Extractors are the feature networks by name, with their defaults.
var Extractors = configs.Registry[ExtractorFamily]{
	"dinov2":    func() ExtractorFamily { return newDINOv2() },
	"inception": func() ExtractorFamily { return newInception() },
	"onnx":      func() ExtractorFamily { return newONNXFile() },
}

// Features are outputs of a network for images, one size for all.
func Features(ctx context.Context, x Extractor, r Resize, images Images, outputs ...string) (map[string]ort.Array, error) {
	in, err := x.Input(r, images)
	if err != nil {
		return nil, err
	}
	return x.Run(ctx, in, outputs...)
}

// hasOutputs is an error where a network lacks one of the outputs.
func hasOutputs(network string, has, wanted []string) error {
	for _, o := range wanted {
		if !slices.Contains(has, o) {
			return fmt.Errorf("models: %s has no output %q; it has %s", network, o, strings.Join(has, ", "))
		}
	}
	return nil
}

// forward is Model.Forward of an Extractor: images uint8 [N,H,W,3] → every output
// under the name of its resize, such as pil.pool.
func forward(ctx context.Context, x Extractor, in map[string]ort.Array, resizes ...Resize) (map[string]ort.Array, error) {
	images, err := imagesIn(in)
	if err != nil {
		return nil, err
	}
	out := map[string]ort.Array{}
	for _, r := range resizes {
		o, err := Features(ctx, x, r, images, x.Outputs()...)
		if err != nil {
			return nil, err
		}
		for k, v := range o {
			out[string(r)+"."+k] = v
		}
	}
	return out, nil
}
