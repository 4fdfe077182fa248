package refcase

import (
	"context"
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

	least    float64            // of all relative ones
	emulated map[string]float64 // of tensors, absolute: what the emulation of a precision allows
}

// A tolerance bounds max|ours − theirs|: by an absolute number, by a multiple of
// max|theirs|, or not at all where the reference itself yields NaN. A relative
// tolerance that is NaN was measured on zeros: nothing but equality passes.
type tolerance struct {
	Relative configs.Extended  `yaml:"relative"`
	Absolute *configs.Extended `yaml:"absolute"`
	NaN      bool              `yaml:"nan"`

	least float64 // that it is widened to
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

// emulate computes the case on the CPU, and lets each tensor be off by so many times
// what it is off by there.
func (c *referenceCase) emulate(ctx context.Context, run caseKind, times float64) error {
	device := c.options
	c.options.Device, c.options.Placed = "cpu", nil
	out, err := run(ctx, c)
	c.options = device
	if err != nil {
		return fmt.Errorf("on the CPU: %w", err)
	}
	allowed := map[string]float64{}
	for name, t := range c.tensors {
		if !strings.HasPrefix(name, "out.") {
			continue
		}
		want, err := t.Float64()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		found := c.Tolerance.compare(name, out, want, t.Shape)
		if found.note != "" || math.IsInf(found.err, 1) {
			return fmt.Errorf("on the CPU %s is nothing that an error can be measured of: %s", name, strings.TrimSpace(found.String()))
		}
		allowed[name] = times * found.err
	}
	c.Tolerance.emulated = allowed
	return nil
}

// compare holds our output of the name out.NAME against the reference's values
// theirs, an array of the given shape.
func (t caseTolerance) compare(name string, out map[string]ort.Array, theirs []float64, shape []int) comparison {
	c := comparison{name: name}
	found, ok := out[strings.TrimPrefix(name, "out.")]
	switch {
	case !ok:
		c.note = "was not produced"
		return c
	case !slices.Equal(found.Shape, shape):
		c.note = fmt.Sprintf("has shape %v, expected %v", found.Shape, shape)
		return c
	case len(theirs) == 0:
		c.note = "holds no value that could be compared"
		return c
	}
	tol, ok := t.PerTensor[name]
	if !ok {
		tol = tolerance{Relative: t.Relative}
	}
	tol.Relative, tol.least = max(tol.Relative, configs.Extended(t.least)), t.emulated[name]
	ours, rows := values(found), 1
	if slices.Contains(t.Rows, name) && len(shape) > 0 {
		rows = shape[0]
	}
	c.pass, c.tolerance = true, math.Inf(1) // the first row sets both numbers
	n := len(theirs) / max(rows, 1)
	for r := range rows {
		c.row(ours[r*n:(r+1)*n], theirs[r*n:(r+1)*n], tol)
	}
	return c
}

// row adds one row's verdict; the worst row is the one that is printed.
func (c *comparison) row(ours, theirs []float64, tol tolerance) {
	largest := 0.0
	for _, x := range theirs {
		if a := math.Abs(x); a > largest { // NaN is not
			largest = a
		}
	}
	limit := float64(tol.Relative) * largest
	if tol.Absolute != nil {
		limit = float64(*tol.Absolute)
	}
	if math.IsNaN(limit) {
		limit = 0
	}
	limit = max(limit, tol.least)
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
