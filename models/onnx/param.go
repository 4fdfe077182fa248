package onnx

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
	"sagbench/sampling/tensor"
)

// inlineBelow is the size in bytes under which a weight is copied into the
// graph: a mapping of its own costs more than the copy.
const inlineBelow = 4096

// Param returns the parameter of this scope, which must have the given shape.
// Weights stored in another float type are cast to float32, once, at load.
func (m *Module) Param(name string, shape ...int) Value {
	return m.ParamAs(name, shape, shape)
}

// ParamAs is Param seen in another shape with the same elements in the same
// order: a Conv1d of width 1 as a Conv2d, say.
func (m *Module) ParamAs(name string, stored, as []int) Value {
	key := m.prefix + name
	want := Value{Name: key, Shape: slices.Clone(as), DType: checkpoint.F32}
	if v, ok := m.g.params[key]; ok {
		if !slices.Equal(v.Shape, as) {
			fail("%s is used as %v and as %v", key, v.Shape, as)
		}
		return v
	}
	m.g.size.Parameters += values(stored)
	t, ok := m.g.sd[key]
	switch {
	case !ok:
		m.g.missing = append(m.g.missing, Parameter{key, slices.Clone(stored)})
	case !slices.Equal(t.Shape, stored):
		m.g.misshaped = append(m.g.misshaped, Misshape{Key: key, Want: slices.Clone(stored), Have: t.Shape})
	default:
		want = m.initializer(key, t, as)
	}
	m.g.params[key] = want
	return want
}

func (m *Module) initializer(key string, t checkpoint.Tensor, as []int) Value {
	code, ok := protoTypes[t.DType]
	if !ok {
		fail("%s has element type %s, which no weight can have; convert it to float32, float16 or bfloat16", key, t.DType)
	}
	p := &pb.TensorProto{Name: proto.String(key), DataType: proto.Int32(int32(code)), Dims: int64s(as)}
	if t.Raw == nil && t.Size >= inlineBelow {
		location := &pb.StringStringEntryProto{Key: proto.String("location")} // its value is set when all files are known
		file := realPath(t.File)
		m.g.files[file] = append(m.g.files[file], location)
		p.DataLocation = pb.TensorProto_EXTERNAL.Enum()
		p.ExternalData = []*pb.StringStringEntryProto{
			location,
			{Key: proto.String("offset"), Value: proto.String(strconv.FormatInt(t.Offset, 10))},
			{Key: proto.String("length"), Value: proto.String(strconv.FormatInt(t.Size, 10))},
		}
	} else {
		b, err := t.Bytes()
		if err != nil {
			fail("%s: %w", key, err)
		}
		p.RawData = slices.Clone(b)
	}
	m.g.proto.Initializer = append(m.g.proto.Initializer, p)
	v := Value{Name: key, Shape: slices.Clone(as), DType: t.DType}
	if t.DType != checkpoint.F32 {
		wide := m.Cast(v, checkpoint.F32)
		m.g.widens(v, wide)
		return wide
	}
	return v
}

// A Parameter is a tensor of a checkpoint: its key and shape.
type Parameter struct {
	Key   string
	Shape []int
}

// A Misshape is a parameter whose shape in the checkpoint is not the network's.
type Misshape struct {
	Key        string
	Want, Have []int
}

// A MismatchError lists every difference between a network's parameters and a
// checkpoint's.
type MismatchError struct {
	Missing    []Parameter // wanted by the network
	Unexpected []Parameter // in the checkpoint, used by nothing
	Misshaped  []Misshape
	Hint       string // what the shapes suggest, if the family can tell
}

func (e *MismatchError) Error() string {
	var b strings.Builder
	b.WriteString("the checkpoint does not fit the network")
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	for i, p := range e.Missing {
		if more(&b, i, len(e.Missing), "missing") {
			break
		}
		fmt.Fprintf(&b, "\n  missing    %s %v", p.Key, p.Shape)
	}
	for i, p := range e.Unexpected {
		if more(&b, i, len(e.Unexpected), "unexpected") {
			break
		}
		fmt.Fprintf(&b, "\n  unexpected %s %v", p.Key, p.Shape)
	}
	for i, s := range e.Misshaped {
		if more(&b, i, len(e.Misshaped), "mis-shaped") {
			break
		}
		fmt.Fprintf(&b, "\n  mis-shaped %s: the network wants %v, the checkpoint has %v", s.Key, s.Want, s.Have)
	}
	return b.String()
}

// mostNamed is how many parameters of a kind a MismatchError names.
const mostNamed = 4

// more ends a list of n parameters after mostNamed with how many there are besides.
func more(b *strings.Builder, i, n int, kind string) bool {
	if i < mostNamed || n == mostNamed+1 {
		return false
	}
	fmt.Fprintf(b, "\n  and %d more are %s", n-i, kind)
	return true
}

func (g *graph) mismatch() error {
	e := &MismatchError{Missing: g.missing, Misshaped: g.misshaped}
	for _, k := range sortedKeys(g.sd) {
		if _, ok := g.params[k]; !ok {
			e.Unexpected = append(e.Unexpected, Parameter{k, g.sd[k].Shape})
		}
	}
	if len(e.Missing)+len(e.Unexpected)+len(e.Misshaped) == 0 {
		return nil
	}
	return e
}

// Ignore marks parameters of this scope as known and unused, such as buffers
// that the official code saves and never reads.
func (m *Module) Ignore(names ...string) {
	for _, n := range names {
		key := m.prefix + n
		if t, ok := m.g.sd[key]; ok {
			m.g.params[key] = Value{Name: key, Shape: t.Shape, DType: t.DType}
		}
	}
}

// Const is a float32 constant of the given shape.
func (m *Module) Const(data []float32, shape ...int) Value {
	if len(data) != tensor.Size(shape) {
		fail("constant of shape %v has %d values", shape, len(data))
	}
	b := make([]byte, 0, 4*len(data))
	for _, x := range data {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return m.constant(checkpoint.F32, b, shape)
}

// repeated is a vector of n times x.
func (m *Module) repeated(x float32, n int) Value { return m.Const(slices.Repeat([]float32{x}, n), n) }

// Scalar is a float32 constant without axes.
func (m *Module) Scalar(x float32) Value { return m.Const([]float32{x}) }

// Ints is an int64 vector constant.
func (m *Module) Ints(xs ...int) Value {
	b := make([]byte, 0, 8*len(xs))
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	v := m.constant(checkpoint.I64, b, []int{len(xs)})
	m.g.ints[v.Name] = slices.Clone(xs)
	return v
}

// Byte is a uint8 constant without axes.
func (m *Module) Byte(x uint8) Value { return m.constant(checkpoint.U8, []byte{x}, nil) }

func (m *Module) constant(t checkpoint.DType, raw []byte, shape []int) Value {
	key := fmt.Sprint(t, shape, string(raw))
	if v, ok := m.g.consts[key]; ok {
		return v
	}
	v := Value{Name: "const_" + strconv.Itoa(len(m.g.consts)), Shape: slices.Clone(shape), DType: t}
	m.g.consts[key] = v
	m.g.proto.Initializer = append(m.g.proto.Initializer, &pb.TensorProto{
		Name: proto.String(v.Name), DataType: proto.Int32(int32(protoTypes[t])), Dims: int64s(shape), RawData: raw,
	})
	return v
}

var protoTypes = map[checkpoint.DType]pb.TensorProto_DataType{
	checkpoint.F64:  pb.TensorProto_DOUBLE,
	checkpoint.F32:  pb.TensorProto_FLOAT,
	checkpoint.F16:  pb.TensorProto_FLOAT16,
	checkpoint.BF16: pb.TensorProto_BFLOAT16,
	checkpoint.I64:  pb.TensorProto_INT64,
	checkpoint.I32:  pb.TensorProto_INT32,
	checkpoint.I8:   pb.TensorProto_INT8,
	checkpoint.U8:   pb.TensorProto_UINT8,
	checkpoint.Bool: pb.TensorProto_BOOL,
}

func int64s(xs []int) []int64 {
	r := make([]int64, len(xs))
	for i, x := range xs {
		r[i] = int64(x)
	}
	return r
}

func valueInfo(v Value) *pb.ValueInfoProto {
	shape := &pb.TensorShapeProto{}
	for _, d := range v.Shape {
		dim := &pb.TensorShapeProto_Dimension{Value: &pb.TensorShapeProto_Dimension_DimValue{DimValue: int64(d)}}
		if d < 0 {
			dim.Value = &pb.TensorShapeProto_Dimension_DimParam{DimParam: "N" + strconv.Itoa(-d)}
		}
		shape.Dim = append(shape.Dim, dim)
	}
	return &pb.ValueInfoProto{Name: proto.String(v.Name), Type: &pb.TypeProto{Value: &pb.TypeProto_TensorType{
		TensorType: &pb.TypeProto_Tensor{ElemType: proto.Int32(int32(protoTypes[v.DType])), Shape: shape}}}}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
