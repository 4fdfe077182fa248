package sd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// A value is a part of a JSON or YAML file that knows where it stands. The zero
// value is nothing.
type value struct {
	node *yaml.Node
	file string
	line int    // of the key that holds it
	key  string // dotted path from the top of the file
}

// readJSON reads a JSON file that holds one object.
func readJSON(path string) (value, error) {
	data, err := readSmall(path)
	if err != nil {
		return value{}, err
	}
	return parseJSON(path, data)
}

// maxConfig bounds a configuration, in bytes.
const maxConfig = 1 << 20

// readSmall reads a regular file of at most maxConfig bytes.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path) // before it is opened, which would wait on a pipe
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxConfig) {
		return nil, fmt.Errorf("%s: expected a file of at most %d bytes", path, maxConfig)
	}
	return os.ReadFile(path)
}

// parseJSON reads JSON, which is YAML but for tabs between its tokens: they become
// spaces.
func parseJSON(name string, data []byte) (value, error) {
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(data, new(any)); {
	case errors.As(err, &syntax):
		line := 1 + bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n"))
		return value{}, fmt.Errorf("%s:%d: not JSON: %w", name, line, err)
	case err != nil:
		return value{}, fmt.Errorf("%s: not JSON: %w", name, err)
	}
	return parseYAML(name, bytes.ReplaceAll(data, []byte("\t"), []byte(" ")))
}

var yamlFault = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parseYAML reads a file that is one mapping.
func parseYAML(name string, data []byte) (value, error) {
	var doc yaml.Node
	v := value{file: name, line: 1}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		if m := yamlFault.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
			v.line, _ = strconv.Atoi(m[1])
		}
		return value{}, v.errorf("not valid YAML: %s", yamlFault.ReplaceAllString(err.Error(), ""))
	}
	if len(doc.Content) > 0 {
		v.node = doc.Content[0]
	}
	if v.kind() != yaml.MappingNode {
		return value{}, v.errorf("expected keys and values (key: value), found %s", v.found())
	}
	return v, v.duplicates()
}

// duplicates is an error where a mapping has a key twice.
func (v value) duplicates() error {
	seen := map[string]bool{}
	for _, inner := range v.values() {
		if seen[inner.key] {
			return inner.errorf("the key is there twice")
		}
		seen[inner.key] = true
		if err := inner.duplicates(); err != nil {
			return err
		}
	}
	return nil
}

// kind tells lists, mappings and scalars apart; it is 0 for null and for nothing.
func (v value) kind() yaml.Kind {
	if v.node == nil || v.node.ShortTag() == "!!null" {
		return 0
	}
	return v.node.Kind
}

// values are the items of a list, or the values of a mapping, in order.
func (v value) values() []value {
	if v.node == nil {
		return nil
	}
	var all []value
	inside := func(name string, n *yaml.Node, line int) {
		if v.key != "" {
			name = v.key + "." + name
		}
		all = append(all, value{n, v.file, line, name})
	}
	switch v.node.Kind {
	case yaml.SequenceNode:
		for i, n := range v.node.Content {
			inside(strconv.Itoa(i), n, n.Line)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(v.node.Content); i += 2 {
			inside(v.node.Content[i].Value, v.node.Content[i+1], v.node.Content[i].Line)
		}
	}
	return all
}

// at is the value at a dotted path from the top of the file.
func (v value) at(path string) (value, bool) {
	for _, inner := range v.values() {
		if inner.key == path {
			return inner, true
		}
		if strings.HasPrefix(path, inner.key+".") {
			return inner.at(path)
		}
	}
	return value{}, false
}

// text is a number, truth value or text as it is written, without quotes; "" for
// anything else.
func (v value) text() string {
	if v.kind() == yaml.ScalarNode {
		return v.node.Value
	}
	return ""
}

// errorf is an error at the value's place.
func (v value) errorf(format string, args ...any) error {
	lead := ""
	if v.key != "" {
		lead = v.key + ": "
	}
	return fmt.Errorf("%s:%d: %s%w", v.file, v.line, lead, fmt.Errorf(format, args...))
}

// place puts errors that begin with a key at the key's line.
func (v value) place(err error) error {
	if err == nil {
		return nil
	}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range several.Unwrap() {
			all = append(all, v.place(e))
		}
		return errors.Join(all...)
	}
	word, _, _ := strings.Cut(err.Error(), " ")
	if at, ok := v.at(strings.TrimSuffix(word, ":")); ok {
		v.line = at.line
	}
	return fmt.Errorf("%s:%d: %w", v.file, v.line, err)
}

// String is the value in one line.
func (v value) String() string {
	var parts []string
	for _, inner := range v.values() {
		part := inner.String()
		if v.kind() == yaml.MappingNode {
			part = inner.key[strings.LastIndexByte(inner.key, '.')+1:] + ": " + part
		}
		parts = append(parts, part)
	}
	switch all := strings.Join(parts, ", "); {
	case v.kind() == 0:
		return "null"
	case v.kind() == yaml.SequenceNode:
		return "[" + all + "]"
	case v.kind() == yaml.MappingNode:
		return "{" + all + "}"
	case v.node.ShortTag() == "!!str":
		return strconv.Quote(v.node.Value)
	}
	return v.node.Value
}

// found describes the value for "expected …, found …".
func (v value) found() string {
	text := v.String()
	if r := []rune(text); len(r) > 60 {
		text = string(r[:59]) + "…"
	}
	switch v.kind() {
	case 0:
		return "nothing"
	case yaml.SequenceNode:
		return "a list (" + text + ")"
	case yaml.MappingNode:
		return "a mapping (" + text + ")"
	}
	return text
}

// decode reads the value into what a pointer points to. A value of another type is
// an error; so is null.
func (v value) decode(into any) error {
	out, isList := reflect.ValueOf(into).Elem(), v.kind() == yaml.SequenceNode
	if many, ok := into.(*oneOrMany); ok {
		if many.list = isList; isList {
			return v.decode(&many.values)
		}
		many.values = make([]int, 1)
		return v.decode(&many.values[0])
	}
	tag, text := "", v.text()
	if v.kind() == yaml.ScalarNode {
		tag = v.node.ShortTag()
	}
	number, err := strconv.ParseFloat(text, 64)
	numeric := (tag == "!!int" || tag == "!!float") && err == nil && !math.IsNaN(number) && !math.IsInf(number, 0)
	expected := "a number"
	switch kind := out.Kind(); {
	case kind == reflect.Pointer:
		out.Set(reflect.New(out.Type().Elem()))
		return v.decode(out.Interface())
	case kind == reflect.Slice && isList:
		items := v.values()
		out.Set(reflect.MakeSlice(out.Type(), len(items), len(items)))
		errs := make([]error, len(items))
		for i, item := range items {
			errs[i] = item.decode(out.Index(i).Addr().Interface())
		}
		return errors.Join(errs...)
	case kind == reflect.Slice:
		expected = "a list"
	case kind == reflect.String:
		if expected = "text"; tag == "!!str" || numeric {
			out.SetString(text)
			return nil
		}
	case kind == reflect.Bool:
		if expected = "true or false"; tag == "!!bool" {
			out.SetBool(strings.EqualFold(text, "true"))
			return nil
		}
	case out.CanInt():
		if expected = "a whole number"; numeric && number == math.Trunc(number) && math.Abs(number) < 1<<53 {
			out.SetInt(int64(number))
			return nil
		}
	case numeric:
		out.SetFloat(number)
		return nil
	}
	return v.errorf("expected %s, found %s", expected, v.found())
}
