package configs

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxNodes bounds a document after its aliases are written out, and so do its
// bytes and 2048: a few lines of nested aliases cannot fill the memory.
const maxNodes = 100_000

type kind uint8

const (
	scalar kind = iota
	list
	mapping
)

// Tags of scalars, as YAML 1.2 resolves them.
const (
	tagText  = "!!str"
	tagInt   = "!!int"
	tagFloat = "!!float"
	tagBool  = "!!bool"
	tagNull  = "!!null"
)

// A position is where a node was written. Line 0 means that the source has no
// lines: a value from the command line.
type position struct {
	file string
	line int
}

func (p position) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// A node is one value of a document. Nodes are never changed once they are
// built: merging and setting return new ones, so that rows may share them.
type node struct {
	kind     kind
	at       position
	tag      string // of a scalar
	text     string // of a scalar
	quoted   bool   // a scalar in quotes or of several lines
	replace  bool   // a mapping tagged !replace: merging does not look below it
	items    []*node
	keys     []key          // of a mapping, in the order of the file
	places   map[string]int // of the keys in keys
	children map[string]*node
}

// A key is a mapping's key and the place of the key itself.
type key struct {
	name string
	at   position
}

func (n *node) isNull() bool { return n == nil || n.kind == scalar && n.tag == tagNull }

// child is the value of a mapping's key, nil where there is none.
func (n *node) child(name string) *node {
	if n == nil || n.kind != mapping {
		return nil
	}
	return n.children[name]
}

// copied is a copy of a list or mapping, which may be changed until others see it.
func (n *node) copied() *node {
	out := *n
	out.items, out.keys, out.children = slices.Clone(n.items), slices.Clone(n.keys), maps.Clone(n.children)
	out.places = maps.Clone(n.places)
	return &out
}

// put gives k of a mapping the value v; a key that is there keeps its place in the
// order.
func (n *node) put(k key, v *node) {
	if i, ok := n.places[k.name]; ok {
		n.keys[i] = k
	} else {
		n.places[k.name] = len(n.keys)
		n.keys = append(n.keys, k)
	}
	n.children[k.name] = v
}

// without is a copy of the mapping that lacks the named keys.
func (n *node) without(names ...string) *node {
	out := n.copied()
	out.keys = slices.DeleteFunc(out.keys, func(k key) bool { return slices.Contains(names, k.name) })
	for _, name := range names {
		delete(out.children, name)
		delete(out.places, name)
	}
	for i, k := range out.keys {
		out.places[k.name] = i
	}
	return out
}

func newMapping(at position) *node {
	return &node{kind: mapping, at: at, places: map[string]int{}, children: map[string]*node{}}
}

// keyPosition is the place of a mapping's key, or of the mapping.
func (n *node) keyPosition(name string) position {
	if i, ok := n.places[name]; ok {
		return n.keys[i].at
	}
	return n.at
}

// count is how many values there are in the node and below it.
func (n *node) count() int {
	total := 1
	if n != nil {
		for _, item := range n.items {
			total += item.count()
		}
		for _, child := range n.children {
			total += child.count()
		}
	}
	return total
}

// names lists a mapping's keys in order.
func (n *node) names() []string {
	out := make([]string, 0, len(n.keys))
	for _, k := range n.keys {
		out = append(out, k.name)
	}
	return out
}

// found describes the node for "expected …, found …".
func (n *node) found() string {
	switch {
	case n.isNull():
		return "nothing"
	case n.kind == list && len(n.items) == 0:
		return "an empty list"
	case n.kind == list:
		return fmt.Sprintf("a list (%s)", clip(n.inline()))
	case n.kind == mapping && len(n.keys) == 0:
		return "an empty mapping"
	case n.kind == mapping:
		return fmt.Sprintf("a mapping (%s)", clip(n.inline()))
	case n.tag == tagText:
		return fmt.Sprintf("%q", clip(n.text))
	default:
		return clip(n.text)
	}
}

// inline is the node in one line of YAML's flow style.
func (n *node) inline() string {
	switch {
	case n.isNull():
		return "null"
	case n.kind == list:
		parts := make([]string, len(n.items))
		for i, item := range n.items {
			parts[i] = item.inline()
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case n.kind == mapping:
		parts := make([]string, len(n.keys))
		for i, k := range n.keys {
			parts[i] = k.name + ": " + n.children[k.name].inline()
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case n.tag == tagText && (n.quoted || n.text == "" || strings.ContainsAny(n.text, ",[]{}:#\"'\n")):
		return fmt.Sprintf("%q", n.text)
	default:
		return n.text
	}
}

// clip shortens a text for a message.
func clip(s string) string { return shorten(s, 60) }

func shorten(s string, limit int) string {
	if r := []rune(s); len(r) > limit {
		return string(r[:limit-1]) + "…"
	}
	return s
}

// yaml writes the node as the YAML library's tree, aliases and tags written out.
func (n *node) yaml() *yaml.Node {
	switch {
	case n.isNull():
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tagNull, Value: "null"}
	case n.kind == list:
		out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for _, item := range n.items {
			out.Content = append(out.Content, item.yaml())
			if item.kind != scalar {
				out.Style = 0
			}
		}
		return out
	case n.kind == mapping:
		out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, k := range n.keys {
			out.Content = append(out.Content, textNode(k.name, false), n.children[k.name].yaml())
		}
		return out
	case n.tag == tagText:
		return textNode(n.text, n.quoted)
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: n.tag, Value: n.text}
}

// textNode is a text scalar, in double quotes wherever the plain form could be
// read as something else.
func textNode(s string, quoted bool) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: tagText, Value: s}
	if quoted || !plainText.MatchString(s) || otherWord.MatchString(s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
