// Package report shows what was found: files of package store go in; tables,
// plots and pictures come out. It computes no score.
package report

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sagbench/eval"
	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

// TableOptions say which table of results is wanted.
type TableOptions struct {
	Format  string   // terminal, markdown, latex, csv or jsonl
	Sort    string   // title or key of the column that sorts the rows of a label, with a minus before it the other way round; "": the order of the experiment
	Rows    []string // as store.Choose takes them; nil: all
	Verbose bool     // footnotes tell of the arithmetic as well
}

// tableFormats are the forms that a table can be printed in.
var tableFormats = map[string]func(io.Writer, []*store.Metrics, TableOptions) error{
	"terminal": perExperiment(renderTerminal),
	"markdown": perExperiment(renderMarkdown),
	"latex":    perExperiment(renderLaTeX),
	"csv":      renderCSV,
	"jsonl":    renderJSONLines,
}

// TableFormats are the values of TableOptions.Format.
func TableFormats() []string { return slices.Sorted(maps.Keys(tableFormats)) }

// Tables prints to w a table for each experiment whose metrics.json files lie
// below the folders. Unknown formats, columns and rows are errors, and so are
// folders without results.
func Tables(w io.Writer, folders []string, o TableOptions) error {
	render, ok := tableFormats[o.Format]
	if !ok {
		return human.Misusef("table: --format is %q, expected one of %s", o.Format, strings.Join(TableFormats(), ", "))
	}
	rows, err := findRows(folders, o.Rows)
	if err != nil {
		return err
	}
	return render(w, rows, o)
}

// Columns are the names that TableOptions.Sort takes for the results below the folders;
// none where there are no results.
func Columns(folders []string) []string {
	rows, err := store.FindMetrics(folders...)
	if err != nil {
		return nil
	}
	var names []string
	for _, own := range byExperiment(rows) {
		for _, c := range columnsOf(own) {
			if name := c.title; c.sorts() && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// findRows reads the metrics.json files below the folders, all or those of the rows
// that are chosen.
func findRows(folders, chosen []string) ([]*store.Metrics, error) {
	rows, err := store.FindMetrics(folders...)
	if err != nil {
		return nil, err
	}
	return chooseRows(rows, chosen)
}

// chooseRows are those of the rows that are chosen; all where nothing is.
func chooseRows(rows []*store.Metrics, chosen []string) ([]*store.Metrics, error) {
	if len(chosen) == 0 {
		return rows, nil
	}
	rows, err := store.Choose(rows, (*store.Metrics).Place, chosen)
	if err != nil {
		return nil, human.Misusef("--rows: %w", err)
	}
	return rows, nil
}

// Experiment writes the tables, plots and the page of an experiment's scored rows
// into its folder, and prints the table to w, verbose or not. Without rows it does
// nothing.
func Experiment(ctx context.Context, w io.Writer, folder string, rows []*store.Metrics, verbose bool) error {
	if len(rows) == 0 {
		return nil
	}
	if err := writeTables(folder, rows); err != nil {
		return err
	}
	if err := writePlots(folder, rows); err != nil {
		return err
	}
	if err := writePage(ctx, folder, rows, false); err != nil {
		return err
	}
	return tableFormats["terminal"](w, rows, TableOptions{Verbose: verbose})
}

// writeTables writes table.md, table.csv and table.tex into an experiment's
// folder, each whole or not at all.
func writeTables(folder string, rows []*store.Metrics) error {
	for _, file := range []struct{ name, format string }{{"table.md", "markdown"}, {store.TableFile, "csv"}, {"table.tex", "latex"}} {
		var out strings.Builder
		if err := tableFormats[file.format](&out, rows, TableOptions{}); err != nil {
			return err
		}
		if err := store.WriteFile(filepath.Join(folder, file.name), []byte(out.String())); err != nil {
			return err
		}
	}
	return nil
}

// perExperiment renders a table for each experiment, with a line between them.
func perExperiment(render func(io.Writer, *resultTable) error) func(io.Writer, []*store.Metrics, TableOptions) error {
	return func(w io.Writer, rows []*store.Metrics, o TableOptions) error {
		for i, own := range byExperiment(rows) {
			t := newTable(own, o.Verbose)
			if err := t.sort(o.Sort); err != nil {
				return err
			}
			if i > 0 {
				fmt.Fprintln(w)
			}
			if err := render(w, t); err != nil {
				return fmt.Errorf("table: %w", err)
			}
		}
		return nil
	}
}

// byExperiment cuts rows, which come sorted by experiment, into those of each.
func byExperiment(rows []*store.Metrics) (parts [][]*store.Metrics) {
	for i, m := range rows {
		if i == 0 || m.Experiment != rows[i-1].Experiment {
			parts = append(parts, nil)
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], m)
	}
	return parts
}

// A resultTable is a table before it has a form.
type resultTable struct {
	columns []tableColumn
	groups  []tableGroup // in the order of the experiment
	notes   []footnote   // with the number i+1
	legend  []string     // what holds for the whole table

	of map[*tableCell]*store.Metrics // what a row is of, by its first cell
}

// A tableGroup holds the rows of one experiment and label.
type tableGroup struct {
	experiment, label string
	rows              [][]tableCell // parallel to columns
}

// newTable lays out the rows of one experiment, or of several for a form that
// names the experiment in each row. With verbose set, footnotes tell of the arithmetic.
func newTable(rows []*store.Metrics, verbose bool) *resultTable {
	t := &resultTable{columns: columnsOf(rows), of: map[*tableCell]*store.Metrics{}}
	for _, m := range rows {
		i := slices.IndexFunc(t.groups, func(g tableGroup) bool { return g.experiment == m.Experiment && g.label == m.Label })
		if i < 0 {
			i = len(t.groups)
			t.groups = append(t.groups, tableGroup{experiment: m.Experiment, label: m.Label})
		}
		cells := make([]tableCell, len(t.columns))
		for j, c := range t.columns {
			cells[j] = c.cell(m)
			for _, text := range c.remarks(m, verbose) {
				cells[j].notes = append(cells[j].notes, t.noteNumber(text))
			}
		}
		t.groups[i].rows = append(t.groups[i].rows, cells)
		t.of[&cells[0]] = m
	}
	for j := range t.columns {
		t.liftNotes(j)
		t.markBest(j)
	}
	t.legend = legendOf(rows, t.columns)
	return t
}

// legendOf are the lines below a table: what a search has found, its protocol unless that is ADM's, what ±
// and the columns "paper" are, in which precision networks computed that did not in
// float32, and in what else than the sweep rows differ.
func legendOf(rows []*store.Metrics, columns []tableColumn) []string {
	var protocols, draws []string
	for _, m := range rows {
		if m.Protocol != "" && m.Protocol != eval.DefaultProtocol {
			protocols = append(protocols, "protocol: "+m.Protocol)
		}
		if m.Bootstrap > 0 {
			draws = append(draws, fmt.Sprintf("±: half the width of the 95 %% interval from %d draws of the images", m.Bootstrap))
		}
	}
	var lines []string
	for _, line := range slices.Concat(searchLegend(rows), protocols, draws, precisionsOf(rows), differencesOf(rows)) {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if slices.ContainsFunc(columns, func(c tableColumn) bool { return c.kind == publishedColumn }) {
		lines = append(lines, "paper: the value that the authors published; "+noValue+" where they give none")
	}
	return lines
}

// precisionsOf names each precision beside float32, with the rows drawn in it where
// others were drawn in another.
func precisionsOf(rows []*store.Metrics) []string {
	titles := map[string][]string{}
	for _, m := range rows {
		titles[m.Precision] = append(titles[m.Precision], m.Title())
	}
	var lines []string
	for _, p := range slices.Sorted(maps.Keys(titles)) {
		line := "precision: " + p
		if len(titles) > 1 {
			line += " (" + some(titles[p], 8, "; ") + ")"
		}
		if p != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// noteNumber is the number of a text's footnote; those of one kind share it.
func (t *resultTable) noteNumber(text string) int {
	n := footnote{text: text}
	if strings.HasPrefix(text, warning) {
		n.text, n.values = numbers.ReplaceAllLiteralString(text, gap), [][]string{numbers.FindAllString(text, -1)}
	}
	i := slices.IndexFunc(t.notes, func(o footnote) bool { return o.text == n.text })
	if i < 0 {
		i = len(t.notes)
		t.notes = append(t.notes, footnote{text: n.text})
	}
	t.notes[i].values = append(t.notes[i].values, n.values...)
	return i + 1
}

// A footnote is a text below a table. Warnings that differ in their numbers alone,
// such as an estimate that each row has of its own, are one.
type footnote struct {
	text   string     // with a gap for each number of a warning
	values [][]string // the numbers of each such warning
}

// numbers are those that stand alone, as in "by roughly 0.54", and not in names.
var numbers = regexp.MustCompile(`\b\d+(?:\.\d+)?(?:e[+-]\d+)?\b`)

// gap stands for a number; no text of ours holds it.
const gap = "\x00"

// String is the text with the numbers of all rows: 0.41, or 0.41 to 2.1.
func (n footnote) String() string {
	parts := strings.Split(n.text, gap)
	out := parts[0]
	for i, part := range parts[1:] {
		least, most := n.values[0][i], n.values[0][i]
		for _, own := range n.values {
			v, _ := strconv.ParseFloat(own[i], 64)
			if low, _ := strconv.ParseFloat(least, 64); v < low {
				least = own[i]
			}
			if high, _ := strconv.ParseFloat(most, 64); v > high {
				most = own[i]
			}
		}
		if least != most {
			least += " to " + most
		}
		out += least + part
	}
	return out
}

// liftNotes moves footnotes that every value of column j has to its head.
func (t *resultTable) liftNotes(j int) {
	var common []int
	found := false
	for row := range t.rows() {
		if row[j].text == "" {
			continue
		}
		if found && !slices.Equal(row[j].notes, common) {
			return
		}
		common, found = row[j].notes, true
	}
	t.columns[j].notes = common
	for row := range t.rows() {
		row[j].notes = nil
	}
}

// rows are the rows of all groups.
func (t *resultTable) rows() iter.Seq[[]tableCell] {
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
			if m := t.of[&row[0]]; math.IsNaN(row[j].value) || m.Search != nil && m.Search.Dropped { // of fewer images
				continue
			}
			if count++; best < 0 || c.better(row[j], g.rows[best][j]) {
				best = i
			}
		}
		for _, row := range g.rows {
			m := t.of[&row[0]]
			row[j].best = count > 1 && row[j].text == g.rows[best][j].text && !(m.Search != nil && m.Search.Dropped)
		}
	}
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
		if !c.sorts() {
			continue
		}
		known = append(known, c.title)
		if j < 0 && (strings.EqualFold(c.title, name) || c.key == name) {
			j = i
		}
	}
	if j < 0 {
		return human.Misusef("table: --sort is %q, which is no column; known: %s", by, strings.Join(known, ", "))
	}
	sign := 1
	if reverse != (t.columns[j].direction == store.HigherIsBetter) {
		sign = -1
	}
	for _, g := range t.groups {
		slices.SortStableFunc(g.rows, func(a, b []tableCell) int {
			x, y := a[j], b[j]
			switch xText, yText := math.IsNaN(x.value), math.IsNaN(y.value); {
			case xText && yText:
				return sign * cmp.Compare(x.text, y.text)
			case xText:
				return 1
			case yText:
				return -1
			}
			return sign * cmp.Compare(x.value, y.value)
		})
	}
	return nil
}
