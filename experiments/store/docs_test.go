package store

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sagbench/models/features"
)

// jsonFields adds the JSON names of the fields of t, and of the structs in it.
func jsonFields(t reflect.Type, names map[string]bool) {
	switch {
	case t == reflect.TypeFor[json.RawMessage]():
	case t == reflect.TypeFor[Inputs](): // it writes itself: the networks under their names
		data, err := json.Marshal(Inputs{Guidance: map[string]InputFile{"": {}}, Captions: &Captions{}})
		var own map[string]any
		if err := errors.Join(err, json.Unmarshal(data, &own)); err != nil {
			panic(err)
		}
		for name := range own {
			names[name] = true
		}
		jsonFields(reflect.TypeFor[Captions](), names)
		for _, n := range features.Networks {
			names[n.Name] = true
		}
	case t.Kind() == reflect.Pointer, t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
		jsonFields(t.Elem(), names)
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			field := t.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && name != "-" {
				names[name] = true
			}
			if name != "" || field.Anonymous {
				jsonFields(field.Type, names)
			}
		}
	}
}

var (
	firstColumn = regexp.MustCompile(`(?m)^\| ([^|]+) \|`)
	backticked  = regexp.MustCompile("`([^`]+)`")
)

// describedFields are the names in backticks in the first column of the tables
// of one section of a Markdown text.
func describedFields(t *testing.T, text, section string) map[string]bool {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n## "+section+"\n")
	if !found {
		t.Fatalf("docs/results.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	names := map[string]bool{}
	for _, row := range firstColumn.FindAllStringSubmatch(rest, -1) {
		for _, name := range backticked.FindAllStringSubmatch(row[1], -1) {
			names[name[1]] = true
		}
	}
	return names
}

// docs/results.md describes every field of metrics.json, devices.json and eval's JSON, and
// no field that is not there.
func TestResultsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/results.md")
	if err != nil {
		t.Fatal(err)
	}
	shared := map[string]map[string]bool{"eval's JSON": {}, "devices.json": {}} // what is described once, for two files
	jsonFields(reflect.TypeFor[Score](), shared["eval's JSON"])
	jsonFields(reflect.TypeFor[Placement](), shared["devices.json"])
	for section, file := range map[string]reflect.Type{
		"metrics.json": reflect.TypeFor[Metrics](),
		"eval's JSON":  reflect.TypeFor[Evaluations](),
		"devices.json": reflect.TypeFor[devicesJSON](),

		"search/round-1.json": reflect.TypeFor[SearchRound](),
	} {
		described, fields := describedFields(t, string(page), section), map[string]bool{}
		jsonFields(file, fields)
		var missing, stale []string
		for name := range fields {
			if !described[name] && !shared[section][name] {
				missing = append(missing, name)
			}
		}
		for name := range described {
			if !fields[name] {
				stale = append(stale, name)
			}
		}
		slices.Sort(missing)
		slices.Sort(stale)
		if len(missing)+len(stale) > 0 {
			t.Errorf("docs/results.md, section %q: not described: %q; described, but no field: %q", section, missing, stale)
		}
	}
}
