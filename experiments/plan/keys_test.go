package plan

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/internal/tiny"
)

// Keys are those of all rows with their values, names where names are taken, and the
// keys at the top that the file leaves out; of a file that is wrong, what can be read.
func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "e.yaml")
	read := func(text string, overrides ...string) (map[string][]string, string) {
		tiny.Write(t, file, text)
		keys, rows := Keys(file, overrides)
		values := map[string][]string{}
		for _, k := range keys {
			values[k.Path] = k.Values
		}
		return values, fmt.Sprint(rows)
	}
	values, rows := read("samples: 8\nmodel: {family: adm, \"\": {x: 1}, net.size: 4}\nguidance: {sag: {scale: 1}}\nrows: [{label: a}, {label: b, seed: 3}]\nsweep: {guidance.sag.scale: [0, 0.5]}\nno such key: 1\n", "batch=2")
	for path, want := range map[string][]string{
		"samples": {"8"}, "batch": {"2"}, "seed": {"3"}, "guidance.sag.scale": {"0", "0.5"}, "model.net.size": {"4"}, "bootstrap": nil,
		"model.family": FamilyRegistry.Names(), "network": {"inception", "dinov2", "clip", "onnx"}, "no such key": {"1"},
	} {
		if got, ok := values[path]; !ok || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", path, got, ok, want)
		}
	}
	if want := "[1: a s=0 2: a s=0.5 3: b s=0 4: b s=0.5]"; rows != want {
		t.Errorf("%s, want %s", rows, want)
	}
	if values, rows := read("samples: ["); len(values) > 0 || rows != "[]" {
		t.Errorf("%v %s of a file that cannot be read", values, rows)
	}
}
