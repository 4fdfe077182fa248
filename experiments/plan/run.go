package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"sagbench/configs"
	"sagbench/experiments/store"
	"sagbench/models/features"
	"sagbench/sampling"
)

// A Run is a row with its place on the disk.
type Run struct {
	*Row
	ID       string
	Contents []string // sha256 of the files of each of Networks
	Folder   string
	Images   *store.Images
}

// Identify gives every row its run id and its place in the experiment's folder.
// The checkpoints are read, for their hashes. Two rows of one id are an error.
func (e *Experiment) Identify(folder string, h store.Hashes) ([]*Run, error) {
	return e.identify(e.Rows, folder, h)
}

// IdentifyLeft is Identify for the rows that Choose left out, without those whose files
// cannot be read.
func (e *Experiment) IdentifyLeft(folder string, h store.Hashes) []*Run {
	var runs []*Run
	for _, r := range e.Left {
		if one, err := e.identify([]*Row{r}, folder, h); err == nil {
			runs = append(runs, one...)
		}
	}
	return runs
}

func (e *Experiment) identify(rows []*Row, folder string, h store.Hashes) ([]*Run, error) {
	var runs []*Run
	byID := map[string]*Run{}
	var faults []error
	for _, r := range rows {
		contents, err := r.contents(h)
		if err != nil {
			faults = append(faults, fmt.Errorf("checkpoint: %w", err))
			continue
		}
		r.Model.findSets()
		for i := range r.Attachments {
			r.Attachments[i].findSets()
		}
		id, err := r.RunID(contents...)
		if err != nil {
			return nil, err
		}
		one := &Run{Row: r, ID: id, Contents: contents}
		if other, twice := byID[id]; twice {
			faults = append(faults, fmt.Errorf("%s: rows %q and %q draw the same images (run %s): nothing that they differ in changes pixels; remove one of them", e.path, other.Title(), r.Title(), id))
		}
		byID[id] = one
		if one.Folder, err = place(folder, r.folderOf(id), id); err != nil {
			return nil, err
		}
		one.Images = &store.Images{Folder: filepath.Join(one.Folder, "samples"), Seed: r.Seed, Labels: r.Labels.Labels, Classes: -1}
		runs = append(runs, one)
	}
	return runs, configs.Join(faults...)
}

// place is a run's folder: the one with its id that is there, whatever the row
// was called then, or else a new one.
func place(folder, name, id string) (string, error) {
	wanted := filepath.Join(folder, name)
	if store.Exists(wanted) {
		return wanted, nil
	}
	entries, err := os.ReadDir(folder)
	if err != nil && !os.IsNotExist(err) {
		return "", err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasSuffix(e.Name(), "-"+id) {
			return filepath.Join(folder, e.Name()), nil
		}
	}
	return wanted, nil
}

// FolderIn is the row's folder in that of an experiment: the one of its run id or, where
// that is not known, the one of its name whose run.yaml draws the same images, as far as
// settings tell; "" where there is none.
func (r *Row) FolderIn(experiment, id string) (string, error) {
	entries, err := os.ReadDir(experiment)
	if err != nil && !os.IsNotExist(err) {
		return "", err
	}
	document, err := r.Document()
	if err != nil {
		return "", err
	}
	alike := ""
	for _, e := range entries {
		path := filepath.Join(experiment, e.Name())
		switch name, ending, _ := cutLast(e.Name(), "-"); {
		case !e.IsDir() || len(ending) != 10:
		case id != "" && ending == id:
			return path, nil
		case id == "" && name == strings.TrimSuffix(r.folderOf(""), "-"):
			settings := filepath.Join(path, store.RunFile)
			info, err := os.Stat(settings)
			if err != nil || !info.Mode().IsRegular() {
				continue
			}
			if there, err := os.ReadFile(settings); err == nil && bytes.Equal(there, document) {
				return path, nil
			}
			if alike == "" && r.drawnBy(settings) {
				alike = path
			}
		}
	}
	return alike, nil
}

// drawnBy reports whether a run.yaml draws the row's images, were the files that both
// name the same.
func (r *Row) drawnBy(settings string) bool {
	found, err := Load(settings, nil)
	if err != nil || len(found.Rows) != 1 || len(found.Rows[0].Networks()) != len(r.Networks()) {
		return false
	}
	contents := make([]string, len(r.Networks()))
	theirs, err1 := found.Rows[0].RunID(contents...)
	ours, err2 := r.RunID(contents...)
	return err1 == nil && err2 == nil && theirs == ours
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// Path is the path of the experiment's file.
func (e *Experiment) Path() string { return e.path }

// NumberedTitle is the row's title with its place in the table: row 2/5 s=0.5.
func (r *Row) NumberedTitle() string { return fmt.Sprintf("row %d/%d %s", r.Index+1, r.of, r.Title()) }

// DropMetrics leaves images to draw, and nothing to evaluate.
func (e *Experiment) DropMetrics() {
	for _, r := range e.Rows {
		r.Metrics, r.Comparisons = nil, nil
	}
}

// SamplingVersion is part of every run id. It is raised when the same settings
// give other pixels than before.
const SamplingVersion = 2

// RunID is the id of a row whose networks have the given contents, in the order of
// Networks. It is a hash of all that changes the pixels of a run, and of nothing
// else: not of the number of images, the batch, the device, names, paths or
// metrics.
func (r *Row) RunID(contents ...string) (string, error) {
	flags, err := r.Model.effective()
	if err != nil {
		return "", err
	}
	options, err := settled(r.Sampler.Value)
	if err != nil {
		return "", err
	}
	guidances := []map[string]any{} // in the order of application
	for _, g := range r.Guidances {
		options, err := r.guidanceOptions(g, settled, func(i int) (any, error) {
			n := r.Attachments[i]
			flags, err := n.effective()
			return map[string]any{"family": n.Family, "flags": flags, "checkpoint": contents[1+i]}, err
		})
		if err != nil {
			return "", err
		}
		guidances = append(guidances, map[string]any{g.Name: options})
	}
	all := map[string]any{
		"version": SamplingVersion, "family": r.Model.Family, "flags": flags, "respacing": r.schedule.TimestepRespacing, "checkpoint": contents[0],
		"sampler": map[string]any{r.Sampler.Name: options}, "guidance": guidances, "seed": r.Seed,
	}
	if !r.Labels.Random() { // as all were before there was a choice
		all["labels"] = r.Labels
	}
	r.identifyPrompts(all)
	return ID(all)
}

// ID is a hash of settings by their names, ten hexadecimal digits.
func ID(settings map[string]any) (string, error) {
	data, err := configs.Canonical(settings)
	return fmt.Sprintf("%x", sha256.Sum256(data))[:10], err
}

// guidanceOptions are the options of a guidance as fields tells them. The option
// model of a guidance with a network of its own is what network tells of
// attachment i.
func (r *Row) guidanceOptions(g configs.Named[sampling.Guidance], fields func(any) (map[string]json.RawMessage, error), network func(i int) (any, error)) (map[string]json.RawMessage, error) {
	options, err := fields(g.Value)
	i := slices.IndexFunc(r.Attachments, func(a Attachment) bool { return a.Name == g.Name })
	if err != nil || i < 0 {
		return options, err
	}
	model, err := network(i)
	if err != nil {
		return nil, err
	}
	options["model"], err = configs.Canonical(model)
	return options, err
}

// Fields are the fields of a block by their names, as JSON.
func Fields(v any) (map[string]json.RawMessage, error) {
	data, err := configs.Canonical(v)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	err = json.Unmarshal(data, &fields)
	return fields, err
}

// settled are the fields of a block that are not zero. Zero ones are left out,
// so that a field that is added later, zero where nobody sets it, leaves the
// ids of older runs as they are. An option that can be absent counts where it
// is set, also to false or 0.
func settled(v any) (map[string]json.RawMessage, error) {
	fields, err := Fields(v)
	set := map[string]bool{}
	optional(reflect.Indirect(reflect.ValueOf(v)), set)
	for name, value := range fields {
		switch string(value) {
		case "null", "false", `""`, "0":
			if !set[name] {
				delete(fields, name)
			}
		}
	}
	return fields, err
}

// optional adds to set the options of a block that can be absent and are not.
func optional(v reflect.Value, set map[string]bool) {
	if v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		name, option, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		switch field := v.Field(i); {
		case option == "inline":
			optional(field, set)
		case field.Kind() == reflect.Pointer && !field.IsNil():
			set[name] = true
		}
	}
}

var unreadable = regexp.MustCompile(`[^A-Za-z0-9._=,+-]+`)

// folderOf names a run's folder: what tells the row from the others, for
// people, and the run id, for the program.
func (r *Row) folderOf(id string) string {
	name := strings.Trim(unreadable.ReplaceAllString(r.Title(), "-"), "-.")
	if len(name) > 80 {
		name = strings.TrimRight(name[:80], "-.")
	}
	if name == "" {
		name = "run"
	}
	return name + "-" + id
}

// Config is every setting of the row, defaults included, in the vocabulary of
// experiment files, as JSON with sorted keys. It holds nothing of the machine:
// paths stand as they were written.
func (r *Row) Config() (json.RawMessage, error) { return r.config(false) }

// config is Config; with ordered set several guidances are a list, which keeps the
// order in which they are applied.
func (r *Row) config(ordered bool) (json.RawMessage, error) {
	model, err := r.Model.settings()
	if err != nil {
		return nil, err
	}
	if _, has := model["timestep_respacing"]; has {
		model["timestep_respacing"] = r.schedule.TimestepRespacing
	}
	byName, list, metrics := map[string]any{}, []map[string]any{}, []map[string]any{}
	for _, g := range r.Guidances {
		options, err := r.guidanceOptions(g, Fields, func(i int) (any, error) { return r.Attachments[i].settings() })
		if err != nil {
			return nil, err
		}
		byName[g.Name], list = options, append(list, map[string]any{g.Name: options})
	}
	for _, m := range r.Metrics {
		metrics = append(metrics, map[string]any{m.Name: m.Value})
	}
	all := map[string]any{
		"name": r.Name, "label": r.Label, "samples": r.Samples, "seed": r.Seed, "batch": r.Batch, "model": model,
		"sampler": map[string]any{r.Sampler.Name: r.Sampler.Value}, "guidance": byName,
		"reference": r.ReferencePath, "protocol": r.ProtocolName, "bootstrap": r.Bootstrap, "metrics": metrics, "published": r.Published,
	}
	if ordered && len(list) > 1 {
		all["guidance"] = list
	}
	if !r.Labels.Random() {
		all["labels"] = r.Labels
	}
	r.configPrompts(all)
	first := features.Networks[0].Name
	networks := []FeatureNetwork{r.FeatureNetworks[first]} // which is always there
	for _, c := range r.Comparisons {
		networks = append(networks, r.FeatureNetworks[c.Name]) // with its block's resize
		if c.Name == r.Network && c.Name != first {
			all["network"] = c.Name
		}
	}
	for _, n := range networks {
		settings, err := n.Settings()
		if err == nil {
			settings["checkpoint"], err = configs.Canonical(n.Checkpoint)
		}
		if err != nil {
			return nil, err
		}
		all[n.Name] = settings
	}
	return configs.Canonical(all)
}

// Document is run.yaml: the row with every default written out, as an experiment
// file of its own.
func (r *Row) Document() ([]byte, error) {
	config, err := r.config(true)
	if err != nil {
		return nil, err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(config, &n); err != nil { // JSON is YAML
		return nil, err
	}
	plain(&n)
	out := bytes.NewBufferString("# One row of the table with every default written out. Paths stand as in the\n# experiment's file.\n")
	e := yaml.NewEncoder(out)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return nil, err
	}
	return out.Bytes(), e.Close()
}

// plain removes JSON's quotes and brackets.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}
