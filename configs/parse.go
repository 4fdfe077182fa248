package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// maxBytes bounds a file: a checkpoint given in place of an experiment is
// refused before it is read.
const maxBytes = 1 << 20

var (
	plainText  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./+-]*$`)
	otherWord  = regexp.MustCompile(`(?i)^(true|false|null|yes|no|on|off|y|n)$`) // not text to every reader
	librarySay = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
)

// source is a document's text and the name that positions carry.
type source struct {
	name    string
	data    []byte
	oneLine bool // positions have no line: the text is a value of the command line
}

func (s source) position(line int) position {
	if s.oneLine {
		line = 0
	}
	return position{s.name, line}
}

// parse reads the one document of src. A nil node means that there is none.
func (s source) parse() (*node, error) {
	if len(s.data) > maxBytes {
		return nil, fmt.Errorf("%s: is larger than %d MiB; this is no experiment file", s.name, maxBytes>>20)
	}
	if err := s.checkText(); err != nil {
		return nil, err
	}
	doc, err := decodeFirst(s.data)
	if err != nil {
		return nil, s.syntaxError(err)
	}
	if doc == nil || len(doc.Content) == 0 {
		return nil, nil
	}
	c := converter{src: s, inside: map[*yaml.Node]bool{}, most: min(maxNodes, 2048+len(s.data))}
	n := c.convert(doc.Content[0], "")
	return n, Join(c.faults...)
}

// parseMapping reads a document whose top is a mapping.
func (s source) parseMapping() (*node, error) {
	n, err := s.parse()
	switch {
	case err != nil:
		return nil, err
	case n.isNull():
		return nil, fmt.Errorf("%s: is empty; expected keys and values (key: value)", s.name)
	case n.kind != mapping:
		return nil, fmt.Errorf("%s: expected keys and values (key: value), found %s", s.position(n.at.line), n.found())
	}
	return n, nil
}

// checkText refuses bytes that are no UTF-8 text; the library gives no line for them.
func (s source) checkText() error {
	line := 1
	for rest := s.data; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			return fmt.Errorf("%s: byte 0x%02x is not UTF-8 text; save the file as UTF-8", s.position(line), rest[0])
		case r == '\n':
			line++
		case r < ' ' && r != '\t' && r != '\r' || r == 0x7f:
			return fmt.Errorf("%s: control character 0x%02x is not allowed in YAML", s.position(line), r)
		}
		rest = rest[size:]
	}
	return nil
}

// errSeveral is what decodeFirst returns for a second document.
type errSeveral struct{ line int }

func (e errSeveral) Error() string { return "several documents" }

// decodeFirst parses data's only document; nil for an empty text.
func decodeFirst(data []byte) (doc *yaml.Node, err error) {
	// The library panics on a few malformed inputs instead of returning an error.
	defer func() {
		if r := recover(); r != nil {
			doc, err = nil, fmt.Errorf("yaml: %v", r)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(data))
	doc = new(yaml.Node)
	if err := d.Decode(doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var second yaml.Node
	if err := d.Decode(&second); err == nil {
		return nil, errSeveral{second.Line}
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return doc, nil
}

// syntaxError names the line at which the text stops being YAML. The library
// often names the start of the enclosing block instead, so the line is found
// as the one after the longest run of lines that parses.
func (s source) syntaxError(err error) error {
	if several := (errSeveral{}); errors.As(err, &several) {
		return fmt.Errorf("%s: a second document starts here; a file holds one experiment: remove the \"---\" or split the file", s.position(several.line))
	}
	reason := librarySay.ReplaceAllString(err.Error(), "")
	roughly := 1
	if m := librarySay.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
		roughly, _ = strconv.Atoi(m[1])
	}
	lines := bytes.SplitAfter(s.data, []byte("\n"))
	bad, end := len(lines), len(s.data)
	for budget := 2 << 20; bad > 1; bad-- {
		end -= len(lines[bad-1])
		if budget -= end; budget < 0 {
			return fmt.Errorf("%s: not valid YAML: %s, here or in the lines below", s.position(roughly), reason)
		}
		if _, err := decodeFirst(s.data[:end]); err == nil {
			break
		}
	}
	text := strings.TrimRight(string(lines[bad-1]), "\r\n")
	indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
	if strings.Contains(indent, "\t") {
		return fmt.Errorf("%s: the line is indented with a tab; YAML takes spaces only", s.position(bad))
	}
	hint := ""
	switch {
	case strings.Contains(reason, "cannot start any token"):
		hint = "; put the text in quotes"
	case strings.Contains(reason, "mapping values are not allowed"):
		hint = "; look at the indentation, and put a text that holds \": \" in quotes"
	}
	return fmt.Errorf("%s: not valid YAML: %s, in %q%s", s.position(bad), reason, clip(strings.TrimSpace(text)), hint)
}

// A converter turns the library's tree into nodes: aliases and merge keys are
// written out, duplicate keys and unknown tags are faults.
type converter struct {
	src    source
	inside map[*yaml.Node]bool // anchors being converted, to see an alias inside its own anchor
	most   int                 // nodes
	count  int
	faults []error
}

func (c *converter) fault(at position, format string, args ...any) {
	c.faults = append(c.faults, faultf(at, format, args...))
}

func (c *converter) convert(y *yaml.Node, path string) *node {
	at := c.src.position(y.Line)
	null := &node{at: at, tag: tagNull}
	if c.count++; c.count >= c.most {
		if c.count == c.most {
			c.fault(at, "the document has more than %d values once its aliases are written out", c.most)
		}
		return null
	}
	if y.Kind == yaml.AliasNode {
		if c.inside[y.Alias] {
			c.fault(at, "alias *%s stands inside its own anchor", y.Value)
			return null
		}
		return c.convert(y.Alias, path)
	}
	if y.Anchor != "" {
		c.inside[y] = true
		defer delete(c.inside, y)
	}
	switch y.Kind {
	case yaml.SequenceNode:
		n := &node{kind: list, at: at}
		c.checkTag(y, path, "!!seq")
		for i, item := range y.Content {
			n.items = append(n.items, c.convert(item, join(path, fmt.Sprint(i))))
		}
		return n
	case yaml.MappingNode:
		c.checkTag(y, path, "!!map", "!replace")
		return c.mapping(y, path)
	default:
		c.checkTag(y, path, tagText, tagInt, tagFloat, tagBool)
		n := &node{at: at, tag: y.Tag, text: y.Value}
		n.quoted = y.Style&^yaml.TaggedStyle != 0
		if y.Tag == "!!timestamp" || y.Tag == "!!merge" {
			n.tag = tagText
		}
		return n
	}
}

func (c *converter) checkTag(y *yaml.Node, path string, known ...string) {
	if y.Style&yaml.TaggedStyle != 0 && !slices.Contains(known, y.Tag) {
		c.fault(c.src.position(y.Line), "%sunknown tag %q", lead(path), y.Tag)
	}
}

func (c *converter) mapping(y *yaml.Node, path string) *node {
	n := newMapping(c.src.position(y.Line))
	n.replace = y.Tag == "!replace"
	var merged []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		at := c.src.position(k.Line)
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			c.fault(at, "%sa key must be a single word, found a list or mapping", lead(path))
			continue
		}
		if k.Tag == "!!merge" {
			merged = append(merged, c.merged(v, path)...)
			continue
		}
		child := c.convert(v, join(path, k.Value))
		if n.children[k.Value] != nil {
			c.fault(at, "duplicate key %q %s; first at %s", k.Value, inside(path), n.keyPosition(k.Value))
			continue
		}
		n.put(key{k.Value, at}, child)
	}
	for _, m := range merged { // own keys win, then the first of the merged mappings
		for _, k := range m.keys {
			if n.children[k.name] == nil {
				n.put(k, m.children[k.name])
			}
		}
	}
	return n
}

// merged is what a "<<" key brings in: a mapping or a list of mappings.
func (c *converter) merged(y *yaml.Node, path string) []*node {
	n := c.convert(y, path)
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	for _, item := range items {
		if item.kind != mapping {
			c.fault(n.at, "%s\"<<\" merges mappings, found %s", lead(path), item.found())
			return nil
		}
	}
	return items
}
