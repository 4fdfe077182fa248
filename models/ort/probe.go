package ort

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling/tensor"
)

// mantissa is how many bits behind the leading one a precision keeps of the factors of
// a product.
var mantissa = map[string]int{Float32: 23, TF32: 10, Float16: 10, BFloat16: 7}

// probes are what probed has found, by device and precision.
var probes sync.Map

// probed is an error where the device does not compute in the precision that was asked
// of its provider: float32 in another, which is what providers do unless told
// otherwise, or another in float32, where the processor has no instructions for it. It
// convolves once a process; on the CPU, and where the graph's own types say what is
// computed, there is nothing to find out.
func (o Options) probed() error {
	p, err := o.precision()
	if err != nil || p.Graph != checkpoint.F32 || p.value == "" {
		return err
	}
	if err := initialize(); err != nil {
		return err
	}
	found, _ := probes.LoadOrStore(o.device()+" "+p.Name, sync.OnceValues(func() (int, error) { return o.probe(p) }))
	bits, err := found.(func() (int, error))()
	if err != nil {
		return fmt.Errorf("device %s cannot be tried out in %s: %w", o.device(), p.Name, err)
	}
	if want := mantissa[p.Name]; bits != want {
		return fmt.Errorf("device %s was asked for %s, whose factors have %d bits behind the leading one, but computes with %d: it has no instructions for it; choose another --precision", o.device(), p.Name, want, bits)
	}
	return nil
}

// probe is how many bits behind the leading one the factors of a convolution keep on
// the device: one pixel wide, with weights that are 1 for a channel's own, of an image
// whose places are 1 + 2⁻ᵏ. In float32 it changes no bit of them.
func (o Options) probe(p Precision) (bits int, err error) {
	const channels, side = 64, 16
	weights := tensor.New(channels, channels, 1, 1)
	for c := range channels {
		weights.Data[c*channels+c] = 1
	}
	sd := checkpoint.StateDict{"weight": checkpoint.FromFloat32(weights.Data, weights.Shape...), "bias": checkpoint.FromFloat32(make([]float32, channels), channels)}
	m, err := onnx.Build(sd, func(m *onnx.Module) {
		m.Output("y", m.Conv2D(m.Input("x", checkpoint.F32, onnx.Batch, channels, side, side), channels, 1, 1, 0))
	})
	if err != nil {
		return 0, err
	}
	s := &Session{model: m, options: Options{Device: o.Device, Precision: p.Name, Threads: o.Threads}}
	defer s.Close()
	x := tensor.New(1, channels, side, side)
	for i := range x.Data {
		x.Data[i] = 1 + 1/float32(int(1)<<(i%24))
	}
	out, err := s.Run(context.Background(), map[string]Array{"x": Floats(x)})
	if err != nil {
		return 0, err
	}
	for i, y := range out["y"].Tensor().Data {
		if k := i % 24; y == x.Data[i] && y != 1 {
			bits = max(bits, k)
		}
	}
	return bits, nil
}

// cut leaves a graph's sines and cosines to the CPU where the provider would compute
// them in less than float32.
func (o Options) cut(m *onnx.Model) (rest *onnx.Model, waves *Session, err error) {
	d, err := ParseDevice(o.Device)
	if err != nil {
		return nil, nil, err
	}
	if p, err := d.Precision(o.Precision); err != nil || !p.chosen && !d.coarse {
		return m, nil, err
	}
	head, rest, err := m.CutWaves()
	if err == nil && head != nil {
		waves, err = Open(head, Options{Threads: o.Threads, Note: o.Note, Unchanged: o.Unchanged})
	}
	return rest, waves, err
}

// withWaves are the inputs with those that the CPU computes.
func (s *Session) withWaves(ctx context.Context, inputs map[string]Array) (map[string]Array, error) {
	if s.waves == nil {
		return inputs, nil
	}
	all, err := s.waves.Run(ctx, inputs)
	if err == nil {
		maps.Copy(all, inputs)
	}
	return all, err
}

// attentions is whether a device computes an attention as the CPU does, by device and
// shape.
var attentions sync.Map

// apart takes the attentions of a graph apart that the device would compute wrongly.
func (o Options) apart(m *onnx.Model) (*onnx.Model, error) {
	d, err := ParseDevice(o.Device)
	if err != nil || !d.doubted {
		return m, err
	}
	wrong := map[onnx.AttentionShape]bool{}
	for _, s := range m.Attentions() {
		type key struct {
			device string
			shape  onnx.AttentionShape
		}
		found, _ := attentions.LoadOrStore(key{o.device(), s}, sync.OnceValues(func() (bool, error) { return o.attends(s) }))
		right, err := found.(func() (bool, error))()
		if err != nil {
			return nil, fmt.Errorf("device %s: its attention cannot be tried out: %w", o.device(), err)
		}
		if !right {
			wrong[s] = true
		}
	}
	if len(wrong) == 0 {
		return m, nil
	}
	if o.Note != nil {
		o.Note(o.device() + ": its attention was tried out and is wrong; it is computed as two products and a softmax")
	}
	return m.AttentionApart(wrong)
}

// attends reports whether the device computes an attention in float32 as the CPU does.
func (o Options) attends(s onnx.AttentionShape) (bool, error) {
	const images, most = 2, 1e-4 // other orders of summation make less than 1e-5
	m, err := onnx.Build(nil, func(m *onnx.Module) {
		in := func(name string, tokens int) onnx.Value {
			return m.Input(name, checkpoint.F32, onnx.Batch, tokens, s.Heads*s.Width)
		}
		m.Output("y", m.Attention(in("q", s.T), in("k", s.S), in("v", s.S), s.Heads))
	})
	if err != nil {
		return false, err
	}
	inputs := map[string]Array{}
	for i, name := range []string{"q", "k", "v"} {
		x := tensor.New(images, s.S, s.Heads*s.Width)
		if name == "q" {
			x = tensor.New(images, s.T, s.Heads*s.Width)
		}
		for j := range x.Data {
			x.Data[j] = 2 * float32(math.Sin(float64(7919*j+31*i)))
		}
		inputs[name] = Floats(x)
	}
	var found [2][]float32
	for i, device := range []string{"cpu", o.Device} {
		session := &Session{model: m, options: Options{Device: device, Threads: o.Threads}}
		out, err := session.Run(context.Background(), inputs)
		session.Close()
		if err != nil {
			return false, err
		}
		found[i] = out["y"].Tensor().Data
	}
	for i, y := range found[0] {
		if !(math.Abs(float64(found[1][i]-y)) <= most*2) { // values are up to 2
			return false, nil
		}
	}
	return true, nil
}
