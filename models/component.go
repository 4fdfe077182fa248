package models

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sagbench/configs"
)

// A componentConfig is a pointer to a struct that holds the config.json of a
// part of a diffusers folder. A key that the struct lacks is an error, as it
// might change the numbers, unless it is switched off or ignored. A null stands
// for a pointer or slice that is nil, and is an error elsewhere.
type componentConfig interface {
	// class is the _class_name of the part.
	class() string
	// ignored are keys without effect on what we compute.
	ignored() []string
	// fixed are keys of which one value is supported.
	fixed() map[string]string
}

// readConfig decodes folder/config.json. Faults are named with file and line.
func readConfig(folder string, c componentConfig) error {
	path := filepath.Join(folder, "config.json")
	b, err := readJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("models: %s: config.json is missing; expected the folder of one %s with its config.json and weights, as diffusers saves it", folder, c.class())
	}
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	return decodeConfig(b, c)
}

// decodeConfig is readConfig for a document that is read.
func decodeConfig(b configs.Block, c componentConfig) error {
	if at, ok := b.At("_class_name"); ok { // the keys of another class say nothing
		if name, _ := at.Text(); name != c.class() {
			return fmt.Errorf("models: %w", at.Errorf("%q is not supported here; supported: %s", name, c.class()))
		}
	}
	var errs []error
	drop := c.ignored()
	fields := configFields(c)
	for _, key := range b.Keys() {
		v, _ := b.At(key)
		nullable, known := fields[key]
		only, isFixed := c.fixed()[key]
		switch {
		case isFixed:
			drop = append(drop, key)
			if !is(v, only) {
				errs = append(errs, v.Errorf("%s is not supported; supported: %s", v, only))
			}
		case !known && (strings.HasPrefix(key, "_") || off(v)):
			drop = append(drop, key)
		case v.IsNull() && !nullable:
			errs = append(errs, v.Errorf("null is not supported; expected a value"))
		}
	}
	errs = append(errs, b.Without(drop...).Decode(c))
	if err := configs.Join(errs...); err != nil {
		return fmt.Errorf("models: %w", err)
	}
	return nil
}

// configFields are the keys of a pointer to a config, and whether each may be null.
func configFields(c any) map[string]bool {
	fields := map[string]bool{}
	t := reflect.TypeOf(c).Elem()
	for i := range t.NumField() {
		kind := t.Field(i).Type.Kind()
		fields[t.Field(i).Tag.Get("yaml")] = kind == reflect.Pointer || kind == reflect.Slice
	}
	return fields
}

// is reports whether a value, or every item of a list, is the given one: a
// number however it is written, or a text.
func is(v configs.Block, want string) bool {
	if v.IsList() {
		return !slices.ContainsFunc(v.Items(), func(item configs.Block) bool { return !is(item, want) })
	}
	if v.IsNull() {
		return want == "null"
	}
	text, _ := v.Text()
	a, errA := strconv.ParseFloat(text, 64)
	b, errB := strconv.ParseFloat(want, 64)
	return text == want || errA == nil && errB == nil && a == b
}

// off reports whether the value of a key that we do not know switches its
// option off: null, false, 0, nothing.
func off(v configs.Block) bool {
	text, ok := v.Text()
	return v.IsNull() || v.IsList() && len(v.Items()) == 0 || ok && slices.Contains([]string{"false", "0", "0.0", "", "none", "default"}, text)
}

// readJSON reads a JSON file as a block, which knows the line of every key.
// JSON is YAML but for tabs between its tokens, which become spaces.
func readJSON(path string) (configs.Block, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return configs.Block{}, err
	}
	return parseJSON(path, data)
}

func parseJSON(name string, data []byte) (configs.Block, error) {
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(data, new(any)); {
	case errors.As(err, &syntax):
		line := 1 + bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n"))
		return configs.Block{}, fmt.Errorf("%s:%d: not JSON: %w", name, line, err)
	case err != nil:
		return configs.Block{}, fmt.Errorf("%s: not JSON: %w", name, err)
	}
	return configs.Parse(name, bytes.ReplaceAll(data, []byte("\t"), []byte(" ")))
}

// oneOrMany is a number, or a list with one number a block.
type oneOrMany struct {
	values []int
	list   bool
}

func one(n int) oneOrMany { return oneOrMany{values: []int{n}} }

// UnmarshalBlock implements configs.Unmarshaler.
func (o *oneOrMany) UnmarshalBlock(b configs.Block) error {
	if b.IsList() {
		o.list = true
		return b.Decode(&o.values)
	}
	o.list, o.values = false, make([]int, 1)
	return b.Decode(&o.values[0])
}

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
