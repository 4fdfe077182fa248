package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"sagbench/configs"
)

// A resultTable is a table before it has a form.
type resultTable struct {
	columns []tableColumn
	groups  []tableGroup // rows of one experiment and label, in the order of the experiment
	notes   []string     // footnote i+1
	legend  string       // what the columns "paper" are; "" without them
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
			if note := c.note(m); note != "" {
				cells[j].notes = []int{t.noteNumber(note)}
			}
		}
		t.groups[i].rows = append(t.groups[i].rows, cells)
	}
	for j := range t.columns {
		t.liftNotes(j)
		t.markBest(j)
		if t.columns[j].kind == publishedColumn {
			t.legend = "paper: the value that the authors published; " + nothing + " where they give none"
		}
	}
	return t
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
		if s.Path == "guidance.sag.scale" && !slices.Contains(names, "s") {
			names[i] = "s" // as the paper calls it
		}
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

// cell is a row's entry.
func (c tableColumn) cell(m *Metrics) tableCell {
	switch c.kind {
	case labelColumn:
		return textCell(m.Label)
	case settingColumn:
		return textCell(settingOf(m, c.key))
	case samplesColumn:
		return tableCell{text: strconv.Itoa(m.Samples), exact: strconv.Itoa(m.Samples), value: float64(m.Samples)}
	case runColumn:
		return textCell(m.Run)
	case publishedColumn:
		if v, ok := m.Published[c.key]; ok {
			return c.number(v)
		}
	case metricColumn:
		if s, ok := m.Score(c.key); ok {
			return c.number(s.Value)
		}
	}
	return tableCell{value: math.NaN()}
}

func textCell(s string) tableCell {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		v = math.NaN()
	}
	return tableCell{text: s, exact: s, value: v}
}

func (c tableColumn) number(v float64) tableCell {
	text := strconv.FormatFloat(v, 'f', c.decimals, 64)
	if positive := strings.TrimPrefix(text, "-"); strings.Trim(positive, "0.") == "" {
		text = positive // no -0.00
	}
	return tableCell{text: text, exact: strconv.FormatFloat(v, 'g', -1, 64), value: v}
}

// settingOf is what a row has at a path: the sweep's choice, or where this
// row's sweep leaves the path alone, what its configuration says.
func settingOf(m *Metrics, path string) string {
	for _, s := range m.Settings {
		if s.Path == path {
			return s.Value
		}
	}
	var at any
	d := json.NewDecoder(bytes.NewReader(m.Config))
	d.UseNumber() // 0.50 stays 0.50
	if d.Decode(&at) != nil {
		return ""
	}
	for key := range strings.SplitSeq(path, ".") {
		fields, ok := at.(map[string]any)
		if !ok {
			return ""
		}
		at = fields[key]
	}
	switch v := at.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// note is what a row's score says about itself.
func (c tableColumn) note(m *Metrics) string {
	s, ok := m.Score(c.key)
	if c.kind != metricColumn || !ok {
		return ""
	}
	return strings.TrimSpace(s.Note)
}

// noteNumber is the footnote's number; equal ones share one.
func (t *resultTable) noteNumber(text string) int {
	i := slices.Index(t.notes, text)
	if i < 0 {
		i = len(t.notes)
		t.notes = append(t.notes, text)
	}
	return i + 1
}

// liftNotes moves a footnote that every value of column j has to its head.
func (t *resultTable) liftNotes(j int) {
	var shared []int
	first := true
	for row := range t.rows() {
		if row[j].text == "" {
			continue
		}
		if !first && !slices.Equal(row[j].notes, shared) {
			return
		}
		shared, first = row[j].notes, false
	}
	t.columns[j].notes = shared
	for row := range t.rows() {
		row[j].notes = nil
	}
}

// rows are the rows of all groups.
func (t *resultTable) rows() func(func([]tableCell) bool) {
	return func(yield func([]tableCell) bool) {
		for _, g := range t.groups {
			for _, row := range g.rows {
				if !yield(row) {
					return
				}
			}
		}
	}
}

// markBest marks the best values of column j in each group of two rows or more.
func (t *resultTable) markBest(j int) {
	c := t.columns[j]
	if c.kind != metricColumn {
		return
	}
	for _, g := range t.groups {
		best, count := -1, 0
		for i, row := range g.rows {
			if math.IsNaN(row[j].value) {
				continue
			}
			if count++; best < 0 || c.better(row[j], g.rows[best][j]) {
				best = i
			}
		}
		for _, row := range g.rows {
			row[j].best = count > 1 && row[j].text == g.rows[best][j].text
		}
	}
}

func (c tableColumn) better(a, b tableCell) bool {
	if c.direction == higherIsBetter {
		return a.value > b.value
	}
	return a.value < b.value
}

// sort orders the rows of each group by a column, named as people or machines
// name it; "" leaves them as they are. What is no number comes last.
func (t *resultTable) sort(by string) error {
	name, reverse := strings.CutPrefix(by, "-")
	if by == "" {
		return nil
	}
	var known []string
	j := -1
	for i, c := range t.columns {
		if c.kind == labelColumn || c.kind == publishedColumn {
			continue
		}
		known = append(known, c.title)
		if j < 0 && (strings.EqualFold(c.title, name) || c.key == name) {
			j = i
		}
	}
	if j < 0 {
		return fmt.Errorf("table: --sort is %q, which is no column; known: %s", by, strings.Join(known, ", "))
	}
	sign := 1
	if reverse != (t.columns[j].direction == higherIsBetter) {
		sign = -1
	}
	for _, g := range t.groups {
		slices.SortStableFunc(g.rows, func(a, b []tableCell) int {
			x, y := a[j], b[j]
			switch nx, ny := math.IsNaN(x.value), math.IsNaN(y.value); {
			case nx && ny:
				return sign * cmp.Compare(x.text, y.text)
			case nx || ny:
				return cmp.Compare(btoi(nx), btoi(ny))
			}
			return sign * cmp.Compare(x.value, y.value)
		})
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// arrow says which way is better.
func (c tableColumn) arrow() string {
	switch {
	case c.kind != metricColumn:
		return ""
	case c.direction == higherIsBetter:
		return "↑"
	}
	return "↓"
}

// isNumber tells columns that are aligned to the right.
func (c tableColumn) isNumber() bool { return c.kind != labelColumn && c.kind != runColumn }
