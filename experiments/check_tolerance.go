package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/models/ort"
)

// A caseTolerance is the tolerance block of a case.yaml.
type caseTolerance struct {
	Relative  configs.Extended     `yaml:"relative"`
	PerTensor map[string]tolerance `yaml:"per_tensor"`
	Rows      []string             `yaml:"rows"` // tensors whose rows are each held against their own maximum
}

// A tolerance bounds max|ours − theirs|: by an absolute number, by a multiple of
// max|theirs|, or not at all where the reference itself yields NaN. A relative
// tolerance that is NaN was measured on zeros: nothing but equality passes.
type tolerance struct {
	Relative configs.Extended  `yaml:"relative"`
	Absolute *configs.Extended `yaml:"absolute"`
	NaN      bool              `yaml:"nan"`
}

// UnmarshalBlock reads a bare number as a relative tolerance.
func (t *tolerance) UnmarshalBlock(b configs.Block) error {
	if _, scalar := b.Text(); scalar {
		return b.Decode(&t.Relative)
	}
	type plain tolerance
	return b.Decode((*plain)(t))
}

// A comparison is the verdict on one tensor.
type comparison struct {
	name           string
	pass           bool
	err, tolerance float64
	note           string
}

func (c comparison) String() string {
	verdict := "pass"
	if !c.pass {
		verdict = "FAIL"
	}
	if c.note != "" {
		return fmt.Sprintf("  %s  %-34s %s", verdict, c.name, c.note)
	}
	return fmt.Sprintf("  %s  %-34s max error %.3g, tolerance %.3g", verdict, c.name, c.err, c.tolerance)
}

// compare holds our output of the name out.NAME against the reference's.
func (t caseTolerance) compare(name string, out map[string]ort.Array, want ort.Array) comparison {
	c := comparison{name: name}
	ours, ok := out[strings.TrimPrefix(name, "out.")]
	switch {
	case !ok:
		c.note = "was not produced"
		return c
	case !slices.Equal(ours.Shape, want.Shape):
		c.note = fmt.Sprintf("has shape %v, expected %v", ours.Shape, want.Shape)
		return c
	}
	tol, ok := t.PerTensor[name]
	if !ok {
		tol = tolerance{Relative: t.Relative}
	}
	a, b := values(ours), want.Data.([]float64)
	rows := 1
	if slices.Contains(t.Rows, name) && len(want.Shape) > 0 {
		rows = want.Shape[0]
	}
	c.pass, c.tolerance = true, math.Inf(1) // the first row sets both numbers
	n := len(b) / max(rows, 1)
	for r := range rows {
		c.row(a[r*n:(r+1)*n], b[r*n:(r+1)*n], tol)
	}
	return c
}

// row adds one row's verdict; the worst row is the one that is printed.
func (c *comparison) row(ours, theirs []float64, tol tolerance) {
	limit := float64(tol.Relative) * maxAbs(theirs)
	if tol.Absolute != nil {
		limit = float64(*tol.Absolute)
	}
	if math.IsNaN(limit) {
		limit = 0
	}
	worst := 0.0
	for i, want := range theirs {
		d := math.Abs(ours[i] - want)
		switch {
		case math.IsNaN(want) && (tol.NaN || math.IsNaN(ours[i])):
		case ours[i] == want:
		case math.IsNaN(d):
			worst = math.Inf(1)
		default:
			worst = max(worst, d)
		}
	}
	pass := worst <= limit
	if !pass && c.pass || pass == c.pass && worst-limit >= c.err-c.tolerance {
		c.err, c.tolerance = worst, limit
	}
	c.pass = c.pass && pass
}
