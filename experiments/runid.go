package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"sagbench/configs"
)

// samplingVersion is part of every run id. It is raised when the same settings
// give other pixels than before.
const samplingVersion = 2

// idDigits is the length of a run id.
const idDigits = 10

// A family may tell which of its flags leave the pixels alone, such as those of
// training that are accepted because published commands contain them.
type withIdleFlags interface{ IdleFlags() []string }

// An identity is all that changes the pixels of a run, and nothing else: not
// the number of images, the batch, the device, names, paths or metrics.
type identity struct {
	Version    int                        `yaml:"version"`
	Family     string                     `yaml:"family"`
	Flags      map[string]json.RawMessage `yaml:"flags"`
	Respacing  string                     `yaml:"respacing"`
	Checkpoint string                     `yaml:"checkpoint"` // sha256 of the content
	Sampler    map[string]any             `yaml:"sampler"`
	Guidance   []map[string]any           `yaml:"guidance"` // in the order of application
	Seed       uint64                     `yaml:"seed"`
}

// A promptedIdentity is that of a row with prompts. Ids of rows without are
// older than prompts.
type promptedIdentity struct {
	identity       `yaml:",inline"`
	Prompts        []string `yaml:"prompts"`
	NegativePrompt string   `yaml:"negative_prompt"`
}

// runID is the id of a row with checkpoints of the given contents: its
// network's, then those of its guidances.
func (r *row) runID(contents ...string) (string, error) {
	id := identity{
		Version: samplingVersion, Family: r.model.Family, Respacing: r.schedule.TimestepRespacing,
		Checkpoint: contents[0], Guidance: []map[string]any{}, Seed: r.Seed,
	}
	var err error
	if id.Flags, err = r.model.effective(); err != nil {
		return "", err
	}
	options, err := settled(r.sampler.Value)
	if err != nil {
		return "", err
	}
	id.Sampler = map[string]any{r.sampler.Name: options}
	for _, g := range r.guidances {
		options, err := r.guidanceIdentity(g, contents)
		if err != nil {
			return "", err
		}
		id.Guidance = append(id.Guidance, map[string]any{g.Name: options})
	}
	var whole any = id
	if len(r.prompts) > 0 {
		whole = promptedIdentity{id, r.prompts, r.NegativePrompt}
	}
	data, err := configs.Canonical(whole)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))[:idDigits], nil
}

// settled are the fields of a block that are not zero. Zero ones are left out,
// so that a field that is added later, zero where nobody sets it, leaves the
// ids of older runs as they are. An option that can be absent counts where it
// is given, also as false or 0.
func settled(v any) (map[string]json.RawMessage, error) {
	fields, err := fieldsOf(v)
	given := map[string]bool{}
	optional(reflect.Indirect(reflect.ValueOf(v)), given)
	for name, value := range fields {
		switch string(value) {
		case "null", "false", `""`, "0":
			if !given[name] {
				delete(fields, name)
			}
		}
	}
	return fields, err
}

// optional adds the options of a block that can be absent and are not.
func optional(v reflect.Value, given map[string]bool) {
	if v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		name, option, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		switch field := v.Field(i); {
		case option == "inline":
			optional(field, given)
		case field.Kind() == reflect.Pointer && !field.IsNil():
			given[name] = true
		}
	}
}

var unreadable = regexp.MustCompile(`[^A-Za-z0-9._=,+-]+`)

// folderOf names a run's folder: what tells the row from the others, for
// people, and the run id, for the program.
func (r *row) folderOf(id string) string {
	name := strings.Trim(unreadable.ReplaceAllString(r.title(), "-"), "-.")
	if len(name) > 80 {
		name = strings.TrimRight(name[:80], "-.")
	}
	if name == "" {
		name = "run"
	}
	return name + "-" + id
}
