package models

import (
	"sagbench/configs"
)

// A Spec is the model block of an experiment or a reference case: the family,
// its checkpoint and its flags.
type Spec struct {
	Family     string
	Checkpoint string
	Flags      Family
}

// Decode reads {family: adm, checkpoint: FILE, <the family's flags>}, strictly.
func Decode(b configs.Block) (Spec, error) {
	var s Spec
	head := struct {
		Family     *string `yaml:"family"`
		Checkpoint *string `yaml:"checkpoint"`
	}{&s.Family, &s.Checkpoint}
	if err := b.Only("family", "checkpoint").Decode(&head); err != nil {
		return s, err
	}
	if s.Family == "" {
		return s, b.Errorf("family is missing; known: %v", Families.Names())
	}
	family, ok := Families[s.Family]
	if !ok {
		at, _ := b.At("family")
		return s, at.Errorf("unknown family %q; known: %v", s.Family, Families.Names())
	}
	if s.Checkpoint == "" {
		return s, b.Errorf("checkpoint is missing: the path of the file as its authors publish it")
	}
	s.Flags = family()
	return s, b.Without("family", "checkpoint").Decode(s.Flags)
}
