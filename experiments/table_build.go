package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
)

// A resultTable is a table before it has a form.
type resultTable struct {
	columns []tableColumn
	groups  []tableGroup // rows of one experiment and label, in the order of the experiment
	notes   []string     // footnote i+1
	legend  []string     // what holds for the whole table
}

type tableGroup struct {
	experiment, label string
	rows              [][]tableCell // parallel to columns
}

// A tableColumn is one column.
type tableColumn struct {
	kind      columnKind
	key       string // for machines: guidance.sag.scale, fid, fid_published
	title     string // for people: s, FID, paper
	direction string // of a metric
	decimals  int    // of a metric: the most that a row asks for; of a published one: the most that the authors give
	spread    bool   // a row gives a standard deviation as well
	interval  bool   // a row gives an interval as well
	notes     []int  // footnotes that hold for every row
}

type columnKind int

const (
	labelColumn columnKind = iota
	settingColumn
	metricColumn
	publishedColumn
	samplesColumn
	runColumn
)

// A tableCell is one entry. A cell without a text is empty, and shown as —.
type tableCell struct {
	text  string  // for people
	exact string  // for machines
	value float64 // NaN where it is no number
	notes []int   // footnotes
	best  bool    // of its column in its group

	margin          string // behind ±: half of the interval, or else the standard deviation; "" where there is neither
	std             string // for machines: over splits or subsets, "" where there is none
	lowest, highest string // for machines: the ends of the interval, "" where there is none
}

// nothing stands where there is no value.
const nothing = "—"

func (c tableCell) String() string {
	if c.text == "" {
		return nothing
	}
	return c.text
}

// newTable lays out the rows of one experiment, or of several for a form that
// names the experiment in each row.
func newTable(rows []*Metrics) *resultTable {
	t := &resultTable{columns: columnsOf(rows)}
	for _, m := range rows {
		i := slices.IndexFunc(t.groups, func(g tableGroup) bool { return g.experiment == m.Experiment && g.label == m.Label })
		if i < 0 {
			i = len(t.groups)
			t.groups = append(t.groups, tableGroup{experiment: m.Experiment, label: m.Label})
		}
		cells := make([]tableCell, len(t.columns))
		for j, c := range t.columns {
			cells[j] = c.cell(m)
			for _, text := range c.remarks(m) {
				cells[j].notes = append(cells[j].notes, t.noteNumber(text))
			}
		}
		t.groups[i].rows = append(t.groups[i].rows, cells)
	}
	for j := range t.columns {
		t.liftNotes(j)
		t.markBest(j)
	}
	t.legend = legendOf(rows, t.columns)
	return t
}

// legendOf are the lines below a table: its protocol unless that is ADM's, and
// what ± and the columns "paper" are.
func legendOf(rows []*Metrics, columns []tableColumn) []string {
	var lines []string
	add := func(line string) {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	for _, m := range rows {
		if m.Protocol != "" && m.Protocol != eval.DefaultProtocol {
			add("protocol: " + m.Protocol)
		}
	}
	for _, m := range rows {
		if m.Bootstrap > 0 {
			add(fmt.Sprintf("±: half the width of the 95 %% interval from %d draws of the images", m.Bootstrap))
		}
	}
	if slices.ContainsFunc(columns, func(c tableColumn) bool { return c.kind == publishedColumn }) {
		add("paper: the value that the authors published; " + nothing + " where they give none")
	}
	return lines
}

// columnsOf lists the columns that the rows have something for.
func columnsOf(rows []*Metrics) []tableColumn {
	var columns []tableColumn
	if slices.ContainsFunc(rows, func(m *Metrics) bool { return m.Label != "" }) {
		columns = append(columns, tableColumn{kind: labelColumn, key: "label", title: "model"})
	}
	columns = append(columns, settingColumns(rows)...)
	columns = append(columns, metricColumns(rows)...)
	columns = append(columns, tableColumn{kind: samplesColumn, key: "samples", title: "images"})
	seen := map[string]bool{}
	for _, m := range rows {
		id := fmt.Sprintf("%q %q %q", m.Experiment, m.Label, m.Settings)
		if seen[id] { // nothing else tells these rows apart
			return append(columns, tableColumn{kind: runColumn, key: "run", title: "run"})
		}
		seen[id] = true
	}
	return columns
}

// settingColumns are the paths that the sweeps chose from.
func settingColumns(rows []*Metrics) []tableColumn {
	var all []configs.Setting
	for _, m := range rows {
		for _, s := range m.Settings {
			if !slices.ContainsFunc(all, func(o configs.Setting) bool { return o.Path == s.Path }) {
				all = append(all, configs.Setting{Path: s.Path})
			}
		}
	}
	names := settingNames(all)
	columns := make([]tableColumn, len(all))
	for i, s := range all {
		columns[i] = tableColumn{kind: settingColumn, key: s.Path, title: names[i]}
	}
	return columns
}

// metricColumns are the metrics in the order in which the rows name them, each
// followed by the authors' values if there are any.
func metricColumns(rows []*Metrics) []tableColumn {
	var columns []tableColumn
	find := func(name string) int {
		return slices.IndexFunc(columns, func(c tableColumn) bool { return c.kind == metricColumn && c.key == name })
	}
	for _, m := range rows {
		for _, s := range m.Scores {
			i := find(s.Name)
			if i < 0 {
				i = len(columns)
				columns = append(columns, tableColumn{kind: metricColumn, key: s.Name, title: s.Title, direction: s.Direction})
			}
			columns[i].decimals = max(columns[i].decimals, s.Decimals)
			columns[i].spread = columns[i].spread || s.Std > 0
			columns[i].interval = columns[i].interval || s.Interval != nil
		}
	}
	for i := len(columns) - 1; i >= 0; i-- {
		decimals, any := 0, false
		for _, m := range rows {
			if v, ok := m.Published[columns[i].key]; ok {
				_, fraction, _ := strings.Cut(strconv.FormatFloat(v, 'f', -1, 64), ".")
				decimals, any = max(decimals, len(fraction)), true
			}
		}
		if any {
			columns = slices.Insert(columns, i+1, tableColumn{kind: publishedColumn, key: columns[i].key, title: "paper", decimals: decimals})
		}
	}
	return columns
}

// arrow says which way is better.
func (c tableColumn) arrow() string {
	if c.kind != metricColumn {
		return ""
	}
	return arrowOf(c.direction)
}

// arrowOf is the arrow of a Score.Direction.
func arrowOf(direction string) string {
	if direction == higherIsBetter {
		return string(eval.Higher)
	}
	return string(eval.Lower)
}

// isNumber tells columns that are aligned to the right.
func (c tableColumn) isNumber() bool { return c.kind != labelColumn && c.kind != runColumn }
