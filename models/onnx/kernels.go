package onnx

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
)

// KernelsDomain holds the operators of package kernels. All but Conv and GroupNorm
// work on images in blocks of channels, [N,C/16,H,W,16]: a Value of five axes.
const KernelsDomain = "sagbench"

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
	return m.ops(KernelsDomain, "ConvBatchNormRelu", x.DType, [][]int{shape}, at, append(weights, xs...)...)[0]
}

// blockedPool is a pool of a blocked image.
func (m *Module) blockedPool(kind string, x Value, p Pool, height, width int) Value {
	at := attrs{"kernel_shape": []int{p.Kernel, p.Kernel}, "pads": []int{p.Pad, p.Pad}, "stride": p.Stride}
	return m.ops(KernelsDomain, kind, checkpoint.F32, [][]int{{x.Shape[0], x.Shape[1], height, width, block}}, at, x)[0]
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

// Winograd's algorithm takes 36 values for the 9 of a 3×3 kernel, which are read
// once for every image. With fewer tiles of 4×4 than minTiles that takes as long
// as it saves; with fewer than manyTiles it is done for up to maxWeights bytes.
const (
	minTiles   = 16
	manyTiles  = 64
	maxWeights = 64 << 20
)

// mark has WithKernels replace the node that computes y, the convolution of x,
// where that is of use. Its weights have to be constant.
func (c Conv) mark(m *Module, x, y Value) {
	if m.computes(x.DType) == m.computes(checkpoint.F32) && c.replaceable(x) {
		m.g.replaceable[y.Name] = true
	}
}

func (c Conv) replaceable(x Value) bool {
	tiles := (x.Shape[2] + 3) / 4 * ((x.Shape[3] + 3) / 4)
	weights := 36 * 4 * x.Shape[1] * c.Out
	return c.Kernel == [2]int{3, 3} && c.Stride == 1 && c.After == [2]int{} &&
		x.Shape[1]%block == 0 && c.Out%block == 0 && c.Pad[0] < 3 && c.Pad[1] < 3 && x.Shape[2] > 0 && x.Shape[3] > 0 &&
		tiles >= minTiles && (tiles >= manyTiles || weights <= maxWeights)
}

// A groupNorm is one that several nodes compute: of x, with scale and shift [C] or
// [N,C].
type groupNorm struct {
	x, scale, shift Value
	groups          int
	eps             float64
}

// markNorm has WithKernels replace the nodes that compute y, in a scope of float32.
func (m *Module) markNorm(n groupNorm, y Value) {
	n.x, n.scale, n.shift = m.own(n.x), m.own(n.scale), m.own(n.shift)
	m.g.norms[y.Name] = n
}

// WithKernels is the model with package kernels' operators in place of the
// convolutions and norms that these compute faster.
func (m *Model) WithKernels() (*Model, error) {
	if len(m.replaceable)+len(m.norms) == 0 {
		return m, nil
	}
	var p pb.ModelProto
	if err := proto.Unmarshal(m.Proto, &p); err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	r, replaced := readersOf(p.Graph), false
	for _, n := range p.Graph.Node {
		if m.replaceable[n.GetName()] {
			replaceConv(n)
			replaced = true
		}
		if norm, ok := m.norms[n.GetName()]; ok && r.normAlone(n) {
			replaceNorm(n, norm)
			replaced = true
		}
	}
	if !replaced {
		return m, nil
	}
	removeUnused(p.Graph)
	out := *m
	out.Kernels, out.replaceable, out.norms = true, nil, nil
	if !m.Kernels {
		p.OpsetImport = append(p.OpsetImport, &pb.OperatorSetIdProto{Domain: proto.String(KernelsDomain), Version: proto.Int64(1)})
	}
	var err error
	if out.Proto, err = (proto.MarshalOptions{Deterministic: true}).Marshal(&p); err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return &out, nil
}

func replaceConv(n *pb.NodeProto) {
	n.Domain = proto.String(KernelsDomain)
	at := attrs{"stride": 1}
	for _, a := range n.Attribute {
		switch a.GetName() {
		case "kernel_shape":
			at["kernel_shape"] = []int{int(a.Ints[0]), int(a.Ints[1])}
		case "pads": // of both sides, which are alike
			at["pads"] = []int{int(a.Ints[0]), int(a.Ints[1])}
		}
	}
	n.Attribute = at.protos()
}

// readers are the nodes of a graph by what they give, and how many read each value.
type readers struct {
	from  map[string]*pb.NodeProto
	count map[string]int
}

func readersOf(g *pb.GraphProto) readers {
	r := readers{map[string]*pb.NodeProto{}, map[string]int{}}
	for _, o := range g.Output {
		r.count[o.GetName()]++
	}
	for _, n := range g.Node {
		for _, o := range n.Output {
			r.from[o] = n
		}
		for _, i := range n.Input {
			r.count[i]++
		}
	}
	return r
}

// normAlone tells whether n, the last node of a group norm, is all that is computed of
// its InstanceNormalization. A gradient may need more, and then nothing is saved.
func (r readers) normAlone(n *pb.NodeProto) bool {
	for n.GetOpType() != "InstanceNormalization" {
		v := n.Input[0]
		if n = r.from[v]; n == nil || r.count[v] != 1 {
			return false
		}
	}
	return true
}

func replaceNorm(n *pb.NodeProto, norm groupNorm) {
	n.Domain, n.OpType = proto.String(KernelsDomain), proto.String("GroupNorm")
	n.Input = []string{norm.x.Name, norm.scale.Name, norm.shift.Name}
	n.Attribute = attrs{"groups": norm.groups, "epsilon": norm.eps}.protos()
}

// removeUnused takes the nodes away whose outputs nothing reads.
func removeUnused(g *pb.GraphProto) {
	used := map[string]bool{}
	for _, o := range g.Output {
		used[o.GetName()] = true
	}
	var kept []*pb.NodeProto
	for _, n := range slices.Backward(g.Node) {
		if slices.ContainsFunc(n.Output, func(o string) bool { return used[o] }) {
			kept = append(kept, n)
			for _, i := range n.Input {
				used[i] = true
			}
		}
	}
	slices.Reverse(kept)
	g.Node = kept
}
