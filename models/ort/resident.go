package ort

// #include <stdlib.h>
// #include "runtime_api.h"
import "C"

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"unsafe"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/checkpoint"
	"sagbench/sampling/tensor"
)

// A Resident is an array in the memory in which a graph has computed it: of a GPU, or of
// the host where it was computed there. Close frees it.
type Resident struct {
	Shape []int
	DType checkpoint.DType
	value unsafe.Pointer // the runtime's OrtValue
	host  bool
}

// Close frees the memory. It may be called again, and of nil.
func (r *Resident) Close() {
	if r != nil && r.value != nil {
		C.api_release(r.value)
		r.value = nil
	}
}

// OnHost tells whether the array lies in the host's memory.
func (r *Resident) OnHost() bool { return r.host }

// An Operand is an input of RunOn: an Array, in the host's memory, or a *Resident.
type Operand interface {
	shape() []int
	elements() checkpoint.DType
}

func (a Array) shape() []int                   { return a.Shape }
func (a Array) elements() checkpoint.DType     { return a.elementType().dtype }
func (r *Resident) shape() []int               { return r.Shape }
func (r *Resident) elements() checkpoint.DType { return r.DType }

// A Traffic counts bytes that cross between the host's memory and a device's. Its zero
// value is ready; several goroutines may use one.
type Traffic struct{ Up, Down atomic.Int64 }

// RunOn is Run whose outputs stay where they were computed, but for those that are named
// in fetched, which come back as arrays. Inputs may lie anywhere: what lies elsewhere than
// the graph needs it is copied by the runtime. Where states stay on the device
// (Options.Resident), crossed is told of the bytes that the caller made cross; it may be
// nil. The caller closes what stays.
func (s *Session) RunOn(ctx context.Context, inputs map[string]Operand, crossed *Traffic, fetched ...string) (stay map[string]*Resident, arrays map[string]Array, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if inputs, err = s.wavesOn(ctx, inputs); err != nil {
		return nil, nil, err
	}
	lengths, err := s.check(inputs)
	if err != nil {
		return nil, nil, err
	}
	session, err := s.prepared()
	if err == nil {
		err = openAPI()
	}
	if err != nil {
		return nil, nil, err
	}
	b := binding{session: s, off: s.options.Resident(), crossed: crossed}
	defer b.free()
	for _, i := range s.model.Inputs {
		if err := b.input(i.Name, inputs[i.Name]); err != nil {
			return nil, nil, fmt.Errorf("ort: %s: %w", i.Name, err)
		}
	}
	for _, o := range s.model.Outputs {
		b.output(o.Name, slices.Contains(fetched, o.Name))
	}
	if err := b.run(ctx, session); err != nil {
		return nil, nil, err
	}
	return b.results(lengths)
}

// wavesOn is withWaves for operands: what the CPU computes is of arrays.
func (s *Session) wavesOn(ctx context.Context, inputs map[string]Operand) (map[string]Operand, error) {
	if s.waves == nil {
		return inputs, nil
	}
	arrays := map[string]Array{}
	for _, i := range s.waves.model.Inputs {
		a, ok := inputs[i.Name].(Array)
		if !ok {
			return nil, fmt.Errorf("ort: input %s has to be in the host's memory: sines and cosines of it are computed there", i.Name)
		}
		arrays[i.Name] = a
	}
	computed, err := s.waves.Run(ctx, arrays)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(inputs)
	for name, a := range computed {
		all[name] = a
	}
	return all, nil
}

// A binding is one run of RunOn, in the terms of C.
type binding struct {
	session *Session
	off     bool // the device has a memory of its own
	crossed *Traffic

	own          []rt.Value // of arrays among the inputs
	names        []*C.char  // of inputs, then of outputs
	values       []unsafe.Pointer
	toHost       []C.uchar
	outputValues []unsafe.Pointer
}

func (b *binding) input(name string, o Operand) error {
	value := unsafe.Pointer(nil)
	switch o := o.(type) {
	case Array:
		v, err := o.value()
		if err != nil {
			return err
		}
		b.own = append(b.own, v)
		if value, err = pointer(v, "ortValue"); err != nil {
			return err
		}
		b.cross(false, o.Shape, o.elements())
	case *Resident:
		if value = o.value; value == nil {
			return fmt.Errorf("the array was closed")
		}
		if o.host {
			b.cross(false, o.Shape, o.DType)
		}
	}
	b.names, b.values = append(b.names, C.CString(name)), append(b.values, value)
	return nil
}

// cross counts an array that goes up or down.
func (b *binding) cross(down bool, shape []int, t checkpoint.DType) {
	if b.crossed == nil || !b.off {
		return
	}
	n := int64(tensor.Size(shape)) * int64(t.Size())
	if down {
		b.crossed.Down.Add(n)
	} else {
		b.crossed.Up.Add(n)
	}
}

func (b *binding) output(name string, fetched bool) {
	host := C.uchar(0)
	if fetched {
		host = 1
	}
	b.names, b.toHost = append(b.names, C.CString(name)), append(b.toHost, host)
}

func (b *binding) run(ctx context.Context, session *rt.DynamicAdvancedSession) error {
	raw, err := rawSession(session)
	if err != nil {
		return err
	}
	b.outputValues = make([]unsafe.Pointer, len(b.toHost))
	n := len(b.values)
	err = b.session.timed(ctx, func(opts *rt.RunOptions) error {
		o, err := pointer(opts, "o")
		if err != nil {
			return err
		}
		// The arrays of pointers are C's memory: they point to memory of C.
		in, out := inC(b.values), inC(b.outputValues)
		names := inC(pointersOf(b.names))
		defer func() {
			for _, p := range []unsafe.Pointer{in, out, names} {
				C.free(p)
			}
		}()
		inNames := (**C.char)(names)
		outNames := (**C.char)(unsafe.Add(names, n*int(unsafe.Sizeof(uintptr(0)))))
		err = failure(C.api_run(raw, o, C.size_t(n), inNames, (*unsafe.Pointer)(in), C.size_t(len(b.toHost)), outNames, unsafe.SliceData(b.toHost), (*unsafe.Pointer)(out)))
		if err == nil {
			copy(b.outputValues, unsafe.Slice((*unsafe.Pointer)(out), len(b.outputValues)))
		}
		return err
	})
	if err != nil { // also where the graph was done before the context
		for i, v := range b.outputValues {
			if v != nil {
				C.api_release(v)
				b.outputValues[i] = nil
			}
		}
	}
	return err
}

// results takes the outputs over.
func (b *binding) results(lengths map[int]int) (map[string]*Resident, map[string]Array, error) {
	stay, arrays := map[string]*Resident{}, map[string]Array{}
	failed := func(name string, err error) (map[string]*Resident, map[string]Array, error) {
		for _, r := range stay {
			r.Close()
		}
		return nil, nil, fmt.Errorf("ort: %s: %w", name, err)
	}
	all := make([]*Resident, len(b.outputValues))
	for i, o := range b.session.model.Outputs {
		shape, known := sized(o.Shape, lengths)
		all[i] = &Resident{Shape: shape, DType: o.DType, value: b.outputValues[i]}
		stay[o.Name] = all[i]
		if !known {
			return failed(o.Name, fmt.Errorf("its length does not follow from the inputs'"))
		}
	}
	for i, o := range b.session.model.Outputs {
		r := all[i]
		var data unsafe.Pointer
		if err := failure(C.api_data(r.value, &data)); err != nil {
			return failed(o.Name, err)
		}
		r.host = data != nil
		if b.toHost[i] == 0 {
			if r.host {
				b.cross(true, r.Shape, r.DType)
			}
			continue
		}
		a, err := newArray(o.DType, r.Shape)
		if err != nil {
			return failed(o.Name, err)
		}
		a.fill(data)
		b.cross(true, r.Shape, r.DType)
		arrays[o.Name] = a
		r.Close()
		delete(stay, o.Name)
	}
	return stay, arrays, nil
}

func (b *binding) free() {
	for _, v := range b.own {
		v.Destroy()
	}
	for _, n := range b.names {
		C.free(unsafe.Pointer(n))
	}
}

// inC copies pointers to C's memory.
func inC(from []unsafe.Pointer) unsafe.Pointer {
	to := C.calloc(C.size_t(len(from)+1), C.size_t(unsafe.Sizeof(uintptr(0))))
	copy(unsafe.Slice((*unsafe.Pointer)(to), len(from)), from)
	return to
}

func pointersOf(names []*C.char) []unsafe.Pointer {
	all := make([]unsafe.Pointer, len(names))
	for i, n := range names {
		all[i] = unsafe.Pointer(n)
	}
	return all
}
