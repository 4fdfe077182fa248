package sd

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// A componentConfig is a pointer to a struct that holds the config.json of a
// part of a folder. A key that the struct lacks is an error, as it might change the
// numbers, unless it is switched off or the format says otherwise. A null stands
// for a pointer or slice that is nil, and is an error elsewhere.
type componentConfig interface {
	format() *configFormat
	// Validate is an error that begins with the key that is at fault.
	Validate() error
}

// A configFormat says how the config.json of a part tells what it is of, and which
// keys it may have beside those of the struct.
type configFormat struct {
	class       string            // of the part
	stems                         // of its weights, and the library that saves it
	untapped    string            // what the part is, where its attention maps cannot be tapped
	key, is     string            // the key whose value tells the class, and that value
	was         string            // the value in older files; "" = the same
	unsupported string            // what is said of another value: format of the value and of what is supported
	fixed       map[string]string // keys of which one value is supported
	null        []string          // keys of which only null is supported
	ignored     []string          // keys without effect on what we compute
	ignoresRest bool              // all other keys are ignored as well, and so are nulls
}

// readConfig decodes folder/config.json. Faults are named with file and line.
func readConfig(folder string, c componentConfig) error {
	doc, err := readJSON(filepath.Join(folder, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("models: %s: config.json is missing; expected the folder of one %s with its config.json and weights, as %s saves it", folder, c.format().class, c.format().library)
	}
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	return decodeConfig(doc, c)
}

// decodeConfig is readConfig for a document that is read.
func decodeConfig(doc value, c componentConfig) error {
	f := c.format()
	if at, ok := doc.at(f.key); ok && at.text() != f.is && (f.was == "" || at.text() != f.was) { // the keys of another class say nothing
		return fmt.Errorf("models: %w", at.errorf(f.unsupported, at.text(), f.is))
	}
	var errs, undecoded []error
	fields, known := configFields(c)
	for _, v := range doc.values() {
		field, has := fields[v.key]
		supported, fixed := f.fixed[v.key]
		if slices.Contains(f.null, v.key) {
			supported, fixed = "null", true
		}
		switch null := v.kind() == 0; {
		case slices.Contains(f.ignored, v.key), !has && f.ignoresRest, null && f.ignoresRest:
		case fixed && !is(v, supported):
			errs = append(errs, v.errorf("%s is not supported; supported: %s", v, supported))
		case fixed, !has && (strings.HasPrefix(v.key, "_") || off(v)):
		case !has:
			undecoded = append(undecoded, fmt.Errorf("%s:%d: unknown key %q; known: %s", v.file, v.line, v.key, strings.Join(known, ", ")))
		case null && field.Kind() != reflect.Pointer && field.Kind() != reflect.Slice:
			errs = append(errs, v.errorf("null is not supported; expected a value"))
		case null && field.Kind() == reflect.Pointer:
			field.SetZero()
		case !null:
			undecoded = append(undecoded, v.decode(field.Addr().Interface()))
		}
	}
	err := errors.Join(undecoded...)
	if err == nil {
		err = doc.place(c.Validate())
	}
	if err = errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("models: %w", err)
	}
	return nil
}

// configFields are the fields of a pointer to a config by their keys, and the
// keys in order.
func configFields(c any) (fields map[string]reflect.Value, known []string) {
	fields = map[string]reflect.Value{}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		key := cmp.Or(tag.Get("json"), tag.Get("yaml"))
		fields[key], known = v.Field(i), append(known, key)
	}
	return fields, known
}

// is reports whether a value, or every item of a list, is the given one: a
// number however it is written, or a text.
func is(v value, want string) bool {
	switch v.kind() {
	case yaml.SequenceNode:
		return !slices.ContainsFunc(v.values(), func(item value) bool { return !is(item, want) })
	case 0:
		return want == "null"
	}
	a, errA := strconv.ParseFloat(v.text(), 64)
	b, errB := strconv.ParseFloat(want, 64)
	return v.text() == want || errA == nil && errB == nil && a == b
}

// off reports whether the value of a key that we do not know switches its
// option off: null, false, 0, nothing.
func off(v value) bool {
	switch v.kind() {
	case yaml.ScalarNode:
		return slices.Contains([]string{"false", "0", "0.0", "", "none", "default"}, v.text())
	case yaml.SequenceNode:
		return len(v.values()) == 0
	}
	return v.kind() == 0
}

// oneOrMany is a number, or a list with one number a block.
type oneOrMany struct {
	values []int
	list   bool
}

func one(n int) oneOrMany { return oneOrMany{values: []int{n}} }

// of is the number for each of n blocks.
func (o oneOrMany) of(key string, n, most int) ([]int, error) {
	switch {
	case slices.ContainsFunc(o.values, func(v int) bool { return v < 1 || v > most }):
		return nil, fmt.Errorf("%s is %s, expected 1 to %d", key, strings.Trim(fmt.Sprint(o.values), "[]"), most)
	case !o.list:
		return slices.Repeat(o.values, n), nil
	case len(o.values) != n:
		return nil, fmt.Errorf("%s: %d numbers for %d blocks; expected one number, or one a block", key, len(o.values), n)
	}
	return o.values, nil
}

// only is an error unless every block type is a supported one.
func only(key string, have []string, supported ...string) error {
	for i, name := range have {
		if !slices.Contains(supported, name) {
			return fmt.Errorf("%s: block %d is %q, which is not supported; supported: %s", key, i, name, strings.Join(supported, ", "))
		}
	}
	return nil
}

// oneOf is an error unless the value is a supported one.
func oneOf(key, have string, supported ...string) error {
	if slices.Contains(supported, have) {
		return nil
	}
	known := strings.Join(supported, ", ")
	if supported[0] == "" {
		known = "nothing" + known
	}
	return fmt.Errorf("%s is %q, which is not supported; supported: %s", key, have, known)
}

// The most that a config.json may ask for: far above what was ever published,
// and little enough that a mistyped number is an error and no endless graph.
const (
	maxBlocks = 8
	maxLayers = 32
	maxWidth  = 1 << 16
)

// A quantity is a number of a config, with the most that it may be.
type quantity struct {
	key     string
	n, most int
}

// check is an error unless all are positive and within their bounds.
func check(quantities ...quantity) error {
	var errs []error
	for _, q := range quantities {
		if q.n < 1 || q.n > q.most {
			errs = append(errs, fmt.Errorf("%s is %d, expected 1 to %d", q.key, q.n, q.most))
		}
	}
	return errors.Join(errs...)
}
