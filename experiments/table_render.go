package main

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/tw"
)

// superscript writes footnote numbers: ¹ or ¹,³.
func superscript(numbers []int) string {
	var parts []string
	for _, n := range numbers {
		parts = append(parts, strings.Map(func(r rune) rune { return []rune("⁰¹²³⁴⁵⁶⁷⁸⁹")[r-'0'] }, strconv.Itoa(n)))
	}
	return strings.Join(parts, ",")
}

// head is a column's title for people.
func (c tableColumn) head() string {
	return strings.TrimSpace(c.title+" "+c.arrow()) + superscript(c.notes)
}

// written is a cell for people; a label is written once a group where once is set.
func (c tableColumn) written(cell tableCell, row int, once bool) string {
	if c.kind == labelColumn && once && row > 0 {
		return ""
	}
	text := cell.String()
	if cell.margin != "" {
		text += " ± " + cell.margin
	}
	return text + superscript(cell.notes)
}

// footer are the lines below a table.
func (t *resultTable) footer() []string {
	var lines []string
	for i, note := range t.notes {
		lines = append(lines, superscript([]int{i + 1})+" "+note)
	}
	return append(lines, t.legend...)
}

// renderTerminal draws a table for people at a terminal.
func renderTerminal(w io.Writer, t *resultTable) error {
	if len(t.groups) == 0 {
		return nil
	}
	align := make(tw.Alignment, len(t.columns))
	head := make([]string, len(t.columns))
	for j, c := range t.columns {
		align[j], head[j] = tw.AlignLeft, c.head()
		if c.isNumber() {
			align[j] = tw.AlignRight
		}
	}
	var lines [][]string
	for _, g := range t.groups {
		for i, row := range g.rows {
			line := make([]string, len(row))
			for j, c := range t.columns {
				line[j] = oneLine(c.written(row[j], i, true))
			}
			lines = append(lines, line)
		}
	}
	fmt.Fprintln(w, t.groups[0].experiment)
	if err := writeTable(w, head, lines, align); err != nil {
		return err
	}
	for _, line := range t.footer() {
		fmt.Fprintln(w, line)
	}
	return nil
}

// writeTable draws a table for people at a terminal.
func writeTable(w io.Writer, head []string, lines [][]string, align tw.Alignment) error {
	t := tablewriter.NewTable(w,
		tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone), tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithEastAsian(tw.Off), tablewriter.WithAlignment(align))
	t.Header(head)
	if err := t.Bulk(lines); err != nil {
		return err
	}
	return t.Render()
}

// oneLine keeps a label or setting on its line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

var markdownEscapes = strings.NewReplacer(`\`, `\\`, `|`, `\|`, `*`, `\*`, `_`, `\_`, "`", "\\`", `<`, `\<`)

// renderMarkdown draws a pipe table whose columns are aligned in the source too.
func renderMarkdown(w io.Writer, t *resultTable) error {
	lines := make([][]string, 1)
	for _, c := range t.columns {
		lines[0] = append(lines[0], markdownEscapes.Replace(oneLine(c.head())))
	}
	for _, g := range t.groups {
		for i, row := range g.rows {
			line := make([]string, len(row))
			for j, c := range t.columns {
				line[j] = markdownEscapes.Replace(oneLine(c.written(row[j], i, false)))
			}
			lines = append(lines, line)
		}
	}
	var out strings.Builder
	for i, line := range lines {
		t.pipes(&out, lines, line)
		if i > 0 {
			continue
		}
		for j, c := range t.columns {
			rule := strings.Repeat("-", widest(lines, j)+2)
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

// pipes writes one line of a pipe table.
func (t *resultTable) pipes(out *strings.Builder, lines [][]string, line []string) {
	for j, cell := range line {
		gap := strings.Repeat(" ", widest(lines, j)-utf8.RuneCountInString(cell))
		if t.columns[j].isNumber() {
			out.WriteString("| " + gap + cell + " ")
		} else {
			out.WriteString("| " + cell + gap + " ")
		}
	}
	out.WriteString("|\n")
}

// widest is the width of column j in characters.
func widest(lines [][]string, j int) int {
	line := slices.MaxFunc(lines, func(a, b []string) int {
		return cmp.Compare(utf8.RuneCountInString(a[j]), utf8.RuneCountInString(b[j]))
	})
	return utf8.RuneCountInString(line[j])
}

// renderCSV writes one table for all experiments, for programs: full precision,
// the whole path of each setting, empty where there is nothing.
func renderCSV(w io.Writer, rows []*Metrics, order string) error {
	t := newTable(rows)
	if err := t.sort(order); err != nil {
		return err
	}
	out := csv.NewWriter(w)
	head := []string{"experiment"}
	for _, c := range t.columns {
		key := c.key
		if c.kind == publishedColumn {
			key += "_published"
		}
		head = append(head, key)
		if c.spread {
			head = append(head, key+"_std")
		}
		if c.interval {
			head = append(head, key+"_low", key+"_high")
		}
	}
	if err := out.Write(head); err != nil {
		return fmt.Errorf("table: %w", err)
	}
	for _, g := range t.groups {
		for _, row := range g.rows {
			line := []string{g.experiment}
			for j, cell := range row {
				line = append(line, cell.exact)
				if t.columns[j].spread {
					line = append(line, cell.std)
				}
				if t.columns[j].interval {
					line = append(line, cell.lowest, cell.highest)
				}
			}
			if err := out.Write(line); err != nil {
				return fmt.Errorf("table: %w", err)
			}
		}
	}
	out.Flush()
	return out.Error()
}
