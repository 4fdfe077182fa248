package ort

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/onnx"
)

// A Session is a graph that runs. Run may be called from several goroutines.
type Session struct {
	model   *onnx.Model
	options Options
	path    string // of the graph, where it is a file
	widened Widened
	waves   *Session // on the CPU, of what the graph then takes as inputs; nil = none
	calls   atomic.Int64

	mu      sync.Mutex // guards what follows
	session *rt.DynamicAdvancedSession
	err     error // of the one attempt to prepare the session
	closed  bool
}

// Open checks that a model can run on a device; errors say what the runtime
// lacks. The graph is optimized and its weights are loaded at the first Run,
// which takes seconds for a large network.
func Open(m *onnx.Model, opt Options) (*Session, error) {
	if err := initialize(); err != nil {
		return nil, err
	}
	if err := opt.probed(); err != nil {
		return nil, fmt.Errorf("ort: %w", err)
	}
	m, waves, err := opt.cut(m)
	if err != nil {
		return nil, fmt.Errorf("ort: %w", err)
	}
	if m, err = opt.apart(m); err != nil {
		return nil, fmt.Errorf("ort: %w", err)
	}
	m, widened, err := opt.lowered(m)
	if err != nil {
		return nil, fmt.Errorf("ort: %w", err)
	}
	if opt.HasKernels() {
		if m, err = m.WithKernels(); err != nil {
			return nil, err
		}
	}
	s := &Session{model: m, options: opt, widened: widened, waves: waves}
	options, err := s.sessionOptions()
	if err != nil {
		return nil, err
	}
	options.Destroy()
	if opt.Opened != nil {
		opt.Opened(m)
	}
	return s, nil
}

// prepared is the session, made at the first call.
func (s *Session) prepared() (*rt.DynamicAdvancedSession, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("ort: the session is closed")
	}
	if s.session == nil && s.err == nil {
		if s.session, s.err = s.prepare(); s.err != nil {
			s.err = fmt.Errorf("ort: the graph cannot be prepared on %s: %w", s.options.device(), s.err)
		} else if s.err = s.options.unchanged(); s.err != nil {
			s.session.Destroy()
			s.session = nil
		}
	}
	return s.session, s.err
}

// prepare makes the session, from the cache where the graph is kept there.
func (s *Session) prepare() (*rt.DynamicAdvancedSession, error) {
	if key := s.options.cacheKey(s.model); key != nil {
		if session := s.openCached(key); session != nil {
			return session, nil
		}
	}
	o, err := s.sessionOptions()
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	session, err := s.create(s.model.Proto, o)
	if err == nil {
		if err = s.placed(session); err != nil {
			session.Destroy()
			return nil, err
		}
	}
	return session, err
}

// placed tells where the nodes of a session run that is not the CPU's.
func (s *Session) placed(session *rt.DynamicAdvancedSession) error {
	d, err := ParseDevice(s.options.Device)
	if err != nil || d.Name == "cpu" {
		return err
	}
	p, err := s.placement(session, d)
	if err == nil && s.options.Placed != nil {
		s.options.Placed(p)
	}
	return err
}

// sessionOptions are those that the session is made with.
func (s *Session) sessionOptions() (*rt.SessionOptions, error) {
	o, err := s.options.sessionOptions(s.model)
	if err == nil && s.model.Kernels {
		if err = addKernels(o); err != nil {
			o.Destroy()
		}
	}
	return o, err
}

func (s *Session) create(proto []byte, o *rt.SessionOptions) (*rt.DynamicAdvancedSession, error) {
	var in, out []string
	for _, i := range s.model.Inputs {
		in = append(in, i.Name)
	}
	for _, o := range s.model.Outputs {
		out = append(out, o.Name)
	}
	if s.path != "" {
		return rt.NewDynamicAdvancedSession(s.path, in, out, o)
	}
	return rt.NewDynamicAdvancedSessionWithONNXData(proto, in, out, o)
}

// Run computes all outputs of the graph. Symbolic lengths, such as the batch
// size, follow from the inputs; an output with one that does not is allocated by
// the runtime. Cancelling ctx stops the run inside the graph.
func (s *Session) Run(ctx context.Context, inputs map[string]Array) (map[string]Array, error) {
	inputs, err := s.withWaves(ctx, inputs)
	if err != nil {
		return nil, err
	}
	operands := make(map[string]Operand, len(inputs))
	for name, a := range inputs {
		operands[name] = a
	}
	lengths, err := s.check(operands)
	if err != nil {
		return nil, err
	}
	out := map[string]Array{}
	for _, o := range s.model.Outputs {
		shape, known := sized(o.Shape, lengths)
		if !known {
			continue
		}
		if out[o.Name], err = newArray(o.DType, shape); err != nil {
			return nil, fmt.Errorf("ort: %s: %w", o.Name, err)
		}
	}
	return out, s.into(ctx, inputs, out)
}

// into computes all outputs into arrays of the right shapes, and adds those for
// which there is none.
func (s *Session) into(ctx context.Context, inputs, outputs map[string]Array) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var values []rt.Value
	defer func() {
		for _, v := range values {
			if v != nil {
				v.Destroy()
			}
		}
	}()
	bind := func(infos []onnx.Info, arrays map[string]Array) error {
		for _, i := range infos {
			a, ok := arrays[i.Name]
			if !ok {
				values = append(values, nil)
				continue
			}
			v, err := a.value()
			if err != nil {
				return fmt.Errorf("ort: %s: %w", i.Name, err)
			}
			values = append(values, v)
		}
		return nil
	}
	if err := bind(s.model.Inputs, inputs); err != nil {
		return err
	}
	if err := bind(s.model.Outputs, outputs); err != nil {
		return err
	}
	session, err := s.prepared()
	if err != nil {
		return err
	}
	n := len(s.model.Inputs)
	err = s.timed(ctx, func(opts *rt.RunOptions) error { return session.RunWithOptions(values[:n], values[n:], opts) })
	if err != nil {
		return err
	}
	for i, o := range s.model.Outputs {
		if _, ok := outputs[o.Name]; ok {
			continue
		}
		a, err := arrayOf(values[n+i])
		if err != nil {
			return fmt.Errorf("ort: %s: %w", o.Name, err)
		}
		outputs[o.Name] = a
	}
	return nil
}

// interruptible is a run that ends when ctx does, inside the graph.
func interruptible(ctx context.Context, f func(*rt.RunOptions) error) error {
	opts, err := rt.NewRunOptions()
	if err != nil {
		return fmt.Errorf("ort: %w", err)
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		opts.Terminate()
	})
	err = f(opts)
	if !stop() {
		<-done
	}
	opts.Destroy()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("ort: %w", err)
	}
	return nil
}

// check holds the inputs against the graph and returns the symbolic lengths.
func (s *Session) check(inputs map[string]Operand) (map[int]int, error) {
	lengths := map[int]int{}
	for _, i := range s.model.Inputs {
		a, ok := inputs[i.Name]
		if !ok {
			return nil, fmt.Errorf("ort: input %s %v is missing", i.Name, i.Shape)
		}
		if a.elements() != i.DType {
			return nil, fmt.Errorf("ort: input %s holds %s, the graph wants %s", i.Name, describe(a), i.DType)
		}
		shape := a.shape()
		if len(shape) == len(i.Shape) {
			for k, d := range i.Shape {
				if _, known := lengths[d]; d < 0 && !known {
					lengths[d] = shape[k]
				}
			}
		}
		if want, _ := sized(i.Shape, lengths); !slices.Equal(shape, want) {
			return nil, fmt.Errorf("ort: input %s has shape %v, the graph wants %v", i.Name, shape, want)
		}
	}
	return lengths, nil
}

// describe names what an operand holds.
func describe(o Operand) string {
	if a, ok := o.(Array); ok {
		return fmt.Sprintf("%T", a.Data)
	}
	return string(o.elements())
}

// sized is the shape with its symbolic lengths filled in, and whether all are
// known.
func sized(shape []int, lengths map[int]int) (filled []int, known bool) {
	filled, known = slices.Clone(shape), true
	for i, d := range filled {
		if d < 0 {
			length, ok := lengths[d]
			filled[i], known = length, known && ok
		}
	}
	return filled, known
}

// Model is the graph that the session runs.
func (s *Session) Model() *onnx.Model { return s.model }

// Rest gives the session's memory back until the next Run, which prepares it
// again. No Run may be under way.
func (s *Session) Rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		s.session.Destroy()
		s.session = nil
	}
	if s.waves != nil {
		s.waves.Rest()
	}
}

// Close frees the session's memory. No Run may be under way.
func (s *Session) Close() {
	s.Rest()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}
