package models

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/models/tensor"
)

// Inception is the network that FID is measured with: InceptionV3 with the
// weights and the quirks of the TensorFlow graph of 2015-12-05, under the names
// of pytorch-fid and torch-fidelity (feature_extractor_inceptionv3.py).
type Inception struct {
	InputSize int `yaml:"input_size" doc:"height and width that images are resized to; 299 for the official network"`
	Width     int `yaml:"width" doc:"channels of pool_3; 0 = read off the checkpoint (2048 in the official one)"`
}

func newInception() *Inception { return &Inception{InputSize: 299} }

// Resize implements ExtractorFamily: that of the network's own graph.
func (c *Inception) Resize() Resize { return TF }

// Features implements ExtractorFamily: 2048 and 17·17·7 of the official network.
func (c *Inception) Features(path string) (pool, spatial int) {
	halve := func(n int) int { return (n-3)/2 + 1 }
	side := halve(c.InputSize) - 2 // two convolutions of 3×3 without padding
	side = halve(halve(halve(side) - 2))
	n, err := c.Load(path, Options{})
	if err == nil {
		pool = n.width
		n.Close()
	}
	return pool, spatialChannels * side * side
}

// Open implements Family.
func (c *Inception) Open(path string, opt Options) (Model, error) { return c.Load(path, opt) }

// Extractor implements ExtractorFamily.
func (c *Inception) Extractor(path string, opt Options) (Extractor, error) { return c.Load(path, opt) }

// Load opens the network's weights; graphs are made for the outputs that are asked for.
func (c *Inception) Load(path string, opt Options) (*InceptionNet, error) {
	if c.InputSize < 75 {
		return nil, fmt.Errorf("models: inception: input_size %d: the network needs at least 75 pixels", c.InputSize)
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	opt.Content = f.SHA256
	n := &InceptionNet{file: f, inputSize: c.InputSize, opt: opt, sessions: map[string]*ort.Session{}}
	fc, ok := f.Tensors["fc.weight"]
	if !ok || len(fc.Shape) != 2 {
		f.Close()
		return nil, fmt.Errorf("models: %s: fc.weight [classes, features] is missing: expected the FID Inception (pt_inception-2015-12-05-6726825d.pth) with pytorch-fid's names", path)
	}
	n.classes, n.width = fc.Shape[0], fc.Shape[1]
	if c.Width != 0 && c.Width != n.width {
		f.Close()
		return nil, fmt.Errorf("models: %s: width %d was asked for, the checkpoint has %d features (fc.weight %v)", path, c.Width, n.width, fc.Shape)
	}
	if n.width == 0 || n.width%64 != 0 {
		f.Close()
		return nil, fmt.Errorf("models: %s: %d features (fc.weight %v): expected 2048, or a multiple of 64 for a narrower network", path, n.width, fc.Shape)
	}
	return n, nil
}

// Guess implements Guesser.
func (c *Inception) Guess(sd checkpoint.StateDict) (Guess, bool) {
	fc, ok := sd["fc.weight"]
	if _, stem := sd["Conv2d_1a_3x3.conv.weight"]; !ok || !stem || len(fc.Shape) != 2 {
		return Guess{}, false
	}
	n := &InceptionNet{inputSize: 299, classes: fc.Shape[0], width: fc.Shape[1]}
	return Guess{
		Evidence: "Conv2d_1a_3x3 … Mixed_7c and fc of the FID Inception under pytorch-fid's names",
		Flags:    []Flag{flag("width", n.width)},
		Mismatches: mismatches(sd, func(m *onnx.Module) {
			n.build(m, []string{Logits})
		}),
	}, true
}

// Parameters lists the parameters of a network of the given width and number of
// classes (2048 and 1008 in the official one) by key with their shapes.
func (c *Inception) Parameters(classes int) (map[string][]int, error) {
	n := &InceptionNet{inputSize: c.InputSize, classes: classes, width: c.Width}
	return onnx.Parameters(func(m *onnx.Module) { n.build(m, []string{Logits}) })
}

// An InceptionNet is the FID Inception with its weights at hand.
type InceptionNet struct {
	file           *checkpoint.File
	inputSize      int
	width, classes int
	opt            Options

	mu       sync.Mutex
	sessions map[string]*ort.Session // by their outputs
}

var _ Classifying = (*InceptionNet)(nil)

// Width implements Extractor: the number of features of pool_3.
func (n *InceptionNet) Width() int { return n.width }

// ClassWeight implements Classifying: fc.weight.
func (n *InceptionNet) ClassWeight() ([]float32, error) {
	return n.file.Tensors["fc.weight"].Float32()
}

// Rest implements Extractor.
func (n *InceptionNet) Rest() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sessions {
		s.Rest()
	}
}

// Close implements Model.
func (n *InceptionNet) Close() {
	for _, s := range n.sessions {
		s.Close()
	}
	n.file.Close()
}

// Outputs of the network that can be asked for.
const (
	Pool           = "pool"            // [N,width]: pool_3, FID and precision/recall
	Spatial        = "spatial"         // [N,h·w·7]: Mixed_6d.branch1x1[:, :7], index (h·W+w)·7+c, sFID
	LogitsUnbiased = "logits_unbiased" // [N,classes]: pool·fc.weightᵀ, ADM's Inception Score
	Logits         = "logits"          // the same with bias
	Features64     = "features_64"     // [N,width/32]: first max pooling, averaged over the image
	Features192    = "features_192"
	Features768    = "features_768" // Mixed_6e
)

// Outputs implements Extractor.
func (n *InceptionNet) Outputs() []string {
	return []string{Pool, Spatial, LogitsUnbiased, Logits, Features64, Features192, Features768}
}

// InputShape implements Extractor.
func (n *InceptionNet) InputShape() []int { return []int{3, n.inputSize, n.inputSize} }

// Input implements Extractor.
func (n *InceptionNet) Input(r Resize, images Images) (tensor.Tensor, error) {
	resize, err := resizerOf(r, images)
	if err != nil {
		return tensor.Tensor{}, err
	}
	return tensor.Of(resize.input(images, n.inputSize), images.N, 3, n.inputSize, n.inputSize), nil
}

// Run implements Extractor.
func (n *InceptionNet) Run(ctx context.Context, x tensor.Tensor, outputs ...string) (map[string]ort.Array, error) {
	if err := hasOutputs(n.file.Path, n.Outputs(), outputs); err != nil {
		return nil, err
	}
	s, err := n.session(outputs)
	if err != nil {
		return nil, err
	}
	return s.Run(ctx, map[string]ort.Array{"x": ort.Floats(x)})
}

func (n *InceptionNet) session(outputs []string) (*ort.Session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := strings.Join(outputs, " ")
	if s, ok := n.sessions[key]; ok {
		return s, nil
	}
	m, err := onnx.Build(n.file.Tensors, func(m *onnx.Module) { n.build(m, outputs) })
	if err != nil {
		return nil, fmt.Errorf("models: %s: %w", n.file.Path, err)
	}
	s, err := ort.Open(m, n.opt.Options)
	if err != nil {
		return nil, err
	}
	n.sessions[key] = s
	return s, nil
}

// Forward implements Model: images uint8 [N,H,W,3] → every output under the
// name of its preprocessing, tf.pool, torch.pool, clean.pool, …, and the resized
// images [N,S,S,3] in the range before the network's, tf.resized, ….
func (n *InceptionNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	resizes := []Resize{TF, Torch, Clean}
	out, err := forward(ctx, n, in, resizes...)
	if err != nil {
		return nil, err
	}
	images, err := imagesIn(in)
	if err != nil {
		return nil, err
	}
	for _, r := range resizes {
		x := tensor.Of(Resizes[r].resized(images, n.inputSize), images.N, 3, n.inputSize, n.inputSize)
		out[string(r)+".resized"] = ort.Floats(channelsLast(x))
	}
	return out, nil
}
