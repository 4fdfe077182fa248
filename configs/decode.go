package configs

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// An Unmarshaler reads its own block. An error that was not made with
// Block.Errorf gets the block's file, line and path in front.
type Unmarshaler interface{ UnmarshalBlock(Block) error }

// A YAMLUnmarshaler decodes itself without knowledge of this package.
type YAMLUnmarshaler interface {
	// UnmarshalYAML reads the value. It may call decode, which is Decode of the
	// value's block into a pointer, more than once.
	UnmarshalYAML(decode func(any) error) error
}

// Hooks decode types that this package knows nothing of: each takes a block, which
// is not null, and an addressable value of the type. Errors get the block's file,
// line and path in front, as an Unmarshaler's.
type Hooks map[reflect.Type]func(Block, reflect.Value) error

// With is the block with hooks for types, of itself and of all parts of it.
func (b Block) With(hooks Hooks) Block {
	b.hooks = hooks
	return b
}

// A Validator checks its fields once all of them are decoded. A message that
// starts with the name of a key is placed at that key's line.
type Validator interface{ Validate() error }

var (
	blockType       = reflect.TypeFor[Block]()
	unmarshalerType = reflect.TypeFor[Unmarshaler]()
	yamlDecoderType = reflect.TypeFor[YAMLUnmarshaler]()
)

// decodesItself reports whether a type reads its own block.
func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(unmarshalerType) || p.Implements(yamlDecoderType)
}

// Decode reads the block into a pointer, most often to a struct whose fields
// bear `yaml:"name"` tags (`yaml:",inline"` for a struct whose keys belong to
// the outer block); fields without the tag are left alone.
//
// It is strict: unknown keys and values of another type are errors, all of
// which are returned at once, each with file and line. What the document does
// not mention, or sets to null, keeps the value it has. Lists and maps replace
// the value they find. A text field takes a number as it is written; a number
// field takes finite numbers only, unless its type is Extended; a whole number
// may be written 1e3, and stays within the tags `min:"…" max:"…"` of its field,
// both included. Values that implement Validator are validated, also those
// structs that the document does not mention.
func (b Block) Decode(into any) error { return b.decode(into, (*decoder).value) }

// decode has a decoder take the block to what a pointer points to, by one of its
// methods.
func (b Block) decode(into any, by func(*decoder, Block, reflect.Value)) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("configs: Decode needs a non-nil pointer, not %T", into)
	}
	var d decoder
	by(&d, b, v.Elem())
	return Join(d.faults...)
}

type decoder struct{ faults []error }

func (d *decoder) fault(b Block, format string, args ...any) {
	d.faults = append(d.faults, b.Errorf(format, args...))
}

// value decodes b into v and validates v if nothing was wrong with it. What passes
// has to lie within its bounds: a Validator may have more to say of a number.
func (d *decoder) value(b Block, v reflect.Value) {
	before := len(d.faults)
	d.valid(b, v)
	if len(d.faults) == before {
		d.bounds(b, v)
	}
}

// valid is value without the bounds.
func (d *decoder) valid(b Block, v reflect.Value) {
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
	case !b.IsNull() && b.hooks[v.Type()] != nil:
		d.located(b, b.hooks[v.Type()](b, v))
	case v.CanAddr() && decodesItself(v.Type()):
		if b.IsNull() {
			break // the default is kept
		}
		switch own := v.Addr().Interface().(type) {
		case Unmarshaler:
			d.located(b, own.UnmarshalBlock(b))
		case YAMLUnmarshaler:
			d.located(b, own.UnmarshalYAML(func(into any) error { return b.decode(into, (*decoder).valid) }))
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
	known = append(known, b.without...)
	if b.document {
		known = append(known, ownKeys...)
	}
	keys := b.Keys()
	unknown, most := 0, maxFaults
	for _, name := range keys {
		if _, ok := named[name]; !ok {
			unknown++
		}
	}
	if unknown > most {
		d.fault(b, "%d unknown keys", unknown)
		most = maxFaults / 4
	}
	told := 0
	for _, name := range keys {
		f, ok := named[name]
		if !ok {
			if told++; told <= most {
				d.faults = append(d.faults, faultf(b.key(name).at, "unknown key %q %s%s", clip(name), inside(b.path), meant(name, known)))
			}
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
		case b.IsMapping() && b.node.children[f.name] != nil:
		case member.Type() == blockType && !member.Interface().(Block).IsZero():
		case member.Kind() == reflect.Struct:
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
	switch {
	case b.IsNull() && decodesItself(v.Type()):
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
	if v.Kind() != reflect.Pointer && v.CanAddr() {
		v = v.Addr()
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() && v.CanInterface() { // an embedded type may be unexported
		if c, ok := v.Interface().(Validator); ok {
			d.located(b, c.Validate())
		}
	}
}

// located notes the errors that err is made of: those that name their place as
// they are, the others with b's before them, or that of the key they begin with.
func (d *decoder) located(b Block, err error) {
	for _, e := range parts(err) {
		place := b
		if named, ok := b.At(firstWord(e.Error())); ok {
			place.at = named.at
		}
		if placed := (*fault)(nil); !errors.As(e, &placed) {
			e = place.Errorf("%w", e)
		}
		d.faults = append(d.faults, e)
	}
}

// A field is one key of a struct's block.
type field struct {
	name   string
	doc    string
	kind   string // what docs call its type; "" where that follows from typ
	index  []int
	typ    reflect.Type
	bounds Bounds // of a number
	inline bool   // a struct whose keys follow as fields of their own
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
		bounds, err := boundsOf(f)
		if err != nil {
			return nil, err
		}
		name, options, _ := strings.Cut(tag, ",")
		add := []field{{name: name, doc: f.Tag.Get("doc"), kind: f.Tag.Get("type"), index: f.Index, typ: f.Type, bounds: bounds}}
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
