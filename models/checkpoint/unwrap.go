package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// wrappers are the keys under which training scripts put the weights, averages
// first: the official sampling scripts (DiT, sample.py find_model) take those.
var wrappers = append(slices.Clone(averages), "model", "state_dict", "model_state_dict", "params", "network", "net", "module")

// averages are those of them that hold an average.
var averages = []string{"ema", "params_ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "model_ema_state_dict"}

// shadow is what ema_pytorch's and others' classes call the average, beside their
// own state.
const shadow = "shadow"

// maxNesting is how deep a state dict may lie; a pickle can be a circle.
const maxNesting = 8

// atTop names the tensors beside other entries, as a set of weights.
const atTop = "."

// unwrap finds the state dict in the unpickled object, the set of weights of that
// name if there is one, and locates its tensors.
func (f *File) unwrap(root any, set string, v *resolver) error {
	c := chooser{b: v.b, set: set, holds: map[*pyDict]bool{}}
	es, err := c.find(root)
	if err != nil {
		return err
	}
	old := chooser{b: v.b, shallow: true, holds: c.holds}
	_, errOld := old.find(root)
	f.Wrapper, f.Others = strings.Join(c.path, "."), c.others
	f.Unnamed = c.unnamed
	f.Chosen = errOld != nil || f.Wrapper != strings.Join(old.path, ".")
	return f.locate(es, v)
}

// A chooser decides what in an object is the state dict.
type chooser struct {
	b       *budget
	set     string // asked for, dotted; what is left of it
	shallow bool   // an average does not count that lies deeper than other weights

	path   []string // so far, of the entries that lead to the state dict
	others []string // dotted, the sets of weights that were passed by

	unnamed []string // averages that are lists

	flat    bool             // of the dict at hand: it holds tensors itself
	holders map[string]any   // its entries that are dicts with tensors
	nested  map[string]any   // its entries named like a wrapper that hold such dicts
	holds   map[*pyDict]bool // by dict: one may be there under many keys
}

// find returns the entries of the state dict.
func (c *chooser) find(root any) ([]dictEntry, error) {
	asked := c.set
	for {
		es, isDict := entries(root)
		if !isDict {
			return nil, notADict(root)
		}
		if len(c.path) > maxNesting {
			return nil, fmt.Errorf("holds dicts within dicts, more than %d deep: %s …", maxNesting, shorten(strings.Join(c.path, ".")))
		}
		err := errors.Join(c.classify(es), c.listed(es))
		if err != nil {
			return nil, err
		}
		sets, err := c.sets(es)
		if err != nil {
			return nil, err
		}
		var key string
		var inner any
		switch {
		case c.set == "":
			key, inner, err = c.choose(es)
		case c.set == atTop && c.flat:
			c.set = ""
		default:
			key, inner, err = c.ask(asked, sets)
		}
		if err != nil {
			return nil, err
		}
		for _, s := range sets {
			if taken := s == key || strings.HasPrefix(s, key+".") || key == "" && s == atTop; taken {
				continue
			}
			name, err := c.dotted(s)
			if err != nil {
				return nil, err
			}
			c.others = append(c.others, name)
		}
		if key == "" {
			return es, nil
		}
		c.path, root = append(c.path, key), inner
	}
}

// dotted is the name of what lies under keys of the dict at hand. A pickle can name
// a long key, and a dict of many, again and again.
func (c *chooser) dotted(keys ...string) (string, error) {
	keys = append(slices.Clone(c.path), keys...)
	size := 0
	for _, k := range keys {
		size += len(k) + 1
	}
	if err := c.b.take(64+int64(size), "the list of sets of weights"); err != nil {
		return "", err
	}
	return strings.Join(keys, "."), nil
}

// sets names the sets of weights in the dict at hand, dotted, sorted.
func (c *chooser) sets(es []dictEntry) ([]string, error) {
	all := slices.Sorted(maps.Keys(c.holders))
	for key, v := range c.nested {
		es, _ := entries(v)
		for _, e := range es {
			name, ok := e.key.(string)
			if !ok || !c.holdsTensors(e.value) {
				continue
			}
			if err := c.b.take(64+int64(len(key)+len(name)), "the list of sets of weights"); err != nil {
				return nil, err
			}
			all = append(all, key+"."+name)
		}
	}
	slices.Sort(all)
	if c.flat && len(all) > 0 && c.manyAtTop(es) {
		all = append(all, atTop)
	}
	return all, nil
}

// manyAtTop reports whether the tensors of a dict are as many as weights are: more
// than half of those of an entry, not the state of a random generator.
func (c *chooser) manyAtTop(es []dictEntry) bool {
	own, least := 0, math.MaxInt
	for _, e := range es {
		if _, ok := e.value.(*rebuilt); ok {
			own++
		}
	}
	for _, holder := range c.holders {
		of, _ := entries(holder)
		least = min(least, len(of))
	}
	return 2*own > least
}

// ask is the entry that leads to the set that is asked for.
func (c *chooser) ask(asked string, sets []string) (key string, inner any, err error) {
	for _, entries := range []map[string]any{c.holders, c.nested} {
		for key, inner := range entries {
			if rest, ok := strings.CutPrefix(c.set+".", key+"."); ok {
				c.set = strings.TrimSuffix(rest, ".")
				return key, inner, nil
			}
		}
	}
	if len(sets) == 0 {
		return "", nil, fmt.Errorf("holds no weights %q: all its tensors are one set; leave weights out", shorten(asked))
	}
	return "", nil, fmt.Errorf("holds no weights %q; it holds %s", shorten(asked), shorten(strings.Join(sets, ", ")))
}

// choose names the entry that is the state dict, or leads to it; "" where es
// is the state dict itself.
func (c *chooser) choose(es []dictEntry) (key string, inner any, err error) {
	for _, in := range []map[string]any{c.holders, c.nested} {
		for _, w := range averages {
			if inner, ok := in[w]; ok {
				return w, inner, nil
			}
		}
		if c.shallow {
			break
		}
	}
	for _, w := range wrappers {
		if inner, ok := c.holders[w]; ok {
			return w, inner, nil
		}
	}
	if c.flat {
		return "", nil, nil
	}
	if inner, ok := c.holders[shadow]; ok {
		return shadow, inner, nil
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

// classify fills in flat, holders and nested.
func (c *chooser) classify(es []dictEntry) error {
	c.flat, c.holders, c.nested = false, map[string]any{}, map[string]any{}
	for _, e := range es {
		if _, ok := e.value.(*rebuilt); ok {
			c.flat = true
			continue
		}
		name, ok := e.key.(string)
		if !ok {
			continue
		}
		if c.holdsTensors(e.value) {
			if c.holders[name] != nil {
				return fmt.Errorf("entry %q is there twice", shorten(name))
			}
			c.holders[name] = e.value
		} else if slices.Contains(wrappers, name) && c.holdsHolders(e.value) {
			c.nested[name] = e.value
		}
	}
	return nil
}

// listed notes averages whose tensors, or sets of tensors, lie in lists, as
// torch_ema and EDM2's training state have them.
func (c *chooser) listed(es []dictEntry) error {
	for _, e := range es {
		inner, _ := entries(e.value)
		for _, i := range inner {
			l, ok := i.value.(*pyList)
			name, isAverage := e.key.(string)
			if field, named := i.key.(string); ok && named && isAverage && slices.Contains(averages, name) && len(l.items) > 0 {
				if _, ok := l.items[0].(*rebuilt); ok || c.holdsTensors(l.items[0]) {
					dotted, err := c.dotted(name, field)
					if err != nil {
						return err
					}
					c.unnamed = append(c.unnamed, dotted)
				}
			}
		}
	}
	return nil
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
	if named(es, "state") && named(es, "param_groups") {
		return errors.New("holds the state of an optimizer (state, param_groups), which training saves beside the weights, as opt….pt; give the file of the weights or of their average, model….pt or ema….pt")
	}
	if slices.ContainsFunc(es, func(e dictEntry) bool { o, is := e.value.(*opaque); return is && o.name == reconstruct }) {
		return errors.New("holds the state of a training of EDM, with a network that is pickled as an object, which is never constructed; give the network-snapshot-….pkl that training writes beside it")
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

// named reports whether an entry has this key.
func named(es []dictEntry, key string) bool {
	return slices.ContainsFunc(es, func(e dictEntry) bool { return e.key == any(key) })
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

// prefixes are what wrappers of a network put before every key: DataParallel,
// torch.compile, FSDP and Lightning.
var prefixes = []string{"module.", "_orig_mod.", "_fsdp_wrapped_module.", "model."}

// innerPrefixes are those that FSDP, torch.compile and activation checkpointing
// put before the keys of a part: none is a name that a network could have.
var innerPrefixes = []string{"_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."}

// stripPrefixes removes prefixes that every key has, nested up to maxNesting deep, and
// those of parts. model. stays where it is the name of a part, in the layout of
// CompVis and in EDM's.
func (f *File) stripPrefixes() {
	for again, depth := true, 0; again && depth < maxNesting; depth++ {
		again = false
		for _, p := range prefixes {
			if f.rename(func(key string) string {
				rest, ok := strings.CutPrefix(key, p)
				if !ok || rest == "" || p == "model." && (strings.HasPrefix(rest, "diffusion_model.") || strings.HasPrefix(rest, "map_layer0.")) {
					return key
				}
				return rest
			}, true) {
				f.Prefix, again = f.Prefix+p, true
			}
		}
	}
	for _, p := range innerPrefixes {
		if f.rename(func(key string) string { return strings.ReplaceAll(key, p, "") }, false) {
			f.Prefix += "…" + p
		}
	}
}

// rename gives every key its new name, and reports whether it did: not where none
// changes, two would become one or, with all, one keeps its name.
func (f *File) rename(name func(string) string, all bool) bool {
	changed := 0
	for key := range f.Tensors {
		if name(key) != key {
			changed++
		} else if all {
			return false
		}
	}
	if changed == 0 {
		return false
	}
	renamed := make(StateDict, len(f.Tensors))
	for key, t := range f.Tensors {
		renamed[name(key)] = t
	}
	if len(renamed) != len(f.Tensors) || renamed.Has("") {
		return false
	}
	f.Tensors = renamed
	return true
}
