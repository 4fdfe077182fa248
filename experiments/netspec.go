package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"

	"sagbench/configs"
	"sagbench/models"
)

// A netSpec is a model block, decoded: a network and the place of its
// checkpoint.
type netSpec struct {
	models.Spec
	checkpoint inputPath
}

// decodeNet reads a model block.
func decodeNet(b configs.Block) (netSpec, error) {
	s, err := models.Decode(b)
	return netSpec{s, pathAt(b, "checkpoint")}, err
}

// parts are the further checkpoints that the flags name.
func (s *netSpec) parts() []inputPath {
	c, ok := s.Flags.(models.Composite)
	if !ok {
		return nil
	}
	var paths []inputPath
	for _, b := range c.Parts() {
		paths = append(paths, pathOf(b))
	}
	return paths
}

// findPart is models.Options.Find for experiment files.
func findPart(b configs.Block) (string, error) {
	p := pathOf(b)
	if len(p.Unset) > 0 {
		return "", b.Errorf("%s is not set", strings.Join(p.Unset, ", "))
	}
	return p.Path, nil
}

// open prepares the network.
func (s *netSpec) open(opt models.Options) (models.Model, error) {
	opt.Find = findPart
	return s.Flags.Open(s.checkpoint.Path, opt)
}

// key tells open networks apart; content is the hash of the checkpoint.
func (s *netSpec) key(content string, opt models.Options) (string, error) {
	flags, err := configs.Canonical(s.Flags)
	return fmt.Sprintf("%s %s %s %v %v", s.Family, content, flags, opt.Taps, opt.Perturbations), err
}

// settings are all flags by their names, with the family and the checkpoint as
// it was written.
func (s *netSpec) settings() (map[string]any, error) {
	flags, err := fieldsOf(s.Flags)
	all := map[string]any{}
	for name, value := range flags {
		all[name] = value
	}
	all["family"], all["checkpoint"] = s.Family, s.Checkpoint
	return all, err
}

// effective are the flags that change what the network computes.
func (s *netSpec) effective() (map[string]json.RawMessage, error) {
	flags, err := settled(s.Flags)
	delete(flags, "timestep_respacing") // it is the schedule's
	if f, ok := s.Flags.(withIdleFlags); ok {
		for _, name := range f.IdleFlags() {
			delete(flags, name)
		}
	}
	return flags, err
}

// networks are the hashes of the row's networks.
func (h hashes) networks(r *row) ([]string, error) {
	var all []string
	for _, s := range r.networks() {
		sum, err := h.network(&s)
		if err != nil {
			return nil, err
		}
		all = append(all, sum)
	}
	return all, nil
}

// network is the hash of all files that a network is made of: that of the one
// file, or one of the hashes of several.
func (h hashes) network(s *netSpec) (string, error) {
	files, err := models.Files(s.Flags, s.checkpoint.Path, findPart)
	if err != nil {
		return "", err
	}
	if len(files) == 1 {
		return h.of(files[0])
	}
	all := sha256.New()
	for _, path := range files {
		sum, err := h.of(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(all, sum)
	}
	return fmt.Sprintf("%x", all.Sum(nil)), nil
}
