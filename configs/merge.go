package configs

import (
	"fmt"
	"strconv"
	"strings"
)

// merge lays over upon under: mappings key by key, everything else replaced.
func merge(under, over *node) *node {
	if under == nil || over == nil || under.kind != mapping || over.kind != mapping || over.replace {
		if over == nil {
			return under
		}
		return over
	}
	out := under.copied()
	out.at = over.at
	for _, k := range over.keys {
		out.put(k, merge(out.children[k.name], over.children[k.name]))
	}
	return out
}

// set returns n with v at a path of keys. Mappings that are missing on the way
// are made, and a bare name ("sampler: ddim") becomes the mapping that it
// stands for; any other single value on the way is an error.
func set(n *node, path []string, done string, at position, v *node) (*node, error) {
	if len(path) == 0 {
		return v, nil
	}
	name := path[0]
	if n != nil && n.kind == list {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i >= len(n.items) {
			return nil, fmt.Errorf("%q is a list of %d (%s); %q is no index of it", done, len(n.items), n.at, name)
		}
		child, err := set(n.items[i], path[1:], join(done, name), at, v)
		if err != nil {
			return nil, err
		}
		out := n.copied()
		out.items[i] = child
		return out, nil
	}
	n, ok := opened(n, at)
	if !ok {
		return nil, fmt.Errorf("%q is %s (%s) and has no keys", done, n.found(), n.at)
	}
	child, err := set(n.child(name), path[1:], join(done, name), at, v)
	if err != nil {
		return nil, err
	}
	if len(path) > 1 && n.child(name) != nil {
		at = n.keyPosition(name)
	}
	out := n.copied()
	out.put(key{name, at}, child)
	return out, nil
}

// opened is n as a mapping: itself, the empty one for nothing, {name: null} for
// a bare name. It returns n and false for anything else.
func opened(n *node, at position) (*node, bool) {
	switch {
	case n.isNull():
		return newMapping(at), true
	case n.kind == mapping:
		return n, true
	case n.kind == scalar && n.tag == tagText:
		out := newMapping(n.at)
		out.put(key{n.text, n.at}, &node{at: n.at, tag: tagNull})
		return out, true
	}
	return n, false
}

// An override is a setting from the command line.
type override struct {
	path  string
	at    position
	value *node
}

func parseOverride(text string) (override, error) {
	path, value, ok := strings.Cut(text, "=")
	path = strings.TrimSpace(path)
	if !ok || path == "" || strings.Contains("."+path+".", "..") {
		return override{}, fmt.Errorf("override %q: expected dotted.path=value, for example guidance.sag.scale=0.5", clip(text))
	}
	at := position{file: fmt.Sprintf("override %q", clip(text))}
	if strings.TrimSpace(value) == "" { // most often a variable of the shell that is not set
		return override{}, faultf(at, "there is no value; %s=null takes the default", path)
	}
	if path == "include" || strings.HasPrefix(path, "include.") {
		return override{}, faultf(at, "include stands in files only")
	}
	n, err := source{name: at.file, data: []byte(value), oneLine: true}.parse()
	if n == nil {
		n = &node{at: at, tag: tagNull}
	}
	return override{path, at, n}, err
}

// keys splits the override's path. What follows "sweep." is one key, since the
// keys of a sweep are paths themselves.
func (o override) keys() []string {
	if rest, ok := strings.CutPrefix(o.path, "sweep."); ok {
		return []string{"sweep", rest}
	}
	return strings.Split(o.path, ".")
}

// applyAll sets the overrides in n.
func applyAll(n *node, overrides []override) (*node, error) {
	var faults []error
	for _, o := range overrides {
		out, err := set(n, o.keys(), "", o.at, o.value)
		if err != nil {
			faults = append(faults, faultf(o.at, "%w", err))
			continue
		}
		n = out
	}
	return n, Join(faults...)
}
