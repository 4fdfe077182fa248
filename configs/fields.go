package configs

import (
	"fmt"
	"reflect"
	"strings"
)

// A field is one key of a struct's block.
type field struct {
	name   string
	doc    string
	index  []int
	typ    reflect.Type
	inline bool // a struct whose keys follow as fields of their own
}

// fieldsOf lists the keys of a struct in the order in which they are declared.
// Its errors are mistakes of the struct's author, not of the document's.
func fieldsOf(t reflect.Type) ([]field, error) {
	var out []field
	seen := map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("yaml")
		if !ok || tag == "-" {
			continue
		}
		if !f.IsExported() && !f.Anonymous {
			return nil, fmt.Errorf("configs: %s.%s has a yaml tag but is not exported", t, f.Name)
		}
		name, options, _ := strings.Cut(tag, ",")
		add := []field{{name: name, doc: f.Tag.Get("doc"), index: f.Index, typ: f.Type}}
		if options == "inline" {
			if f.Type.Kind() != reflect.Struct {
				return nil, fmt.Errorf("configs: %s.%s is inline but no struct", t, f.Name)
			}
			inner, err := fieldsOf(f.Type)
			if err != nil {
				return nil, err
			}
			add[0].inline = true
			for _, in := range inner {
				in.index = append([]int{i}, in.index...)
				add = append(add, in)
			}
		} else if name == "" {
			return nil, fmt.Errorf("configs: %s.%s has a yaml tag without a name", t, f.Name)
		}
		for _, a := range add {
			if !a.inline && seen[a.name] {
				return nil, fmt.Errorf("configs: %s has two fields for the key %q", t, a.name)
			}
			seen[a.name] = true
		}
		out = append(out, add...)
	}
	return out, nil
}
