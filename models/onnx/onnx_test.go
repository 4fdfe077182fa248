package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sagbench/models/checkpoint"
	pb "sagbench/models/onnx/onnxpb"
)

// weights is a state dict of zeros with the given shapes.
func weights(shapes map[string][]int) checkpoint.StateDict {
	sd := checkpoint.StateDict{}
	for k, s := range shapes {
		n := 1
		for _, d := range s {
			n *= d
		}
		sd[k] = checkpoint.FromFloat32(make([]float32, n), s...)
	}
	return sd
}

func TestShapes(t *testing.T) {
	_, err := Build(weights(map[string][]int{
		"conv.weight": {8, 3, 3, 5}, "one.weight": {4, 8, 1}, "one.bias": {4}, "fc.weight": {7, 12}, "fc.bias": {7},
		"norm.weight": {8}, "norm.bias": {8}, "table.weight": {10, 6},
	}), func(m *Module) {
		x := m.Input("x", checkpoint.F32, Batch, 3, 9, 11)
		y := m.Input("y", checkpoint.I64, Batch)
		c := m.In("conv").Conv(x, Conv{Out: 8, Kernel: [2]int{3, 5}, Stride: 2, Pad: [2]int{1, 2}, NoBias: true})
		v := m.Input("v", checkpoint.F32, Batch, 12)
		for _, w := range []struct {
			got  Value
			want []int
		}{
			{c, []int{Batch, 8, 5, 6}},
			{m.In("one").Conv(c, Conv{Out: 4, Kernel: [2]int{1, 1}, Stride: 1, StoredKernel1D: true}), []int{Batch, 4, 5, 6}},
			{m.In("fc").Linear(v, 7), []int{Batch, 7}},
			{m.In("norm").GroupNorm(c, 4), c.Shape},
			{m.In("table").Embedding(y, 10, 6), []int{Batch, 6}},
			{m.UpsampleNearest(c), []int{Batch, 8, 10, 12}},
			{m.MaxPool(x, Pool{Kernel: 3, Stride: 2}), []int{Batch, 3, 4, 5}},
			{m.AveragePool(x, Pool{Kernel: 3, Stride: 1, Pad: 1}), []int{Batch, 3, 9, 11}},
			{m.Transpose(x, 0, 2, 3, 1), []int{Batch, 9, 11, 3}},
			{m.Reshape(x, Batch, 27, 11), []int{Batch, 27, 11}},
			{m.Concat(1, x, x), []int{Batch, 6, 9, 11}},
			{m.Split(c, 1, 4)[3], []int{Batch, 2, 5, 6}},
			{m.Slice(x, 3, 2, 5), []int{Batch, 3, 9, 3}},
			{m.MatMul(c, m.Transpose(c, 0, 1, 3, 2)), []int{Batch, 8, 5, 5}},
			{m.Mean(x, 2, 3), []int{Batch, 3}},
			{m.Add(x, m.Const(make([]float32, 3), 3, 1, 1)), x.Shape},
			{m.TimestepEmbedding(m.Input("t", checkpoint.F32, Batch), 7, 10000), []int{Batch, 7}},
		} {
			if !slices.Equal(w.got.Shape, w.want) {
				t.Errorf("%s has shape %v, want %v", w.got.Name, w.got.Shape, w.want)
			}
		}
		m.Output("out", c)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMistakes builds graphs that no programmer should: an error, no panic.
func TestMistakes(t *testing.T) {
	for want, f := range map[string]func(m *Module, x Value){
		"do not broadcast":         func(m *Module, x Value) { m.Add(x, m.Const(make([]float32, 5), 5)) },
		"Reshape of [-1 3 4 4]":    func(m *Module, x Value) { m.Reshape(x, Batch, 47) },
		"MatMul of":                func(m *Module, x Value) { m.MatMul(x, m.Const(make([]float32, 6), 3, 2)) },
		"Split of":                 func(m *Module, x Value) { m.Split(x, 1, 2) },
		"Slice [2,9) of axis 1":    func(m *Module, x Value) { m.Slice(x, 1, 2, 9) },
		"3 channels in 2 groups":   func(m *Module, x Value) { m.In("norm").GroupNorm(x, 2) },
		"constant of shape [2]":    func(m *Module, x Value) { m.Const([]float32{1}, 2) },
		"Add of F32 and I64":       func(m *Module, x Value) { m.Add(x, m.Ints(1)) },
		"Embedding of F32 labels":  func(m *Module, x Value) { m.In("e").Embedding(x, 2, 2) },
		"is used as [3] and as [1": func(m *Module, x Value) { m.Param("p", 3); m.Param("p", 1, 3) },
	} {
		_, err := Build(nil, func(m *Module) { f(m, m.Input("x", checkpoint.F32, Batch, 3, 4, 4)) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestMismatch(t *testing.T) {
	sd := weights(map[string][]int{"a.weight": {4, 2}, "b": {1}, "c.num_batches_tracked": {1}})
	_, err := Build(sd, func(m *Module) {
		m.In("a").Linear(m.Input("x", checkpoint.F32, Batch, 3), 4)
		m.In("c").Ignore("num_batches_tracked")
	})
	var e *MismatchError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	e.Hint = "it is another file"
	want := `the checkpoint does not fit the network; it is another file
  missing    a.bias [4]
  unexpected b [1]
  mis-shaped a.weight: the network wants [4 3], the checkpoint has [4 2]`
	if e.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", e, want)
	}

	many := map[string][]int{}
	for i := range 180 {
		many[fmt.Sprintf("b%03d", i)] = []int{1}
	}
	_, err = Build(weights(many), func(m *Module) { m.In("a").Linear(m.Input("x", checkpoint.F32, Batch, 3), 4) })
	const few = "\n  unexpected b002 [1]\n  unexpected b003 [1]\n  and 176 more are unexpected"
	if err == nil || !strings.HasSuffix(err.Error(), few) || strings.Count(err.Error(), "\n") != 7 {
		t.Errorf("180 keys: %v", err)
	}
}

// TestDeterministic builds a graph twice: the caches' keys depend on its bytes.
func TestDeterministic(t *testing.T) {
	build := func() []byte {
		m, err := Build(weights(map[string][]int{"weight": {4, 3, 3, 3}, "bias": {4}}), func(m *Module) {
			m.Output("y", m.SiLU(m.Conv2D(m.Input("x", checkpoint.F32, Batch, 3, 8, 8), 4, 3, 1, 1)))
		})
		if err != nil {
			t.Fatal(err)
		}
		return m.Proto
	}
	if !bytes.Equal(build(), build()) {
		t.Error("two builds of one graph differ")
	}
}

// TestExternalData points large weights of half precision into their file and
// copies small ones.
func TestExternalData(t *testing.T) {
	big := checkpoint.Tensor{DType: checkpoint.F16, Shape: []int{64, 64}, File: "/models/a.pt", Offset: 640, Size: 8192}
	sd := checkpoint.StateDict{"weight": big, "bias": checkpoint.FromFloat32(make([]float32, 64), 64)}
	m, err := Build(sd, func(m *Module) { m.Output("y", m.Linear(m.Input("x", checkpoint.F32, Batch, 64), 64)) })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.Files, []string{"/models/a.pt"}) {
		t.Errorf("files %v", m.Files)
	}
	var model pb.ModelProto
	if err := proto.Unmarshal(m.Proto, &model); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range model.Graph.Initializer {
		for _, e := range p.ExternalData {
			got[p.GetName()+"."+e.GetKey()] = e.GetValue()
		}
	}
	for k, want := range map[string]string{"weight.location": "a.pt", "weight.offset": "640", "weight.length": "8192"} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
	if len(got) != 3 {
		t.Errorf("external data %v, want that of weight alone", got)
	}
}
