package human

import (
	"bytes"
	"testing"
)

// fixed is a terminal of so many columns.
type fixed struct {
	bytes.Buffer
	columns int
}

func (f *fixed) Columns() int { return f.columns }

// A table is as wide as it is in a pipe; on a terminal it becomes several, with the
// columns that belong together side by side, or where one does not fit, a list.
func TestTablePrint(t *testing.T) {
	table := Table{Fixed: 2, Align: "rlrrl", Head: []string{"", "row", "FID ↓", "paper", "how"}, Tied: []bool{false, false, false, true, false},
		Lines: [][]string{{"1", "日本 s=0", "12.5", "12", "a note"}, {"10", "", "3", "—", "another note"}}}
	const pair = "    row       FID ↓  paper\n 1  日本 s=0   12.5     12\n10                3      —\n"
	for columns, want := range map[int]string{
		0:  "    row       FID ↓  paper  how\n 1  日本 s=0   12.5     12  a note\n10                3      —  another note\n",
		39: pair + "\n    row       how\n 1  日本 s=0  a note\n10            another note\n",
		26: pair + "\n    row       how\n 1  日本 s=0  a note\n10            another note\n",
		25: "1  row 日本 s=0\n  FID ↓  12.5\n  paper  12\n  how    a note\n10  row 日本 s=0\n  FID ↓  3\n  paper  —\n  how    another note\n",
		16: "1  row 日本 s=0\n  FID ↓  12.5\n  paper  12\n  how    a note\n10  row 日本 s=0\n  FID ↓  3\n  paper  —\n  how    another\n        note\n",
	} {
		out := &fixed{columns: columns}
		if err := table.Print(out); err != nil || out.String() != want {
			t.Errorf("%d columns: %v\n%s\nwant\n%s", columns, err, out, want)
		}
	}
}
