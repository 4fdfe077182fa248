package configs

import (
	"maps"
	"slices"
	"strings"
)

// A Registry maps the name of a kind to a constructor that returns it with its
// defaults set: a pointer to a struct whose fields are the kind's YAML block.
type Registry[T any] map[string]func() T

// Named is a registered value together with the name that chose it and the
// block that it was read from, empty where the name stood alone.
type Named[T any] struct {
	Name  string `yaml:"name"`
	Value T      `yaml:"value"`
	Block Block  `yaml:"-"`
}

// Names lists the registered names in alphabetical order.
func (r Registry[T]) Names() []string { return slices.Sorted(maps.Keys(r)) }

// One reads a block that names exactly one kind: {ddim: {steps: 25}}, or the
// bare name for the kind with its defaults.
func (r Registry[T]) One(b Block) (name string, v T, err error) {
	names := strings.Join(r.Names(), ", ")
	switch {
	case b.IsNull():
		return "", v, b.Errorf("is missing; choose one of: %s", names)
	case b.IsList():
		return "", v, b.Errorf("takes one of: %s; found %s", names, b.node.found())
	case b.IsMapping() && len(b.node.keys) > 1:
		var found []string
		for _, k := range b.node.keys {
			found = append(found, k.name+" ("+k.at.String()+")")
		}
		return "", v, b.Errorf("takes one of: %s; found %d: %s; to replace what an included file sets, write \"!replace\" before the mapping",
			names, len(found), strings.Join(found, ", "))
	case b.IsMapping() && len(b.node.keys) == 0:
		return "", v, b.Errorf("is empty; choose one of: %s", names)
	}
	chosen, err := r.Many(b)
	if err != nil {
		return "", v, err
	}
	return chosen[0].Name, chosen[0].Value, nil
}

// Many reads a block that names any number of kinds, in the order of the file:
// a mapping {sag: {scale: 0.5}, cfg: {}}, a list [fid, is] whose items are names
// or mappings, or one bare name. A block that is not there names none.
func (r Registry[T]) Many(b Block) ([]Named[T], error) {
	var out []Named[T]
	var faults []error
	seen := map[string]Block{}
	add := func(name string, block Block) {
		if earlier, twice := seen[name]; twice {
			faults = append(faults, block.Errorf("%q is named twice; first at %s", name, earlier.Position()))
			return
		}
		seen[name] = block
		v, err := r.build(name, block)
		faults = append(faults, err)
		out = append(out, Named[T]{name, v, block})
	}
	var walk func(b Block, nested bool)
	walk = func(b Block, nested bool) {
		switch {
		case b.IsMapping():
			for _, name := range b.node.names() {
				add(name, b.key(name))
			}
		case b.IsList() && !nested:
			for _, item := range b.Items() {
				walk(item, true)
			}
		case !b.IsNull() && !b.IsList() && b.node.tag == tagText:
			add(b.node.text, Block{path: b.path, at: b.at})
		case nested || !b.IsNull():
			faults = append(faults, b.Errorf("expected a name, found %s; known: %s", b.node.found(), strings.Join(r.Names(), ", ")))
		}
	}
	walk(b, false)
	if err := Join(faults...); err != nil {
		return nil, err
	}
	return out, nil
}

// build makes the named kind and reads its fields from b.
func (r Registry[T]) build(name string, b Block) (v T, err error) {
	construct, ok := r[name]
	if !ok {
		b.path = strings.TrimSuffix(strings.TrimSuffix(b.path, name), ".")
		return v, b.Errorf("unknown name %q%s", name, meant(name, r.Names()))
	}
	v = construct()
	return v, b.Decode(v)
}
