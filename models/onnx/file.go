package onnx

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "sagbench/models/onnx/onnxpb"
)

// mostFiles bounds the files of weights beside a graph.
const mostFiles = 1000

// DataFiles lists the files beside an .onnx file that hold weights of its graph, in
// the order of their names. A file that is no graph has none: the runtime says what
// is wrong with it.
func DataFiles(path string) ([]string, error) {
	found := map[string]bool{}
	err := mapped(path, func(data []byte) {
		messages(data, model, func(kind message, field []byte) {
			if kind == dataEntry {
				if key, value := entry(field); key == "location" && len(found) <= mostFiles {
					found[value] = true
				}
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	if len(found) > mostFiles {
		return nil, fmt.Errorf("onnx: %s: its weights lie in more than %d files", path, mostFiles)
	}
	var files []string
	var faults []error
	for _, location := range sortedKeys(found) {
		file := filepath.Join(filepath.Dir(path), location)
		info, err := os.Stat(file)
		switch {
		case !filepath.IsLocal(location):
			err = fmt.Errorf("%q is not below its folder", location)
		case err == nil && !info.Mode().IsRegular():
			err = fmt.Errorf("%s is no regular file", file)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("onnx: %s: the file of its weights: %w", path, err))
		}
		files = append(files, file)
	}
	return files, errors.Join(faults...)
}

// ReadFile reads the graph of an .onnx file some of whose DataFiles lie behind
// symbolic links, which the runtime does not follow out of a folder. The graph is the
// same but for the locations of the data. ok is false where the runtime can open the
// file itself.
func ReadFile(path string) (m *Model, ok bool, err error) {
	data, err := DataFiles(path)
	if err != nil || len(data) == 0 {
		return nil, false, err
	}
	folder := filepath.Dir(realPath(path))
	if !slices.ContainsFunc(data, func(file string) bool {
		location, err := filepath.Rel(filepath.Dir(path), file)
		return err != nil || realPath(file) != filepath.Join(folder, location)
	}) {
		return nil, false, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, false, fmt.Errorf("onnx: %w", err)
	}
	var p pb.ModelProto
	if err := proto.Unmarshal(content, &p); err != nil {
		return nil, false, fmt.Errorf("onnx: %s: %w", path, err)
	}
	g := &graph{files: map[string][]*pb.StringStringEntryProto{}, proto: p.Graph}
	initializers := map[string]bool{}
	for _, t := range p.GetGraph().GetInitializer() {
		initializers[t.GetName()] = true
		for _, e := range t.ExternalData {
			if e.GetKey() == "location" {
				file := realPath(filepath.Join(filepath.Dir(path), e.GetValue()))
				g.files[file] = append(g.files[file], e)
			}
		}
	}
	m = &Model{Files: sortedKeys(g.files), Folder: g.locate()}
	symbol := Batch
	for _, v := range p.GetGraph().GetInput() {
		if !initializers[v.GetName()] {
			m.Inputs = append(m.Inputs, infoOf(v, &symbol))
		}
	}
	for _, v := range p.GetGraph().GetOutput() {
		m.Outputs = append(m.Outputs, infoOf(v, &symbol))
	}
	m.Proto, err = proto.MarshalOptions{Deterministic: true}.Marshal(&p)
	return m, true, err
}

// infoOf is what a graph says of an input or output: a first axis of any length is
// Batch, every other such axis has the next symbol.
func infoOf(v *pb.ValueInfoProto, symbol *int) Info {
	i := Info{Name: v.GetName()}
	t := v.GetType().GetTensorType()
	for dtype, code := range protoTypes {
		if int32(code) == t.GetElemType() {
			i.DType = dtype
		}
	}
	for axis, d := range t.GetShape().GetDim() {
		length := int(d.GetDimValue())
		if _, fixed := d.Value.(*pb.TensorShapeProto_Dimension_DimValue); !fixed {
			if length = Batch; axis > 0 {
				*symbol--
				length = *symbol
			}
		}
		i.Shape = append(i.Shape, length)
	}
	return i
}

// A message is a kind of message of ONNX that holds tensors at some depth.
type message int

const (
	model message = iota + 1
	function
	subgraph
	operator
	attribute
	sparse
	weight
	dataEntry
)

// inside are the fields of messages that lead to tensors (onnx.proto).
var inside = [...]map[protowire.Number]message{
	model:     {7: subgraph, 25: function},
	function:  {7: operator},
	subgraph:  {1: operator, 5: weight, 15: sparse},
	operator:  {5: attribute},
	attribute: {5: weight, 6: subgraph, 10: weight, 11: subgraph, 22: sparse, 23: sparse},
	sparse:    {1: weight, 2: weight},
	weight:    {13: dataEntry},
	dataEntry: nil,
}

// deepest is how deep messages may lie in each other, in a graph with loops in loops.
const deepest = 1000

// messages visits the messages below one of a kind. Nothing of them is copied. It
// ends where the data is damaged.
func messages(data []byte, kind message, visit func(kind message, data []byte)) {
	type part struct {
		kind message
		data []byte
	}
	for open := []part{{kind, data}}; len(open) > 0; {
		p := &open[len(open)-1]
		number, wire, n := protowire.ConsumeTag(p.data)
		size := -1
		if n > 0 {
			size = protowire.ConsumeFieldValue(number, wire, p.data[n:])
		}
		if size < 0 { // the end
			open = open[:len(open)-1]
			continue
		}
		field := p.data[n : n+size]
		p.data = p.data[n+size:]
		if below := inside[p.kind][number]; below != 0 && wire == protowire.BytesType && size > 1 && len(open) < deepest {
			value, _ := protowire.ConsumeBytes(field)
			visit(below, value)
			open = append(open, part{below, value})
		}
	}
}

// entry is a StringStringEntryProto.
func entry(data []byte) (key, value string) {
	var e pb.StringStringEntryProto
	if proto.Unmarshal(data, &e) != nil {
		return "", ""
	}
	return e.GetKey(), e.GetValue()
}

// mapped hands a file's content to f without reading what f does not look at.
func mapped(path string, f func(data []byte)) error {
	info, err := os.Stat(path) // before Open, which would wait on a pipe
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return err
	}
	if size := info.Size(); size == 0 || size > math.MaxInt32 {
		return nil // no graph: a message of protobuf has at most 2 GiB
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Munmap(data)
	f(data)
	return nil
}
