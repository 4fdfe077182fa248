package human

import (
	"io"
	"slices"
	"strings"

	"github.com/mattn/go-runewidth"
)

// A Table is what a table says, before it has a form.
type Table struct {
	Fixed int        // first columns, which say what a line is about
	Align string     // a letter for each column: l for left, r for right
	Head  []string   // titles of the columns
	Lines [][]string // each as long as Head. An empty one of the fixed entries is that of the line above
	Tied  []bool     // columns that stay beside the one before them; nil: none
}

// width tells columns of a terminal, whatever the language of the machine is.
var width = runewidth.Condition{StrictEmojiNeutral: true}

// Width is the columns that a text takes in a font without wide letters for Greek,
// arrows and the like.
func Width(text string) int { return width.StringWidth(text) }

// Pad fills a text with spaces to so many columns, on the right of it where align is l.
func Pad(text string, columns int, align byte) string {
	gap := strings.Repeat(" ", max(0, columns-Width(text)))
	if align == 'r' {
		return gap + text
	}
	return text + gap
}

// Widths are those of the columns.
func (t Table) Widths() []int {
	widths := make([]int, len(t.Head))
	for _, line := range append([][]string{t.Head}, t.Lines...) {
		for j, text := range line {
			widths[j] = max(widths[j], Width(text))
		}
	}
	return widths
}

// Split divides the columns into tables that are at most room wide, 0 for any, each
// with the fixed first ones: a table takes edge, and gap for each column beside its
// text. It is false where one does not fit.
func (t Table) Split(edge, gap, room int) (parts []Table, fits bool) {
	widths := t.Widths()
	var first []int
	width := edge
	for j := range t.Fixed {
		first = append(first, j)
		width += widths[j] + gap
	}
	fixed, part := width, slices.Clone(first)
	for j := t.Fixed; j < len(widths); {
		more := 0 // what the column takes, and those that stay beside it
		next := j
		for next == j || next < len(widths) && t.Tied != nil && t.Tied[next] {
			more += widths[next] + gap
			next++
		}
		if room > 0 && width+more > room && len(part) > t.Fixed {
			parts, part, width = append(parts, t.only(part)), slices.Clone(first), fixed
		}
		for width += more; j < next; j++ {
			part = append(part, j)
		}
		if room > 0 && width > room {
			return nil, false
		}
	}
	return append(parts, t.only(part)), true
}

// only is the table with these columns.
func (t Table) only(columns []int) Table {
	pick := func(line []string) []string {
		out := make([]string, len(columns))
		for i, j := range columns {
			out[i] = line[j]
		}
		return out
	}
	part := Table{Fixed: t.Fixed, Head: pick(t.Head)}
	for _, j := range columns {
		part.Align += t.Align[j : j+1]
	}
	for _, line := range t.Lines {
		part.Lines = append(part.Lines, pick(line))
	}
	return part
}

// List says the same without columns, for where they do not fit: of each line its
// fixed entries after the text row, then the others after the text entry. Lines are at
// most room wide where their words are.
func (t Table) List(row, entry string, room int) string {
	var out strings.Builder
	above := make([]string, t.Fixed)
	longest := 0
	for _, title := range t.Head[t.Fixed:] {
		longest = max(longest, Width(title))
	}
	for _, line := range t.Lines {
		var title []string
		for j, text := range line[:t.Fixed] {
			if text == "" {
				text = above[j]
			}
			above[j] = text
			title = append(title, strings.TrimSpace(t.Head[j]+" "+text))
		}
		out.WriteString(Wrap(row+strings.Join(title, "  "), room, Width(row)+2) + "\n")
		for j, text := range line[t.Fixed:] {
			head := entry + Pad(t.Head[t.Fixed+j], longest, 'l') + "  "
			out.WriteString(Wrap(head+text, room, min(Width(head), room/2)) + "\n")
		}
	}
	return out.String()
}

// Print writes the table to w, columns two spaces apart. Where it is wider than the
// terminal, it becomes several tables below each other, or a list.
func (t Table) Print(w io.Writer) error {
	const gap = "  "
	parts, fits := t.Split(-len(gap), len(gap), Columns(w))
	if !fits {
		_, err := io.WriteString(w, t.List("", gap, Columns(w)))
		return err
	}
	var out strings.Builder
	for i, part := range parts {
		if i > 0 {
			out.WriteByte('\n')
		}
		widths := part.Widths()
		for _, line := range append([][]string{part.Head}, part.Lines...) {
			cells := make([]string, len(line))
			for j, text := range line {
				cells[j] = Pad(text, widths[j], part.Align[j])
			}
			out.WriteString(strings.TrimRight(strings.Join(cells, gap), " ") + "\n")
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}
