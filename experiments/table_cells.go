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
)

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
			cell := c.number(s.Value)
			if s.Std > 0 {
				std := c.number(s.Std)
				cell.margin, cell.std = std.text, std.exact
			}
			if i := s.Interval; i != nil {
				cell.margin = c.number(i.Half()).text
				cell.lowest, cell.highest = c.number(i.Low).exact, c.number(i.High).exact
			}
			return cell
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

// remarks are what a row's score says about itself.
func (c tableColumn) remarks(m *Metrics) []string {
	s, ok := m.Score(c.key)
	if c.kind != metricColumn || !ok {
		return nil
	}
	var texts []string
	if note := strings.TrimSpace(s.Note); note != "" {
		texts = append(texts, note)
	}
	for _, w := range s.Warnings {
		texts = append(texts, "warning: "+w)
	}
	return texts
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
