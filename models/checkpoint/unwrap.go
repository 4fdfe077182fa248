package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// wrappers are the keys under which training scripts put the weights, averages
// first: the official sampling scripts (DiT, sample.py find_model) take those.
var wrappers = []string{
	"ema", "params_ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "model_ema_state_dict",
	"model", "state_dict", "model_state_dict", "params", "network", "net", "module",
}

// unwrap finds the state dict in the unpickled object and locates its tensors.
func (f *File) unwrap(root any, v *resolver) error {
	var path []string
	for {
		es, isDict := entries(root)
		if !isDict {
			return notADict(root)
		}
		c := chooser{holds: map[*pyDict]bool{}}
		key, inner, err := c.choose(es)
		if err != nil {
			return err
		}
		for _, other := range without(c.holders, key) {
			f.Others = append(f.Others, strings.Join(append(slices.Clone(path), other), "."))
		}
		if key == "" {
			f.Wrapper = strings.Join(path, ".")
			return f.locate(es, v)
		}
		path, root = append(path, key), inner
	}
}

// A chooser decides what in a dict is the state dict.
type chooser struct {
	holders map[string]any   // entries that are dicts with tensors
	nested  map[string]any   // entries named like a wrapper that hold such dicts
	holds   map[*pyDict]bool // by dict: one may be there under many keys
}

// choose names the entry that is the state dict, or leads to it; "" where es
// is the state dict itself.
func (c *chooser) choose(es []dictEntry) (key string, inner any, err error) {
	flat, err := c.classify(es)
	if err != nil {
		return "", nil, err
	}
	for _, w := range wrappers {
		if inner, ok := c.holders[w]; ok {
			return w, inner, nil
		}
	}
	if flat {
		return "", nil, nil
	}
	if len(c.holders) == 1 {
		for name, inner := range c.holders {
			return name, inner, nil
		}
	}
	if len(c.holders) > 1 {
		return "", nil, fmt.Errorf("several entries hold tensors (%s) and none is named like weights usually are (%s); save the one that is meant alone",
			shorten(strings.Join(without(c.holders, ""), ", ")), strings.Join(wrappers, ", "))
	}
	for _, w := range wrappers {
		if inner, ok := c.nested[w]; ok {
			return w, inner, nil
		}
	}
	return "", nil, noTensors(es)
}

// classify fills in holders and nested; flat says that es holds tensors itself.
func (c *chooser) classify(es []dictEntry) (flat bool, err error) {
	c.holders, c.nested = map[string]any{}, map[string]any{}
	for _, e := range es {
		if _, ok := e.value.(*rebuilt); ok {
			flat = true
			continue
		}
		name, ok := e.key.(string)
		if !ok {
			continue
		}
		if c.holdsTensors(e.value) {
			if c.holders[name] != nil {
				return false, fmt.Errorf("entry %q is there twice", shorten(name))
			}
			c.holders[name] = e.value
		} else if slices.Contains(wrappers, name) && c.holdsHolders(e.value) {
			c.nested[name] = e.value
		}
	}
	return flat, nil
}

// holdsTensors reports whether v is a dict with a tensor in it.
func (c *chooser) holdsTensors(v any) bool {
	d, ok := v.(*pyDict)
	if !ok {
		return false
	}
	if known, ok := c.holds[d]; ok {
		return known
	}
	c.holds[d] = slices.ContainsFunc(d.entries, func(e dictEntry) bool { _, ok := e.value.(*rebuilt); return ok })
	return c.holds[d]
}

// holdsHolders reports whether v is a dict with a dict of tensors in it.
func (c *chooser) holdsHolders(v any) bool {
	es, _ := entries(v)
	return slices.ContainsFunc(es, func(e dictEntry) bool { return c.holdsTensors(e.value) })
}

// without lists the keys of m except one, sorted.
func without(m map[string]any, but string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m)), func(k string) bool { return k == but })
}

// notADict says what the file holds instead of a dict.
func notADict(root any) error {
	switch v := root.(type) {
	case *rebuilt:
		return errors.New("holds a single tensor, not a state dict")
	case *opaque:
		return fmt.Errorf("holds a whole Python object (%s), which is never constructed; save its weights instead: torch.save(model.state_dict(), path)", shorten(v.name))
	}
	return fmt.Errorf("holds a %s, not a state dict", describe(root))
}

// noTensors lists what a dict without tensors holds.
func noTensors(es []dictEntry) error {
	if len(es) == 0 {
		return errors.New("holds an empty dict: no tensors")
	}
	var have []string
	for _, e := range es[:min(len(es), 8)] {
		have = append(have, label(e))
	}
	if len(es) > 8 {
		have = append(have, "…")
	}
	return fmt.Errorf("holds no state dict: none of its entries is a tensor or a dict of tensors: %s", strings.Join(have, ", "))
}

// label is "epoch (3)".
func label(e dictEntry) string {
	key, ok := e.key.(string)
	if !ok {
		key = describe(e.key)
	}
	return fmt.Sprintf("%s (%s)", shorten(key), describe(e.value))
}

// locate fills in Tensors and Ignored from the entries of the state dict. All
// faulty tensors are named at once.
func (f *File) locate(es []dictEntry, v *resolver) error {
	f.Tensors = make(StateDict, len(es))
	var errs []error
	seen := make(map[string]bool, len(es))
	for _, e := range es {
		r, isTensor := e.value.(*rebuilt)
		name, isString := e.key.(string)
		if !isTensor || !isString {
			s := label(e)
			if err := v.b.take(int64(len(s))+32, "the list of entries"); err != nil {
				return err
			}
			f.Ignored = append(f.Ignored, s)
			continue
		}
		t, err := v.tensor(r)
		if seen[name] {
			err = errors.New("is there twice")
		}
		seen[name] = true
		if err == nil {
			f.Tensors[name] = t
			continue
		}
		errs = append(errs, fmt.Errorf("tensor %q: %w", shorten(name), err))
		if len(errs) == maxFaults {
			errs = append(errs, errors.New("… and perhaps more"))
			break
		}
	}
	return errors.Join(errs...)
}

// maxFaults keeps the message about a thoroughly broken file readable.
const maxFaults = 20

// prefixes are what wrappers of a network put before every key: DataParallel
// and torch.compile.
var prefixes = []string{"module.", "_orig_mod."}

// stripPrefixes removes prefixes that every key has, also one behind another.
func (f *File) stripPrefixes() {
	for _, p := range slices.Concat(prefixes, prefixes) {
		stripped := make(StateDict, len(f.Tensors))
		for name, t := range f.Tensors {
			if rest, ok := strings.CutPrefix(name, p); ok && rest != "" {
				stripped[rest] = t
			}
		}
		if n := len(stripped); n > 0 && n == len(f.Tensors) {
			f.Prefix, f.Tensors = f.Prefix+p, stripped
		}
	}
}
