package models

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
)

// Inception is the network that FID is measured with: InceptionV3 with the
// weights and the quirks of the TensorFlow graph of 2015-12-05, under the names
// of pytorch-fid and torch-fidelity (feature_extractor_inceptionv3.py).
type Inception struct {
	InputSize int `yaml:"input_size" doc:"height and width that images are resized to; 299 for the official network"`
	Width     int `yaml:"width" doc:"channels of pool_3; 0 = read off the checkpoint (2048 in the official one)"`
}

func newInception() *Inception { return &Inception{InputSize: 299} }

// spatialChannels is how many channels of Mixed_6d.branch1x1 sFID looks at.
const spatialChannels = 7

// fullWidth is the number of features of the official network.
const fullWidth = 2048

// Open implements Family.
func (c *Inception) Open(path string, opt Options) (Model, error) {
	return c.Load(path, opt)
}

// Load opens the network's weights; graphs are made for the image sizes that come.
func (c *Inception) Load(path string, opt Options) (*InceptionNet, error) {
	if c.InputSize < 75 {
		return nil, fmt.Errorf("models: inception: input_size %d: the network needs at least 75 pixels", c.InputSize)
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	opt.Content = f.SHA256
	n := &InceptionNet{file: f, inputSize: c.InputSize, opt: opt, sessions: map[inceptionKey]*ort.Session{}}
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
			n.build(m, Resizes[TF], n.inputSize, n.inputSize, []string{Logits})
		}),
	}, true
}

// Parameters lists the parameters of a network of the given width and number of
// classes (2048 and 1008 in the official one) by key with their shapes.
func (c *Inception) Parameters(classes int) (map[string][]int, error) {
	n := &InceptionNet{inputSize: c.InputSize, classes: classes, width: c.Width}
	return onnx.Parameters(func(m *onnx.Module) { n.build(m, Resizes[TF], n.inputSize, n.inputSize, []string{Logits}) })
}

// An InceptionNet is the FID Inception with its weights at hand.
type InceptionNet struct {
	file           *checkpoint.File
	inputSize      int
	width, classes int
	opt            Options

	mu       sync.Mutex
	sessions map[inceptionKey]*ort.Session
}

type inceptionKey struct {
	resize        Resize
	height, width int
	outputs       string
}

// Width is the number of features of pool_3.
func (n *InceptionNet) Width() int { return n.width }

// Classes is the number of rows of fc.weight.
func (n *InceptionNet) Classes() int { return n.classes }

// Checkpoint is the file that the weights lie in.
func (n *InceptionNet) Checkpoint() *checkpoint.File { return n.file }

// Close frees all sessions.
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
	Resized        = "resized"      // [N,S,S,3]: the resized image in the range of its preprocessing
)

// Features runs the network on uint8 images [N,H,W,3] and returns the outputs
// asked for. All images of a call have one size.
func (n *InceptionNet) Features(ctx context.Context, r Resize, images Images, outputs ...string) (map[string]ort.Array, error) {
	s, err := n.session(r, images.Height, images.Width, outputs)
	if err != nil {
		return nil, err
	}
	in := ort.Array{Shape: []int{images.N, images.Height, images.Width, 3}, Data: images.Pixels}
	return s.Run(ctx, map[string]ort.Array{"images": in})
}

func (n *InceptionNet) session(r Resize, height, width int, outputs []string) (*ort.Session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := inceptionKey{r, height, width, strings.Join(outputs, " ")}
	if s, ok := n.sessions[key]; ok {
		return s, nil
	}
	resize, ok := Resizes[r]
	if !ok {
		return nil, fmt.Errorf("models: resize %q: known are %v", r, slices.Sorted(maps.Keys(Resizes)))
	}
	if height < 1 || width < 1 {
		return nil, fmt.Errorf("models: images of %d×%d pixels", height, width)
	}
	m, err := onnx.Build(n.file.Tensors, func(m *onnx.Module) { n.build(m, resize, height, width, outputs) })
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

// build is FeatureExtractorInceptionV3.forward for uint8 images [N,H,W,3].
func (n *InceptionNet) build(m *onnx.Module, resize resizer, height, width int, outputs []string) {
	images := m.Input("images", checkpoint.U8, onnx.Batch, height, width, 3)
	out := map[string]onnx.Value{}
	x := m.Transpose(m.Cast(images, checkpoint.F32), 0, 3, 1, 2)
	x, out[Resized] = resize.apply(m, x, n.inputSize)
	n.network(m, x, out)
	for _, name := range outputs {
		v, ok := out[name]
		if !ok {
			panic("models: inception has no output " + name)
		}
		m.Output(name, v)
	}
}

func (n *InceptionNet) network(m *onnx.Module, x onnx.Value, out map[string]onnx.Value) {
	b := inceptionBlocks{width: n.width}
	average := func(v onnx.Value) onnx.Value { return m.Mean(v, 2, 3) }

	x = b.conv(m.In("Conv2d_1a_3x3"), x, 32, 3, 2, 0)
	x = b.conv(m.In("Conv2d_2a_3x3"), x, 32, 3, 1, 0)
	x = b.conv(m.In("Conv2d_2b_3x3"), x, 64, 3, 1, 1)
	x = m.MaxPool(x, onnx.Pool{Kernel: 3, Stride: 2})
	out[Features64] = average(x)
	x = b.conv(m.In("Conv2d_3b_1x1"), x, 80, 1, 1, 0)
	x = b.conv(m.In("Conv2d_4a_3x3"), x, 192, 3, 1, 0)
	x = m.MaxPool(x, onnx.Pool{Kernel: 3, Stride: 2})
	out[Features192] = average(x)
	x = b.mixedA(m.In("Mixed_5b"), x, 32)
	x = b.mixedA(m.In("Mixed_5c"), x, 64)
	x = b.mixedA(m.In("Mixed_5d"), x, 64)
	x = b.mixedB(m.In("Mixed_6a"), x)
	x = b.mixedC(m.In("Mixed_6b"), x, 128)
	x = b.mixedC(m.In("Mixed_6c"), x, 160)
	x = b.mixedC(m.In("Mixed_6d"), x, 160)
	first := m.Slice(x, 1, 0, spatialChannels) // branch1x1 comes first in the concatenation
	spatial := m.Transpose(first, 0, 2, 3, 1)
	out[Spatial] = m.Reshape(spatial, x.Dim(0), x.Dim(2)*x.Dim(3)*spatialChannels)
	x = b.mixedC(m.In("Mixed_6e"), x, 192)
	out[Features768] = average(x)
	x = b.mixedD(m.In("Mixed_7a"), x)
	x = b.mixedE(m.In("Mixed_7b"), x, m.AveragePool)
	x = b.mixedE(m.In("Mixed_7c"), x, m.MaxPool)
	pool := average(x)
	fc := m.In("fc")
	weight, bias := fc.Param("weight", n.classes, n.width), fc.Param("bias", n.classes)
	out[Pool] = pool
	out[LogitsUnbiased] = m.MatMul(pool, m.Transpose(weight, 1, 0))
	out[Logits] = m.Add(out[LogitsUnbiased], bias)
}

// inceptionBlocks are the building blocks, with channel counts given for the
// official width and divided for narrower networks.
type inceptionBlocks struct{ width int }

// conv is BasicConv2d with a square kernel.
func (b inceptionBlocks) conv(m *onnx.Module, x onnx.Value, out, kernel, stride, pad int) onnx.Value {
	return b.conv2(m, x, out, [2]int{kernel, kernel}, stride, [2]int{pad, pad})
}

// conv2 is BasicConv2d: convolution without bias, batch norm with eps 1e-3, ReLU.
func (b inceptionBlocks) conv2(m *onnx.Module, x onnx.Value, out int, kernel [2]int, stride int, pad [2]int) onnx.Value {
	x = m.In("conv").Conv(x, onnx.Conv{Out: out * b.width / fullWidth, Kernel: kernel, Stride: stride, Pad: pad, NoBias: true})
	return m.ReLU(m.In("bn").BatchNorm(x, 1e-3))
}

var pool3 = onnx.Pool{Kernel: 3, Stride: 1, Pad: 1}

func (b inceptionBlocks) mixedA(m *onnx.Module, x onnx.Value, poolOut int) onnx.Value {
	b5 := b.conv(m.In("branch5x5_1"), x, 48, 1, 1, 0)
	b3 := b.conv(m.In("branch3x3dbl_1"), x, 64, 1, 1, 0)
	b3 = b.conv(m.In("branch3x3dbl_2"), b3, 96, 3, 1, 1)
	return m.Concat(1,
		b.conv(m.In("branch1x1"), x, 64, 1, 1, 0),
		b.conv(m.In("branch5x5_2"), b5, 64, 5, 1, 2),
		b.conv(m.In("branch3x3dbl_3"), b3, 96, 3, 1, 1),
		b.conv(m.In("branch_pool"), m.AveragePool(x, pool3), poolOut, 1, 1, 0))
}

func (b inceptionBlocks) mixedB(m *onnx.Module, x onnx.Value) onnx.Value {
	d := b.conv(m.In("branch3x3dbl_1"), x, 64, 1, 1, 0)
	d = b.conv(m.In("branch3x3dbl_2"), d, 96, 3, 1, 1)
	return m.Concat(1,
		b.conv(m.In("branch3x3"), x, 384, 3, 2, 0),
		b.conv(m.In("branch3x3dbl_3"), d, 96, 3, 2, 0),
		m.MaxPool(x, onnx.Pool{Kernel: 3, Stride: 2}))
}

func (b inceptionBlocks) mixedC(m *onnx.Module, x onnx.Value, c7 int) onnx.Value {
	row, column := [2]int{1, 7}, [2]int{7, 1}
	padRow, padColumn := [2]int{0, 3}, [2]int{3, 0}
	s := b.conv(m.In("branch7x7_1"), x, c7, 1, 1, 0)
	s = b.conv2(m.In("branch7x7_2"), s, c7, row, 1, padRow)
	s = b.conv2(m.In("branch7x7_3"), s, 192, column, 1, padColumn)
	d := b.conv(m.In("branch7x7dbl_1"), x, c7, 1, 1, 0)
	d = b.conv2(m.In("branch7x7dbl_2"), d, c7, column, 1, padColumn)
	d = b.conv2(m.In("branch7x7dbl_3"), d, c7, row, 1, padRow)
	d = b.conv2(m.In("branch7x7dbl_4"), d, c7, column, 1, padColumn)
	d = b.conv2(m.In("branch7x7dbl_5"), d, 192, row, 1, padRow)
	return m.Concat(1,
		b.conv(m.In("branch1x1"), x, 192, 1, 1, 0), s, d,
		b.conv(m.In("branch_pool"), m.AveragePool(x, pool3), 192, 1, 1, 0))
}

func (b inceptionBlocks) mixedD(m *onnx.Module, x onnx.Value) onnx.Value {
	t := b.conv(m.In("branch3x3_1"), x, 192, 1, 1, 0)
	s := b.conv(m.In("branch7x7x3_1"), x, 192, 1, 1, 0)
	s = b.conv2(m.In("branch7x7x3_2"), s, 192, [2]int{1, 7}, 1, [2]int{0, 3})
	s = b.conv2(m.In("branch7x7x3_3"), s, 192, [2]int{7, 1}, 1, [2]int{3, 0})
	return m.Concat(1,
		b.conv(m.In("branch3x3_2"), t, 320, 3, 2, 0),
		b.conv(m.In("branch7x7x3_4"), s, 192, 3, 2, 0),
		m.MaxPool(x, onnx.Pool{Kernel: 3, Stride: 2}))
}

// mixedE is the last kind of block; the pooling of its fourth branch is the
// average in Mixed_7b and, in this graph only, the maximum in Mixed_7c.
func (b inceptionBlocks) mixedE(m *onnx.Module, x onnx.Value, pool func(onnx.Value, onnx.Pool) onnx.Value) onnx.Value {
	row, column := [2]int{1, 3}, [2]int{3, 1}
	padRow, padColumn := [2]int{0, 1}, [2]int{1, 0}
	t := b.conv(m.In("branch3x3_1"), x, 384, 1, 1, 0)
	d := b.conv(m.In("branch3x3dbl_1"), x, 448, 1, 1, 0)
	d = b.conv(m.In("branch3x3dbl_2"), d, 384, 3, 1, 1)
	return m.Concat(1,
		b.conv(m.In("branch1x1"), x, 320, 1, 1, 0),
		b.conv2(m.In("branch3x3_2a"), t, 384, row, 1, padRow),
		b.conv2(m.In("branch3x3_2b"), t, 384, column, 1, padColumn),
		b.conv2(m.In("branch3x3dbl_3a"), d, 384, row, 1, padRow),
		b.conv2(m.In("branch3x3dbl_3b"), d, 384, column, 1, padColumn),
		b.conv(m.In("branch_pool"), pool(x, pool3), 192, 1, 1, 0))
}

// Forward implements Model: images uint8 [N,H,W,3] → every output under the
// name of its preprocessing: tf.pool, torch.pool, clean.pool, tf.resized, …
func (n *InceptionNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	images, err := imagesIn(in)
	if err != nil {
		return nil, err
	}
	all := []string{Pool, Spatial, LogitsUnbiased, Logits, Features64, Features192, Features768, Resized}
	out := map[string]ort.Array{}
	for _, r := range []Resize{TF, Torch, Clean} {
		o, err := n.Features(ctx, r, images, all...)
		if err != nil {
			return nil, err
		}
		for k, v := range o {
			out[string(r)+"."+k] = v
		}
	}
	return out, nil
}
