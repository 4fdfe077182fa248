package models

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"sagbench/models/checkpoint"
)

// settle sets the flags, a pointer to a struct with yaml tags, to what a checkpoint
// tells of them by name. A flag that is set to something else is an error, and so is
// a name that no flag has. Flags that are pointers, lists, texts and numbers count
// as not set where they are nil, empty or 0.
func settle(flags any, told map[string]any) error {
	fields := map[string]reflect.Value{}
	v := reflect.ValueOf(flags).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" {
			fields[name] = v.Field(i)
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(told)) {
		field, known := fields[name]
		if !known {
			errs = append(errs, fmt.Errorf("the checkpoint was made with %s = %v, an argument that is not known here", name, told[name]))
			continue
		}
		want := reflect.New(field.Type()).Elem()
		if !assign(want, told[name]) {
			errs = append(errs, fmt.Errorf("the checkpoint was made with %s = %v, expected %s", name, told[name], field.Type()))
			continue
		}
		if want.IsZero() && field.Kind() == reflect.Pointer { // None
			continue
		}
		if !field.IsZero() && !reflect.DeepEqual(field.Interface(), want.Interface()) {
			errs = append(errs, fmt.Errorf("%s is %v, but the checkpoint was made with %v; leave it out", name, plainly(field), plainly(want)))
			continue
		}
		field.Set(want)
	}
	return errors.Join(errs...)
}

// plainly is a flag's value without its pointer.
func plainly(v reflect.Value) any { return reflect.Indirect(v).Interface() }

// assign sets a flag to an argument; false where it is of another kind.
func assign(to reflect.Value, v any) bool {
	if v == nil {
		return to.Kind() == reflect.Pointer || to.Kind() == reflect.Slice
	}
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		return assign(to.Elem(), v)
	case reflect.Slice:
		list, ok := v.([]any)
		if !ok {
			return false
		}
		to.Set(reflect.MakeSlice(to.Type(), len(list), len(list)))
		for i, item := range list {
			if !assign(to.Index(i), item) {
				return false
			}
		}
		return true
	case reflect.Bool, reflect.String:
		ok := reflect.TypeOf(v) == to.Type()
		if ok {
			to.Set(reflect.ValueOf(v))
		}
		return ok
	}
	n, ok := checkpoint.Number(v)
	switch {
	case !ok:
		return false
	case to.CanInt():
		to.SetInt(int64(n))
		return float64(to.Int()) == n
	}
	to.SetFloat(n)
	return to.Float() == n
}

// toldBy are the arguments of the constructor of the network in a checkpoint, with
// those of its attributes that also are such arguments; nil where the file does not
// hold any.
func toldBy(f *checkpoint.File, attributes ...string) (class string, told map[string]any, err error) {
	o, ok := f.Objects[f.Wrapper]
	if !ok {
		return "", nil, nil
	}
	if o.Positional > 0 {
		return o.Class, nil, fmt.Errorf("the network was made with %d arguments that have no names; expected all by name", o.Positional)
	}
	told = maps.Clone(o.Arguments)
	for _, name := range attributes {
		if v, has := o.Attributes[name]; has {
			told[name] = v
		}
	}
	return o.Class, told, nil
}
