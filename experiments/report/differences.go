package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

// differencesOf says in what rows of one experiment and label differ beyond their
// sweep, a line for each experiment: rows of seed 0 and of seed 7 in one table.
// What an entry of rows: sets is its label's affair.
func differencesOf(rows []*store.Metrics) []string {
	var lines []string
	for _, own := range byExperiment(rows) {
		found := map[string]bool{}
		for _, d := range differing(own, settled) {
			for what, values := range d.values {
				found[what+" ("+some(values, 4, ", ")+")"] = true
			}
		}
		if len(found) > 0 {
			lines = append(lines, warning+"rows of "+own[0].Experiment+" differ in more than the sweep: "+some(slices.Sorted(maps.Keys(found)), 8, "; "))
		}
	}
	return lines
}

// evaluationsApart says in what the evaluations of rows differ, whichever experiments
// they are of; nothing where they are one evaluation.
func evaluationsApart(rows []*store.Metrics) []string {
	values := map[string][]string{}
	for _, m := range rows {
		for what, value := range evaluated(m) {
			if !slices.Contains(values[what], value) {
				values[what] = append(values[what], value)
			}
		}
	}
	var found []string
	for _, what := range slices.Sorted(maps.Keys(values)) {
		if len(values[what]) > 1 {
			found = append(found, what+" ("+some(values[what], 4, ", ")+")")
		}
	}
	if found == nil {
		return nil
	}
	return []string{warning + "the lines are not of one evaluation, and their heights do not compare: " + some(found, 8, "; ")}
}

// some joins the first most of the words and counts the others.
func some(words []string, most int, separator string) string {
	if more := len(words) - most; more > 0 {
		words = append(slices.Clone(words[:most]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, separator)
}

// differences are what the rows of one label differ in beyond their sweep.
type differences struct {
	rows    []*store.Metrics
	values  map[string][]string // what differs → the values that it has
	settled []map[string]string // of each row
}

// differing cuts the rows of one experiment by label; of tells what a row's numbers
// depend on beside the swept paths.
func differing(own []*store.Metrics, of func(m *store.Metrics, swept map[string]bool) map[string]string) []*differences {
	swept := map[string]bool{}
	for _, m := range own {
		for _, s := range m.Settings {
			swept[s.Path] = true
		}
	}
	var all []*differences
	for _, m := range own {
		i := slices.IndexFunc(all, func(d *differences) bool { return d.rows[0].Label == m.Label })
		if i < 0 {
			i = len(all)
			all = append(all, &differences{values: map[string][]string{}})
		}
		d, have := all[i], of(m, swept)
		d.rows, d.settled = append(d.rows, m), append(d.settled, have)
		for what, value := range have {
			if !slices.Contains(d.values[what], value) {
				d.values[what] = append(d.values[what], value)
			}
		}
	}
	for _, d := range all {
		maps.DeleteFunc(d.values, func(_ string, values []string) bool { return len(values) == 1 })
		steps := false
		for path := range swept {
			steps = steps || path == "sampler" || strings.HasPrefix(path, "sampler.")
		}
		for path := range d.values {
			steps = steps || path == "sampler" || strings.HasPrefix(path, "sampler.") && strings.HasSuffix(path, ".steps")
		}
		if steps {
			delete(d.values, "model.timestep_respacing") // which follows from them
		}
	}
	return all
}

// named are the paths that the rows can be called by; nil where they are too many,
// or none.
func (d *differences) named() []string {
	paths := slices.DeleteFunc(slices.Sorted(maps.Keys(d.values)), func(what string) bool { return what == referenceContent })
	if len(paths) > maxNamed {
		return nil
	}
	return paths
}

// maxNamed bounds the settings that a row's name takes beside its sweep.
const maxNamed = 3

// namesApart are the settings that, beside label and sweep, a row of an experiment
// is called by: those in which rows of one label differ, or where these are too many
// and the sweep does not tell two rows apart, the run id.
func namesApart(rows []*store.Metrics, of func(m *store.Metrics, swept map[string]bool) map[string]string) map[*store.Metrics][]store.Setting {
	named := map[*store.Metrics][]store.Setting{}
	for _, own := range byExperiment(rows) {
		for _, d := range differing(own, of) {
			paths, seen := d.named(), map[string]int{}
			for i, m := range d.rows {
				for _, path := range paths {
					named[m] = append(named[m], store.Setting{Path: path, Value: d.settled[i][path]})
				}
				seen[fmt.Sprint(m.Settings, named[m])]++
			}
			for _, m := range d.rows {
				if seen[fmt.Sprint(m.Settings, named[m])] > 1 {
					named[m] = append(slices.Clone(named[m]), store.Setting{Path: runPath, Value: m.Run})
				}
			}
		}
	}
	return named
}

// runPath stands for the run id among the settings that a row is called by.
const runPath = "run"

// titleApart is the row's title with what else it is called by.
func titleApart(m *store.Metrics, named map[*store.Metrics][]store.Setting) string {
	return store.Title(m.Label, slices.Concat(m.Settings, named[m]))
}

// drawn are those of settled that change pixels.
func drawn(m *store.Metrics, swept map[string]bool) map[string]string {
	all := settled(m, swept)
	maps.DeleteFunc(all, func(path, _ string) bool {
		top, _, _ := strings.Cut(path, ".")
		return !slices.Contains([]string{"model", "sampler", "guidance", "seed", "labels", "prompts", "prompts_file", "prompts_draw", "negative_prompt", "negative_prompts", "negative_prompts_file", "version of sampling"}, top)
	})
	return all
}

// evaluated are what a row's scores depend on beside its images: their number,
// protocol, reference, feature networks and versions.
func evaluated(m *store.Metrics) map[string]string {
	all := map[string]string{"images": human.Count(m.Samples), "protocol": cmp.Or(m.Protocol, "adm"), referenceContent: fmt.Sprintf("%.8s", m.Inputs.Reference.SHA256)}
	for name, file := range m.Inputs.Networks {
		all[name+"'s content"] = fmt.Sprintf("%.8s", file.SHA256)
	}
	for path, value := range settled(m, nil) {
		top, rest, _ := strings.Cut(path, ".")
		if _, network := m.Inputs.Networks[top]; network && rest != "checkpoint" || strings.HasPrefix(path, "version of ") && path != "version of sampling" {
			all[path] = value
		}
	}
	return all
}

const referenceContent = "reference's content"

// settled are what a row's pixels and scores depend on beside the swept settings, by
// their paths: the settings of its config, its reference, the versions.
func settled(m *store.Metrics, swept map[string]bool) map[string]string {
	all := map[string]string{referenceContent: fmt.Sprintf("%.8s", m.Inputs.Reference.SHA256)}
	for name, version := range m.Versions {
		all["version of "+name] = version
	}
	var config map[string]any
	if json.Unmarshal(m.Config, &config) != nil {
		return all
	}
	for _, key := range []string{"name", "label", "samples", "batch", "bootstrap", "published"} { // they have columns, or change nothing
		delete(config, key)
	}
	for _, choice := range []string{"sampler", "guidance"} { // by name
		fields, ok := config[choice].(map[string]any)
		for name := range fields {
			ok = ok && !swept[choice+"."+name]
		}
		if ok && !swept[choice] {
			all[choice] = strings.Join(slices.Sorted(maps.Keys(fields)), " + ")
		}
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		fields, isBlock := value.(map[string]any)
		switch {
		case swept[path]:
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
