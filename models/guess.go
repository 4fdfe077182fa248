package models

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// A Guess is a family that a checkpoint's keys speak for.
type Guess struct {
	Family     string   `json:"family"`
	Evidence   string   `json:"evidence"`
	Flags      []Flag   `json:"flags"`                // read off the shapes
	Mismatches []string `json:"mismatches,omitempty"` // the first keys that do not fit those flags
	Attention  []Layer  `json:"attention,omitempty"`  // that can be tapped, with those flags
	Needs      []string `json:"needs,omitempty"`      // flags that images cannot be drawn without and the file does not tell
	Block      string   `json:"block"`                // where an experiment has the block, dotted
}

// A Layer is an attention layer over the places of an image.
type Layer struct {
	Name   string `json:"name"`
	Heads  int    `json:"heads"`
	Height int    `json:"height"` // in positions, as Width is
	Width  int    `json:"width"`
}

// A Flag is a flag with its value as an experiment file spells it. Where the shapes
// do not tell, the value is what the authors' files have, and the note says Assumed.
type Flag struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Note  string `json:"note,omitempty"`
}

// Assumed begins the note of a flag whose value is not in the shapes.
const Assumed = "assumed, not in the shapes"

// maxMismatches is how many keys a guess names that do not fit.
const maxMismatches = 5

// Mismatches builds the network that the guessed flags describe against the
// checkpoint and lists the first keys that differ. Flags that describe no network
// are invalid; then nothing is built.
func Mismatches(sd checkpoint.StateDict, invalid error, build func(*onnx.Module)) []string {
	err := invalid
	if err == nil {
		_, err = onnx.Build(sd, build)
	}
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
	return FirstFew(all)
}

// tapped is untapped that keeps the attention layers in g, where the network can be
// built.
func (g *Guess) tapped(build func(*onnx.Module, *Taps) error) func(*onnx.Module) {
	return func(m *onnx.Module) {
		t := NewTaps(Options{})
		build(m, t)
		g.Attention = t.Layers()
	}
}

// FirstFew are the first of the mismatches, and how many more there are.
func FirstFew(all []string) []string {
	if len(all) > maxMismatches {
		all = append(all[:maxMismatches:maxMismatches], fmt.Sprintf("and %d more", len(all)-maxMismatches))
	}
	return all
}

// NewFlag is a flag with its value; a text is put in quotes.
func NewFlag(name string, value any, note ...string) Flag {
	if s, ok := value.(string); ok {
		value = strconv.Quote(s)
	}
	return Flag{Name: name, Value: fmt.Sprint(value), Note: strings.Join(note, "; ")}
}

// differences are the flags that a checkpoint's shapes speak against, for hints.
type differences []string

// add compares the value of a flag with the one that the shapes suggest.
func (d *differences) add(flag string, have, want any) {
	if fmt.Sprint(have) != fmt.Sprint(want) {
		*d = append(*d, fmt.Sprintf("%s: %v (not %v)", flag, want, have))
	}
}

// hint is what the differences suggest.
func (d differences) hint() string {
	if len(d) == 0 {
		return "its shapes agree with the flags, its keys do not: is it a file of another family?"
	}
	return "its shapes suggest " + strings.Join(d, ", ")
}
