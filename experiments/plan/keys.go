package plan

import (
	"maps"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/experiments/store"
	"sagbench/models/features"
	"sagbench/models/ort"
)

// A Key is a setting that an experiment's file has or may have at its top.
type Key struct {
	Path   string   // dotted: guidance.sag.scale
	Values []string // the names that it takes, or else those that the rows have
}

// Keys are the settings of an experiment's file, sorted by their paths, and the places
// of its rows: what a shell completes a command line with. Of a file that cannot be read
// there is nothing.
func Keys(path string, overrides []string) (keys []Key, rows []store.Place) {
	doc, err := configs.Load(path, overrides...)
	if err != nil {
		return nil, nil
	}
	all, err := doc.Rows()
	if err != nil {
		return nil, nil
	}
	values := map[string][]string{}
	var walk func(b configs.Block)
	walk = func(b configs.Block) {
		for _, key := range b.Keys() {
			below, _ := b.At(key)
			path, value := below.Path(), below.String()
			switch {
			case key == "": // which is no setting's
			case below.IsMapping():
				walk(below)
			case !slices.Contains(values[path], value):
				values[path] = append(values[path], value)
			}
		}
	}
	for i, r := range all {
		var swept []store.Setting
		for _, s := range r.Settings {
			swept = append(swept, store.Setting(s))
		}
		rows = append(rows, store.PlaceOf(i, r.Label, swept))
		walk(r.Block)
	}
	top, err := Fields(defaults())
	if err != nil {
		return nil, nil
	}
	for key := range top {
		if !slices.ContainsFunc(all, func(r configs.Row) bool { return r.Block.Has(key) }) {
			values[key] = nil
		}
	}
	for path := range values {
		if names := namesAt(path); names != nil {
			values[path] = names
		}
	}
	for _, path := range slices.Sorted(maps.Keys(values)) {
		keys = append(keys, Key{path, values[path]})
	}
	return keys, rows
}

// namesAt are the names that the setting at a path takes; nil where it takes no names.
func namesAt(path string) []string {
	switch last := path[strings.LastIndexByte(path, '.')+1:]; {
	case last == "family":
		return FamilyRegistry.Names()
	case last == "precision":
		return ort.AllPrecisions
	case path == "protocol":
		return slices.Sorted(maps.Keys(eval.Protocols))
	case path == "network":
		return FeatureNetworkNames()
	case path == "labels":
		return labelWords
	case path == "metrics":
		return MetricRegistry.Names()
	case path == "sampler":
		return samplerRegistry.Names()
	case path == "guidance":
		return GuidanceRegistry.Names()
	}
	return nil
}

// FeatureNetworkNames are those that images can be compared with.
func FeatureNetworkNames() []string {
	var names []string
	for _, n := range features.Networks {
		names = append(names, n.Name)
	}
	return names
}
