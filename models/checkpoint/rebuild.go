package checkpoint

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nlpodyssey/gopickle/types"
)

// A rebuilder is one of torch._utils' functions that make a tensor. Calling it
// notes the arguments; what they mean is found out when the tensor turns out
// to be part of the state dict, so that an odd one among the optimiser's state
// does no harm and an error can name the tensor.
type rebuilder struct {
	inert
	name string
}

func (r rebuilder) Call(args ...any) (any, error) { return &rebuilt{name: r.name, args: args}, nil }

// rebuilt is a tensor of the pickle: the function that makes it, and its
// arguments.
type rebuilt struct {
	inert
	name string
	args []any
}

// fromType unwraps tensor subclasses: _rebuild_from_type_v2(function, class,
// arguments, state).
type fromType struct{ inert }

func (fromType) Call(args ...any) (any, error) {
	if len(args) < 3 {
		return nil, errors.New("_rebuild_from_type with fewer than 3 arguments")
	}
	function, ok := args[0].(types.Callable)
	inner, isTuple := args[2].(*types.Tuple)
	if !ok || !isTuple {
		return nil, errors.New("_rebuild_from_type without function or arguments")
	}
	if _, self := function.(fromType); self {
		return nil, errors.New("_rebuild_from_type of itself")
	}
	return function.Call(*inner...)
}

// storageClass is torch.FloatStorage and its kin.
type storageClass struct {
	inert
	name string
}

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

// A storage is a persistent id: numel elements under key, or [from, from+n)
// of them where the legacy format says that it is a view.
type storage struct {
	inert
	key     string
	element element
	numel   int64
	view    bool
	from, n int64
}

// parseStorage reads ("storage", class, key, location, numel[, view]).
func parseStorage(id types.Tuple) (*storage, error) {
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
	s := &storage{key: key, element: e, numel: int64(numel)}
	if len(id) < 6 || id[5] == nil {
		return s, nil
	}
	view := items(id[5])
	if len(view) != 3 {
		return nil, fmt.Errorf("storage %q: view metadata %s where three values are expected", shorten(key), describe(id[5]))
	}
	from, ok1 := view[1].(int)
	n, ok2 := view[2].(int)
	if !ok1 || !ok2 || from < 0 || n < 0 || from > numel || n > numel-from {
		return nil, fmt.Errorf("storage %q: the view [%s, +%s) lies outside its %d elements", shorten(key), describe(view[1]), describe(view[2]), numel)
	}
	s.view, s.from, s.n = true, int64(from), int64(n)
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
		if on, _ := f.Value.(bool); on {
			return fmt.Errorf("has PyTorch's lazy bit %s set; save it with .resolve_neg().resolve_conj()", describe(f.Key))
		}
	}
	return nil
}

// maxRank is PyTorch's own limit of dimensions.
const maxRank = 64

func integers(v any) ([]int64, error) {
	list := items(v)
	if list == nil || len(list) > maxRank {
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
