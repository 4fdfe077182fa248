package onnx

import "sagbench/models/checkpoint"

// BlockedDomain holds the operators of package kernels. They work on images in
// blocks of channels, [N,C/16,H,W,16]: a Value of five axes.
const BlockedDomain = "sagbench"

// block is how many channels lie together.
const block = 16

// BlockedConvBatchNormReLU is a convolution without bias, batch norm in
// evaluation mode and ReLU in one operator, with blocked output. The inputs are
// blocked images whose channels follow each other, or one with three channels;
// package kernels says which geometries there are. Parameters conv.weight,
// bn.weight, bn.bias, bn.running_mean and bn.running_var.
func (m *Module) BlockedConvBatchNormReLU(xs []Value, c Conv, eps float64) Value {
	x, in := xs[0], 0
	for _, x := range xs {
		in += x.Shape[1]
	}
	if len(x.Shape) == 5 {
		in *= block
	}
	bn := m.In("bn")
	bn.Ignore("num_batches_tracked")
	size := func(i int) int { return (x.Shape[2+i]+2*c.Pad[i]-c.Kernel[i])/c.Stride + 1 }
	at := attrs{"kernel_shape": c.Kernel[:], "pads": c.Pad[:], "stride": c.Stride, "epsilon": eps}
	weights := []Value{m.In("conv").Param("weight", c.Out, in, c.Kernel[0], c.Kernel[1]),
		bn.Param("weight", c.Out), bn.Param("bias", c.Out), bn.Param("running_mean", c.Out), bn.Param("running_var", c.Out)}
	shape := []int{x.Shape[0], c.Out / block, size(0), size(1), block}
	return m.ops(BlockedDomain, "ConvBatchNormRelu", x.DType, [][]int{shape}, at, append(weights, xs...)...)[0]
}

// blockedPool is a pool of a blocked image.
func (m *Module) blockedPool(kind string, x Value, p Pool, height, width int) Value {
	at := attrs{"kernel_shape": []int{p.Kernel, p.Kernel}, "pads": []int{p.Pad, p.Pad}, "stride": p.Stride}
	return m.ops(BlockedDomain, kind, checkpoint.F32, [][]int{{x.Shape[0], x.Shape[1], height, width, block}}, at, x)[0]
}

// ImageMean averages an image [N,C,H,W], or a blocked one, over height and
// width: [N,C].
func (m *Module) ImageMean(x Value) Value {
	mean := m.Mean(x, 2, 3)
	if len(x.Shape) == 5 {
		mean = m.Reshape(mean, x.Shape[0], x.Shape[1]*block)
	}
	return mean
}

// FirstChannels are the first n channels of an image, blocked or not: [N,n,H,W].
func (m *Module) FirstChannels(x Value, n int) Value {
	if len(x.Shape) == 5 {
		blocks := (n + block - 1) / block
		x = m.Transpose(m.Slice(x, 1, 0, blocks), 0, 1, 4, 2, 3)
		x = m.Reshape(x, x.Shape[0], blocks*block, x.Dim(3), x.Dim(4))
	}
	return m.Slice(x, 1, 0, n)
}
