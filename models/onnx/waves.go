package onnx

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
)

// wave is a sine or cosine, which CutWaves finds again.
func (m *Module) wave(kind string, x Value) Value {
	y := m.Full().unary(kind, x, nil)
	m.g.waves = append(m.g.waves, Info(y))
	return m.own(y)
}

// CutWaves cuts the graph in two for a device that computes no float32 of its sines and
// cosines: waves are theirs, of the inputs that they depend on, and rest takes them as
// inputs. waves is nil where there are none. Of a timestep of 999, in whose phase 8 bits
// of mantissa err by half a period, nothing is left otherwise.
func (m *Model) CutWaves() (waves, rest *Model, err error) {
	if len(m.waves) == 0 {
		return nil, m, nil
	}
	if waves, err = m.part(m.Inputs, m.waves); err != nil {
		return nil, nil, err
	}
	rest, err = m.part(slices.Concat(m.Inputs, m.waves), m.Outputs)
	return waves, rest, err
}

// part is what of the graph leads from the inputs to the outputs.
func (m *Model) part(inputs, outputs []Info) (*Model, error) {
	var p pb.ModelProto
	if err := proto.Unmarshal(m.Proto, &p); err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	given, wanted := map[string]bool{}, map[string]bool{}
	for _, i := range inputs {
		given[i.Name] = true
	}
	for _, o := range outputs {
		wanted[o.Name] = true
	}
	isWanted := func(name string) bool { return wanted[name] }
	isMissing := func(name string) bool { return wanted[name] && !given[name] }
	types := map[string]checkpoint.DType{}
	var nodes []*pb.NodeProto
	for i, n := range slices.Backward(p.Graph.Node) {
		if !slices.ContainsFunc(n.Output, isMissing) {
			continue
		}
		nodes = append(nodes, n)
		for k, name := range n.Input {
			wanted[name] = true
			types[name] = m.Nodes[i].InputTypes[k]
		}
		for k, name := range n.Output {
			types[name] = m.Nodes[i].OutputTypes[k]
		}
	}
	slices.Reverse(nodes)
	out := *m
	out.Inputs = slices.DeleteFunc(slices.Clone(inputs), func(i Info) bool { return !wanted[i.Name] })
	out.Outputs, out.Nodes, out.waves = outputs, listed(nodes, types), nil
	p.Graph.Node, p.Graph.Input, p.Graph.Output = nodes, valueInfos(out.Inputs), valueInfos(outputs)
	p.Graph.Initializer = slices.DeleteFunc(p.Graph.Initializer, func(i *pb.TensorProto) bool { return !isWanted(i.GetName()) })
	var err error
	if out.Proto, err = (proto.MarshalOptions{Deterministic: true}).Marshal(&p); err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return &out, nil
}

func valueInfos(infos []Info) []*pb.ValueInfoProto {
	var all []*pb.ValueInfoProto
	for _, i := range infos {
		all = append(all, valueInfo(Value(i)))
	}
	return all
}
