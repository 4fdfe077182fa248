package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nlpodyssey/gopickle/pickle"
	"github.com/nlpodyssey/gopickle/types"
)

// An unpickler reads the pickles of one file. The values that come out are
// strings, numbers, gopickle's lists, tuples and dicts, our *dict, *rebuilt
// (a tensor not yet located) and *opaque; nothing else can.
type unpickler struct {
	b *budget
	// persistent answers a persistent id, a tuple such as
	// ("storage", class, key, location, numel); nil: there are none.
	persistent func(id types.Tuple) (any, error)
	opaque     map[string]*opaque
}

// load reads the pickle at the start of data and says how many bytes it has.
func (u *unpickler) load(data []byte) (v any, n int, err error) {
	defer func() {
		// gopickle trusts the order of opcodes: a SETITEMS with an odd
		// number of items, for example, makes it run out of its slice.
		if r := recover(); r != nil {
			err = fmt.Errorf("broken pickle: %s", shorten(fmt.Sprint(r)))
		}
	}()
	clean, err := sanitize(data, u.b)
	if err != nil {
		return nil, 0, err
	}
	p := pickle.NewUnpickler(bytes.NewReader(clean))
	p.FindClass = u.findClass
	p.PersistentLoad = u.persistentLoad
	p.GetExtension = func(code int) (any, error) { return u.placeholder(fmt.Sprintf("copyreg extension %d", code)), nil }
	v, err = p.Load()
	if err != nil {
		return nil, 0, fmt.Errorf("broken pickle: %s", shorten(err.Error()))
	}
	return v, len(clean), nil
}

func (u *unpickler) persistentLoad(id any) (any, error) {
	t, ok := id.(*types.Tuple)
	if !ok || u.persistent == nil || t.Len() == 0 {
		return nil, fmt.Errorf("a persistent id that is no storage: %s", describe(id))
	}
	if kind, _ := t.Get(0).(string); kind == "module" && t.Len() > 1 {
		return t.Get(1), nil // the class of a pickled nn.Module, with its source
	}
	return u.persistent(*t)
}

// findClass answers a class or function that the pickle names: what makes
// tensors, storages and plain containers, and a placeholder for all else.
func (u *unpickler) findClass(module, name string) (any, error) {
	if m, ok := hidden[module]; ok {
		module = m
	}
	switch full := module + "." + name; full {
	case "collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict":
		return dictClass{b: u.b}, nil
	case "torch.Size", "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
		"torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer":
		return firstArgument{}, nil
	case "torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type", "torch.tensor._rebuild_from_type":
		return fromType{}, nil
	default:
		if module == "torch._utils" && strings.HasPrefix(name, "_rebuild_") {
			return rebuilder{name: full}, nil
		}
		if (module == "torch" || strings.HasPrefix(module, "torch.")) && strings.HasSuffix(name, "Storage") {
			return &storageClass{name: name}, nil
		}
		return u.placeholder(full), nil
	}
}

// placeholder is the one inert object that stands for name.
func (u *unpickler) placeholder(name string) *opaque {
	if u.opaque == nil {
		u.opaque = map[string]*opaque{}
	}
	o := u.opaque[name]
	if o == nil {
		o = &opaque{name: name}
		u.opaque[name] = o
	}
	return o
}

// opaqueNames are the classes and functions that were met and not obeyed.
func (u *unpickler) opaqueNames() []string { return slices.Sorted(maps.Keys(u.opaque)) }

// inert swallows what a pickle may do to an object that is no container: give
// it a state, append to it, set its items.
type inert struct{}

func (inert) PySetState(any) error { return nil }
func (inert) Append(any)           {}
func (inert) Set(_, _ any)         {}

// opaque stands for a class or function that is neither constructed nor
// called, and for what constructing or calling it would have yielded.
type opaque struct {
	inert
	name string
}

func (o *opaque) Call(...any) (any, error)  { return o, nil }
func (o *opaque) PyNew(...any) (any, error) { return o, nil }

// firstArgument is a function that wraps its first argument: Parameter(data).
type firstArgument struct{ inert }

func (firstArgument) Call(args ...any) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("a Parameter or Size without an argument")
	}
	return args[0], nil
}

// dictClass makes dicts out of nothing or of Python 2's list of pairs.
type dictClass struct {
	inert
	b *budget
}

func (c dictClass) Call(args ...any) (any, error) {
	d := &dict{}
	if len(args) == 0 {
		return d, nil
	}
	pairs := items(args[0]) // defaultdict's argument is a class: no items
	if err := c.b.take(64*int64(len(pairs)), "a dict of the pickle"); err != nil {
		return nil, err // a few bytes of a pickle can name a long list again and again
	}
	d.entries = make([]types.DictEntry, 0, len(pairs))
	for _, pair := range pairs {
		if kv := items(pair); len(kv) == 2 {
			d.Set(kv[0], kv[1])
		}
	}
	return d, nil
}
func (c dictClass) PyNew(...any) (any, error) { return c.Call() }

// dict is an OrderedDict or defaultdict. Its attributes (a state dict's
// _metadata) are dropped.
type dict struct{ entries []types.DictEntry }

func (d *dict) Set(key, value any) {
	d.entries = append(d.entries, types.DictEntry{Key: key, Value: value})
}
func (d *dict) PySetState(any) error { return nil }

// items are the elements of a list or tuple, nil for anything else.
func items(v any) []any {
	switch v := v.(type) {
	case *types.List:
		return *v
	case *types.Tuple:
		return *v
	}
	return nil
}

// entries are the pairs of any dict, in order; false for anything else.
func entries(v any) ([]types.DictEntry, bool) {
	switch v := v.(type) {
	case *dict:
		return v.entries, true
	case *types.Dict:
		return *v, true
	case *types.OrderedDict: // pickle protocol 4 and up
		out := make([]types.DictEntry, 0, v.Len())
		for e := v.List.Front(); e != nil; e = e.Next() {
			kv := e.Value.(*types.OrderedDictEntry)
			out = append(out, types.DictEntry{Key: kv.Key, Value: kv.Value})
		}
		return out, true
	}
	return nil, false
}

// describe names an unpickled value for a message: its kind, never its
// content.
func describe(v any) string {
	switch v := v.(type) {
	case *dict:
		return fmt.Sprintf("dict of %d", len(v.entries))
	case *types.Dict:
		return fmt.Sprintf("dict of %d", v.Len())
	case *types.OrderedDict:
		return fmt.Sprintf("dict of %d", v.Len())
	case nil:
		return "None"
	case bool, int, float64:
		return fmt.Sprint(v)
	case string:
		return fmt.Sprintf("string %q", shorten(v))
	case *types.List:
		return fmt.Sprintf("list of %d", v.Len())
	case *types.Tuple:
		return fmt.Sprintf("tuple of %d", v.Len())
	case *opaque:
		return shorten(v.name)
	case *rebuilt:
		return "tensor"
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", v), "*")
}
