package onnx

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
)

// AttentionShape is what a fused attention computes on: Queries [N,T,D], keys and values
// [N,S,D], D = Heads·Width.
type AttentionShape struct{ T, S, Heads, Width int }

// Attentions are the shapes of the graph's fused attentions, each once.
func (m *Model) Attentions() []AttentionShape {
	var all []AttentionShape
	seen := map[AttentionShape]bool{}
	for _, n := range m.Nodes {
		if s, ok := m.attentions[n.Name]; ok && !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	return all
}

// AttentionApart is the model with two products and a softmax, in float32, in the place
// of each fused attention of these shapes, for a device that computes those wrongly. It
// takes the memory of all T×S weights.
func (m *Model) AttentionApart(shapes map[AttentionShape]bool) (*Model, error) {
	var p pb.ModelProto
	err := proto.Unmarshal(m.Proto, &p)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	types := map[string]checkpoint.DType{}
	for _, n := range m.Nodes {
		for i, v := range n.Inputs {
			types[v] = n.InputTypes[i]
		}
		for i, v := range n.Outputs {
			types[v] = n.OutputTypes[i]
		}
	}
	var nodes []*pb.NodeProto
	for _, n := range p.Graph.Node {
		s, ok := m.attentions[n.GetName()]
		if !ok || !shapes[s] {
			nodes = append(nodes, n)
			continue
		}
		nodes = append(nodes, takenApart(p.Graph, n, s, types)...)
	}
	p.Graph.Node = nodes
	out := *m
	out.Nodes = listed(nodes, types)
	if out.Proto, err = (proto.MarshalOptions{Deterministic: true}).Marshal(&p); err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return &out, nil
}

// takenApart are the nodes that compute what a fused attention does.
func takenApart(g *pb.GraphProto, n *pb.NodeProto, s AttentionShape, types map[string]checkpoint.DType) []*pb.NodeProto {
	var nodes []*pb.NodeProto
	name := n.GetName()
	add := func(t checkpoint.DType, what, kind string, at attrs, in ...string) string {
		v := name + "." + what
		nodes = append(nodes, &pb.NodeProto{OpType: proto.String(kind), Name: proto.String(v), Input: in, Output: []string{v}, Attribute: at.protos()})
		types[v] = t
		return v
	}
	shape := func(what string, dims ...int64) string {
		v := name + "." + what
		g.Initializer = append(g.Initializer, &pb.TensorProto{
			Name: proto.String(v), Dims: []int64{int64(len(dims))}, DataType: proto.Int32(int32(pb.TensorProto_INT64)), Int64Data: dims,
		})
		types[v] = checkpoint.I64
		return v
	}
	scale := name + ".scale"
	g.Initializer = append(g.Initializer, &pb.TensorProto{
		Name: proto.String(scale), DataType: proto.Int32(int32(pb.TensorProto_FLOAT)), FloatData: []float32{float32(1 / math.Sqrt(float64(s.Width)))},
	})
	types[scale] = checkpoint.F32
	half := types[n.Output[0]]
	heads, whole := shape("heads", 0, 0, int64(s.Heads), int64(s.Width)), shape("whole", 0, 0, int64(s.Heads*s.Width))
	// split is [N,T,D] → [N,heads,T,d], or the other order.
	split := func(what, v string, order ...int) string {
		if half != checkpoint.F32 {
			v = add(checkpoint.F32, what+".wide", "Cast", attrs{"to": int(pb.TensorProto_FLOAT)}, v)
		}
		v = add(checkpoint.F32, what+".split", "Reshape", nil, v, heads)
		return add(checkpoint.F32, what, "Transpose", attrs{"perm": order}, v)
	}
	q, k, v := split("q", n.Input[0], 0, 2, 1, 3), split("k", n.Input[1], 0, 2, 3, 1), split("v", n.Input[2], 0, 2, 1, 3)
	w := add(checkpoint.F32, "scaled", "Mul", nil, add(checkpoint.F32, "products", "MatMul", nil, q, k), scale)
	w = add(checkpoint.F32, "weights", "Softmax", attrs{"axis": -1}, w)
	y := add(checkpoint.F32, "sums", "MatMul", nil, w, v)
	y = add(checkpoint.F32, "beside", "Transpose", attrs{"perm": []int{0, 2, 1, 3}}, y)
	y = add(checkpoint.F32, "y", "Reshape", nil, y, whole)
	if half != checkpoint.F32 {
		add(half, "narrow", "Cast", attrs{"to": int(protoTypes[half])}, y)
	}
	nodes[len(nodes)-1].Output[0] = n.Output[0]
	return nodes
}
