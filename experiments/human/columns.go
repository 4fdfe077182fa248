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

// Wrap breaks a text between words into lines of at most so many columns, those
// after the first indented. Words that are longer stay whole; columns 0 breaks
// nothing.
func Wrap(text string, columns, indent int) string {
	if columns <= 0 || Wide(text) <= columns {
		return text
	}
	var out strings.Builder
	at := 0
	for i, word := range strings.Fields(text) {
		switch n := Wide(word); {
		case i == 0:
			at = n
		case at+1+n <= columns:
			out.WriteByte(' ')
			at += 1 + n
		default:
			out.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent + n
		}
		out.WriteString(word)
	}
	return out.String()
}
