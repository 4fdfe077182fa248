package report

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sagbench/experiments/store"
)

// differencesOf says in what rows of one experiment and label differ beyond their
// sweep, a line for each experiment: rows of seed 0 and of seed 7 in one table, which
// nothing else in it shows. What an entry of rows: sets is its label's affair.
func differencesOf(rows []*store.Metrics) []string {
	var lines []string
	for _, own := range byExperiment(rows) {
		swept := map[string]bool{}
		for _, m := range own {
			for _, s := range m.Settings {
				swept[s.Path] = true
			}
		}
		byLabel := map[string]map[string][]string{} // label → what → its values
		for _, m := range own {
			if byLabel[m.Label] == nil {
				byLabel[m.Label] = map[string][]string{}
			}
			all := byLabel[m.Label]
			for what, value := range settled(m, swept) {
				if !slices.Contains(all[what], value) {
					all[what] = append(all[what], value)
				}
			}
		}
		found := map[string]bool{}
		for _, all := range byLabel {
			for what, values := range all {
				if len(values) > 1 {
					found[what+" ("+some(values, 4, ", ")+")"] = true
				}
			}
		}
		if len(found) > 0 {
			lines = append(lines, "warning: rows of "+own[0].Experiment+" differ in more than the sweep: "+some(slices.Sorted(maps.Keys(found)), 8, "; "))
		}
	}
	return lines
}

// some joins the first most of the words and counts the others.
func some(words []string, most int, separator string) string {
	if more := len(words) - most; more > 0 {
		words = append(slices.Clone(words[:most]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, separator)
}

// settled are what a row's pixels and scores depend on beside the swept settings, by
// their paths: the settings of its config, its reference, the versions.
func settled(m *store.Metrics, swept map[string]bool) map[string]string {
	all := map[string]string{"reference's content": fmt.Sprintf("%.8s", m.Inputs.Reference.SHA256)}
	for name, version := range m.Versions {
		all["version of "+name] = version
	}
	var config map[string]any
	if json.Unmarshal(m.Config, &config) != nil {
		return all
	}
	for _, key := range []string{"name", "label", "samples", "batch", "published"} { // they have columns, or change nothing
		delete(config, key)
	}
	stepsSwept := false
	for path := range swept {
		stepsSwept = stepsSwept || path == "sampler" || strings.HasPrefix(path, "sampler.")
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		fields, isBlock := value.(map[string]any)
		switch {
		case swept[path], stepsSwept && path == "model.timestep_respacing": // which follows from the sampler's steps
		case isBlock:
			for key, v := range fields {
				walk(strings.TrimPrefix(path+"."+key, "."), v)
			}
		default:
			text, _ := json.Marshal(value)
			all[path] = strings.Trim(string(text), `"`)
			if len(all[path]) > 40 { // a hash tells lists apart that begin alike
				all[path] = fmt.Sprintf("%.24s… %.2x", all[path], sha256.Sum256(text))
			}
		}
	}
	walk("", config)
	return all
}
