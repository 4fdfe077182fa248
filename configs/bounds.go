package configs

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
)

// Bounds are what a number may be, both ends included; the tags min and max of its
// field. An end that no tag gives is infinite.
type Bounds struct{ Min, Max float64 }

// boundsOf reads the tags of a field. A tag that is no number is a mistake of the
// struct's author.
func boundsOf(f reflect.StructField) (Bounds, error) {
	b := Bounds{math.Inf(-1), math.Inf(1)}
	for tag, end := range map[string]*float64{"min": &b.Min, "max": &b.Max} {
		text, ok := f.Tag.Lookup(tag)
		if !ok {
			continue
		}
		var err error
		if *end, err = strconv.ParseFloat(text, 64); err != nil {
			return b, fmt.Errorf("configs: the tag %s of %s is %q, expected a number", tag, f.Name, text)
		}
	}
	return b, nil
}

// some reports whether a tag bounds the number at either end.
func (b Bounds) some() bool { return !math.IsInf(b.Min, -1) || !math.IsInf(b.Max, 1) }

// String is "1 to 4096", or "" without bounds.
func (b Bounds) String() string {
	if !b.some() {
		return ""
	}
	return plainNumber(b.Min) + " to " + plainNumber(b.Max)
}

// plainNumber writes whole numbers with all their digits.
func plainNumber(v float64) string {
	if v == math.MaxUint64 {
		return "2^64-1" // it has no float64 of its own
	}
	if v == math.Trunc(v) && math.Abs(v) < exactFloat {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// numeric reports whether a type is a number, a pointer to one or a list of them.
func numeric(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return numeric(t.Elem())
	}
	v := reflect.New(t).Elem()
	return v.CanInt() || v.CanUint() || v.CanFloat()
}

// bounds notes the numbers of a struct that are not within the bounds of their fields.
func (d *decoder) bounds(b Block, v reflect.Value) {
	if v = reflect.Indirect(v); !b.IsMapping() || v.Kind() != reflect.Struct || reflect.PointerTo(v.Type()).Implements(unmarshalerType) || b.hooks[v.Type()] != nil {
		return
	}
	fields, err := fieldsOf(v.Type())
	if err != nil {
		return // structure has told
	}
	for _, f := range fields {
		if !f.inline && f.bounds.some() && b.node.children[f.name] != nil {
			d.within(b.key(f.name), v.FieldByIndex(f.index), f.bounds)
		}
	}
}

// within notes each number of a field that is decoded and not within its bounds.
func (d *decoder) within(b Block, v reflect.Value, bounds Bounds) {
	switch {
	case b.IsNull():
	case v.Kind() == reflect.Pointer:
		d.within(b, v.Elem(), bounds)
	case v.Kind() == reflect.Slice:
		for i, item := range b.Items() {
			d.within(item, v.Index(i), bounds)
		}
	case !bounds.holds(v):
		d.fault(b, "is %s, expected %s", clip(b.node.text), bounds)
	}
}

// holds reports whether a number lies within the bounds; other values do.
func (b Bounds) holds(v reflect.Value) bool {
	var n float64
	switch {
	case v.CanInt():
		n = float64(v.Int())
	case v.CanUint():
		n = float64(v.Uint())
	case v.CanFloat():
		n = v.Float()
	default:
		return true
	}
	return n >= b.Min && n <= b.Max
}

// CheckBounds is an error that lists the keys of structs (or pointers to them) that
// hold numbers without both of the tags min and max, or a default outside of them.
func CheckBounds(structs ...any) error {
	var faults []error
	for _, s := range structs {
		v := reflect.Indirect(reflect.ValueOf(s))
		faults = append(faults, describeEach("", v, map[reflect.Type]bool{}, func(key string, f field, member reflect.Value) error {
			switch {
			case numeric(f.typ) && (math.IsInf(f.bounds.Min, 0) || math.IsInf(f.bounds.Max, 0)):
				faults = append(faults, fmt.Errorf("%s: %s lacks min or max", v.Type(), key))
			case !member.IsZero() && !f.bounds.holds(reflect.Indirect(member)):
				faults = append(faults, fmt.Errorf("%s: the default of %s is not within %s", v.Type(), key, f.bounds))
			}
			return nil
		}))
	}
	return Join(faults...)
}
