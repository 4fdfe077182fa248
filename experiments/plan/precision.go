package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sagbench/models/ort"
)

// Compute has all networks of the experiment compute in a precision, whatever their
// blocks say; "" leaves those as they are, and a name that is none is an error.
func (e *Experiment) Compute(precision string) error {
	if precision == "" {
		return nil
	}
	if !slices.Contains(ort.AllPrecisions, precision) {
		return fmt.Errorf("--precision is %q, expected %s", precision, strings.Join(ort.AllPrecisions, ", "))
	}
	for _, r := range e.Rows {
		r.Model.Precision = precision
		for i := range r.Attachments {
			r.Attachments[i].Precision = precision
		}
	}
	return nil
}

// half is the network's precision; "" where that is float32.
func (n *NetworkRef) half() string {
	if n.Precision == ort.Float32 {
		return ""
	}
	return n.Precision
}

// Computes is the network's precision, by its name.
func (n *NetworkRef) Computes() string { return cmp.Or(n.Precision, ort.Float32) }

// Precision is that of the row's networks: "" where all compute in float32, else that
// of the model, followed by those of guidances' networks that have another.
func (r *Row) Precision() string {
	var all []string
	for i, n := range r.Networks() {
		p := n.Computes()
		switch {
		case i == 0:
			all = []string{p}
		case p != all[0]:
			all = append(all, fmt.Sprintf("%s: %s", r.Attachments[i-1].Name, p))
		}
	}
	if slices.Equal(all, []string{ort.Float32}) {
		return ""
	}
	return strings.Join(all, ", ")
}
