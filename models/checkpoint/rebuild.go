package checkpoint

import (
	"errors"
	"fmt"
	"strings"
)

// lookup is the table of the classes and functions that a pickle may call: what
// makes tensors, storages and plain containers, each with its constructor. To
// allow another name, add a case. Whatever else a pickle names is *opaque.
func lookup(module, name string) (any, error) {
	if module == extension {
		return &opaque{module + name}, nil
	}
	switch full := module + "." + name; full {
	case "collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict":
		return &pyGlobal{full, newDict, true}, nil
	case "torch.Size", "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
		"torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer":
		return &pyGlobal{full, firstArgument, false}, nil
	case "torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type", "torch.tensor._rebuild_from_type":
		return &pyGlobal{full, rebuildFromType, false}, nil
	default:
		if module == "torch._utils" && strings.HasPrefix(name, "_rebuild_") {
			return &pyGlobal{full, func(_ *unpickler, args []any) (any, error) { return &rebuilt{full, args}, nil }, false}, nil
		}
		if (module == "torch" || strings.HasPrefix(module, "torch.")) && strings.HasSuffix(name, "Storage") {
			return &storageClass{name}, nil
		}
		return &opaque{full}, nil
	}
}

// newDict makes a dict out of nothing or of Python 2's list of pairs.
func newDict(u *unpickler, args []any) (any, error) {
	d := &pyDict{class: true}
	if len(args) == 0 {
		return d, nil
	}
	pairs, _ := items(args[0]) // defaultdict's argument is a class: no items
	if err := u.b.take(64*int64(len(pairs)), "a dict of the pickle"); err != nil {
		return nil, err // a few bytes of a pickle can name a long list again and again
	}
	d.entries = make([]dictEntry, 0, len(pairs))
	for _, pair := range pairs {
		if kv, _ := items(pair); len(kv) == 2 {
			d.entries = append(d.entries, dictEntry{kv[0], kv[1]})
		}
	}
	return d, nil
}

// firstArgument is what wraps its first argument: Parameter(data).
func firstArgument(_ *unpickler, args []any) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("a Parameter or Size without an argument")
	}
	return args[0], nil
}

// rebuildFromType unwraps tensor subclasses: _rebuild_from_type_v2(function,
// class, arguments, state).
func rebuildFromType(u *unpickler, args []any) (any, error) {
	if len(args) < 3 {
		return nil, errors.New("_rebuild_from_type with fewer than 3 arguments")
	}
	function, _ := args[0].(*pyGlobal)
	_, isOpaque := args[0].(*opaque)
	inner, isTuple := args[2].(pyTuple)
	if function == nil && !isOpaque || !isTuple {
		return nil, errors.New("_rebuild_from_type without function or arguments")
	}
	if function != nil && strings.Contains(function.name, "._rebuild_from_type") {
		return nil, errors.New("_rebuild_from_type of itself")
	}
	return u.call(args[0], inner), nil
}

// rebuilt is a tensor of the pickle: the function of torch._utils that makes
// it, and its arguments. What they mean is found out when the tensor turns out
// to be part of the state dict, so that an odd one among the optimiser's state
// does no harm and an error can name the tensor.
type rebuilt struct {
	name string
	args []any
}

// storageClass is torch.FloatStorage and its kin.
type storageClass struct{ name string }

// element is an element type as PyTorch names it; dtype is "" where this
// package has none for it.
type element struct {
	name  string
	size  int
	dtype DType
}

// storageElements are the classes that torch.save puts into persistent ids.
var storageElements = map[string]element{
	"DoubleStorage":        {"float64", 8, F64},
	"FloatStorage":         {"float32", 4, F32},
	"HalfStorage":          {"float16", 2, F16},
	"BFloat16Storage":      {"bfloat16", 2, BF16},
	"LongStorage":          {"int64", 8, I64},
	"IntStorage":           {"int32", 4, I32},
	"ShortStorage":         {"int16", 2, I16},
	"CharStorage":          {"int8", 1, I8},
	"ByteStorage":          {"uint8", 1, U8},
	"BoolStorage":          {"bool", 1, Bool},
	"UntypedStorage":       {"uint8", 1, U8},
	"ComplexFloatStorage":  {"complex64", 8, ""},
	"ComplexDoubleStorage": {"complex128", 16, ""},
	"QInt8Storage":         {"qint8", 1, ""},
	"QUInt8Storage":        {"quint8", 1, ""},
	"QInt32Storage":        {"qint32", 4, ""},
	"QUInt4x2Storage":      {"quint4x2", 1, ""},
	"QUInt2x4Storage":      {"quint2x4", 1, ""},
}

// elementNamed finds a supported element type by PyTorch's name, "float32".
func elementNamed(name string) element {
	for _, e := range storageElements {
		if e.name == name {
			return e
		}
	}
	return element{name: name}
}

// A storage is a persistent id: of the numel elements under key [from, from+n),
// which are all, except where the legacy format says that it is a view.
type storage struct {
	key     string
	element element
	numel   int64
	from, n int64
	within  region // where its bytes lie, if the pickle itself holds them
}

// parseStorage reads ("storage", class, key, location, numel[, view]).
func parseStorage(id pyTuple) (*storage, error) {
	if len(id) < 5 {
		return nil, fmt.Errorf("a persistent id of %d parts where a storage has 5", len(id))
	}
	kind, _ := id[0].(string)
	class, isClass := id[1].(*storageClass)
	key, isKey := id[2].(string)
	numel, isInt := id[4].(int)
	if kind != "storage" || !isClass || !isKey || !isInt || numel < 0 {
		return nil, fmt.Errorf("a persistent id that is no storage: (%s, %s, %s, …, %s)",
			describe(id[0]), describe(id[1]), describe(id[2]), describe(id[4]))
	}
	e, known := storageElements[class.name]
	if !known {
		return nil, fmt.Errorf("storage %q: unknown storage class %s", shorten(key), shorten(class.name))
	}
	s := &storage{key: key, element: e, numel: int64(numel), n: int64(numel)}
	if len(id) < 6 || id[5] == nil {
		return s, nil
	}
	view, _ := items(id[5])
	if len(view) != 3 {
		return nil, fmt.Errorf("storage %q: view metadata %s where three values are expected", shorten(key), describe(id[5]))
	}
	from, ok1 := view[1].(int)
	n, ok2 := view[2].(int)
	if !ok1 || !ok2 || from < 0 || n < 0 || from > numel || n > numel-from {
		return nil, fmt.Errorf("storage %q: the view [%s, +%s) lies outside its %d elements", shorten(key), describe(view[1]), describe(view[2]), numel)
	}
	s.from, s.n = int64(from), int64(n)
	return s, nil
}

// tensorArgs are the arguments of _rebuild_tensor_v2 and _v3 as far as they
// matter.
type tensorArgs struct {
	storage *storage
	element element
	offset  int64 // elements
	shape   []int64
	stride  []int64
}

// arguments reads what the pickle passed to the function that makes r.
func (r *rebuilt) arguments() (a tensorArgs, err error) {
	short := strings.TrimPrefix(r.name, "torch._utils.")
	meta := 6
	switch short {
	case "_rebuild_tensor", "_rebuild_tensor_v2":
	case "_rebuild_tensor_v3":
		meta = 7
	case "_rebuild_sparse_tensor":
		return a, errors.New("is sparse; save it with .to_dense()")
	case "_rebuild_qtensor":
		return a, errors.New("is quantized; save it with .dequantize()")
	case "_rebuild_meta_tensor_no_storage":
		return a, errors.New("is a meta tensor: the file has its shape but no values")
	default:
		return a, fmt.Errorf("is made by %s, which is not supported; save it as a plain CPU tensor", shorten(r.name))
	}
	if len(r.args) < 4 {
		return a, fmt.Errorf("%s has %d arguments where 4 are needed", short, len(r.args))
	}
	var isStorage, isInt bool
	var offset int
	a.storage, isStorage = r.args[0].(*storage)
	offset, isInt = r.args[1].(int)
	if !isStorage || !isInt || offset < 0 {
		return a, fmt.Errorf("%s wants a storage and an offset ≥ 0, the pickle has %s and %s", short, describe(r.args[0]), describe(r.args[1]))
	}
	a.offset, a.element = int64(offset), a.storage.element
	if short == "_rebuild_tensor_v3" && len(r.args) > 6 {
		class, _ := r.args[6].(*opaque)
		if class == nil {
			return a, fmt.Errorf("%s wants a dtype, the pickle has %s", short, describe(r.args[6]))
		}
		a.element = elementNamed(strings.TrimPrefix(class.name, "torch."))
	}
	if a.shape, err = integers(r.args[2]); err != nil {
		return a, fmt.Errorf("shape: %w", err)
	}
	if a.stride, err = integers(r.args[3]); err != nil {
		return a, fmt.Errorf("stride: %w", err)
	}
	return a, checkMetadata(r.args, meta)
}

// checkMetadata refuses PyTorch's lazy negation and conjugation, flags beside
// the data that change its meaning.
func checkMetadata(args []any, at int) error {
	if len(args) <= at {
		return nil
	}
	flags, _ := entries(args[at])
	for _, f := range flags {
		if on, _ := f.value.(bool); on {
			return fmt.Errorf("has PyTorch's lazy bit %s set; save it with .resolve_neg().resolve_conj()", describe(f.key))
		}
	}
	return nil
}

// maxRank is PyTorch's own limit of dimensions.
const maxRank = 64

func integers(v any) ([]int64, error) {
	list, ok := items(v)
	if !ok || len(list) > maxRank {
		return nil, fmt.Errorf("%s where a tuple of at most %d integers is expected", describe(v), maxRank)
	}
	out := make([]int64, len(list))
	for i, x := range list {
		n, ok := x.(int)
		if !ok || n < 0 {
			return nil, fmt.Errorf("element %d is %s, not an integer ≥ 0", i, describe(x))
		}
		out[i] = int64(n)
	}
	return out, nil
}
