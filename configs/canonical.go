package configs

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
)

var (
	jsonMarshalerType = reflect.TypeFor[json.Marshaler]()
	textMarshalerType = reflect.TypeFor[encoding.TextMarshaler]()
)

// Canonical writes a decoded value as JSON that depends on nothing but its
// content: the YAML names of the fields as keys, in alphabetical order, no
// spaces, numbers in their shortest form, NaN and infinities as strings. It is
// what hashes are taken of: two values have equal bytes if and only if every
// field with a yaml tag is equal. Fields without a tag, or tagged "-", do not
// count. A struct without any tag is an error, since nothing of it would count;
// so are functions and channels. Types that implement json.Marshaler or
// encoding.TextMarshaler are written as these say.
func Canonical(v any) ([]byte, error) {
	tree, err := canonical(reflect.ValueOf(v))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out) // sorts the keys of maps
	e.SetEscapeHTML(false)
	if err := e.Encode(tree); err != nil {
		return nil, fmt.Errorf("configs: canonical form: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// canonical turns v into nil, bool, json.Number, string, []any and map[string]any.
func canonical(v reflect.Value) (any, error) {
	if !v.IsValid() {
		return nil, nil
	}
	switch t := v.Type(); {
	case t == blockType:
		return v.Interface().(Block).node.tree(), nil
	case v.Kind() == reflect.Pointer && v.IsNil(), v.Kind() == reflect.Interface && v.IsNil():
		return nil, nil
	case t.Implements(jsonMarshalerType):
		return remarshal(v)
	case t.Implements(textMarshalerType):
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		return string(text), err
	case v.Kind() == reflect.Pointer, v.Kind() == reflect.Interface:
		return canonical(v.Elem())
	case v.CanInt():
		return json.Number(strconv.FormatInt(v.Int(), 10)), nil
	case v.CanUint():
		return json.Number(strconv.FormatUint(v.Uint(), 10)), nil
	case v.CanFloat():
		return number(v.Float(), t.Bits()), nil
	}
	switch v.Kind() {
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.String:
		return v.String(), nil
	case reflect.Slice, reflect.Array:
		out := make([]any, v.Len())
		for i := range out {
			var err error
			if out[i], err = canonical(v.Index(i)); err != nil {
				return nil, err
			}
		}
		return out, nil
	case reflect.Map:
		return canonicalMap(v)
	case reflect.Struct:
		return canonicalStruct(v)
	}
	return nil, fmt.Errorf("configs: %s has no canonical form", v.Type())
}

func canonicalMap(v reflect.Value) (any, error) {
	if v.Type().Key().Kind() != reflect.String {
		return nil, fmt.Errorf("configs: %s has no canonical form: its keys are no strings", v.Type())
	}
	out := map[string]any{}
	for it := v.MapRange(); it.Next(); {
		c, err := canonical(it.Value())
		if err != nil {
			return nil, err
		}
		out[it.Key().String()] = c
	}
	return out, nil
}

func canonicalStruct(v reflect.Value) (any, error) {
	t := v.Type()
	fields, err := fieldsOf(t)
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 && untagged(t) {
		return nil, fmt.Errorf("configs: %s has no canonical form: none of its fields has a yaml tag", t)
	}
	out := map[string]any{}
	for _, f := range fields {
		if f.inline {
			continue // its fields follow
		}
		if out[f.name], err = canonical(v.FieldByIndex(f.index)); err != nil {
			return nil, fmt.Errorf("%w (%s.%s)", err, t, f.name)
		}
	}
	return out, nil
}

// untagged reports whether t holds anything and none of its fields mentions YAML,
// not even to say "-".
func untagged(t reflect.Type) bool {
	for i := range t.NumField() {
		if _, ok := t.Field(i).Tag.Lookup("yaml"); ok {
			return false
		}
	}
	return t.Size() > 0
}

// remarshal brings a type's own JSON into the common form.
func remarshal(v reflect.Value) (any, error) {
	own, err := json.Marshal(v.Interface())
	if err != nil {
		return nil, fmt.Errorf("configs: canonical form of %s: %w", v.Type(), err)
	}
	d := json.NewDecoder(bytes.NewReader(own))
	d.UseNumber()
	var out any
	err = d.Decode(&out)
	return out, err
}

// number is the shortest form of f; zero has no sign.
func number(f float64, bits int) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	if f == 0 {
		f = 0
	}
	return json.Number(strconv.FormatFloat(f, 'g', -1, bits))
}

// tree turns a node into nil, bool, json.Number, string, []any and map[string]any.
func (n *node) tree() any {
	switch {
	case n.isNull():
		return nil
	case n.kind == list:
		out := make([]any, len(n.items))
		for i, item := range n.items {
			out[i] = item.tree()
		}
		return out
	case n.kind == mapping:
		out := make(map[string]any, len(n.keys))
		for _, k := range n.keys {
			out[k.name] = n.children[k.name].tree()
		}
		return out
	case n.tag == tagBool:
		return truth(n.text) == "true"
	case n.tag == tagInt || n.tag == tagFloat:
		if negative, size, err := parseWhole(n.text); err == nil && !(negative && size == 0) {
			if negative {
				return json.Number("-" + strconv.FormatUint(size, 10))
			}
			return json.Number(strconv.FormatUint(size, 10))
		}
		if f, err := parseFloat(n.text); err == nil {
			return number(f, 64)
		}
	}
	return n.text
}
