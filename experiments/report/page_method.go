package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/report/page"
	"sagbench/experiments/store"
)

// methodOf is what a paper has to say of how the rows came about, a paragraph each:
// networks, sampling, guidance, evaluation, versions. What differs between rows is
// named for each of their labels. With verbose set, it tells of the arithmetic as well.
func methodOf(rows []*store.Metrics, verbose bool) []string {
	paragraphs := []string{
		perLabel(rows, "Network", networkOf),
		perLabel(rows, "Sampling", samplingOf),
		perLabel(rows, "Guidance", guidanceOf),
		perLabel(rows, "Evaluation", evaluationOf),
		perLabel(rows, "Versions", versionsOf),
	}
	if verbose {
		paragraphs = append(paragraphs, perLabel(rows, "Numerics", numericsOf))
	}
	return slices.DeleteFunc(paragraphs, func(s string) bool { return s == "" })
}

// perLabel says of all rows what tell says of each, once where it is the same.
func perLabel(rows []*store.Metrics, title string, tell func(*store.Metrics) string) string {
	var texts []string
	of := map[string][]string{} // text → labels
	for _, m := range rows {
		text := tell(m)
		if text == "" {
			continue
		}
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
		if label := oneLine(m.Label); !slices.Contains(of[text], label) {
			of[text] = append(of[text], label)
		}
	}
	if len(texts) == 0 {
		return ""
	}
	if len(texts) > 1 {
		for i, text := range texts {
			if label := list(of[text], "and"); label != "" {
				texts[i] = label + ": " + text
			}
		}
	}
	return title + ". " + strings.Join(texts, "; ") + "."
}

// networkOf names the network and its checkpoint.
func networkOf(m *store.Metrics) string {
	model, _ := configOf(m)["model"].(map[string]any)
	text := fmt.Sprintf("%v, checkpoint %s (sha256 %.12s…)", model["family"], oneLine(m.Inputs.Checkpoint.Name), m.Inputs.Checkpoint.SHA256)
	for _, name := range slices.Sorted(maps.Keys(m.Inputs.Guidance)) {
		in := m.Inputs.Guidance[name]
		text += fmt.Sprintf(", %s's %s (sha256 %.12s…)", name, oneLine(in.Name), in.SHA256)
	}
	return text
}

// samplingOf names sampler, steps and seed, and what the images are of.
func samplingOf(m *store.Metrics) string {
	config := configOf(m)
	var parts []string
	samplers, _ := config["sampler"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(samplers)) {
		parts = append(parts, name+settingsText(samplers[name], sweptOf(m, "sampler."+name+".")))
	}
	return fmt.Sprintf("%s images a row from seed %v by %s", human.Count(m.Samples), number(config["seed"]), list(parts, "and")) + setOf(m, config)
}

// setOf says how classes were chosen, where that was not at random and is not swept, and
// which prompts were drawn; "" where neither is so.
func setOf(m *store.Metrics, config map[string]any) (text string) {
	if !slices.ContainsFunc(m.Settings, func(s store.Setting) bool { return s.Path == "labels" }) {
		switch labels := config["labels"].(type) {
		case string:
			text = ", " + oneLine(labels) + " labels"
		case []any:
			text = fmt.Sprintf(", labels of a list of %s", human.Count(len(labels)))
		case map[string]any:
			text = fmt.Sprintf(", so many images of each of %s classes", human.Count(len(labels)))
		}
	}
	if drawn, ok := config["prompts_draw"].(map[string]any); ok {
		file, _ := config["prompts_file"].(string)
		text += fmt.Sprintf(", %s prompts drawn from %s with seed %v", number(drawn["number"]), oneLine(filepath.Base(file)), number(drawn["seed"]))
	}
	return text
}

// guidanceOf names the guidances with their settings, but for the swept ones.
func guidanceOf(m *store.Metrics) string {
	guidances, _ := configOf(m)["guidance"].(map[string]any)
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(guidances)) {
		parts = append(parts, name+settingsText(guidances[name], sweptOf(m, "guidance."+name+".")))
	}
	return list(parts, "and")
}

// evaluationOf names protocol, reference and feature networks.
func evaluationOf(m *store.Metrics) string {
	text := fmt.Sprintf("protocol %s against %s (sha256 %.12s…)", strings.TrimSpace(oneLine(m.Protocol)), oneLine(m.Inputs.Reference.Name), m.Inputs.Reference.SHA256)
	for _, name := range slices.Sorted(maps.Keys(m.Inputs.Networks)) {
		in := m.Inputs.Networks[name]
		settings, _ := configOf(m)[name].(map[string]any)
		text += fmt.Sprintf(", features of %s %s (sha256 %.12s…)%s", name, oneLine(in.Name), in.SHA256, settingsText(without(settings, "checkpoint"), nil))
	}
	if m.Bootstrap > 0 {
		text += fmt.Sprintf("; intervals of 95 %% from %d draws of the images", m.Bootstrap)
	}
	return text
}

// versionsOf names what computed the row.
func versionsOf(m *store.Metrics) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		parts = append(parts, name+" "+m.Versions[name])
	}
	return oneLine(strings.Join(parts, ", "))
}

// numericsOf tells by which arithmetic the row's scores were computed.
func numericsOf(m *store.Metrics) string {
	var parts []string
	for _, s := range m.Scores {
		if s.Numerics != "" {
			parts = append(parts, oneLine(s.Title+": "+s.Numerics))
		}
	}
	return strings.Join(parts, ", ")
}

// sweptOf are the keys below a path that the row's sweep chose.
func sweptOf(m *store.Metrics, prefix string) []string {
	var keys []string
	for _, s := range m.Settings {
		if key, ok := strings.CutPrefix(s.Path, prefix); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// without is a block without a key.
func without(settings map[string]any, key string) map[string]any {
	settings = maps.Clone(settings)
	delete(settings, key)
	return settings
}

// settingsText are the settings of a block that say something, " (steps 8)", but
// for the swept ones.
func settingsText(block any, swept []string) string {
	settings, _ := block.(map[string]any)
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		switch v := settings[key]; {
		case slices.Contains(swept, key):
			parts = append(parts, key+" swept")
		case v == nil, v == "", v == false, v == 0.0:
		default:
			if _, block := v.(map[string]any); !block {
				parts = append(parts, key+" "+oneLine(number(v)))
			}
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// number writes a value of JSON, numbers as they were written.
func number(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

var digits = regexp.MustCompile(`\d+(\.\d+)?`)

// warningsOf are the notes and warnings of all rows, each once: those that differ in
// their numbers alone are one.
func warningsOf(rows []*store.Metrics) []string {
	var texts []string
	more := map[string]int{}
	seen := map[string]string{} // without numbers → the first
	add := func(text string) {
		key := digits.ReplaceAllString(text, "#")
		first, ok := seen[key]
		switch {
		case !ok:
			seen[key] = text
			texts = append(texts, text)
		case first != text:
			more[first]++
		}
	}
	for _, m := range rows {
		for _, note := range m.Notes {
			add(note)
		}
		for _, s := range m.Scores {
			for _, w := range s.Warnings {
				add(s.Title + ": " + w)
			}
		}
	}
	for i, text := range texts {
		texts[i] = oneLine(text)
		if n := more[text]; n > 0 {
			texts[i] += fmt.Sprintf(" (and %d more like it, with other numbers)", n)
		}
	}
	return append(texts, differencesOf(rows)...)
}

// filesOf are the tables and every row's metrics.json, to be saved from the page.
func filesOf(rows []*store.Metrics, verbose bool) ([]page.File, error) {
	var files []page.File
	for _, f := range []struct{ name, format, mime string }{
		{"table.csv", "csv", "text/csv"}, {"table.tex", "latex", "application/x-tex"}, {"table.md", "markdown", "text/markdown"},
	} {
		var out bytes.Buffer
		if err := tableFormats[f.format](&out, rows, TableOptions{Verbose: verbose}); err != nil {
			return nil, err
		}
		files = append(files, page.File{Name: f.name, MIME: f.mime, Data: out.Bytes()})
	}
	all, err := json.MarshalIndent(rows, "", " ")
	if err != nil {
		return nil, err
	}
	return append(files, page.File{Name: "metrics.json", MIME: "application/json", Data: all}), nil
}

// paperBibTeX is the paper whose method is measured (CITATION.cff).
const paperBibTeX = `@inproceedings{hong2023improving,
  title     = {Improving Sample Quality of Diffusion Models Using Self-Attention Guidance},
  author    = {Hong, Susung and Lee, Gyuseong and Jang, Wooseok and Kim, Seungryong},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2023},
  note      = {arXiv:2210.00939}
}
@software{sagbench,
  title   = {sagbench: what self-attention guidance does to a diffusion model},
  author  = {{the sagbench authors}},
  version = {` + store.Version + `}
}`
