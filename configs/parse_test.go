package configs

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestParseMessages(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", `t.yaml: is empty; expected keys and values (key: value)`},
		{"# only a comment\n", `t.yaml: is empty; expected keys and values (key: value)`},
		{"---\n", `t.yaml: is empty; expected keys and values (key: value)`},
		{"\n- a\n", `t.yaml:2: expected keys and values (key: value), found a list ([a])`},
		{"just text\n", `t.yaml:1: expected keys and values (key: value), found "just text"`},
		{"a: 1\n---\nb: 2\n", `t.yaml:2: a second document starts here; a file holds one experiment: remove the "---" or split the file`},
		// Duplicates.
		{"a: 1\nb: 2\na: 3\n", `t.yaml:3: duplicate key "a" at the top level; first at t.yaml:1`},
		{"model:\n  size: 1\n  size: 2\nx: [{b: 1, b: 2}]\n", `t.yaml:3: duplicate key "size" in model; first at t.yaml:2
t.yaml:4: duplicate key "b" in x.0; first at t.yaml:4`},
		// Syntax. The line is the one to look at.
		{"model:\n\timage_size: 1\n", `t.yaml:2: the line is indented with a tab; YAML takes spaces only`},
		{"model:\n  a: 1\n \tb: 1\n", `t.yaml:3: the line is indented with a tab; YAML takes spaces only`},
		{"x: 1\na: [1, 2\nb: 3\n", `t.yaml:2: not valid YAML: did not find expected ',' or ']', in "a: [1, 2"`},
		{"a: 1\nc: 2\n b: 2\nd: 4\n", `t.yaml:3: not valid YAML: mapping values are not allowed in this context, in "b: 2"; look at the indentation, and put a text that holds ": " in quotes`},
		{"a: 1\nb: \"x\nc: 3\n", `t.yaml:2: not valid YAML: found unexpected end of stream, in "b: \"x"`},
		{"a: @x", `t.yaml:1: not valid YAML: found character that cannot start any token, in "a: @x"; put the text in quotes`},
		{"a:\n  b: 1\n c: 2\n", `t.yaml:3: not valid YAML: did not find expected key, in "c: 2"`},
		{"a: 1\nb\nc: 2", `t.yaml:2: not valid YAML: could not find expected ':', in "b"`},
		// Encoding.
		{"a: 1\nb: \xff\n", `t.yaml:2: byte 0xff is not UTF-8 text; save the file as UTF-8`},
		{"\xff\xfea\x00", `t.yaml:1: byte 0xff is not UTF-8 text; save the file as UTF-8`},
		{"a: 1\nb: \x01\n", `t.yaml:2: control character 0x01 is not allowed in YAML`},
		// Anchors, tags, keys.
		{"a: *x\n", `t.yaml:1: not valid YAML: unknown anchor 'x' referenced, in "a: *x"`},
		{"a: &x\n- *x\n", `t.yaml:2: alias *x stands inside its own anchor`},
		{"a: &x {b: {<<: *x}}\n", `t.yaml:1: alias *x stands inside its own anchor
t.yaml:1: a.b: "<<" merges mappings, found nothing`},
		{"a: !foo 1\nb: !!binary aGk=\nc: !!null x\nd: !replace 1", `t.yaml:1: a: unknown tag "!foo"
t.yaml:2: b: unknown tag "!!binary"
t.yaml:3: c: unknown tag "!!null"
t.yaml:4: d: unknown tag "!replace"`},
		{"m:\n  ? [a]\n  : 3\n", `t.yaml:2: m: a key must be a single word, found a list or mapping`},
		{"<<: [3]\n", `t.yaml:1: "<<" merges mappings, found 3`},
	} {
		_, err := Parse("t.yaml", []byte(c.text))
		if err == nil {
			t.Errorf("%q: no error", c.text)
			continue
		}
		wantError(t, err, c.want)
	}
}

func TestParseLimits(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	_, err := Parse("bomb.yaml", []byte(bomb.String()))
	wantError(t, err, fmt.Sprintf("bomb.yaml:1: the document has more than %d values once its aliases are written out", 2048+bomb.Len()))

	_, err = Parse("model.pt", make([]byte, maxBytes+1))
	wantError(t, err, "model.pt: is larger than 1 MiB; this is no experiment file")

	// Too long to look for the line by parsing again: the library's own line.
	_, err = Parse("big.yaml", []byte("a: 1\nlist:\n b: [\n"+strings.Repeat(" - x\n", 20_000)))
	wantError(t, err, "big.yaml:3: not valid YAML: did not find expected node content, here or in the lines below")

	if _, err = Parse("deep.yaml", bytes.Repeat([]byte("["), 20_000)); err == nil {
		t.Error("20000 open brackets: no error")
	}
	long := "a: " + strings.Repeat("x", 1000) + ": y"
	_, err = Parse("long.yaml", []byte(long))
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("message for a long line: %v", err)
	}
}

// Aliases and merge keys are written out; a mapping's own keys win over the
// merged ones, and those of the first mapping over those of the second.
func TestAliases(t *testing.T) {
	b := mustParse(t, `
one: &one {scale: 1, layer: a}
two: &two {scale: 2, start: 5}
all: {<<: [*one, *two], layer: b}
copy: *one
`)
	for path, want := range map[string]string{"all": "{layer: b, scale: 1, start: 5}", "copy": "{scale: 1, layer: a}"} {
		if got, _ := b.At(path); got.String() != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	at, _ := b.At("all.start")
	if at.Position() != "case.yaml:3" {
		t.Errorf("a merged key is at %s", at.Position())
	}
}

func TestBlock(t *testing.T) {
	b := mustParse(t, `# what FORMAT.md calls a case
kind: forward
tolerance:
  per_tensor: {out.images: 0.004, out: {absolute: 1}, out.eps: {relative: 3.0e-5}}
k: [3, {deep: 5}]
none:
`)
	for path, want := range map[string]string{
		"kind":                              "case.yaml:2 kind forward",
		"tolerance.per_tensor.out.images":   "case.yaml:4 tolerance.per_tensor.out.images 0.004",
		"tolerance.per_tensor.out.eps":      "case.yaml:4 tolerance.per_tensor.out.eps {relative: 3.0e-5}",
		"tolerance.per_tensor.out.absolute": "case.yaml:4 tolerance.per_tensor.out.absolute 1",
		"k.1.deep":                          "case.yaml:5 k.1.deep 5",
		"none":                              "case.yaml:6 none null",
	} {
		got, ok := b.At(path)
		if s := got.Position() + " " + got.Path() + " " + got.String(); !ok || s != want {
			t.Errorf("%s: %q, %v; want %q", path, s, ok, want)
		}
	}
	for _, path := range []string{"kin", "kind.x", "k.2", "k.-1", "k.00", "none.x", "tolerance..per_tensor", "."} {
		if b.Has(path) {
			t.Errorf("Has(%q)", path)
		}
	}
	if keys := strings.Join(b.Keys(), " "); keys != "kind tolerance k none" {
		t.Errorf("keys %s", keys)
	}
	if got := b.Only("k", "none", "other").String() + b.Without("tolerance", "k").String(); got != "{k: [3, {deep: 5}], none: null}{kind: forward, none: null}" {
		t.Errorf("only and without: %s", got)
	}
	k, _ := b.At("k")
	if items := k.Items(); len(items) != 2 || items[1].String() != "{deep: 5}" {
		t.Errorf("items %v", items)
	}
	wantError(t, k.Errorf("too many: %d", 2), "case.yaml:5: k: too many: 2")
}

// The zero Block answers every question.
func TestZeroBlock(t *testing.T) {
	var b Block
	if !b.IsZero() || !b.IsNull() || b.IsMapping() || b.IsList() || b.Has("a") || b.Keys() != nil || b.Items() != nil || b.Position() != "" {
		t.Errorf("the zero Block is %v", b)
	}
	if _, ok := b.Text(); ok {
		t.Error("it has a text")
	}
	if !b.Without("x").IsZero() {
		t.Error("without a key it is something")
	}
	e := defaults()
	if err := b.Decode(&e); err != nil {
		t.Error(err)
	}
	wantError(t, b.Decode(&experiment{}), "model: checkpoint is missing")
	if text, err := b.YAML(); err != nil || string(text) != "null\n" {
		t.Errorf("%q %v", text, err)
	}
}

func TestYAML(t *testing.T) {
	b := mustParse(t, `
z: &z {b: 1, a: [1, 2, "x"]}   # order stays
t: ["", "250", yes, 'null', "1,1", 2024-01-01, ~, "a: b", " x ", "l\nm\t"]
numbers: [0x1F, 1e3, .5, .inf]
e: {m: {}, l: []}
"250": *z
rows: [{a: 1}]
`)
	const want = `z:
  b: 1
  a: [1, 2, "x"]
t: ["", "250", "yes", "null", "1,1", "2024-01-01", null, "a: b", " x ", "l\nm\t"]
numbers: [0x1F, 1e3, .5, .inf]
e:
  m: {}
  l: []
"250":
  b: 1
  a: [1, 2, "x"]
rows:
  - a: 1
`
	got, err := b.YAML()
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}
