package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A plain pickle of the objects of NVlabs' torch_utils.persistence, as StyleGAN
// and EDM publish their networks: one pickle, no archive. Every module is a call
// of _reconstruct_persistent_obj with the source text of its class, which is
// carried along and never read, let alone run, and with its attributes; every
// storage is a file of torch.save within the pickle. What is obeyed is in
// persistentName; whatever else such a pickle names is an error.

// An Object is an object of torch_utils.persistence that a pickle holds.
type Object struct {
	Class string // such as EDMPrecond
	// Arguments are the constructor's that have a name: nil, bool, int, float64,
	// string, or []any of these. Positional is how many have none.
	Arguments  map[string]any
	Positional int
	// Attributes are its plain attributes likewise; arrays are []float64.
	Attributes map[string]any
}

type (
	// A pyBytes is a bytes object: a part of the pickle, not a copy.
	pyBytes struct {
		at   int // where it begins in the pickle
		data []byte
	}

	// A pyObject is a module, or another object that has attributes.
	pyObject struct {
		class string
		state *pyDict
	}

	// A pyDType is numpy.dtype, such as f4; BUILD tells its byte order.
	pyDType struct{ code string }

	// A pyArray is numpy.ndarray; BUILD tells its content.
	pyArray struct{ values []float64 }
)

// isPickleOfTorch reports whether a pickle begins a file of torch.save's legacy
// format: whether its first value is the magic number.
func isPickleOfTorch(data []byte) bool {
	magic := []byte("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")
	return data[0] != 0x80 || bytes.Contains(data[:min(len(data), 32)], magic)
}

// parsePersistent reads a plain pickle.
func parsePersistent(m *mapping, set string, b *budget) (*File, error) {
	u := &unpickler{b: b, names: persistentName}
	root, n, err := u.load(m.data)
	if err != nil {
		return nil, err
	}
	if n < len(m.data) {
		return nil, fmt.Errorf("%d bytes follow the pickle; nothing is expected there", len(m.data)-n)
	}
	p := &persistent{b: b, objects: map[string]Object{}}
	if err := p.root(root); err != nil {
		return nil, err
	}
	f := &File{Format: Persistent, Objects: p.objects}
	return f, f.unwrap(p.sets, set, &resolver{func(s *storage) (region, error) { return s.within, nil }, m, b})
}

// reconstruct is the function that makes every object.
const reconstruct = "torch_utils.persistence._reconstruct_persistent_obj"

// persistentName is lookup for the pickles of torch_utils.persistence.
func persistentName(module, name string) (any, error) {
	switch full := module + "." + name; full {
	case reconstruct:
		return &pyGlobal{full, newPersistent, false}, nil
	case "torch.nn.modules.container.ModuleDict", "torch.nn.modules.container.ModuleList", "torch.nn.modules.container.Sequential":
		return &pyGlobal{full, func(*unpickler, []any) (any, error) { return &pyObject{class: name}, nil }, true}, nil
	case "dnnlib.util.EasyDict", "dnnlib.EasyDict":
		return &pyGlobal{full, newDict, true}, nil
	case "torch.storage._load_from_bytes":
		return &pyGlobal{full, loadFromBytes, false}, nil
	case "builtins.set", "__builtin__.set":
		return &pyGlobal{full, func(*unpickler, []any) (any, error) { return &pyList{}, nil }, true}, nil
	case "numpy.dtype":
		return &pyGlobal{full, newDType, true}, nil
	case "numpy.ndarray":
		return &pyGlobal{full, func(*unpickler, []any) (any, error) { return &pyArray{}, nil }, true}, nil
	case "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar":
		return &pyGlobal{full, newScalar, false}, nil
	case "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct":
		return &pyGlobal{full, func(*unpickler, []any) (any, error) { return &pyArray{}, nil }, false}, nil
	default:
		known, err := lookup(module, name)
		if _, refused := known.(*opaque); refused {
			return nil, fmt.Errorf("it names %s, which is not among what a network of torch_utils.persistence (EDM, EDM2, StyleGAN) is made of; nothing of it was called. "+
				"Of another network save the weights: torch.save(model.state_dict(), path)", shorten(full))
		}
		return known, err
	}
}

// newPersistent is the object of a call of _reconstruct_persistent_obj: {type,
// version, module_src, class_name, state}. Source: torch_utils/persistence.py.
func newPersistent(_ *unpickler, args []any) (any, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("_reconstruct_persistent_obj with %d arguments where 1 is expected", len(args))
	}
	meta, _ := args[0].(*pyDict)
	kind, _ := meta.get("type").(string)
	class, named := meta.get("class_name").(string)
	state, isDict := meta.get("state").(*pyDict)
	if kind != "class" || !named || !isDict {
		return nil, fmt.Errorf("_reconstruct_persistent_obj of type %s, class_name %s, state %s, where a class, its name and a dict are expected",
			describe(meta.get("type")), describe(meta.get("class_name")), describe(meta.get("state")))
	}
	if version := meta.get("version"); version != 6 {
		return nil, fmt.Errorf("version %s of torch_utils.persistence, expected 6", describe(version))
	}
	return &pyObject{class, state}, nil
}

// get is the value of a key, nil where there is none or no dict; the last one
// counts, as in Python.
func (d *pyDict) get(key string) any {
	if d == nil {
		return nil
	}
	for _, e := range slices.Backward(d.entries) {
		if e.key == any(key) {
			return e.value
		}
	}
	return nil
}

// loadFromBytes is the storage in a file of torch.save's legacy format that is a
// bytes object of the pickle.
func loadFromBytes(u *unpickler, args []any) (any, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("_load_from_bytes with %d arguments where 1 is expected", len(args))
	}
	file, ok := args[0].(*pyBytes)
	if !ok {
		return nil, fmt.Errorf("_load_from_bytes of %s where bytes are expected", describe(args[0]))
	}
	l := newTorchLegacy()
	root, err := l.read(file.data, int64(file.at), u.b)
	if err != nil {
		return nil, fmt.Errorf("a storage, at byte %d: %w", file.at, err)
	}
	s, ok := root.(*storage)
	if !ok {
		return nil, fmt.Errorf("a storage, at byte %d: it is a %s", file.at, describe(root))
	}
	own := *s
	own.within, err = l.locate(s)
	return &own, err
}

// newDType reads numpy.dtype(code, align, copy).
func newDType(_ *unpickler, args []any) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("a numpy.dtype without a code")
	}
	code, _ := args[0].(string)
	if _, known := numpyTypes[code]; !known {
		return nil, fmt.Errorf("a numpy.dtype of %s, expected float, integer or bool", describe(args[0]))
	}
	return &pyDType{code}, nil
}

// numpyTypes are numpy's codes of element types.
var numpyTypes = map[string]DType{
	"f8": F64, "f4": F32, "f2": F16, "i8": I64, "i4": I32, "i2": I16, "i1": I8, "u1": U8, "b1": Bool,
}

// values are the little-endian elements of raw.
func (t *pyDType) values(raw []byte) ([]float64, error) {
	d := numpyTypes[t.code]
	if len(raw)%d.Size() != 0 {
		return nil, fmt.Errorf("%d bytes of numpy.dtype %s", len(raw), t.code)
	}
	out := make([]float64, len(raw)/d.Size())
	convert(out, raw, d)
	return out, nil
}

// newScalar reads numpy's scalar(dtype, bytes).
func newScalar(_ *unpickler, args []any) (any, error) {
	if len(args) == 2 {
		t, isType := args[0].(*pyDType)
		raw, isBytes := args[1].(*pyBytes)
		if isType && isBytes {
			if v, err := t.values(raw.data); err != nil || len(v) == 1 {
				return scalarOf(t, v), err
			}
		}
	}
	return nil, errors.New("a scalar of numpy that is not a numpy.dtype and the bytes of a value")
}

func scalarOf(t *pyDType, v []float64) any {
	switch {
	case len(v) != 1:
		return nil
	case t.code[0] == 'b':
		return v[0] != 0
	case t.code[0] == 'f':
		return v[0]
	}
	return int(v[0])
}

// setState is BUILD of an object that has a state: a module's attributes, a
// dtype's (version, byte order, …), an array's (version, shape, dtype, is_fortran,
// bytes). done is false for other objects.
func (u *unpickler) setState(object, state any) (done bool, err error) {
	parts, _ := items(state)
	switch o := object.(type) {
	case *pyObject:
		if o.state, _ = state.(*pyDict); o.state == nil {
			err = fmt.Errorf("a state of %s that is a %s", shorten(o.class), describe(state))
		}
	case *pyDType:
		if len(parts) > 1 && parts[1] == any(">") {
			err = fmt.Errorf("a numpy.dtype %s that is big-endian; only little-endian values are supported", o.code)
		}
	case *pyArray:
		if len(parts) != 5 {
			return true, fmt.Errorf("a state of numpy.ndarray that is a %s", describe(state))
		}
		t, isType := parts[2].(*pyDType)
		raw, isBytes := parts[4].(*pyBytes)
		if !isType || !isBytes {
			return true, fmt.Errorf("a numpy.ndarray of %s in %s", describe(parts[2]), describe(parts[4]))
		}
		if err = u.b.take(8*int64(len(raw.data)), "an array"); err == nil {
			o.values, err = t.values(raw.data)
		}
	default:
		return false, nil
	}
	return true, err
}

// A persistent turns the objects of a pickle into sets of weights.
type persistent struct {
	b       *budget
	sets    *pyDict // by entry of the pickle, the parameters and buffers of an object by their full names; other entries as they are
	objects map[string]Object
}

// root reads the object of the pickle: an object, or a dict of objects such as
// {"ema": network}.
func (p *persistent) root(v any) (err error) {
	if o, alone := v.(*pyObject); alone {
		p.sets, p.objects[""], err = p.weights(o)
		return err
	}
	es, isDict := entries(v)
	if !isDict || !slices.ContainsFunc(es, func(e dictEntry) bool { _, is := e.value.(*pyObject); return is }) {
		return fmt.Errorf("is a pickle (of a %s), but not one of torch.save: the magic number is missing; save the weights with torch.save(model.state_dict(), path)", describe(v))
	}
	p.sets = &pyDict{}
	for _, e := range es {
		name, named := e.key.(string)
		if o, is := e.value.(*pyObject); is && named {
			if e.value, p.objects[name], err = p.weights(o); err != nil {
				return fmt.Errorf("%s: %w", shorten(name), err)
			}
		}
		p.sets.entries = append(p.sets.entries, e)
	}
	return nil
}

// weights is an object's state dict, and what is told of the object beside it.
func (p *persistent) weights(o *pyObject) (*pyDict, Object, error) {
	all := &pyDict{}
	if err := p.module(all, o, "", 0); err != nil {
		return nil, Object{}, err
	}
	told, err := p.object(o)
	return all, told, err
}

// module adds the parameters and buffers of an object and of those below it to
// weights, as state_dict() names them.
func (p *persistent) module(weights *pyDict, o *pyObject, prefix string, depth int) error {
	if depth > maxModules {
		return fmt.Errorf("modules within modules, more than %d deep: %s…", maxModules, shorten(prefix))
	}
	hidden, _ := items(o.state.get("_non_persistent_buffers_set"))
	for _, kind := range []string{"_parameters", "_buffers", "_modules"} {
		es, _ := entries(o.state.get(kind))
		for _, e := range es {
			name, named := e.key.(string)
			if e.value == nil || !named || slices.Contains(hidden, any(name)) {
				continue
			}
			// a module may be there under many names, and so on
			if err := p.b.take(256+2*int64(len(prefix)+len(name)), "the list of tensors"); err != nil {
				return err
			}
			switch v := e.value.(type) {
			case *rebuilt:
				weights.entries = append(weights.entries, dictEntry{prefix + name, v})
			case *pyObject:
				if err := p.module(weights, v, prefix+name+".", depth+1); err != nil {
					return err
				}
			default:
				return fmt.Errorf("%s%s is a %s where a tensor or a module is expected", shorten(prefix), shorten(name), describe(v))
			}
		}
	}
	return nil
}

// maxModules is how deep modules may lie in each other; a pickle can be a circle.
const maxModules = 16

// object is what is told of an object beside its weights.
func (p *persistent) object(o *pyObject) (Object, error) {
	out := Object{Class: o.class, Arguments: map[string]any{}, Attributes: map[string]any{}}
	args, _ := items(o.state.get("_init_args"))
	out.Positional = len(args)
	fill := func(to map[string]any, es []dictEntry) error {
		for _, e := range es {
			name, named := e.key.(string)
			v, ok, err := p.plain(e.value, 0)
			if err != nil {
				return err
			}
			if named && ok && !strings.HasPrefix(name, "_") {
				to[name] = v
			}
		}
		return nil
	}
	named, _ := entries(o.state.get("_init_kwargs"))
	return out, errors.Join(fill(out.Arguments, named), fill(out.Attributes, o.state.all()))
}

func (d *pyDict) all() []dictEntry {
	if d == nil {
		return nil
	}
	return d.entries
}

// plain is a value that needs no class; ok is false for others.
func (p *persistent) plain(v any, depth int) (plain any, ok bool, err error) {
	if err := p.b.take(128, "the objects of the pickle"); err != nil {
		return nil, false, err
	}
	switch v := v.(type) {
	case nil, bool, int, float64, string:
		return v, true, nil
	case *pyArray:
		return v.values, true, nil
	}
	list, ok := items(v)
	if !ok || depth > maxNesting {
		return nil, false, nil
	}
	out := make([]any, 0, min(len(list), 16))
	for _, item := range list {
		one, ok, err := p.plain(item, depth+1)
		if err != nil || !ok {
			return nil, false, err
		}
		out = append(out, one)
	}
	return out, true, nil
}

// Number is an attribute or argument that is a number, as JSON and Python mix
// their kinds; ok is false for anything else.
func Number(v any) (n float64, ok bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	}
	return math.NaN(), false
}
