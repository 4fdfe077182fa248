package onnx

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
)

// A network that is built in half precision (BuildHalf) computes in it in the scopes
// that Half enters, and in float32 everywhere else. Values are converted where they
// cross from one to the other; weights are, once, at load. What the authors' code
// keeps in float32 within such a scope, norms and softmax, stays there: Full.

// Half is the scope computing in the half precision that the network is built in;
// the scope as it is where the network is built in float32.
func (m *Module) Half() *Module { return &Module{m.g, m.prefix, m.g.halves.dtype != ""} }

// Full is the scope computing in float32.
func (m *Module) Full() *Module { return &Module{m.g, m.prefix, false} }

// IsHalf reports whether the scope computes in half precision.
func (m *Module) IsHalf() bool { return m.half }

// halves are what is in half precision in a graph, by name.
type halves struct {
	dtype  checkpoint.DType // F16 or BF16; "" = nothing is
	nodes  map[string]bool  // that compute in it
	values map[string]bool
	inner  map[string]bool // values within what is one operator to the authors' code, which rounds its result alone
}

// BuildHalf is Build of a network whose Half scopes compute in t, F16 or BF16; ""
// stands for float32. It is an error where the network has none.
func BuildHalf(sd checkpoint.StateDict, t checkpoint.DType, f func(*Module)) (*Model, error) {
	g, err := build(sd, t, f)
	if err == nil {
		err = g.mismatch()
	}
	if err == nil && t != "" && len(g.halves.nodes) == 0 {
		err = fmt.Errorf("onnx: no part of this network is made to compute in half precision")
	}
	if err != nil {
		return nil, err
	}
	return g.finish()
}

// floats reports whether the type is one of the two that floating-point values have
// in a network that is built in half precision.
func (h *halves) floats(t checkpoint.DType) bool {
	return h.dtype != "" && (t == checkpoint.F32 || t == h.dtype)
}

// computes is the type that the scope gives values of type t.
func (m *Module) computes(t checkpoint.DType) checkpoint.DType {
	switch {
	case !m.g.halves.floats(t):
		return t
	case m.half:
		return m.g.halves.dtype
	}
	return checkpoint.F32
}

// own is v in the type that the scope computes in. A half value that was widened is
// taken as it was.
func (m *Module) own(v Value) Value {
	t := m.computes(v.DType)
	if v.DType == t || v.Name == "" {
		return v
	}
	key := [2]string{v.Name, string(t)}
	c, ok := m.g.converted[key]
	if !ok {
		c = m.Cast(v, t)
		m.g.widens(v, c)
		m.g.converted[key] = c
	}
	return c
}

// widens remembers that wide is v in float32, where v is half.
func (g *graph) widens(v, wide Value) {
	if v.DType == g.halves.dtype {
		g.halves.values[v.Name] = true
		g.converted[[2]string{wide.Name, string(v.DType)}] = v
	}
}

// owned are an operator's inputs in the type that the scope computes in. The scales
// of a Resize stay float32.
func (m *Module) owned(kind string, in []Value) []Value {
	if m.g.halves.dtype == "" || kind == "Cast" {
		return in
	}
	in = slices.Clone(in)
	for i, v := range in {
		if i == 0 || kind != "Resize" {
			in[i] = m.own(v)
		}
	}
	return in
}

// note keeps which node and values are in half precision.
func (h *halves) note(kind, name string, in, out []Value) {
	if h.dtype == "" {
		return
	}
	isHalf := func(v Value) bool { return v.DType == h.dtype }
	if kind != "Cast" && slices.ContainsFunc(in, isHalf) {
		h.nodes[name] = true
	}
	for _, v := range out {
		if isHalf(v) {
			h.values[v.Name] = true
		}
	}
}

// asInner makes v, within a scope in half precision, a value that its authors' code
// never rounds.
func (m *Module) asInner(v Value) {
	if m.half {
		m.g.halves.inner[v.Name] = true
	}
}

// Half is the type of the scopes in half precision; "" where there are none.
func (m *Model) Half() checkpoint.DType { return m.halves.dtype }

// Lowered is the model for a device that has kernels for some operators alone in its
// half precision: nodes of the others compute in float32, on half values, and what
// they give is rounded to half. kept is how many they are, of all that compute in
// half.
func (m *Model) Lowered(has func(operator string) bool) (low *Model, kept, of int, err error) {
	var p pb.ModelProto
	if err := proto.Unmarshal(m.Proto, &p); err != nil {
		return nil, 0, 0, fmt.Errorf("onnx: %w", err)
	}
	l := lowering{halves: m.halves, to: int(protoTypes[m.halves.dtype]), scalars: scalarsOf(p.Graph), wide: map[string]string{}, raw: map[string]string{}, types: map[string]checkpoint.DType{}}
	for _, n := range m.Nodes {
		for i, v := range n.Inputs {
			l.types[v] = n.InputTypes[i]
		}
		for i, v := range n.Outputs {
			l.types[v] = n.OutputTypes[i]
		}
	}
	for _, n := range p.Graph.Node {
		if !m.halves.nodes[n.GetName()] || has(n.GetOpType()) {
			l.nodes = append(l.nodes, n)
			continue
		}
		kept++
		l.lower(n)
	}
	p.Graph.Node = l.nodes
	out := *m
	out.Nodes = listed(l.nodes, l.types)
	if out.Proto, err = (proto.MarshalOptions{Deterministic: true}).Marshal(&p); err != nil {
		return nil, 0, 0, fmt.Errorf("onnx: %w", err)
	}
	return &out, kept, len(m.halves.nodes), nil
}

// A lowering is Lowered under way.
type lowering struct {
	halves  halves
	to      int               // protobuf's number of the half type
	scalars map[string]string // float32 constants of one value by the half values that they become
	nodes   []*pb.NodeProto   // of the lowered graph
	wide    map[string]string // float32 values by the half values that they are
	raw     map[string]string // float32 values, not rounded, by the inner half values that become of them
	types   map[string]checkpoint.DType
}

// scalarsOf are the graph's constants of one value, which operators of the authors'
// code take in full precision, by what they are cast to.
func scalarsOf(g *pb.GraphProto) map[string]string {
	scalars, cast := map[string]bool{}, map[string]string{}
	for _, i := range g.Initializer {
		scalars[i.GetName()] = len(i.Dims) == 0 && i.GetDataType() == int32(pb.TensorProto_FLOAT)
	}
	for _, n := range g.Node {
		if n.GetOpType() == "Cast" && scalars[n.Input[0]] {
			cast[n.Output[0]] = n.Input[0]
		}
	}
	return cast
}

// lower appends a node that computes in float32, between casts.
func (l *lowering) lower(n *pb.NodeProto) {
	for i, v := range n.Input {
		if l.halves.values[v] {
			n.Input[i] = l.widened(v)
		}
	}
	l.nodes = append(l.nodes, n)
	for i, v := range n.Output {
		if !l.halves.values[v] {
			continue
		}
		n.Output[i] = v + ".float32"
		l.types[n.Output[i]] = checkpoint.F32
		l.cast(n.Output[i], v, l.to)
		if l.halves.inner[v] {
			l.raw[v] = n.Output[i]
		}
	}
}

// widened is a half value in float32.
func (l *lowering) widened(v string) string {
	for _, known := range []map[string]string{l.scalars, l.raw, l.wide} {
		if w, ok := known[v]; ok {
			return w
		}
	}
	l.wide[v] = v + ".wide"
	l.types[l.wide[v]] = checkpoint.F32
	l.cast(v, l.wide[v], int(pb.TensorProto_FLOAT))
	return l.wide[v]
}

func (l *lowering) cast(from, to string, dtype int) {
	l.nodes = append(l.nodes, &pb.NodeProto{
		OpType: proto.String("Cast"), Name: proto.String("cast." + to), Input: []string{from}, Output: []string{to}, Attribute: attrs{"to": dtype}.protos(),
	})
}
