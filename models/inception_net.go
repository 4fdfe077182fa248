package models

import (
	"slices"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// spatialChannels is how many channels of Mixed_6d.branch1x1 sFID looks at.
const spatialChannels = 7

// fullWidth is the number of features of the official network.
const fullWidth = 2048

// build is FeatureExtractorInceptionV3.forward after the resize.
func (n *InceptionNet) build(m *onnx.Module, outputs []string) {
	x := m.Input("x", checkpoint.F32, onnx.Batch, 3, n.inputSize, n.inputSize)
	out := n.network(m, x)
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
func (n *InceptionNet) blocked() bool { return n.width%fullWidth == 0 && n.opt.HasKernels() }

func (n *InceptionNet) network(m *onnx.Module, in onnx.Value) map[string]onnx.Value {
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
	return b.concat(m,
		b.conv(m.In("branch1x1"), x, 192, 1, 1, 0), s, d,
		b.conv(m.In("branch_pool"), x.pooled(m.AveragePool, pool3), 192, 1, 1, 0))
}

func (b inceptionBlocks) mixedD(m *onnx.Module, x image) image {
	t := b.conv(m.In("branch3x3_1"), x, 192, 1, 1, 0)
	s := b.conv(m.In("branch7x7x3_1"), x, 192, 1, 1, 0)
	s = b.conv2(m.In("branch7x7x3_2"), s, 192, [2]int{1, 7}, 1, [2]int{0, 3})
	s = b.conv2(m.In("branch7x7x3_3"), s, 192, [2]int{7, 1}, 1, [2]int{3, 0})
	return b.concat(m,
		b.conv(m.In("branch3x3_2"), t, 320, 3, 2, 0),
		b.conv(m.In("branch7x7x3_4"), s, 192, 3, 2, 0),
		x.pooled(m.MaxPool, halving))
}

// mixedE is the last kind of block; the pooling of its fourth branch is the
// average in Mixed_7b and, in this graph only, the maximum in Mixed_7c.
func (b inceptionBlocks) mixedE(m *onnx.Module, x image, pool func(onnx.Value, onnx.Pool) onnx.Value) image {
	row, column := [2]int{1, 3}, [2]int{3, 1}
	padRow, padColumn := [2]int{0, 1}, [2]int{1, 0}
	t := b.conv(m.In("branch3x3_1"), x, 384, 1, 1, 0)
	d := b.conv(m.In("branch3x3dbl_1"), x, 448, 1, 1, 0)
	d = b.conv(m.In("branch3x3dbl_2"), d, 384, 3, 1, 1)
	return b.concat(m,
		b.conv(m.In("branch1x1"), x, 320, 1, 1, 0),
		b.conv2(m.In("branch3x3_2a"), t, 384, row, 1, padRow),
		b.conv2(m.In("branch3x3_2b"), t, 384, column, 1, padColumn),
		b.conv2(m.In("branch3x3dbl_3a"), d, 384, row, 1, padRow),
		b.conv2(m.In("branch3x3dbl_3b"), d, 384, column, 1, padColumn),
		b.conv(m.In("branch_pool"), x.pooled(pool, pool3), 192, 1, 1, 0))
}
