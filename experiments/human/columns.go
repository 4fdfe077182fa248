package human

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Columns are those of the terminal that w writes to; 0 where it is none.
func Columns(w io.Writer) int {
	if t, ok := w.(interface{ Columns() int }); ok {
		return t.Columns()
	}
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}

// Wrap breaks the lines of a text between words, so that they have at most so many
// columns; what follows a break is indented. Words that are longer stay whole; columns
// 0 breaks nothing.
func Wrap(text string, columns, indent int) string {
	if columns <= 0 || Wide(text) <= columns {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = wrapLine(line, columns, indent)
	}
	return strings.Join(lines, "\n")
}

func wrapLine(line string, columns, indent int) string {
	words := strings.Split(line, " ") // an empty one is a further space
	var out strings.Builder
	out.WriteString(words[0])
	at, begun := Wide(words[0]), words[0] != "" // columns of this line, and whether it has a word
	for _, word := range words[1:] {
		n := Wide(word)
		switch {
		case at+1+n <= columns || !begun:
			out.WriteString(" " + word)
			at += 1 + n
		case word != "":
			out.WriteString("\n" + strings.Repeat(" ", indent) + word)
			at = indent + n
		}
		begun = begun || word != ""
	}
	return out.String()
}
