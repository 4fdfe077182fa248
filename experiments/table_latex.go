package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// latexEscapes also guards [ and *, which are options of \\ at the start of a row.
var latexEscapes = strings.NewReplacer(
	`[`, `{[}`, `*`, `{*}`, `|`, `\textbar{}`,
	`\`, `\textbackslash{}`, `{`, `\{`, `}`, `\}`, `&`, `\&`, `%`, `\%`, `$`, `\$`, `#`, `\#`, `_`, `\_`,
	`~`, `\textasciitilde{}`, `^`, `\textasciicircum{}`, `<`, `\textless{}`, `>`, `\textgreater{}`,
	`—`, `---`, `–`, `--`, `×`, `$\times$`, `≤`, `$\le$`, `≥`, `$\ge$`, `±`, `$\pm$`, `σ`, `$\sigma$`, `η`, `$\eta$`, `√`, `$\surd$`, `Σ`, `$\Sigma$`)

func latexText(s string) string { return latexEscapes.Replace(oneLine(s)) }

func latexMarks(numbers []int) string {
	var parts []string
	for _, n := range numbers {
		parts = append(parts, strconv.Itoa(n))
	}
	if len(parts) == 0 {
		return ""
	}
	return `\textsuperscript{` + strings.Join(parts, ",") + "}"
}

// renderLaTeX writes a tabular for booktabs. The best value of each metric in a
// group of two rows or more is bold, all of them where they are equal as printed.
func renderLaTeX(w io.Writer, t *resultTable) error {
	var out strings.Builder
	out.WriteString("% \\usepackage{booktabs}\n% bold: the best value of each metric among the rows of one model\n")
	columns := ""
	heads := make([]string, len(t.columns))
	for j, c := range t.columns {
		columns += map[bool]string{true: "r", false: "l"}[c.isNumber()]
		heads[j] = c.latexHead()
	}
	fmt.Fprintf(&out, "\\begin{tabular}{%s}\n\\toprule\n%s \\\\\n", columns, strings.Join(heads, " & "))
	for _, g := range t.groups {
		out.WriteString("\\midrule\n")
		for i, row := range g.rows {
			line := make([]string, len(row))
			for j, c := range t.columns {
				line[j] = c.latexCell(row[j], i)
			}
			out.WriteString(strings.TrimLeft(strings.Join(line, " & "), " ") + " \\\\\n")
		}
	}
	out.WriteString("\\bottomrule\n\\end{tabular}\n")
	for i, note := range t.notes {
		fmt.Fprintf(&out, "\n{\\footnotesize %s %s\\par}\n", latexMarks([]int{i + 1}), latexText(note))
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
	return title + latexMarks(c.notes)
}

func (c tableColumn) latexCell(cell tableCell, row int) string {
	if c.kind == labelColumn && row > 0 {
		return ""
	}
	text := latexText(cell.String())
	if cell.best {
		text = `\textbf{` + text + "}"
	}
	if cell.margin != "" {
		text += ` $\pm$ ` + cell.margin
	}
	return text + latexMarks(cell.notes)
}
