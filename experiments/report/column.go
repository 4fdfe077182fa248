package report

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"sagbench/eval"
	"sagbench/experiments/store"
)

// A tableColumn is one column.
type tableColumn struct {
	kind      columnKind
	key       string // for machines: guidance.sag.scale, fid; of a published one the metric's
	title     string // for people: s, FID, paper
	direction string // of a metric
	decimals  int    // of a metric: the most that a row asks for; of a published one: the most that the authors give
	spread    bool   // a row gives a standard deviation as well
	interval  bool   // a row gives an interval as well
	notes     []int  // footnotes that hold for every row

	values map[*store.Metrics]string // of a setting beyond the sweep
}

type columnKind int

const (
	labelColumn columnKind = iota
	settingColumn
	otherColumn // a setting beyond the sweep
	metricColumn
	publishedColumn
	samplesColumn
	searchColumn
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

// noValue stands where a table has no value.
const noValue = "—"

// String is the cell for people, without ± and footnotes.
func (c tableCell) String() string {
	if c.text == "" {
		return noValue
	}
	return c.text
}

// columnsOf lists the columns that the rows have something for.
func columnsOf(rows []*store.Metrics) []tableColumn {
	var columns []tableColumn
	if slices.ContainsFunc(rows, func(m *store.Metrics) bool { return m.Label != "" }) {
		columns = append(columns, tableColumn{kind: labelColumn, key: "label", title: "model"})
	}
	columns = append(columns, settingColumns(rows)...)
	others, runs := columnsApart(rows)
	columns = append(columns, others...)
	columns = append(columns, metricColumns(rows)...)
	columns = append(columns, tableColumn{kind: samplesColumn, key: "samples", title: "images"})
	columns = append(columns, searchColumns(rows)...)
	return append(columns, runs...)
}

// columnsApart are the settings beyond the sweep that rows are called by, and the
// run ids where nothing else tells rows apart.
func columnsApart(rows []*store.Metrics) (settings, runs []tableColumn) {
	named := namesApart(rows, settled)
	for _, m := range rows {
		for _, s := range named[m] {
			if s.Path == runPath {
				runs = []tableColumn{{kind: runColumn, key: runPath, title: runPath}}
				continue
			}
			i := slices.IndexFunc(settings, func(c tableColumn) bool { return c.key == s.Path })
			if i < 0 {
				i = len(settings)
				settings = append(settings, tableColumn{kind: otherColumn, key: s.Path, values: map[*store.Metrics]string{}})
			}
			settings[i].values[m] = s.Value
		}
	}
	var paths []store.Setting
	for _, c := range slices.Concat(settings, settingColumns(rows)) {
		paths = append(paths, store.Setting{Path: c.key})
	}
	for i, name := range store.SettingNames(paths)[:len(settings)] {
		settings[i].title = name
	}
	return settings, runs
}

// settingColumns are the paths that the sweeps chose from.
func settingColumns(rows []*store.Metrics) []tableColumn {
	var all []store.Setting
	for _, m := range rows {
		for _, s := range m.Settings {
			if !slices.ContainsFunc(all, func(o store.Setting) bool { return o.Path == s.Path }) {
				all = append(all, store.Setting{Path: s.Path})
			}
		}
	}
	names := store.SettingNames(all)
	columns := make([]tableColumn, len(all))
	for i, s := range all {
		columns[i] = tableColumn{kind: settingColumn, key: s.Path, title: names[i]}
	}
	return columns
}

// metricColumns are the metrics in the order in which the rows name them, each
// followed by the authors' values if there are any.
func metricColumns(rows []*store.Metrics) []tableColumn {
	var columns []tableColumn
	for _, m := range rows {
		for _, s := range m.Scores {
			i := slices.IndexFunc(columns, func(c tableColumn) bool { return c.key == s.Name })
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
		decimals := -1
		for _, m := range rows {
			if v, ok := m.Published[columns[i].key]; ok {
				_, fraction, _ := strings.Cut(strconv.FormatFloat(v, 'f', -1, 64), ".")
				decimals = max(decimals, len(fraction))
			}
		}
		if decimals >= 0 {
			columns = slices.Insert(columns, i+1, tableColumn{kind: publishedColumn, key: columns[i].key, title: "paper", decimals: decimals})
		}
	}
	return columns
}

// sorts reports whether rows can be sorted by the column.
func (c tableColumn) sorts() bool { return c.kind != labelColumn && c.kind != publishedColumn }

// arrow says which way is better; "" where that has no meaning.
func (c tableColumn) arrow() string {
	if c.kind != metricColumn {
		return ""
	}
	return arrow(c.direction)
}

// arrow is the arrow of a Score.Direction.
func arrow(direction string) string {
	if direction == store.HigherIsBetter {
		return string(eval.Higher)
	}
	return string(eval.Lower)
}

// isNumber tells columns that are aligned to the right.
func (c tableColumn) isNumber() bool {
	return c.kind != labelColumn && c.kind != runColumn && c.kind != searchColumn
}

// cell is a row's entry.
func (c tableColumn) cell(m *store.Metrics) tableCell {
	switch c.kind {
	case labelColumn:
		return textCell(m.Label)
	case settingColumn:
		return textCell(settingOf(m, c.key))
	case otherColumn:
		return textCell(c.values[m])
	case samplesColumn:
		return textCell(strconv.Itoa(m.Samples))
	case searchColumn:
		return droppedCell(m)
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

// textCell is a cell of a text, or of a number as it was written.
func textCell(s string) tableCell {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		v = math.NaN()
	}
	return tableCell{text: s, exact: s, value: v}
}

// number is a cell with the decimals of the column.
func (c tableColumn) number(v float64) tableCell {
	text := rounded(v, c.decimals)
	if positive := strings.TrimPrefix(text, "-"); strings.Trim(positive, "0.") == "" {
		text = positive // no -0.00
	}
	return tableCell{text: text, exact: exact(v), value: v}
}

// settingOf is what a row has at a path: the sweep's choice, or where this
// row's sweep leaves the path alone, what its configuration says.
func settingOf(m *store.Metrics, path string) string {
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

// warning begins the remarks that a value may mislead.
const warning = "warning: "

// remarks are what a row's score says about itself; how it was computed only with
// verbose set.
func (c tableColumn) remarks(m *store.Metrics, verbose bool) []string {
	s, ok := m.Score(c.key)
	if c.kind != metricColumn || !ok {
		return nil
	}
	var texts []string
	if note := strings.TrimSpace(s.Note); note != "" {
		texts = append(texts, note)
	}
	if verbose && s.Numerics != "" {
		texts = append(texts, s.Numerics)
	}
	for _, w := range s.Warnings {
		texts = append(texts, warning+w)
	}
	return texts
}

// better reports whether a is the better value.
func (c tableColumn) better(a, b tableCell) bool {
	if c.direction == store.HigherIsBetter {
		return a.value > b.value
	}
	return a.value < b.value
}

// rounded writes a number with so many decimals.
func rounded(v float64, decimals int) string { return strconv.FormatFloat(v, 'f', decimals, 64) }

// telling writes a number with so many decimals, or where these are all zeros, and
// the number is not, its first two digits: -3.1e-05. So its sign never stands alone.
func telling(v float64, decimals int) string {
	text := rounded(v+0, decimals) // no -0
	if v != 0 && strings.Trim(text, "-0.") == "" {
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return text
}

// exact writes a number with every digit that it takes to read the same one.
func exact(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
