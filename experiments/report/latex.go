package report

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"sagbench/experiments/human"
)

// renderLaTeX writes a table environment that pdflatex sets with booktabs alone,
// within a column of a two-column article if it fits there, or across both (table*).
// Columns that do not fit even so go into a second tabular below. The best value of
// each metric in a group of two rows or more is bold, all of them where they are
// equal as printed.
func renderLaTeX(w io.Writer, t *resultTable) error {
	if len(t.groups) == 0 {
		return nil
	}
	l := newLatexLayout(t)
	var out strings.Builder
	out.WriteString("% \\usepackage{booktabs}\n% bold: the best value of each metric among the rows of one model\n")
	fmt.Fprintf(&out, "\\begin{%s}[tb]\n\\centering\n\\%s\n\\setlength{\\tabcolsep}{%dpt}\n", l.environment, l.font.name, texColumnGap)
	fmt.Fprintf(&out, "\\caption{%s}\n\\label{tab:%s}\n", t.caption(), texLabel(t.groups[0].experiment))
	for i, columns := range l.parts {
		if i > 0 {
			out.WriteString("\n\\par\\medskip\n")
		}
		l.tabular(&out, columns)
	}
	notes := slices.Clone(t.legend)
	for i, note := range slices.Backward(t.notes) {
		notes = slices.Insert(notes, 0, texFootnotes([]int{i + 1})+" "+texText(note.String()))
	}
	for i := range t.legend {
		notes[len(t.notes)+i] = texText(t.legend[i])
	}
	if len(notes) > 0 {
		fmt.Fprintf(&out, "\n\\par\\smallskip\n\\begin{minipage}{\\linewidth}\\scriptsize\\raggedright\n%s\n\\end{minipage}\n", strings.Join(notes, "\\par\n"))
	}
	fmt.Fprintf(&out, "\\end{%s}\n", l.environment)
	_, err := io.WriteString(w, out.String())
	return err
}

// caption says what the rows are, and of how many images where all have the same.
func (t *resultTable) caption() string {
	var metrics []string
	for _, c := range t.columns {
		if c.kind == metricColumn {
			metrics = append(metrics, texText(c.title))
		}
	}
	text := texText(t.groups[0].experiment)
	if len(metrics) > 0 {
		text += ": " + list(metrics, "and")
	}
	if n, same := t.sameImages(); same {
		text += " of " + n + " images a row"
	}
	return text + "."
}

// sameImages is the number of images, where every row has the same.
func (t *resultTable) sameImages() (string, bool) {
	j := slices.IndexFunc(t.columns, func(c tableColumn) bool { return c.kind == samplesColumn })
	if j < 0 {
		return "", false
	}
	n := -1.0
	for row := range t.rows() {
		if n >= 0 && row[j].value != n {
			return "", false
		}
		n = row[j].value
	}
	return human.Count(int(n)), n >= 0
}

// texLabel is a name as \label takes it.
func texLabel(name string) string {
	return strings.Trim(regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(name, "-"), "-")
}

// The widths that a table may have, in points: those of article's twocolumn on
// letter paper, less a little for what the estimate of a text's width lacks.
const (
	texColumnWidth = 226
	texPageWidth   = 462
	texColumnGap   = 3  // on either side of a column
	texWidest      = 90 // of a text in a column; longer ones are broken
)

// texFonts are the sizes that are tried, largest first.
var texFonts = []texFont{{"small", 9}, {"footnotesize", 8}, {"scriptsize", 7}}

type texFont struct {
	name   string
	points float64
}

// A latexLayout is how a table is fitted to the page.
type latexLayout struct {
	t           *resultTable
	environment string // table or table*
	font        texFont
	width       float64 // at hand
	parts       [][]int // the columns of each tabular
}

func newLatexLayout(t *resultTable) *latexLayout {
	var all, fixed, free []int // columns: all, those that every part repeats, the others
	_, same := t.sameImages()
	for j, c := range t.columns {
		switch {
		case c.kind == labelColumn, c.kind == samplesColumn && same: // a line above its rows; in the caption
			continue
		case c.kind == settingColumn:
			fixed = append(fixed, j)
		default:
			free = append(free, j)
		}
		all = append(all, j)
	}
	for _, place := range []struct {
		environment string
		width       float64
	}{{"table", texColumnWidth}, {"table*", texPageWidth}} {
		for _, font := range texFonts {
			l := &latexLayout{t, place.environment, font, place.width, [][]int{all}}
			if l.widthOf(all) <= l.width {
				return l
			}
		}
	}
	l := &latexLayout{t: t, environment: "table*", font: texFonts[len(texFonts)-1], width: texPageWidth}
	part := slices.Clone(fixed)
	for len(free) > 0 {
		n := 1 // with the authors' values, which stay beside it
		for n < len(free) && t.columns[free[n]].kind == publishedColumn {
			n++
		}
		own := free[:n]
		free = free[n:]
		if len(part) > len(fixed) && l.widthOf(slices.Concat(part, own)) > l.width {
			l.parts, part = append(l.parts, part), slices.Clone(fixed)
		}
		part = append(part, own...)
	}
	l.parts = append(l.parts, part)
	return l
}

// widthOf is about what a tabular of these columns takes, in points.
func (l *latexLayout) widthOf(columns []int) float64 {
	sum := 0.0
	for _, j := range columns {
		sum += l.columnWidth(j) + 2*texColumnGap
	}
	return sum
}

// columnWidth is about what a column takes, in points, without its gaps.
func (l *latexLayout) columnWidth(j int) float64 {
	c := l.t.columns[j]
	widest := textWidth(c.head())
	for row := range l.t.rows() {
		widest = max(widest, textWidth(c.written(row[j])))
	}
	return min(widest*l.font.points, texWidest)
}

// broken reports whether the column's texts are broken into lines.
func (l *latexLayout) broken(j int) bool { return l.columnWidth(j) >= texWidest }

// textWidth is about the width of a text in Computer Modern, in em, rather too
// wide.
func textWidth(text string) float64 {
	sum := 0.0
	for _, r := range text {
		switch {
		case strings.ContainsRune("mwMW@%—", r):
			sum += 1.05
		case unicode.IsUpper(r):
			sum += 0.82
		case strings.ContainsRune("↓↑", r):
			sum += 0.95
		case strings.ContainsRune("ijl.,:;'| ", r):
			sum += 0.38
		case strings.ContainsRune("⁰¹²³⁴⁵⁶⁷⁸⁹", r):
			sum += 0.45
		default: // digits of the smallest font, ± less the thin spaces around it
			sum += 0.575
		}
	}
	return sum
}

// tabular writes one tabular with these columns.
func (l *latexLayout) tabular(out *strings.Builder, columns []int) {
	t := l.t
	var align []string
	for _, j := range columns {
		switch {
		case l.broken(j):
			align = append(align, fmt.Sprintf("p{%dpt}", texWidest))
		case t.columns[j].isNumber():
			align = append(align, "r")
		default:
			align = append(align, "l")
		}
	}
	pick := func(all []string) string {
		var cells []string
		for _, j := range columns {
			cells = append(cells, all[j])
		}
		return strings.Join(cells, " & ")
	}
	fmt.Fprintf(out, "\\begin{tabular}{%s}\n\\toprule\n%s \\\\\n", strings.Join(align, ""), pick(t.heads(tableColumn.latexHead)))
	for _, g := range t.groups {
		out.WriteString("\\midrule\n")
		if g.label != "" {
			out.WriteString(l.groupHead(g.label, columns))
		}
		for _, line := range t.lines(g, false, l.cell) {
			out.WriteString(pick(line) + " \\\\\n")
		}
	}
	out.WriteString("\\bottomrule\n\\end{tabular}\n")
}

// groupHead is the line above the rows of a label.
func (l *latexLayout) groupHead(label string, columns []int) string {
	text := `\emph{` + texText(label) + "}"
	if room := min(max(l.widthOf(columns), 60), l.width) - 2*texColumnGap; textWidth(oneLine(label))*l.font.points > room {
		text = fmt.Sprintf(`\parbox{%.0fpt}{\raggedright %s}`, room, text)
	}
	return fmt.Sprintf("\\multicolumn{%d}{l}{%s} \\\\\n", len(columns), text)
}

// cell is a cell of a column that may be broken into lines.
func (l *latexLayout) cell(c tableColumn, cell tableCell) string {
	if j := slices.IndexFunc(l.t.columns, func(o tableColumn) bool { return o.kind == c.kind && o.key == c.key }); !l.broken(j) {
		return c.latexCell(cell)
	}
	return texWords(cell.String(), 12) + texFootnotes(cell.notes)
}

func (c tableColumn) latexHead() string {
	title := texText(c.title)
	if c.kind == settingColumn && c.title == "s" {
		title = "$s$"
	}
	if arrow := c.arrow(); arrow != "" {
		title += " " + texText(arrow)
	}
	return title + texFootnotes(c.notes)
}

func (c tableColumn) latexCell(cell tableCell) string {
	text := texText(cell.String())
	if cell.best {
		text = `\textbf{` + text + "}"
	}
	if cell.margin != "" {
		text += `\,$\pm$\,` + cell.margin
	}
	return text + texFootnotes(cell.notes)
}

func texFootnotes(numbers []int) string {
	if len(numbers) == 0 {
		return ""
	}
	return `\textsuperscript{` + footnotes(numbers) + "}"
}

// texSigns are the characters that stand for something else in TeX, or that its
// usual fonts lack. [ and * at the start of a row would be options of \\.
var texSigns = map[rune]string{
	'[': `{[}`, '*': `{*}`, '|': `\textbar{}`, '"': `''`,
	'\\': `\textbackslash{}`, '{': `\{`, '}': `\}`, '&': `\&`, '%': `\%`, '$': `\$`, '#': `\#`, '_': `\_`,
	'~': `\textasciitilde{}`, '^': `\textasciicircum{}`, '<': `\textless{}`, '>': `\textgreater{}`, '`': `\textasciigrave{}`,
	'—': `---`, '–': `--`, '−': `$-$`, '…': `\ldots{}`, '“': "``", '”': `''`, '„': `,,`, '‘': "`", '’': `'`, '«': `$\ll$`, '»': `$\gg$`,
	'×': `$\times$`, '≤': `$\le$`, '≥': `$\ge$`, '±': `$\pm$`, '√': `$\surd$`, '∞': `$\infty$`, '≈': `$\approx$`, '→': `$\to$`, '↑': `$\uparrow$`, '↓': `$\downarrow$`,
	'·': `$\cdot$`, '∅': `$\emptyset$`, '°': `$^\circ$`, '½': `$\frac12$`, '∇': `$\nabla$`, '∈': `$\in$`,
	'₀': `$_0$`, '₁': `$_1$`, '₂': `$_2$`, '₃': `$_3$`, '₄': `$_4$`, '₅': `$_5$`, '₆': `$_6$`, '₇': `$_7$`, '₈': `$_8$`, '₉': `$_9$`, 'ₜ': `$_t$`,
	'⁰': `$^0$`, '¹': `$^1$`, '²': `$^2$`, '³': `$^3$`, '⁴': `$^4$`, '⁵': `$^5$`, '⁶': `$^6$`, '⁷': `$^7$`, '⁸': `$^8$`, '⁹': `$^9$`, '⁻': `$^-$`, 'ᵀ': `$^{\mathrm{T}}$`,
	'α': `$\alpha$`, 'β': `$\beta$`, 'γ': `$\gamma$`, 'δ': `$\delta$`, 'ε': `$\varepsilon$`, 'ζ': `$\zeta$`, 'η': `$\eta$`, 'θ': `$\theta$`, 'ι': `$\iota$`, 'κ': `$\kappa$`, 'λ': `$\lambda$`, 'μ': `$\mu$`, 'µ': `$\mu$`, 'ν': `$\nu$`, 'ξ': `$\xi$`, 'ο': `o`, 'π': `$\pi$`, 'ρ': `$\rho$`, 'σ': `$\sigma$`, 'ς': `$\varsigma$`, 'τ': `$\tau$`, 'υ': `$\upsilon$`, 'φ': `$\varphi$`, 'χ': `$\chi$`, 'ψ': `$\psi$`, 'ω': `$\omega$`,
	'Γ': `$\Gamma$`, 'Δ': `$\Delta$`, 'Θ': `$\Theta$`, 'Λ': `$\Lambda$`, 'Ξ': `$\Xi$`, 'Π': `$\Pi$`, 'Σ': `$\Sigma$`, 'Φ': `$\Phi$`, 'Ψ': `$\Psi$`, 'Ω': `$\Omega$`,
	'ß': `\ss{}`, 'æ': `\ae{}`, 'Æ': `\AE{}`, 'œ': `\oe{}`, 'Œ': `\OE{}`, 'ø': `\o{}`, 'Ø': `\O{}`, 'ł': `\l{}`, 'Ł': `\L{}`, 'ı': `\i{}`,
}

// texAccents set the letter before a combining character.
var texAccents = map[rune]string{
	'\u0300': "`", '\u0301': `'`, '\u0302': `^`, '\u0303': `~`, '\u0304': `=`, '\u0306': `u`, '\u0307': `.`, '\u0308': `"`,
	'\u030A': `r`, '\u030B': `H`, '\u030C': `v`, '\u0323': `d`, '\u0327': `c`, '\u0331': `b`,
}

// texText writes a text for TeX: what its usual fonts lack is spelled out, letters of
// other scripts as their number in Unicode.
func texText(s string) string { return texWords(s, 40) }

// texWords is texText whose words may be broken between any letters if they have more
// than longest.
func texWords(s string, longest int) string {
	words := strings.Split(oneLine(s), " ")
	for i, word := range words {
		var letters []string // with their accents
		for _, r := range norm.NFD.String(word) {
			accent, isAccent := texAccents[r]
			sign, isSign := texSigns[r]
			switch last := len(letters) - 1; {
			case isAccent && last >= 0:
				letters[last] = `\` + accent + "{" + letters[last] + "}"
			case isSign:
				letters = append(letters, sign)
			case r < unicode.MaxASCII && !isAccent:
				letters = append(letters, string(r))
			default:
				letters = append(letters, fmt.Sprintf("(U+%04X)", r))
			}
		}
		between := ""
		if len(letters) > longest {
			between = `\allowbreak{}`
		}
		words[i] = strings.Join(letters, between)
	}
	return strings.Join(words, " ")
}
