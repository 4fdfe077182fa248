// Package onnx builds ONNX graphs from Go functions that read like the paper:
// a checkpoint's state dict and a build function go in, a serialized model
// whose weights point into the checkpoint file comes out.
//
// A network is written against a Module, a scope of the state dict. Scopes
// carry the names that the official code gives its parameters, so that the
// name of a weight stands on the line that uses it:
//
//	h := m.In("input_blocks.%d.0.in_layers", i).In("2").Conv2D(x, out, 3, 1, 1)
//
// Building is strict both ways, as load_state_dict(strict=True) is: every
// missing, unexpected or mis-shaped parameter is reported, all in one error.
package onnx

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
)

// Batch is the symbolic length of the first axis, known only at run time. Other
// negative lengths are further symbols: equal numbers are equal lengths.
const Batch = -1

// opset 21 is what the CPU kernels of ONNX Runtime 1.27 and later implement in
// full; IR 10 is its serialization.
const (
	opset     = 21
	irVersion = 10
)

// A Value is a tensor in the graph: its name, its shape (negative where only
// the run time knows) and its element type.
type Value struct {
	Name  string
	Shape []int
	DType checkpoint.DType
}

// Dim returns the length of axis i; negative i counts from the end.
func (v Value) Dim(i int) int {
	if i < 0 {
		i += len(v.Shape)
	}
	return v.Shape[i]
}

// A Module is a scope of a state dict under construction.
type Module struct {
	g      *graph
	prefix string
	half   bool // computes in the graph's half precision
}

type graph struct {
	sd      checkpoint.StateDict
	params  map[string]Value
	consts  map[string]Value
	ints    map[string][]int // values of the int64 constants
	nodes   []node
	proto   *pb.GraphProto
	types   map[string]checkpoint.DType             // of all values that nodes take or give
	files   map[string][]*pb.StringStringEntryProto // where weights say in which file they lie
	domains map[string]bool                         // of operators other than ONNX's own

	size        Size                 // so far
	replaceable map[string]bool      // nodes, see Model.WithKernels
	norms       map[string]groupNorm // by the node that computes them, see Model.WithKernels
	halves      halves
	converted   map[[2]string]Value // by name and type, see own
	missing     []Parameter
	misshaped   []Misshape
	inputs      []Info
	outputs     []Info
	waves       []Info                    // sines and cosines
	attentions  map[string]AttentionShape // by node
}

// An Info describes an input or output of a finished model.
type Info struct {
	Name  string
	Shape []int // negative where only the run time knows
	DType checkpoint.DType
}

// A Model is a finished graph: its serialized form and what it takes and gives.
type Model struct {
	Proto           []byte   // ModelProto; external data named by its path below Folder
	Folder          string   // that holds Files, at some depth; "" where there are none
	Files           []string // of weights, absolute and without symbolic links
	Inputs, Outputs []Info
	Nodes           []Node          // in the order of their computation; none of a graph that was read
	Kernels         bool            // uses operators of KernelsDomain
	replaceable     map[string]bool // names of the nodes that WithKernels replaces
	norms           map[string]groupNorm
	halves          halves
	waves           []Info
	attentions      map[string]AttentionShape
}

// buildError is what a programmer's error raises while a graph is built.
type buildError struct{ error }

func fail(format string, args ...any) {
	panic(buildError{fmt.Errorf(format, args...)})
}

// Build runs f on the whole of sd and returns the model it describes. A
// *MismatchError lists every parameter that f wanted and sd lacks, has in
// another shape, or holds beyond what f used.
func Build(sd checkpoint.StateDict, f func(*Module)) (*Model, error) { return BuildHalf(sd, "", f) }

// build runs f on the whole of sd, whatever sd lacks; half is the type of Half scopes.
func build(sd checkpoint.StateDict, half checkpoint.DType, f func(*Module)) (g *graph, err error) {
	g = &graph{
		sd:     sd,
		params: map[string]Value{},
		consts: map[string]Value{},
		ints:   map[string][]int{},
		proto:  &pb.GraphProto{Name: proto.String("sagbench")},
		types:  map[string]checkpoint.DType{},
		files:  map[string][]*pb.StringStringEntryProto{},

		domains:     map[string]bool{},
		replaceable: map[string]bool{},
		norms:       map[string]groupNorm{},
		halves:      halves{half, map[string]bool{}, map[string]bool{}, map[string]bool{}},
		converted:   map[[2]string]Value{},
		attentions:  map[string]AttentionShape{},
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case buildError:
			g, err = nil, fmt.Errorf("onnx: %w", r.error)
		default:
			panic(r)
		}
	}()
	f(&Module{g: g})
	return g, nil
}

func (g *graph) finish() (*Model, error) {
	m := &pb.ModelProto{
		IrVersion:    proto.Int64(irVersion),
		ProducerName: proto.String("sagbench"),
		Graph:        g.proto,
		OpsetImport:  []*pb.OperatorSetIdProto{{Version: proto.Int64(opset)}},
	}
	for _, d := range sortedKeys(g.domains) {
		m.OpsetImport = append(m.OpsetImport, &pb.OperatorSetIdProto{Domain: proto.String(d), Version: proto.Int64(1)})
	}
	folder := g.locate()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return &Model{Proto: b, Folder: folder, Files: sortedKeys(g.files), Inputs: g.inputs, Outputs: g.outputs, Nodes: listed(g.proto.Node, g.types), Kernels: g.domains[KernelsDomain], replaceable: g.replaceable, norms: g.norms, halves: g.halves, waves: g.waves, attentions: g.attentions}, nil
}

// locate says in the graph where its files of weights lie below a folder, and
// returns that folder.
func (g *graph) locate() (folder string) {
	folder = commonFolder(sortedKeys(g.files))
	for file, locations := range g.files {
		for _, l := range locations {
			l.Value = proto.String(strings.TrimPrefix(strings.TrimPrefix(file, folder), string(filepath.Separator)))
		}
	}
	return folder
}

// commonFolder is the deepest folder that holds all of the files, at some depth.
func commonFolder(files []string) string {
	if len(files) == 0 {
		return ""
	}
	folder := filepath.Dir(files[0])
	for _, f := range files {
		for rest, err := filepath.Rel(folder, f); err != nil || strings.HasPrefix(rest, ".."+string(filepath.Separator)); rest, err = filepath.Rel(folder, f) {
			folder = filepath.Dir(folder)
		}
	}
	return folder
}

// realPath is where a file lies, absolute and behind all symbolic links: the runtime
// takes no weights that a link leads out of a folder to, as the links in a snapshot
// of Hugging Face's cache do.
func realPath(file string) string {
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	if target, err := filepath.EvalSymlinks(file); err == nil {
		return target
	}
	return file // that is missing: the runtime says so
}

// In enters a child scope, as attribute access on an nn.Module does.
func (m *Module) In(format string, args ...any) *Module {
	return &Module{m.g, m.prefix + fmt.Sprintf(format, args...) + ".", m.half}
}

// Has reports whether the state dict has a parameter of this name in this scope.
func (m *Module) Has(name string) bool {
	_, ok := m.g.sd[m.prefix+name]
	return ok
}

// Stored is the element type in which the state dict has a parameter of this scope,
// "" where it has none.
func (m *Module) Stored(name string) checkpoint.DType { return m.g.sd[m.prefix+name].DType }

// Input declares a graph input.
func (m *Module) Input(name string, t checkpoint.DType, shape ...int) Value {
	v := Value{Name: name, Shape: slices.Clone(shape), DType: t}
	m.g.proto.Input = append(m.g.proto.Input, valueInfo(v))
	m.g.inputs = append(m.g.inputs, Info(v))
	return v
}

// Output makes v an output of the graph under the given name.
func (m *Module) Output(name string, v Value) {
	v = m.Full().own(v)
	out := v
	out.Name = name
	m.g.proto.Node = append(m.g.proto.Node, &pb.NodeProto{
		OpType: proto.String("Identity"), Name: proto.String("output." + name), Input: []string{v.Name}, Output: []string{name},
	})
	m.g.types[v.Name], m.g.types[name] = v.DType, v.DType
	m.g.proto.Output = append(m.g.proto.Output, valueInfo(out))
	m.g.outputs = append(m.g.outputs, Info(out))
}

// op appends a node with one output and returns that.
func (m *Module) op(kind string, t checkpoint.DType, shape []int, at attrs, in ...Value) Value {
	return m.ops("", kind, t, [][]int{shape}, at, in...)[0]
}

// ops appends a node of the given domain with one output for each of the shapes.
func (m *Module) ops(domain, kind string, t checkpoint.DType, shapes [][]int, at attrs, in ...Value) []Value {
	if len(m.g.proto.Node) == maxNodes {
		fail("the network has more than %d operators: it is deeper than any that was published", maxNodes)
	}
	in = m.owned(kind, in)
	if kind != "Cast" {
		t = m.computes(t)
	}
	name := m.prefix + kind + "_" + strconv.Itoa(len(m.g.proto.Node))
	n := &pb.NodeProto{OpType: proto.String(kind), Domain: proto.String(domain), Name: proto.String(name), Attribute: at.protos()}
	if domain != "" {
		m.g.domains[domain] = true
	}
	for _, v := range in {
		n.Input = append(n.Input, v.Name)
		m.g.types[v.Name] = v.DType
	}
	var out []Value
	for i, s := range shapes {
		v := Value{Name: name, Shape: s, DType: t}
		if len(shapes) > 1 {
			v.Name += "." + strconv.Itoa(i)
		}
		m.g.size.Activation = max(m.g.size.Activation, values(s)*float64(t.Size()))
		n.Output = append(n.Output, v.Name)
		m.g.types[v.Name] = t
		out = append(out, v)
	}
	m.g.halves.note(kind, name, in, out)
	m.g.proto.Node = append(m.g.proto.Node, n)
	m.g.nodes = append(m.g.nodes, node{m, kind, at, in, out})
	return out
}

// Name is the scope's name, as in the state dict without the trailing dot.
func (m *Module) Name() string { return strings.TrimSuffix(m.prefix, ".") }

// Parameters lists the parameters that f asks for, by key, with the shapes in
// which a checkpoint has to hold them.
func Parameters(f func(*Module)) (shapes map[string][]int, err error) {
	g, err := build(nil, "", f)
	if err != nil {
		return nil, err
	}
	shapes = map[string][]int{}
	for _, p := range g.missing {
		shapes[p.Key] = p.Shape
	}
	return shapes, nil
}

// A Size is what a network takes at least, whatever runs it. Numbers that no
// machine can hold have their place in a float64.
type Size struct {
	Nodes      int
	Parameters float64 // values
	Activation float64 // bytes of the largest value of the graph, for one image
	Alone      float64 // bytes of the largest value of what takes one image at a time, such as a decoder
}

// maxNodes bounds a graph: the largest published network has 6,000 nodes.
const maxNodes = 200_000

// Measure is the size of the network that f builds. No weight is needed.
func Measure(f func(*Module)) (Size, error) {
	g, err := build(nil, "", f)
	if err != nil {
		return Size{}, err
	}
	g.size.Nodes = len(g.proto.Node)
	return g.size, nil
}

// values is how many values a shape has; symbolic lengths count as 1.
func values(shape []int) float64 {
	n := 1.0
	for _, d := range shape {
		if d >= 0 {
			n *= float64(d)
		}
	}
	return n
}
