package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
)

// narrow is a terminal of so many columns.
type narrow struct {
	bytes.Buffer
	columns int
}

func (n *narrow) Columns() int { return n.columns }

// No line of a table is wider than the terminal, and every value is there.
func TestTablesFitTheTerminal(t *testing.T) {
	rows := tableCases()["table1"]
	rows[1].Scores[1].Warnings = []string{"a warning of a length that no terminal of eighty columns takes on one line, whatever its font"}
	for _, columns := range []int{0, 120, 80, 60, 40, 24} {
		out := &narrow{columns: columns}
		if err := tableFormats["terminal"](out, rows, ""); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := runewidth.StringWidth(strings.TrimRight(line, "\n")); columns > 0 && n > columns {
				t.Errorf("%d columns: a line of %d: %s", columns, n, line)
			}
		}
		joined := strings.Join(strings.Fields(out.String()), " ")
		for _, want := range []string{"ImageNet (uncond.)", "LSUN Cat", "26.31", "45.10", "0.590", "0.60", "512", "FID", "whatever its font"} {
			if !strings.Contains(joined, want) {
				t.Errorf("%d columns: no %q in\n%s", columns, want, out.String())
			}
		}
	}
}
