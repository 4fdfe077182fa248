package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A figure is a line plot before it has a form: one metric against the one
// number that the rows of an experiment sweep.
type figure struct {
	metric string // its name, and the file's: fid
	title  string // above the plot
	xLabel string // guidance.sag.scale
	yLabel string // FID ↓ (lower is better)
	ticks  []tick // the swept values, ascending
	curves []curve
}

// A tick is a value of the swept setting as the experiment writes it.
type tick struct {
	value float64
	text  string
}

// A curve is the line of one label.
type curve struct {
	label  string
	style  int     // place among the experiment's labels, so that it looks the same in every figure
	points []point // by ascending x
}

type point struct{ x, y float64 }

// plottable bounds what is drawn: beyond it sums of float64 overflow.
const plottable = 1e100

// figuresOf lays out the figures of one experiment's rows, in the order of its
// metrics. The error says why the rows make no line plot.
func figuresOf(rows []*Metrics) ([]*figure, error) {
	path, err := sweptPath(rows)
	if err != nil {
		return nil, err
	}
	for _, m := range rows {
		if !folderName.MatchString(m.Experiment) {
			return nil, fmt.Errorf("its name is no folder's: %q", m.Experiment)
		}
	}
	if err := distinctPoints(rows, path); err != nil {
		return nil, err
	}
	var figures []*figure
	for _, c := range metricColumns(rows) {
		if c.kind != metricColumn || !folderName.MatchString(c.key) {
			continue
		}
		f := &figure{metric: c.key, title: figureTitle(rows), xLabel: path, yLabel: directed(c)}
		f.fill(rows, path)
		if len(f.ticks) >= 2 {
			figures = append(figures, f)
		}
	}
	if len(figures) == 0 {
		return nil, fmt.Errorf("no metric has values at two values of %s", path)
	}
	return figures, nil
}

// sweptPath is the one path at which the rows' sweeps chose different numbers.
func sweptPath(rows []*Metrics) (string, error) {
	var swept []string
	for _, c := range settingColumns(rows) {
		values := map[string]bool{}
		for _, m := range rows {
			if v := settingOf(m, c.key); v != "" {
				values[v] = true
			}
		}
		if len(values) > 1 {
			swept = append(swept, c.key)
		}
	}
	switch len(swept) {
	case 0:
		return "", errors.New("no setting is swept over two values or more; a line plot needs one")
	case 1:
	default:
		return "", fmt.Errorf("several settings are swept: %s; a line plot has one", strings.Join(swept, ", "))
	}
	values := map[float64]bool{}
	for _, m := range rows {
		if text := settingOf(m, swept[0]); text != "" {
			x, ok := sweptNumber(text)
			if !ok {
				return "", fmt.Errorf("%s is swept over %q, which is no number to plot against", swept[0], text)
			}
			values[x] = true
		}
	}
	if len(values) < 2 { // 0.5 and 0.50
		return "", fmt.Errorf("%s is swept over one value; a line plot needs two", swept[0])
	}
	return swept[0], nil
}

func sweptNumber(text string) (float64, bool) {
	x, err := strconv.ParseFloat(text, 64)
	return x + 0, err == nil && math.Abs(x) < plottable // NaN is not below; no -0
}

// distinctPoints is an error where two rows would be one point of a line.
func distinctPoints(rows []*Metrics, path string) error {
	type place struct {
		label string
		x     float64
	}
	runs := map[place]string{}
	var faults []error
	for _, m := range rows {
		x, ok := sweptNumber(settingOf(m, path))
		if !ok {
			continue
		}
		p := place{m.Label, x}
		if other, taken := runs[p]; taken {
			faults = append(faults, fmt.Errorf("runs %s and %s are both %q at %s=%g; give their rows labels, or name the folders of one set of runs", other, m.Run, m.Label, path, x))
		}
		runs[p] = m.Run
	}
	return errors.Join(faults...)
}

// fill takes the figure's ticks and curves from the rows that have the metric.
func (f *figure) fill(rows []*Metrics, path string) {
	var labels []string
	for _, m := range rows {
		style := slices.Index(labels, m.Label)
		if style < 0 {
			style = len(labels)
			labels = append(labels, m.Label)
		}
		text := settingOf(m, path)
		x, numeric := sweptNumber(text)
		s, scored := m.Score(f.metric)
		if !numeric || !scored || !(math.Abs(s.Value) < plottable) {
			continue
		}
		i := slices.IndexFunc(f.curves, func(c curve) bool { return c.style == style })
		if i < 0 {
			i = len(f.curves)
			f.curves = append(f.curves, curve{label: oneLine(m.Label), style: style})
		}
		f.curves[i].points = append(f.curves[i].points, point{x, s.Value})
		if !slices.ContainsFunc(f.ticks, func(t tick) bool { return t.value == x }) {
			f.ticks = append(f.ticks, tick{x, text})
		}
	}
	for _, c := range f.curves {
		slices.SortFunc(c.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	}
	slices.SortFunc(f.ticks, func(a, b tick) int { return cmp.Compare(a.value, b.value) })
}

// directed is a metric's title with the way that is better.
func directed(c tableColumn) string {
	return fmt.Sprintf("%s %s (%s is better)", oneLine(c.title), c.arrow(), map[bool]string{true: higherIsBetter, false: lowerIsBetter}[c.direction == higherIsBetter])
}

// figureTitle is the experiment's name, and how many images each point is over
// where that is one number: scores of different numbers do not compare.
func figureTitle(rows []*Metrics) string {
	for _, m := range rows {
		if m.Samples != rows[0].Samples {
			return rows[0].Experiment
		}
	}
	return fmt.Sprintf("%s, %s images a point", rows[0].Experiment, thousands(rows[0].Samples))
}
