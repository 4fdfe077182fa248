package configs

import (
	"errors"
	"fmt"
	"reflect"

	"gopkg.in/yaml.v3"
)

// An Unmarshaler reads its own block. An error that was not made with
// Block.Errorf gets the block's file, line and path in front.
type Unmarshaler interface{ UnmarshalBlock(Block) error }

// A Validator checks its fields once all of them are decoded. A message that
// starts with the name of a key is placed at that key's line.
type Validator interface{ Validate() error }

var (
	blockType       = reflect.TypeFor[Block]()
	yamlNodeType    = reflect.TypeFor[yaml.Node]()
	unmarshalerType = reflect.TypeFor[Unmarshaler]()
)

// Decode reads the block into a pointer, most often to a struct whose fields
// bear `yaml:"name"` tags (`yaml:",inline"` for a struct whose keys belong to
// the outer block); fields without the tag are left alone.
//
// It is strict: unknown keys and values of another type are errors, all of
// which are returned at once, each with file and line. What the document does
// not mention, or sets to null, keeps the value it has. Lists and maps replace
// the value they find. A text field takes a number as it is written; a number
// field takes finite numbers only, unless its type is Extended; a whole number
// may be written 1e3. Values that implement Validator are validated, also those
// structs that the document does not mention.
func (b Block) Decode(into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("configs: Decode needs a non-nil pointer, not %T", into)
	}
	var d decoder
	d.value(b, v.Elem())
	return Join(d.faults...)
}

type decoder struct{ faults []error }

func (d *decoder) fault(b Block, format string, args ...any) {
	d.faults = append(d.faults, b.Errorf(format, args...))
}

// value decodes b into v and validates v if nothing was wrong with it.
func (d *decoder) value(b Block, v reflect.Value) {
	before := len(d.faults)
	d.fill(b, v)
	if len(d.faults) == before {
		d.validate(b, v)
	}
}

func (d *decoder) fill(b Block, v reflect.Value) {
	switch {
	case v.Type() == blockType:
		v.Set(reflect.ValueOf(b))
	case v.Type() == yamlNodeType:
		v.Set(reflect.ValueOf(*b.node.yaml()))
	case v.CanAddr() && v.Addr().Type().Implements(unmarshalerType):
		if !b.IsNull() {
			d.located(b, v.Addr().Interface().(Unmarshaler).UnmarshalBlock(b))
		}
	case v.Kind() == reflect.Struct:
		d.structure(b, v)
	case b.IsNull(): // the default is kept
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.fill(b, v.Elem()) // validated through the pointer
	case v.Kind() == reflect.Slice:
		d.slice(b, v)
	case v.Kind() == reflect.Map:
		d.mapOf(b, v)
	default:
		d.scalar(b, v)
	}
}

// structure decodes a mapping, or for a null only visits what is to be validated.
func (d *decoder) structure(b Block, v reflect.Value) {
	if !b.IsNull() && !b.IsMapping() {
		d.wrong(b, v.Type())
		return
	}
	fields, err := fieldsOf(v.Type())
	if err != nil {
		d.faults = append(d.faults, err)
		return
	}
	named := map[string]field{}
	var known []string
	for _, f := range fields {
		if !f.inline {
			named[f.name] = f
			known = append(known, f.name)
		}
	}
	if b.document {
		known = append(known, ownKeys...)
	}
	for _, name := range b.Keys() {
		f, ok := named[name]
		if !ok {
			d.faults = append(d.faults, faultf(b.key(name).at, "unknown key %q %s%s", name, inside(b.path), meant(name, known)))
			continue
		}
		d.value(b.key(name), v.FieldByIndex(f.index))
	}
	before := len(d.faults)
	for _, f := range fields {
		member := v.FieldByIndex(f.index)
		switch {
		case f.inline:
			if len(d.faults) == before {
				d.validate(b, member)
			}
		case b.Has(f.name):
		case member.Type() == blockType && !member.Interface().(Block).IsZero():
		case member.Kind() == reflect.Struct && member.Type() != yamlNodeType:
			d.value(Block{path: join(b.path, f.name), at: b.at}, member)
		}
	}
}

func (d *decoder) slice(b Block, v reflect.Value) {
	if !b.IsList() {
		d.wrong(b, v.Type())
		return
	}
	out := reflect.MakeSlice(v.Type(), len(b.node.items), len(b.node.items))
	for i, item := range b.Items() {
		d.element(item, out.Index(i))
	}
	v.Set(out)
}

// element decodes an item of a list or map. A null stands for no default there,
// so only types that can be nothing take it.
func (d *decoder) element(b Block, v reflect.Value) {
	own := v.Addr().Type().Implements(unmarshalerType)
	switch {
	case b.IsNull() && own:
		d.fault(b, "needs a value, found nothing")
	case b.IsNull() && v.Kind() != reflect.Pointer && v.Kind() != reflect.Struct:
		d.wrong(b, v.Type())
	default:
		d.value(b, v)
	}
}

func (d *decoder) mapOf(b Block, v reflect.Value) {
	t := v.Type()
	if t.Key().Kind() != reflect.String {
		d.faults = append(d.faults, fmt.Errorf("configs: %s cannot be read from YAML: its keys are no strings", t))
		return
	}
	if !b.IsMapping() {
		d.wrong(b, t)
		return
	}
	out := reflect.MakeMapWithSize(t, len(b.node.keys))
	for _, name := range b.Keys() {
		element := reflect.New(t.Elem()).Elem()
		d.element(b.key(name), element)
		out.SetMapIndex(reflect.ValueOf(name).Convert(t.Key()), element)
	}
	v.Set(out)
}

func (d *decoder) validate(b Block, v reflect.Value) {
	var err error
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		if c, ok := v.Interface().(Validator); ok {
			err = c.Validate()
		}
	} else if v.CanAddr() && v.Addr().CanInterface() { // an embedded type may be unexported
		if c, ok := v.Addr().Interface().(Validator); ok {
			err = c.Validate()
		}
	}
	d.located(b, err)
}

// located keeps errors that name their place and puts b's before the others.
func (d *decoder) located(b Block, err error) {
	if err == nil {
		return
	}
	if several := parts(err); several != nil {
		for _, e := range several {
			d.located(b, e)
		}
		return
	}
	if placed := (*fault)(nil); errors.As(err, &placed) {
		d.faults = append(d.faults, err)
		return
	}
	if named, ok := b.At(firstWord(err.Error())); ok {
		b.at = named.at
	}
	d.fault(b, "%w", err)
}
