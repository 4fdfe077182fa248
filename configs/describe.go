package configs

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Describe writes a Markdown table of the keys of structs (or pointers to them)
// that are one block together: key, type (the Go type's, or type:"…"), default (the
// struct's own value), range (min:"…" and max:"…") and meaning (doc:"…"). The keys of nested structs are dotted, those
// of a list's items follow "[]". A title without "#" becomes a heading of the
// second level.
func Describe(w io.Writer, title string, structs ...any) error {
	var out, rows strings.Builder
	for _, v := range structs {
		value := reflect.ValueOf(v)
		for value.Kind() == reflect.Pointer && !value.IsNil() {
			value = value.Elem()
		}
		if value.Kind() != reflect.Struct {
			return fmt.Errorf("configs: Describe needs a struct, not %T", v)
		}
		err := describeEach("", value, map[reflect.Type]bool{}, func(key string, f field, member reflect.Value) error {
			def, err := defaultOf(member)
			fmt.Fprintf(&rows, "| `%s` | %s | %s | %s | %s |\n", key, cmp.Or(f.kind, typeName(f.typ)), def, f.bounds, cell(f.doc))
			return err
		})
		if err != nil {
			return err
		}
	}
	if !strings.HasPrefix(title, "#") {
		title = "## " + title
	}
	fmt.Fprintf(&out, "%s\n\n", title)
	if rows.Len() == 0 {
		out.WriteString("It has no keys.\n")
	} else {
		out.WriteString("| key | type | default | range | meaning |\n| --- | --- | --- | --- | --- |\n" + rows.String())
	}
	_, err := io.WriteString(w, out.String()+"\n")
	return err
}

// describeEach calls row with each key of a struct, its field and its value, then
// with those below it; open holds the types being described, so that a type that
// holds itself ends.
func describeEach(path string, v reflect.Value, open map[reflect.Type]bool, row func(key string, f field, member reflect.Value) error) error {
	t := v.Type()
	if open[t] {
		return nil
	}
	open[t] = true
	defer delete(open, t)
	fields, err := fieldsOf(t)
	if err != nil {
		return err
	}
	for _, f := range fields {
		if f.inline {
			continue
		}
		member, key := v.FieldByIndex(f.index), join(path, f.name)
		if err := row(key, f, member); err != nil {
			return err
		}
		inner, suffix := nested(member)
		if !inner.IsValid() {
			continue
		}
		if err := describeEach(key+suffix, inner, open, row); err != nil {
			return err
		}
	}
	return nil
}

// nested is the struct whose keys stand below a field, the zero Value if none.
func nested(v reflect.Value) (reflect.Value, string) {
	suffix := ""
	for {
		switch v.Kind() {
		case reflect.Pointer:
			if v.IsNil() {
				v = reflect.New(v.Type().Elem())
			}
			v = v.Elem()
		case reflect.Slice:
			v, suffix = reflect.Zero(v.Type().Elem()), suffix+"[]"
		case reflect.Map:
			v, suffix = reflect.Zero(v.Type().Elem()), suffix+".NAME"
		case reflect.Struct:
			if v.Type() == blockType || decodesItself(v.Type()) { // its keys are not its fields
				return reflect.Value{}, ""
			}
			return v, suffix
		default:
			return reflect.Value{}, ""
		}
	}
}

// typeName is the word for a type in the table.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Slice:
		if name := typeName(t.Elem()); name == "block" {
			return "list of blocks"
		}
		return "list of " + plural(t.Elem())
	case reflect.Map:
		return "mapping of names to " + typeName(t.Elem())
	case reflect.Struct:
		return "block"
	case reflect.Bool, reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return strings.TrimPrefix(expected(t), "a ")
	}
	return t.String()
}

// defaultOf is a field's value as YAML, "" for blocks.
func defaultOf(v reflect.Value) (string, error) {
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil():
		return "", nil
	case v.Kind() == reflect.Pointer:
		return defaultOf(v.Elem())
	case v.Kind() == reflect.Struct, (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 && v.IsNil():
		return "", nil
	}
	text, err := Canonical(v.Interface())
	if err != nil {
		return "", err
	}
	return "`" + cell(string(text)) + "`", nil
}

// cell escapes a text for a Markdown table.
func cell(s string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "|", `\|`)), " ")
}
