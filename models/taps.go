package models

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sagbench/models/onnx"
	"sagbench/sampling"
)

// taps is where a network that is built is tapped and perturbed: it collects the
// attention maps that were asked for, puts in the perturbations, and knows the
// names of the layers that could have been asked for.
type taps struct {
	want   []sampling.Tap
	maps   []onnx.Value
	layers []string
	errs   []error

	perturbations []sampling.Perturbation
	perturbable   map[sampling.Kind][]string // layers
	which         onnx.Value                 // the switch; the zero Value until it is needed
}

func newTaps(want []sampling.Tap, perturbations ...sampling.Perturbation) *taps {
	return &taps{want: want, maps: make([]onnx.Value, len(want)), perturbations: perturbations, perturbable: map[sampling.Kind][]string{}}
}

// visit is called by an attention layer with the scope it lives in.
func (t *taps) visit(m *onnx.Module, attention func(sampling.Tap) onnx.Value) {
	t.layers = append(t.layers, m.Name())
	for i, w := range t.want {
		if w.Layer == m.Name() {
			t.maps[i] = attention(w)
		}
	}
}

func (t *taps) problem(format string, args ...any) {
	t.errs = append(t.errs, fmt.Errorf(format, args...))
}

// output makes the maps outputs: "attention" for the first tap, "attention_1"
// and so on for the others.
func (t *taps) output(m *onnx.Module) error {
	for i, v := range t.maps {
		if v.Name == "" {
			t.problem("layer %q is no attention layer of this network; it has %s", t.want[i].Layer, strings.Join(t.layers, ", "))
			continue
		}
		m.Output(tapName(i), v)
	}
	t.missingLayers()
	return errors.Join(t.errs...)
}

func tapName(i int) string {
	if i == 0 {
		return "attention"
	}
	return fmt.Sprintf("attention_%d", i)
}

// validTaps checks what does not depend on the network.
func validTaps(ts []sampling.Tap) error {
	for _, t := range ts {
		if !slices.Contains([]string{"", "legacy"}, t.Order) {
			return fmt.Errorf("attention_order %q: expected \"legacy\" or nothing", t.Order)
		}
		if t.Heads < 0 {
			return fmt.Errorf("heads %d: expected 0 (the layer's own) or a positive number", t.Heads)
		}
	}
	return nil
}
