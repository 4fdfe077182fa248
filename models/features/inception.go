package features

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// Inception is the network that FID is measured with: InceptionV3 with the
// weights and the quirks of the TensorFlow graph of 2015-12-05, under the names
// of pytorch-fid and torch-fidelity (feature_extractor_inceptionv3.py).
type Inception struct {
	InputSize int `yaml:"input_size" min:"0" max:"1024" doc:"height and width that images are resized to; 0 = the network's own: 299 of the official one, 107 of the one in models/pretrained; another has to be told"`
	Width     int `yaml:"width" min:"0" max:"65536" doc:"channels of pool_3; 0 = read off the checkpoint (2048 in the official one)"`
}

func newInception() *Inception { return &Inception{} }

// The official network, of 2048 features, looks at images of 299×299 pixels.
const officialWidth, officialSize = 2048, 299

// ownSizes are the input sizes of narrower networks, by the sha256 of the file:
// of models/pretrained/inception.pt.
var ownSizes = map[string]int{"5415497672e6ff59c68e1542be92fb3b4bd4f7d0eef449f4255a0ad02011018b": 107}

// ownSize is the input size of the network in a file; 0 where it is not known.
func ownSize(f *checkpoint.File) (int, error) {
	if fc := f.Tensors["fc.weight"].Shape; len(fc) == 2 && fc[1] == officialWidth {
		return officialSize, nil
	}
	sum, err := f.SHA256()
	return ownSizes[sum], err
}

// Adopt implements Sized.
func (c *Inception) Adopt(path, weights string) {
	if c.InputSize != 0 {
		return
	}
	c.InputSize = officialSize // where there is no file, opening it tells
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return
	}
	f, err := checkpoint.OpenSet(path, weights)
	if err != nil {
		return
	}
	defer f.Close()
	if len(f.Tensors["fc.weight"].Shape) == 2 {
		c.InputSize, _ = ownSize(f)
	}
}

// Resize implements Flags: that of the network's own graph.
func (c *Inception) Resize() Resize { return TF }

// Features implements Flags: 2048 and 17·17·7 of the official network.
func (c *Inception) Features(path string) (pool, spatial int) {
	halve := func(n int) int { return (n-3)/2 + 1 }
	side := halve(cmp.Or(c.InputSize, officialSize)) - 2 // two convolutions of 3×3 without padding
	side = halve(halve(halve(side) - 2))
	n, err := c.open(path, models.Options{})
	if err == nil {
		pool = n.Width()
		n.Close()
	}
	return pool, spatialChannels * side * side
}

// Open implements Family. Reference cases, which are held to numbers of their own,
// take the official size where nothing tells another.
func (c *Inception) Open(path string, opt models.Options) (models.Model, error) {
	sized := *c
	sized.Adopt(path, opt.Weights)
	sized.InputSize = cmp.Or(sized.InputSize, officialSize)
	return sized.open(path, opt)
}

// Extractor implements Flags; graphs are made for the outputs that are asked for.
func (c *Inception) Extractor(_ context.Context, path string, opt models.Options) (Extractor, error) {
	return c.open(path, opt)
}

func (c *Inception) open(path string, opt models.Options) (Extractor, error) {
	if c.InputSize != 0 && c.InputSize < 75 {
		return nil, fmt.Errorf("models: inception: input_size %d: the network needs at least 75 pixels", c.InputSize)
	}
	f, err := checkpoint.OpenSet(path, opt.Weights)
	if err != nil {
		return nil, err
	}
	fc := f.Tensors["fc.weight"].Shape
	switch {
	case len(fc) != 2:
		err = errors.New("fc.weight [classes, features] is missing: expected the FID Inception (pt_inception-2015-12-05-6726825d.pth) with pytorch-fid's names")
	case c.Width != 0 && c.Width != fc[1]:
		err = fmt.Errorf("width %d was asked for, the checkpoint has %d features (fc.weight %v)", c.Width, fc[1], fc)
	case fc[1] == 0 || fc[1]%64 != 0:
		err = fmt.Errorf("%d features (fc.weight %v): expected 2048, or a multiple of 64 for a narrower network", fc[1], fc)
	}
	size := c.InputSize
	if err == nil && size == 0 {
		if size, err = ownSize(f); err == nil && size == 0 {
			err = fmt.Errorf("%d features, not the official network's %d, and nothing says which size its images have: give --input-size N, or inception: {input_size: N} in an experiment", fc[1], officialWidth)
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	n := newInceptionNet(size, fc[0], fc[1])
	n.path, n.file, n.opt = path, f, opt
	n.outputs = []string{Pool, Spatial, LogitsUnbiased, Logits, Features64, Features192, Features768}
	n.Sessions = fileSessions(f, opt, n.build)
	return n, nil
}

// Guess implements Guesser.
func (c *Inception) Guess(sd checkpoint.StateDict) (models.Guess, bool) {
	fc := sd["fc.weight"].Shape
	if len(fc) != 2 || !sd.Has("Conv2d_1a_3x3.conv.weight") {
		return models.Guess{}, false
	}
	n := newInceptionNet(officialSize, fc[0], fc[1])
	return models.Guess{
		Evidence:   "Conv2d_1a_3x3 … Mixed_7c and fc of the FID Inception under pytorch-fid's names",
		Flags:      []models.Flag{models.NewFlag("width", n.width)},
		Mismatches: models.Mismatches(sd, nil, func(m *onnx.Module) { n.build(m, []string{Logits}) }),
	}, true
}

// Parameters lists the parameters of a network of the given width and number of
// classes (2048 and 1008 in the official one) by key with their shapes.
func (c *Inception) Parameters(classes int) (map[string][]int, error) {
	n := newInceptionNet(cmp.Or(c.InputSize, officialSize), classes, c.Width)
	return onnx.Parameters(func(m *onnx.Module) { n.build(m, []string{Logits}) })
}

// An inceptionNet is the FID Inception with its weights at hand.
type inceptionNet struct {
	network
	classes int
	opt     models.Options
}

var _ Classifying = (*inceptionNet)(nil)

func newInceptionNet(size, classes, width int) *inceptionNet {
	return &inceptionNet{network: network{size: size, width: width}, classes: classes}
}

// ClassWeight implements Classifying: fc.weight.
func (n *inceptionNet) ClassWeight() ([]float32, error) {
	return n.file.Tensors["fc.weight"].Float32()
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

// Input implements Extractor.
func (n *inceptionNet) Input(r Resize, images models.Images) (tensor.Tensor, error) {
	resize, err := resizerOf(r, images)
	if err != nil {
		return tensor.Tensor{}, err
	}
	return tensor.Of(resize.input(images, n.size), images.N, 3, n.size, n.size), nil
}

// Forward implements Model: images uint8 [N,H,W,3] → every output under the
// name of its preprocessing, tf.pool, torch.pool, clean.pool, …, and the resized
// images [N,S,S,3] in the range before the network's, tf.resized, ….
func (n *inceptionNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	resizes := []Resize{TF, Torch, Clean}
	out, err := forward(ctx, n, in, resizes...)
	if err != nil {
		return nil, err
	}
	images, err := models.ImagesIn(in)
	if err != nil {
		return nil, err
	}
	for _, r := range resizes {
		x := tensor.Of(Resizes[r].resized(images, n.size), images.N, 3, n.size, n.size)
		out[string(r)+".resized"] = ort.Floats(channelsLast(x))
	}
	return out, nil
}

// spatialChannels is how many channels of Mixed_6d.branch1x1 sFID looks at.
const spatialChannels = 7

// fullWidth is the number of features of the official network.
const fullWidth = 2048

// build is FeatureExtractorInceptionV3.forward after the resize.
func (n *inceptionNet) build(m *onnx.Module, outputs []string) {
	x := m.Input("x", checkpoint.F32, onnx.Batch, 3, n.size, n.size)
	out := n.layers(m, x)
	for _, name := range outputs {
		v, ok := out[name]
		if !ok {
			panic("models: inception has no output " + name)
		}
		m.Output(name, v)
	}
}

// blocked tells whether the network runs on package kernels, which is for images
// in blocks of 16 channels: 2 to 3 times as many images a second on the CPU.
func (n *inceptionNet) blocked() bool { return n.width%fullWidth == 0 && n.opt.HasKernels() }

func (n *inceptionNet) layers(m *onnx.Module, in onnx.Value) map[string]onnx.Value {
	out := map[string]onnx.Value{}
	b := inceptionBlocks{width: n.width, blocked: n.blocked()}

	x := b.conv(m.In("Conv2d_1a_3x3"), image{in}, 32, 3, 2, 0)
	x = b.conv(m.In("Conv2d_2a_3x3"), x, 32, 3, 1, 0)
	x = b.conv(m.In("Conv2d_2b_3x3"), x, 64, 3, 1, 1)
	x = x.pooled(m.MaxPool, halving)
	out[Features64] = x.mean(m)
	x = b.conv(m.In("Conv2d_3b_1x1"), x, 80, 1, 1, 0)
	x = b.conv(m.In("Conv2d_4a_3x3"), x, 192, 3, 1, 0)
	x = x.pooled(m.MaxPool, halving)
	out[Features192] = x.mean(m)
	x = b.mixedA(m.In("Mixed_5b"), x, 32)
	x = b.mixedA(m.In("Mixed_5c"), x, 64)
	x = b.mixedA(m.In("Mixed_5d"), x, 64)
	x = b.mixedB(m.In("Mixed_6a"), x)
	x = b.mixedC(m.In("Mixed_6b"), x, 128)
	x = b.mixedC(m.In("Mixed_6c"), x, 160)
	x = b.mixedC(m.In("Mixed_6d"), x, 160)
	first := m.FirstChannels(x[0], spatialChannels) // of branch1x1, the first part
	spatial := m.Transpose(first, 0, 2, 3, 1)
	out[Spatial] = m.Reshape(spatial, first.Dim(0), first.Dim(2)*first.Dim(3)*spatialChannels)
	x = b.mixedC(m.In("Mixed_6e"), x, 192)
	out[Features768] = x.mean(m)
	x = b.mixedD(m.In("Mixed_7a"), x)
	x = b.mixedE(m.In("Mixed_7b"), x, m.AveragePool)
	x = b.mixedE(m.In("Mixed_7c"), x, m.MaxPool)
	pool := x.mean(m)
	fc := m.In("fc")
	weight, bias := fc.Param("weight", n.classes, n.width), fc.Param("bias", n.classes)
	out[Pool] = pool
	out[LogitsUnbiased] = m.MatMul(pool, m.Transpose(weight, 1, 0))
	out[Logits] = m.Add(out[LogitsUnbiased], bias)
	return out
}

// An image is the channels of all its parts in turn: blocked ones, which are
// never joined, or a single one [N,C,H,W].
type image []onnx.Value

func (x image) pooled(pool func(onnx.Value, onnx.Pool) onnx.Value, p onnx.Pool) image {
	var out image
	for _, part := range x {
		out = append(out, pool(part, p))
	}
	return out
}

// mean averages over height and width: [N,C].
func (x image) mean(m *onnx.Module) onnx.Value {
	var means []onnx.Value
	for _, part := range x {
		means = append(means, m.ImageMean(part))
	}
	if len(means) == 1 {
		return means[0]
	}
	return m.Concat(1, means...)
}

var (
	halving = onnx.Pool{Kernel: 3, Stride: 2}
	pool3   = onnx.Pool{Kernel: 3, Stride: 1, Pad: 1}
)

// inceptionBlocks are the building blocks, with channel counts given for the
// official width and divided for narrower networks.
type inceptionBlocks struct {
	width   int
	blocked bool // with the operators of package kernels
}

func (b inceptionBlocks) concat(m *onnx.Module, xs ...image) image {
	x := slices.Concat(xs...)
	if b.blocked {
		return x
	}
	return image{m.Concat(1, x...)}
}

// conv is BasicConv2d with a square kernel.
func (b inceptionBlocks) conv(m *onnx.Module, x image, out, kernel, stride, pad int) image {
	return b.conv2(m, x, out, [2]int{kernel, kernel}, stride, [2]int{pad, pad})
}

// line is BasicConv2d with a kernel of one row or column that keeps the size.
func (b inceptionBlocks) line(m *onnx.Module, x image, out, height, width int) image {
	return b.conv2(m, x, out, [2]int{height, width}, 1, [2]int{height / 2, width / 2})
}

// conv2 is BasicConv2d: convolution without bias, batch norm with eps 1e-3, ReLU.
func (b inceptionBlocks) conv2(m *onnx.Module, x image, out int, kernel [2]int, stride int, pad [2]int) image {
	const eps = 1e-3
	c := onnx.Conv{Out: out * b.width / fullWidth, Kernel: kernel, Stride: stride, Pad: pad, NoBias: true}
	if b.blocked {
		return image{m.BlockedConvBatchNormReLU(x, c, eps)}
	}
	return image{m.ReLU(m.In("bn").BatchNorm(m.In("conv").Conv(x[0], c), eps))}
}

func (b inceptionBlocks) mixedA(m *onnx.Module, x image, poolOut int) image {
	b5 := b.conv(m.In("branch5x5_1"), x, 48, 1, 1, 0)
	b3 := b.conv(m.In("branch3x3dbl_1"), x, 64, 1, 1, 0)
	b3 = b.conv(m.In("branch3x3dbl_2"), b3, 96, 3, 1, 1)
	return b.concat(m,
		b.conv(m.In("branch1x1"), x, 64, 1, 1, 0),
		b.conv(m.In("branch5x5_2"), b5, 64, 5, 1, 2),
		b.conv(m.In("branch3x3dbl_3"), b3, 96, 3, 1, 1),
		b.conv(m.In("branch_pool"), x.pooled(m.AveragePool, pool3), poolOut, 1, 1, 0))
}

func (b inceptionBlocks) mixedB(m *onnx.Module, x image) image {
	d := b.conv(m.In("branch3x3dbl_1"), x, 64, 1, 1, 0)
	d = b.conv(m.In("branch3x3dbl_2"), d, 96, 3, 1, 1)
	return b.concat(m,
		b.conv(m.In("branch3x3"), x, 384, 3, 2, 0),
		b.conv(m.In("branch3x3dbl_3"), d, 96, 3, 2, 0),
		x.pooled(m.MaxPool, halving))
}

func (b inceptionBlocks) mixedC(m *onnx.Module, x image, c7 int) image {
	s := b.conv(m.In("branch7x7_1"), x, c7, 1, 1, 0)
	s = b.line(m.In("branch7x7_2"), s, c7, 1, 7)
	s = b.line(m.In("branch7x7_3"), s, 192, 7, 1)
	d := b.conv(m.In("branch7x7dbl_1"), x, c7, 1, 1, 0)
	d = b.line(m.In("branch7x7dbl_2"), d, c7, 7, 1)
	d = b.line(m.In("branch7x7dbl_3"), d, c7, 1, 7)
	d = b.line(m.In("branch7x7dbl_4"), d, c7, 7, 1)
	d = b.line(m.In("branch7x7dbl_5"), d, 192, 1, 7)
	return b.concat(m,
		b.conv(m.In("branch1x1"), x, 192, 1, 1, 0), s, d,
		b.conv(m.In("branch_pool"), x.pooled(m.AveragePool, pool3), 192, 1, 1, 0))
}

func (b inceptionBlocks) mixedD(m *onnx.Module, x image) image {
	t := b.conv(m.In("branch3x3_1"), x, 192, 1, 1, 0)
	s := b.conv(m.In("branch7x7x3_1"), x, 192, 1, 1, 0)
	s = b.line(m.In("branch7x7x3_2"), s, 192, 1, 7)
	s = b.line(m.In("branch7x7x3_3"), s, 192, 7, 1)
	return b.concat(m,
		b.conv(m.In("branch3x3_2"), t, 320, 3, 2, 0),
		b.conv(m.In("branch7x7x3_4"), s, 192, 3, 2, 0),
		x.pooled(m.MaxPool, halving))
}

// mixedE is the last kind of block; the pooling of its fourth branch is the
// average in Mixed_7b and, in this graph only, the maximum in Mixed_7c.
func (b inceptionBlocks) mixedE(m *onnx.Module, x image, pool func(onnx.Value, onnx.Pool) onnx.Value) image {
	t := b.conv(m.In("branch3x3_1"), x, 384, 1, 1, 0)
	d := b.conv(m.In("branch3x3dbl_1"), x, 448, 1, 1, 0)
	d = b.conv(m.In("branch3x3dbl_2"), d, 384, 3, 1, 1)
	return b.concat(m,
		b.conv(m.In("branch1x1"), x, 320, 1, 1, 0),
		b.line(m.In("branch3x3_2a"), t, 384, 1, 3),
		b.line(m.In("branch3x3_2b"), t, 384, 3, 1),
		b.line(m.In("branch3x3dbl_3a"), d, 384, 1, 3),
		b.line(m.In("branch3x3dbl_3b"), d, 384, 3, 1),
		b.conv(m.In("branch_pool"), x.pooled(pool, pool3), 192, 1, 1, 0))
}
