package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

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

// forPeople is the table as texts. Where once is set, a label stands in the first of
// its rows alone.
func (t *resultTable) forPeople(once bool) human.Table {
	out := human.Table{Head: t.heads(tableColumn.head)}
	for _, c := range t.columns {
		if c.kind == labelColumn || c.kind == settingColumn {
			out.Fixed++ // which come first
		}
		if c.isNumber() {
			out.Align += "r"
		} else {
			out.Align += "l"
		}
		out.Tied = append(out.Tied, c.kind == publishedColumn)
	}
	for _, g := range t.groups {
		out.Lines = append(out.Lines, t.lines(g, once, tableColumn.written)...)
	}
	return out
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
	fmt.Fprintln(w, oneLine(t.groups[0].experiment))
	if err := writeTable(w, t.forPeople(true)); err != nil {
		return err
	}
	for _, line := range t.footer() {
		fmt.Fprintln(w, human.Wrap(oneLine(line), human.Columns(w), 2))
	}
	return nil
}

// writeTable draws a table for people at a terminal. Where it is wider than the
// terminal, it becomes several below each other, or a list of the rows.
func writeTable(w io.Writer, t human.Table) error {
	room := human.Columns(w)
	parts, fits := t.Split(ruleWidth, cellGap, room)
	if !fits {
		_, err := io.WriteString(w, t.List("", "  ", room))
		return err
	}
	for _, part := range parts {
		if err := drawTable(w, part); err != nil {
			return err
		}
	}
	return nil
}

// What a table of ours takes beside its texts: a rule at its edge, and for each column
// a rule and two spaces.
const ruleWidth, cellGap = 1, 3

// drawTable draws a table.
func drawTable(w io.Writer, t human.Table) error {
	columns := make(tw.Alignment, len(t.Align))
	for j, letter := range t.Align {
		columns[j] = map[rune]tw.Align{'l': tw.AlignLeft, 'r': tw.AlignRight}[letter]
	}
	drawn := tablewriter.NewTable(w,
		tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone), tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithEastAsian(tw.Off), tablewriter.WithAlignment(columns))
	drawn.Header(t.Head)
	if err := drawn.Bulk(t.Lines); err != nil {
		return err
	}
	return drawn.Render()
}

// markdownWidth is how many columns a line of Markdown has at most, where words allow.
const markdownWidth = 100

var markdownEscapes = strings.NewReplacer(`\`, `\\`, `|`, `\|`, `*`, `\*`, `_`, `\_`, "`", "\\`", `<`, `\<`)

// markdownText is a text for Markdown.
func markdownText(text string) string { return markdownEscapes.Replace(oneLine(text)) }

// renderMarkdown draws a pipe table whose columns are aligned in the source too. One
// that is too wide becomes several, or a list of the rows.
func renderMarkdown(w io.Writer, t *resultTable) error {
	whole := t.forPeople(false)
	for _, line := range append([][]string{whole.Head}, whole.Lines...) {
		for j := range line {
			line[j] = markdownText(line[j])
		}
	}
	var blocks []string // with an empty line between them
	if parts, fits := whole.Split(ruleWidth, cellGap, markdownWidth); fits {
		for _, part := range parts {
			blocks = append(blocks, markdownTable(part))
		}
	} else {
		blocks = append(blocks, whole.List("- ", "  - ", markdownWidth))
	}
	for _, line := range t.footer() {
		blocks = append(blocks, markdownParagraph(line))
	}
	_, err := io.WriteString(w, strings.Join(blocks, "\n"))
	return err
}

// markdownTable is a pipe table.
func markdownTable(t human.Table) string {
	widths := t.Widths()
	var out strings.Builder
	write := func(line []string) {
		for j, text := range line {
			out.WriteString("| " + human.Pad(text, widths[j], t.Align[j]) + " ")
		}
		out.WriteString("|\n")
	}
	write(t.Head)
	for j, width := range widths {
		rule := strings.Repeat("-", width+2)
		if t.Align[j] == 'r' {
			rule = rule[1:] + ":"
		}
		out.WriteString("|" + rule)
	}
	out.WriteString("|\n")
	for _, line := range t.Lines {
		write(line)
	}
	return out.String()
}

// opensBlock matches the begin of a line that Markdown would take for a list, a
// heading or the like.
var opensBlock = regexp.MustCompile(`(?m)^(\d*)([-+#>=~.)])`)

// markdownParagraph is a text as a paragraph in lines that are not too wide.
func markdownParagraph(text string) string {
	return opensBlock.ReplaceAllString(human.Wrap(markdownText(text), markdownWidth-1, 0), `$1\$2`) + "\n"
}

// renderCSV writes one table for all experiments, for programs: full precision,
// the whole path of each setting, run id, protocol and feature network of each row,
// which way each metric is better, and the ends of intervals. What a row lacks is
// empty.
func renderCSV(w io.Writer, rows []*store.Metrics, o TableOptions) error {
	t := newTable(rows, false)
	if err := t.sort(o.Sort); err != nil {
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
func renderJSONLines(w io.Writer, rows []*store.Metrics, o TableOptions) error {
	if o.Sort != "" {
		return human.Misusef("table: --sort is %q, but lines of JSON come in the order of the experiment", o.Sort)
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
