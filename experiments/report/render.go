package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

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
	if err := writeTable(w, t.alignment(), t.heads(tableColumn.head), lines); err != nil {
		return err
	}
	for _, line := range t.footer() {
		fmt.Fprintln(w, oneLine(line))
	}
	return nil
}

// writeTable draws a table for people at a terminal. align holds a letter for
// each column: l for left, r for right.
func writeTable(w io.Writer, align string, head []string, lines [][]string) error {
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
// the whole path of each setting, empty where there is nothing.
func renderCSV(w io.Writer, rows []*store.Metrics, order string) error {
	t := newTable(rows)
	if err := t.sort(order); err != nil {
		return err
	}
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
	lines := [][]string{head}
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
			lines = append(lines, line)
		}
	}
	return writeCSV(w, lines)
}

// latexEscapes also guards [ and *, which are options of \\ at the start of a row.
var latexEscapes = strings.NewReplacer(
	`[`, `{[}`, `*`, `{*}`, `|`, `\textbar{}`,
	`\`, `\textbackslash{}`, `{`, `\{`, `}`, `\}`, `&`, `\&`, `%`, `\%`, `$`, `\$`, `#`, `\#`, `_`, `\_`,
	`~`, `\textasciitilde{}`, `^`, `\textasciicircum{}`, `<`, `\textless{}`, `>`, `\textgreater{}`,
	`—`, `---`, `–`, `--`, `×`, `$\times$`, `≤`, `$\le$`, `≥`, `$\ge$`, `±`, `$\pm$`, `σ`, `$\sigma$`, `η`, `$\eta$`, `√`, `$\surd$`, `Σ`, `$\Sigma$`)

func latexText(s string) string { return latexEscapes.Replace(oneLine(s)) }

func latexFootnotes(numbers []int) string {
	if len(numbers) == 0 {
		return ""
	}
	return `\textsuperscript{` + footnotes(numbers) + "}"
}

// renderLaTeX writes a tabular for booktabs. The best value of each metric in a
// group of two rows or more is bold, all of them where they are equal as printed.
func renderLaTeX(w io.Writer, t *resultTable) error {
	var out strings.Builder
	out.WriteString("% \\usepackage{booktabs}\n% bold: the best value of each metric among the rows of one model\n")
	fmt.Fprintf(&out, "\\begin{tabular}{%s}\n\\toprule\n%s \\\\\n", t.alignment(), strings.Join(t.heads(tableColumn.latexHead), " & "))
	for _, g := range t.groups {
		out.WriteString("\\midrule\n")
		for _, line := range t.lines(g, true, tableColumn.latexCell) {
			out.WriteString(strings.TrimLeft(strings.Join(line, " & "), " ") + " \\\\\n")
		}
	}
	out.WriteString("\\bottomrule\n\\end{tabular}\n")
	for i, note := range t.notes {
		fmt.Fprintf(&out, "\n{\\footnotesize %s %s\\par}\n", latexFootnotes([]int{i + 1}), latexText(note.String()))
	}
	for _, line := range t.legend {
		fmt.Fprintf(&out, "\n{\\footnotesize %s\\par}\n", latexText(line))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (c tableColumn) latexHead() string {
	title := latexText(c.title)
	if c.kind == settingColumn && c.title == "s" {
		title = "$s$"
	}
	switch c.arrow() {
	case "↑":
		title += ` $\uparrow$`
	case "↓":
		title += ` $\downarrow$`
	}
	return title + latexFootnotes(c.notes)
}

func (c tableColumn) latexCell(cell tableCell) string {
	text := latexText(cell.String())
	if cell.best {
		text = `\textbf{` + text + "}"
	}
	if cell.margin != "" {
		text += ` $\pm$ ` + cell.margin
	}
	return text + latexFootnotes(cell.notes)
}
