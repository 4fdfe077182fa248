package configs

import (
	"math"
	"slices"
	"strconv"
)

// isRange reports whether a sweep's value is a range in place of a list.
func isRange(n *node) bool { return n.child("range") != nil }

// evenly lists the values of a range, {range: [a, b], points: n}: n numbers from a to b
// with both ends, at equal distances or, with scale: log, at equal ratios. Each number
// has the twelve digits that it takes to write 0.3 for three tenths; one without a
// fraction is written as a whole number.
func (a *axis) evenly(n *node) (*node, error) {
	wrong := func(format string, args ...any) (*node, error) {
		return nil, faultf(a.at, "sweep path %q: "+format, append([]any{a.path}, args...)...)
	}
	var r struct {
		Range  []float64 `yaml:"range"`
		Points int       `yaml:"points"`
		Scale  string    `yaml:"scale"`
	}
	if err := (Block{node: n, path: a.path, at: a.at}).Decode(&r); err != nil {
		return nil, err
	}
	switch {
	case len(r.Range) != 2:
		return wrong("range has %d numbers, expected the two ends: {range: [0, 1.5], points: 7}", len(r.Range))
	case r.Points < 2 || r.Points > maxRows:
		return wrong("points is %d, expected 2 to %d, both ends included: {range: [0, 1.5], points: 7}", r.Points, maxRows)
	case !slices.Contains([]string{"", "linear", "log"}, r.Scale):
		return wrong("scale is %q, expected linear or log", r.Scale)
	case r.Scale == "log" && (r.Range[0] == 0 || r.Range[1]/r.Range[0] <= 0):
		return wrong("scale is log, and the range is from %v to %v; expected two ends of one sign, neither of them 0", r.Range[0], r.Range[1])
	}
	out := &node{kind: list, at: n.at}
	for i := range r.Points {
		part := float64(i) / float64(r.Points-1)
		v := r.Range[0]*(1-part) + r.Range[1]*part
		if r.Scale == "log" {
			v = r.Range[0] * math.Pow(r.Range[1]/r.Range[0], part)
		}
		out.items = append(out.items, numberNode(v, n.at))
	}
	return out, nil
}

// numberNode is a number as a person writes it.
func numberNode(v float64, at position) *node {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 12, 64), 64)
	if v == math.Trunc(v) && math.Abs(v) < 1e12 {
		return &node{at: at, tag: tagInt, text: strconv.FormatFloat(v+0, 'f', -1, 64)}
	}
	return &node{at: at, tag: tagFloat, text: strconv.FormatFloat(v, 'g', -1, 64)}
}
