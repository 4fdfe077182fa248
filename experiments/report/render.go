package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/tw"

	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

// footnotes writes the numbers of footnotes: 1,3.
func footnotes(numbers []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ","), "[]")
}

// superscript writes the numbers of footnotes: ¹,³.
func superscript(numbers []int) string { return superscripts.Replace(footnotes(numbers)) }

var superscripts = strings.NewReplacer("0", "⁰", "1", "¹", "2", "²", "3", "³", "4", "⁴", "5", "⁵", "6", "⁶", "7", "⁷", "8", "⁸", "9", "⁹")

// head is a column's title for people.
func (c tableColumn) head() string {
	return oneLine(strings.TrimSpace(c.title+" "+c.arrow()) + superscript(c.notes))
}

// written is a cell for people, on one line.
func (c tableColumn) written(cell tableCell) string {
	text := cell.String()
	if cell.margin != "" {
		text += " ± " + cell.margin
	}
	return oneLine(text + superscript(cell.notes))
}

// oneLine keeps a label or setting on its line, and control characters from the
// terminal.
func oneLine(s string) string { return human.Printable(strings.Join(strings.Fields(s), " ")) }

// writeCSV writes lines for programs, control characters of labels as escapes.
func writeCSV(w io.Writer, lines [][]string) error {
	for _, line := range lines {
		for j := range line {
			line[j] = human.Printable(line[j])
		}
	}
	return csv.NewWriter(w).WriteAll(lines)
}

// heads are the titles of the columns, each written by write.
func (t *resultTable) heads(write func(tableColumn) string) []string {
	line := make([]string, len(t.columns))
	for j, c := range t.columns {
		line[j] = write(c)
	}
	return line
}

// lines are the rows of a group, each cell written by write. Where once is set,
// the label stands in the first row alone.
func (t *resultTable) lines(g tableGroup, once bool, write func(tableColumn, tableCell) string) [][]string {
	lines := make([][]string, len(g.rows))
	for i, row := range g.rows {
		lines[i] = make([]string, len(row))
		for j, c := range t.columns {
			if c.kind != labelColumn || !once || i == 0 {
				lines[i][j] = write(c, row[j])
			}
		}
	}
	return lines
}

// alignment is a letter for each column: l for left, r for right.
func (t *resultTable) alignment() string {
	return strings.Join(t.heads(func(c tableColumn) string {
		if c.isNumber() {
			return "r"
		}
		return "l"
	}), "")
}

// footer are the lines below a table.
func (t *resultTable) footer() []string {
	var lines []string
	for i, note := range t.notes {
		lines = append(lines, superscript([]int{i + 1})+" "+note.String())
	}
	return append(lines, t.legend...)
}

// renderTerminal draws a table for people at a terminal.
func renderTerminal(w io.Writer, t *resultTable) error {
	if len(t.groups) == 0 {
		return nil
	}
	var lines [][]string
	for _, g := range t.groups {
		lines = append(lines, t.lines(g, true, tableColumn.written)...)
	}
	fmt.Fprintln(w, oneLine(t.groups[0].experiment))
	fixed := 0 // label and settings
	for _, c := range t.columns {
		if c.kind == labelColumn || c.kind == settingColumn {
			fixed++
		}
	}
	if err := writeTable(w, fixed, t.alignment(), t.heads(tableColumn.head), lines); err != nil {
		return err
	}
	for _, line := range t.footer() {
		fmt.Fprintln(w, human.Wrap(oneLine(line), human.Columns(w), 2))
	}
	return nil
}

// writeTable draws a table for people at a terminal. align holds a letter for
// each column: l for left, r for right. Where it is wider than the terminal, it
// becomes several below each other, each with the fixed first columns, or where
// these are too wide, a list of the rows.
func writeTable(w io.Writer, fixed int, align string, head []string, lines [][]string) error {
	widths := make([]int, len(head))
	for _, line := range append([][]string{head}, lines...) {
		for j, text := range line {
			widths[j] = max(widths[j], runewidth.StringWidth(text))
		}
	}
	parts, fits := splitColumns(widths, fixed, human.Columns(w))
	if !fits {
		return writeList(w, fixed, head, lines)
	}
	for _, columns := range parts {
		pick := func(line []string) []string {
			var out []string
			for _, j := range columns {
				out = append(out, line[j])
			}
			return out
		}
		part := make([][]string, len(lines))
		for i, line := range lines {
			part[i] = pick(line)
		}
		if err := drawTable(w, strings.Join(pick(strings.Split(align, "")), ""), pick(head), part); err != nil {
			return err
		}
	}
	return nil
}

// splitColumns divides columns into tables that fit room, 0 for any, each with the
// fixed first ones; false where one does not fit.
func splitColumns(widths []int, fixed, room int) (parts [][]int, fits bool) {
	const rule, gap = 1, 3 // of a table, of each column
	taken := func(columns []int) int {
		n := rule
		for _, j := range columns {
			n += widths[j] + gap
		}
		return n
	}
	var first, part []int
	for j := range fixed {
		first = append(first, j)
	}
	part = slices.Clone(first)
	for j := fixed; j < len(widths); j++ {
		if room > 0 && len(part) > fixed && taken(append(slices.Clone(part), j)) > room {
			parts, part = append(parts, part), slices.Clone(first)
		}
		part = append(part, j)
		if room > 0 && taken(part) > room {
			return nil, false
		}
	}
	return append(parts, part), true
}

// writeList writes each row as lines: its first columns, then a line a value.
func writeList(w io.Writer, fixed int, head []string, lines [][]string) error {
	room := human.Columns(w)
	longest := 0
	for _, title := range head[fixed:] {
		longest = max(longest, runewidth.StringWidth(title))
	}
	above := make([]string, fixed) // a label stands in the first of its rows alone
	for _, line := range lines {
		var title []string
		for j, text := range line[:fixed] {
			if text == "" {
				text = above[j]
			}
			above[j] = text
			title = append(title, strings.TrimSpace(head[j]+" "+text))
		}
		fmt.Fprintln(w, human.Wrap(strings.Join(title, "  "), room, 2))
		for j, text := range line[fixed:] {
			pad := strings.Repeat(" ", longest-runewidth.StringWidth(head[fixed+j]))
			fmt.Fprintln(w, human.Wrap("  "+head[fixed+j]+pad+"  "+text, room, longest+4))
		}
	}
	return nil
}

// drawTable draws a table.
func drawTable(w io.Writer, align string, head []string, lines [][]string) error {
	columns := make(tw.Alignment, len(align))
	for j, letter := range align {
		columns[j] = map[rune]tw.Align{'l': tw.AlignLeft, 'r': tw.AlignRight}[letter]
	}
	t := tablewriter.NewTable(w,
		tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone), tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithEastAsian(tw.Off), tablewriter.WithAlignment(columns))
	t.Header(head)
	if err := t.Bulk(lines); err != nil {
		return err
	}
	return t.Render()
}

var markdownEscapes = strings.NewReplacer(`\`, `\\`, `|`, `\|`, `*`, `\*`, `_`, `\_`, "`", "\\`", `<`, `\<`)

// renderMarkdown draws a pipe table whose columns are aligned in the source too.
func renderMarkdown(w io.Writer, t *resultTable) error {
	lines := [][]string{t.heads(tableColumn.head)}
	for _, g := range t.groups {
		lines = append(lines, t.lines(g, false, tableColumn.written)...)
	}
	widths := make([]int, len(t.columns))
	for _, line := range lines {
		for j := range line {
			line[j] = markdownEscapes.Replace(line[j])
			widths[j] = max(widths[j], utf8.RuneCountInString(line[j]))
		}
	}
	var out strings.Builder
	for i, line := range lines {
		for j, c := range t.columns {
			gap := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(line[j]))
			if c.isNumber() {
				out.WriteString("| " + gap + line[j] + " ")
			} else {
				out.WriteString("| " + line[j] + gap + " ")
			}
		}
		out.WriteString("|\n")
		if i > 0 {
			continue
		}
		for j, c := range t.columns {
			rule := strings.Repeat("-", widths[j]+2)
			if c.isNumber() {
				rule = rule[1:] + ":"
			}
			out.WriteString("|" + rule)
		}
		out.WriteString("|\n")
	}
	for _, line := range t.footer() {
		out.WriteString("\n" + markdownEscapes.Replace(oneLine(line)) + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// renderCSV writes one table for all experiments, for programs: full precision,
// the whole path of each setting, run id, protocol and feature network of each row,
// which way each metric is better, and the ends of intervals. What a row lacks is
// empty.
func renderCSV(w io.Writer, rows []*store.Metrics, order string) error {
	t := newTable(rows)
	if err := t.sort(order); err != nil {
		return err
	}
	head := []string{"experiment"}
	for _, c := range t.columns {
		key := c.key
		switch c.kind {
		case runColumn: // every row has its id at the end
			continue
		case publishedColumn:
			key += "_published"
		}
		head = append(head, key)
		if c.spread {
			head = append(head, key+"_std")
		}
		if c.interval {
			head = append(head, key+"_low", key+"_high")
		}
		if c.kind == metricColumn {
			head = append(head, key+"_direction")
		}
	}
	lines := [][]string{append(head, "run", "protocol", "network")}
	for _, g := range t.groups {
		for _, row := range g.rows {
			line := []string{g.experiment}
			for j, cell := range row {
				c := t.columns[j]
				if c.kind == runColumn {
					continue
				}
				line = append(line, cell.exact)
				if c.spread {
					line = append(line, cell.std)
				}
				if c.interval {
					line = append(line, cell.lowest, cell.highest)
				}
				if c.kind == metricColumn {
					line = append(line, c.direction)
				}
			}
			m := t.of[&row[0]]
			lines = append(lines, append(line, m.Run, m.Protocol, networkName(m)))
		}
	}
	return writeCSV(w, lines)
}

// networkName is the feature network that a row's metrics compare, with its file.
func networkName(m *store.Metrics) string {
	for _, name := range slices.Sorted(maps.Keys(m.Inputs.Networks)) {
		if chosen, given := configOf(m)["network"]; !given || chosen == name {
			return name + " " + m.Inputs.Networks[name].Name
		}
	}
	return ""
}

// A jsonLine is one score of one row, as dashboards import it.
type jsonLine struct {
	Run        string            `json:"run"`
	Experiment string            `json:"experiment"`
	Label      string            `json:"label,omitempty"`
	Settings   map[string]string `json:"settings,omitempty"`
	Metric     string            `json:"metric"`
	Step       *float64          `json:"step,omitempty"` // the swept value, where one number is swept
	Value      float64           `json:"value"`
	Low        *float64          `json:"low,omitempty"`
	High       *float64          `json:"high,omitempty"`
	Samples    int               `json:"samples"`
}

// renderJSONLines writes a line of JSON for each score of each row, in the order of
// the experiment.
func renderJSONLines(w io.Writer, rows []*store.Metrics, order string) error {
	if order != "" {
		return human.Misusef("table: --sort is %q, but lines of JSON come in the order of the experiment", order)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, own := range byExperiment(rows) {
		path, several := sweptPath(own)
		for _, m := range own {
			line := jsonLine{Run: m.Run, Experiment: m.Experiment, Label: m.Label, Settings: map[string]string{}, Samples: m.Samples}
			for _, s := range m.Settings {
				line.Settings[s.Path] = s.Value
			}
			if step, err := strconv.ParseFloat(settingOf(m, path), 64); err == nil && several == nil && step-step == 0 {
				line.Step = &step
			}
			for _, s := range m.Scores {
				line.Metric, line.Value, line.Low, line.High = s.Name, s.Value, nil, nil
				if s.Interval != nil {
					line.Low, line.High = &s.Interval.Low, &s.Interval.High
				}
				if err := e.Encode(line); err != nil {
					return fmt.Errorf("table: %s: %w", m.Title(), err)
				}
			}
		}
	}
	return nil
}
