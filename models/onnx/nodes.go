package onnx

import (
	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
)

// A Node is an operator of a finished graph, with the element types of what it takes
// and gives; that of an input that may be absent, and is, is empty.
type Node struct {
	Name, Domain, Op        string
	Inputs, Outputs         []string
	InputTypes, OutputTypes []checkpoint.DType
}

// listed are the nodes of a graph whose values have these types.
func listed(nodes []*pb.NodeProto, all map[string]checkpoint.DType) []Node {
	types := func(names []string) (of []checkpoint.DType) {
		for _, n := range names {
			of = append(of, all[n])
		}
		return of
	}
	out := make([]Node, len(nodes))
	for i, n := range nodes {
		out[i] = Node{n.GetName(), n.GetDomain(), n.GetOpType(), n.Input, n.Output, types(n.Input), types(n.Output)}
	}
	return out
}
