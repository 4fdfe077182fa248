package configs

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// A Block is a value of a document, most often a mapping, that knows the file
// and line of everything in it, also after include, merge and sweep. Blocks are
// read-only. The zero Block stands for a value that is not there.
type Block struct {
	node *node
	path string   // from the top of the document, dotted
	at   position // of the key that holds the value

	document bool // the top of a Document, where ownKeys may stand
	hooks    Hooks
	without  []string // keys that Without took out, which messages list as known
}

// Parse reads a document from memory; name is what messages call it. The
// document must be one YAML mapping; include, sweep and rows mean nothing here.
func Parse(name string, data []byte) (Block, error) {
	n, err := source{name: name, data: data}.parseMapping()
	if err != nil {
		return Block{}, err
	}
	return Block{node: n, at: n.at}, nil
}

// IsZero reports whether there is nothing, not even null.
func (b Block) IsZero() bool { return b.node == nil }

// IsMapping reports whether the block holds keys and values.
func (b Block) IsMapping() bool { return b.node != nil && b.node.kind == mapping }

// IsList reports whether the block is a list.
func (b Block) IsList() bool { return b.node != nil && b.node.kind == list }

// IsNull reports whether the block is null or not there at all.
func (b Block) IsNull() bool { return b.node.isNull() }

// Path is the dotted path from the top of the document, "" for the document itself.
func (b Block) Path() string { return b.path }

// Position is "file:line" of the key that holds the block.
func (b Block) Position() string { return b.at.String() }

// String is the block in one line of YAML's flow style.
func (b Block) String() string { return b.node.inline() }

// Text is the text of a single value as it was written, without quotes; false
// for mappings, lists and null.
func (b Block) Text() (string, bool) {
	if b.node.isNull() || b.node.kind != scalar {
		return "", false
	}
	return b.node.text, true
}

// Keys lists a mapping's keys in the order of the file; nil for anything else.
func (b Block) Keys() []string {
	if !b.IsMapping() {
		return nil
	}
	return b.node.names()
}

// Items lists the values of a list; nil for anything else.
func (b Block) Items() []Block {
	if !b.IsList() {
		return nil
	}
	out := make([]Block, len(b.node.items))
	for i := range b.node.items {
		out[i] = b.item(i)
	}
	return out
}

// Has reports whether the mapping has the key, or there is a value at the
// dotted path; a null counts.
func (b Block) Has(path string) bool {
	_, ok := b.At(path)
	return ok
}

// At is the value at a dotted path below the block. List items are addressed by
// their index. A key that itself holds dots (per_tensor: {out.images: 0.004})
// is found as it is written.
func (b Block) At(path string) (Block, bool) {
	if b.node == nil || path == "" {
		return b, b.node != nil
	}
	for i, name := range b.steps() {
		rest, ok := strings.CutPrefix(path+".", name+".")
		if !ok {
			continue
		}
		child := b.key(name)
		if b.IsList() {
			child = b.item(i)
		}
		if found, ok := child.At(strings.TrimSuffix(rest, ".")); ok {
			return found, true
		}
	}
	return Block{}, false
}

// steps lists what can follow the block in a path: keys, or the indices of a list.
func (b Block) steps() []string {
	if !b.IsList() {
		return b.Keys()
	}
	steps := make([]string, len(b.node.items))
	for i := range steps {
		steps[i] = strconv.Itoa(i)
	}
	return steps
}

func (b Block) key(name string) Block {
	return Block{node: b.node.children[name], path: join(b.path, name), at: b.node.keyPosition(name), hooks: b.hooks}
}

func (b Block) item(i int) Block {
	n := b.node.items[i]
	return Block{node: n, path: join(b.path, fmt.Sprint(i)), at: n.at, hooks: b.hooks}
}

// Errorf is an error at the block's place: "file:line: path: …".
func (b Block) Errorf(format string, args ...any) error {
	return faultf(b.at, "%s%w", lead(b.path), fmt.Errorf(format, args...))
}

// YAML writes the block back as a document of its own, aliases and includes
// written out, keys in the order of the file, comments left out.
func (b Block) YAML() ([]byte, error) {
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(b.node.yaml()); err != nil {
		return nil, fmt.Errorf("%s: %w", b.at, err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("%s: %w", b.at, err)
	}
	return out.Bytes(), nil
}

// Without is the mapping less the named keys, which other code reads.
func (b Block) Without(names ...string) Block {
	if b.IsMapping() {
		b.node = b.node.without(names...)
		b.without = slices.Concat(b.without, names)
	}
	return b
}

// Only is the mapping with no more than the named keys.
func (b Block) Only(names ...string) Block {
	others := slices.DeleteFunc(b.Keys(), func(k string) bool { return slices.Contains(names, k) })
	return b.Without(others...)
}
