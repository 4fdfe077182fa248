package ort

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling/tensor"
)

// doubled is a graph of y = x + x and the sum of each row of x; the outputs are in
// another order than their names.
func doubled(t *testing.T, opt Options) *Session {
	t.Helper()
	m, err := onnx.Build(nil, func(m *onnx.Module) {
		x := m.Input("x", checkpoint.F32, onnx.Batch, 3)
		m.Output("y", m.Add(x, x))
		m.Output("sum", m.Sum(x, 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// What a graph leaves on its device goes through it again and again; the last call
// fetches it. On another device than the CPU only what is given and fetched crosses.
func TestRunOn(t *testing.T) {
	opt := Options{Device: os.Getenv("SAGBENCH_TEST_DEVICE"), Threads: 1}
	s := doubled(t, opt)
	var crossed Traffic
	given := Floats(tensor.Of([]float32{1, 2, 3, -4, 0.5, 6}, 2, 3))
	stay, arrays, err := s.RunOn(t.Context(), map[string]Operand{"x": given}, &crossed)
	if err != nil || len(stay) != 2 || len(arrays) != 0 {
		t.Fatal(stay, arrays, err)
	}
	stay["sum"].Close()
	x := stay["y"]
	for range 3 {
		stay, _, err = s.RunOn(t.Context(), map[string]Operand{"x": x}, &crossed)
		if err != nil {
			t.Fatal(err)
		}
		x.Close()
		stay["sum"].Close()
		x = stay["y"]
	}
	if x.OnHost() == opt.Resident() {
		t.Errorf("what %s computes lies in the host's memory: %v", opt.Device, x.OnHost())
	}
	stay, arrays, err = s.RunOn(t.Context(), map[string]Operand{"x": x}, &crossed, "sum", "y")
	x.Close()
	if err != nil || len(stay) != 0 {
		t.Fatal(stay, err)
	}
	want := []float32{32, 64, 96, -128, 16, 192}
	if y := arrays["y"].Tensor(); !slices.Equal(y.Data, want) || !slices.Equal(y.Shape, []int{2, 3}) {
		t.Errorf("y = %v", y)
	}
	if sum := arrays["sum"].Tensor(); !slices.Equal(sum.Data, []float32{96, 40}) || !slices.Equal(sum.Shape, []int{2}) {
		t.Errorf("sum = %v", sum)
	}
	up, down := int64(6*4), int64((6+2)*4)
	if !opt.Resident() {
		up, down = 0, 0
	}
	if crossed.Up.Load() != up || crossed.Down.Load() != down {
		t.Errorf("%d bytes went up and %d down, expected %d and %d", crossed.Up.Load(), crossed.Down.Load(), up, down)
	}
}

// What does not fit the graph is an error that names it, and so are a context that is
// done and an array that was closed.
func TestRunOnErrors(t *testing.T) {
	s := doubled(t, Options{Threads: 1})
	for want, in := range map[string]Operand{
		"input x [-1 3] is missing":            nil,
		"input x has shape [2 4], the graph":   Floats(tensor.New(2, 4)),
		"input x holds []int64, the graph":     Array{Shape: []int{2, 3}, Data: make([]int64, 6)},
		"ort: x: the array was closed":         &Resident{Shape: []int{2, 3}, DType: checkpoint.F32},
		"input x holds I64, the graph wants F": &Resident{Shape: []int{2, 3}, DType: checkpoint.I64},
	} {
		inputs := map[string]Operand{}
		if in != nil {
			inputs["x"] = in
		}
		if _, _, err := s.RunOn(t.Context(), inputs, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.RunOn(ctx, map[string]Operand{"x": Floats(tensor.New(2, 3))}, nil); err != context.Canceled {
		t.Error(err)
	}
	(*Resident)(nil).Close()
}

// A late context is done, but interrupts nothing: the graph was faster.
type late struct{ context.Context }

func (late) Err() error { return context.Canceled }

// A call that ends after its context keeps nothing of what it computed.
func TestRunOnCancelled(t *testing.T) {
	s := doubled(t, Options{Threads: 1})
	session, err := s.prepared()
	if err == nil {
		err = openAPI()
	}
	if err != nil {
		t.Fatal(err)
	}
	b := binding{session: s}
	defer b.free()
	if err := b.input("x", Floats(tensor.New(2, 3))); err != nil {
		t.Fatal(err)
	}
	b.output("y", false)
	b.output("sum", false)
	if err := b.run(late{t.Context()}, session); err != context.Canceled {
		t.Fatal(err)
	}
	for i, v := range b.outputValues {
		if v != nil {
			t.Errorf("output %d is kept", i)
		}
	}
}
