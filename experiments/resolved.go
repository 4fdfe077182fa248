package main

import (
	"bytes"
	"encoding/json"
	"maps"

	"gopkg.in/yaml.v3"

	"sagbench/configs"
)

// A resolvedRow is a row with every default written out, in the vocabulary of
// experiment files. It holds nothing of the machine: paths stand as they were
// written.
type resolvedRow struct {
	Name      string             `yaml:"name"`
	Label     string             `yaml:"label"`
	Samples   int                `yaml:"samples"`
	Seed      uint64             `yaml:"seed"`
	Batch     int                `yaml:"batch"`
	Model     map[string]any     `yaml:"model"`
	Sampler   map[string]any     `yaml:"sampler"`
	Guidance  map[string]any     `yaml:"guidance"`
	Reference string             `yaml:"reference"`
	Inception Inception          `yaml:"inception"`
	Protocol  string             `yaml:"protocol"`
	Bootstrap int                `yaml:"bootstrap"`
	Metrics   []map[string]any   `yaml:"metrics"`
	Published map[string]float64 `yaml:"published"`
}

// config is every setting of the row as JSON with sorted keys.
func (r *row) config() (json.RawMessage, error) {
	out := resolvedRow{
		Name: r.Name, Label: r.label, Samples: r.Samples, Seed: r.Seed, Batch: r.Batch,
		Sampler: map[string]any{r.sampler.Name: r.sampler.Value}, Guidance: map[string]any{},
		Reference: r.Reference, Inception: r.Inception, Protocol: r.Protocol, Bootstrap: r.Bootstrap, Metrics: []map[string]any{}, Published: r.published,
	}
	var err error
	if out.Model, err = r.model.settings(); err != nil {
		return nil, err
	}
	if _, has := out.Model["timestep_respacing"]; has {
		out.Model["timestep_respacing"] = r.schedule.TimestepRespacing
	}
	for _, g := range r.guidances {
		if out.Guidance[g.Name], err = r.guidanceConfig(g); err != nil {
			return nil, err
		}
	}
	for _, m := range r.metrics {
		out.Metrics = append(out.Metrics, map[string]any{m.Name: m.Value})
	}
	all, err := fieldsOf(out)
	if err != nil {
		return nil, err
	}
	if len(r.prompts) > 0 {
		prompting, err := fieldsOf(r.Prompting)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, prompting)
	}
	if err := r.networkConfig(all); err != nil {
		return nil, err
	}
	return configs.Canonical(all)
}

// networkConfig adds the settings of feature networks other than Inception,
// where they are used.
func (r *row) networkConfig(all map[string]json.RawMessage) (err error) {
	blocks := map[string]any{"dinov2": &r.DINOv2, "onnx": &r.ONNX}
	for _, s := range r.shares {
		block, other := blocks[s.name]
		if !other {
			continue
		}
		if all[s.name], err = configs.Canonical(block); err != nil {
			return err
		}
		if s.name == r.Network {
			if all["network"], err = configs.Canonical(r.Network); err != nil {
				return err
			}
		}
	}
	return nil
}

// fieldsOf are the fields of a block by their names, as JSON.
func fieldsOf(v any) (map[string]json.RawMessage, error) {
	data, err := configs.Canonical(v)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	err = json.Unmarshal(data, &fields)
	return fields, err
}

// document is run.yaml: the resolved row as an experiment file of its own.
func (r *row) document() ([]byte, error) {
	config, err := r.config()
	if err != nil {
		return nil, err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(config, &n); err != nil { // JSON is YAML
		return nil, err
	}
	if len(r.guidances) > 1 { // their order counts
		list := &yaml.Node{Kind: yaml.SequenceNode}
		all := valueOf(n.Content[0], "guidance")
		for _, g := range r.guidances {
			one := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: g.Name}, valueOf(all, g.Name)}}
			list.Content = append(list.Content, one)
		}
		*all = *list
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

// valueOf is the value of a mapping's key.
func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return &yaml.Node{Kind: yaml.MappingNode}
}

// plain takes JSON's quotes and brackets away.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}
