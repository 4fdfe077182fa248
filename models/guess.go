package models

import (
	"errors"
	"fmt"
	"strconv"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// A Guess is a family that a checkpoint's keys speak for.
type Guess struct {
	Family     string   `json:"family"`
	Evidence   string   `json:"evidence"`
	Flags      []Flag   `json:"flags"`                // read off the shapes
	Mismatches []string `json:"mismatches,omitempty"` // the first keys that do not fit those flags
}

// A Flag is a flag with its value as an experiment file spells it; "?" where the
// shapes do not tell.
type Flag struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Note  string `json:"note,omitempty"`
}

// A Guesser is a Family that recognizes its checkpoints. Guess is called on a
// Family with defaults; ok is false when the keys are those of another.
type Guesser interface {
	Guess(sd checkpoint.StateDict) (g Guess, ok bool)
}

// GuessFamily asks every family whether a checkpoint is one of its own.
func GuessFamily(sd checkpoint.StateDict) []Guess {
	var found []Guess
	for _, name := range Families.Names() {
		family, ok := Families[name]().(Guesser)
		if !ok {
			continue
		}
		if g, ok := family.Guess(sd); ok {
			g.Family = name
			found = append(found, g)
		}
	}
	return found
}

// maxMismatches is how many keys a guess names that do not fit.
const maxMismatches = 5

// mismatches builds the network that the guessed flags describe against the
// checkpoint and lists the first keys that differ.
func mismatches(sd checkpoint.StateDict, build func(*onnx.Module)) []string {
	_, err := onnx.Build(sd, build)
	var e *onnx.MismatchError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e):
		return []string{err.Error()}
	}
	var all []string
	for _, p := range e.Missing {
		all = append(all, fmt.Sprintf("%s %v is missing", p.Key, p.Shape))
	}
	for _, p := range e.Unexpected {
		all = append(all, fmt.Sprintf("%s %v is unexpected", p.Key, p.Shape))
	}
	for _, m := range e.Misshaped {
		all = append(all, fmt.Sprintf("%s has shape %v, expected %v", m.Key, m.Have, m.Want))
	}
	return firstFew(all)
}

// firstFew are the first of the mismatches, and how many more there are.
func firstFew(all []string) []string {
	if len(all) > maxMismatches {
		all = append(all[:maxMismatches:maxMismatches], fmt.Sprintf("and %d more", len(all)-maxMismatches))
	}
	return all
}

func flag(name string, value any) Flag {
	if s, ok := value.(string); ok && s != "?" {
		value = strconv.Quote(s)
	}
	return Flag{Name: name, Value: fmt.Sprint(value)}
}
