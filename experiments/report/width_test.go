package report

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"

	"sagbench/eval"
	"sagbench/experiments/store"
)

// narrow is a terminal of so many columns.
type narrow struct {
	bytes.Buffer
	columns int
}

func (n *narrow) Columns() int { return n.columns }

// checkWidth fails where a line is wider than so many columns, or a text is missing.
func checkWidth(t *testing.T, out string, columns int, texts ...string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if n := runewidth.StringWidth(strings.TrimRight(line, "\n")); columns > 0 && n > columns {
			t.Errorf("%d columns: a line of %d: %s", columns, n, line)
		}
	}
	joined := strings.Join(strings.Fields(out), " ")
	for _, want := range texts {
		if !strings.Contains(joined, want) {
			t.Errorf("%d columns: no %q in\n%s", columns, want, out)
		}
	}
}

// No line of a table is wider than the terminal, and every value is there.
func TestTablesFitTheTerminal(t *testing.T) {
	rows := tableCases()["table1"]
	rows[1].Scores[1].Warnings = []string{"a warning of a length that no terminal of eighty columns takes on one line, whatever its font"}
	for _, columns := range []int{0, 120, 80, 60, 40, 24} {
		out := &narrow{columns: columns}
		if err := tableFormats["terminal"](out, rows, TableOptions{}); err != nil {
			t.Fatal(err)
		}
		checkWidth(t, out.String(), columns, "ImageNet (uncond.)", "LSUN Cat", "26.31", "45.10", "0.590", "0.60", "512", "FID", "whatever its font")
	}
}

// wideRows have many metrics with intervals and the authors' values, and footnotes.
func wideRows() []*store.Metrics {
	rows := tableCases()["table1"]
	for i, m := range rows {
		for k := range 9 {
			name := fmt.Sprintf("metric%d", k)
			value := float64(1000*i + 10*k)
			m.Scores = append(m.Scores, store.Score{Name: name, Title: "Metric " + fmt.Sprint(k), Value: value, Direction: store.LowerIsBetter, Decimals: 2,
				Interval: &eval.Interval{Low: value - 1.25, High: value + 1.25}, Warnings: []string{strings.Repeat("a long warning ", 12) + "- 7. # end of " + name}})
			m.Published[name] = value + 0.5
		}
	}
	return rows
}

// Markdown has 100 columns at most: a table that is wider becomes several, each with
// label and setting and the authors' value beside ours, and footnotes are broken into
// lines that begin no list. Rows whose names are too long become a list.
func TestMarkdownFits(t *testing.T) {
	rows := wideRows()
	var out bytes.Buffer
	if err := tableFormats["markdown"](&out, rows, TableOptions{}); err != nil {
		t.Fatal(err)
	}
	var values []string
	for i := range rows {
		for k := range 9 {
			values = append(values, fmt.Sprintf("| %d.00 ± 1.25 | %d.5 |", 1000*i+10*k, 1000*i+10*k))
		}
	}
	checkWidth(t, out.String(), 100, append(values, `- 7\. # end of metric8`)...)
	tables := 0
	blocks := strings.Split(strings.TrimSpace(out.String()), "\n\n")
	for _, block := range blocks {
		lines := strings.Split(block, "\n")
		if !strings.HasPrefix(block, "|") {
			for _, line := range lines {
				if regexp.MustCompile(`^(\d*[.)]|[-+#>])`).MatchString(line) {
					t.Errorf("a line of a footnote begins a block: %s", line)
				}
			}
			continue
		}
		tables++
		if len(lines) != 2+len(rows) {
			t.Errorf("%d lines in\n%s", len(lines), block)
		}
		for i, line := range lines {
			if strings.Count(line, "|") != strings.Count(lines[0], "|") || i > 1 && !strings.Contains(line, rows[i-2].Label) || len(line)-len(strings.TrimLeft(line, "| ")) != 2 && i != 1 {
				t.Errorf("line %d of\n%s", i, block)
			}
		}
	}
	if tables < 3 || len(blocks) < tables+9 {
		t.Errorf("%d tables in %d blocks", tables, len(blocks))
	}

	for _, m := range rows {
		m.Label += strings.Repeat(" with a name", 9)
	}
	out.Reset()
	if err := tableFormats["markdown"](&out, rows, TableOptions{}); err != nil {
		t.Fatal(err)
	}
	checkWidth(t, out.String(), 100, "- model ImageNet (uncond.) with a name", "s 0.5 - FID ↓¹ 20.30", "- Metric 8 ↓¹⁰ 4080.00 ± 1.25 - paper 4080.5")
}

// Footnotes tell by which arithmetic a score was computed where that is asked for
// alone; CSV never does.
func TestNumerics(t *testing.T) {
	const arithmetic = "eigenvalues of a product"
	rows := tableCases()["one"]
	rows[0].Scores[0].Numerics, rows[0].Scores[0].Note = arithmetic, "k = 3"
	for _, format := range TableFormats() {
		for _, verbose := range []bool{false, true} {
			var out bytes.Buffer
			if err := tableFormats[format](&out, rows, TableOptions{Verbose: verbose}); err != nil {
				t.Fatal(err)
			}
			forPeople := format != "csv" && format != "jsonl"
			if strings.Contains(out.String(), arithmetic) != (verbose && forPeople) || strings.Contains(out.String(), "k = 3") != forPeople {
				t.Errorf("%s, verbose %v:\n%s", format, verbose, &out)
			}
		}
	}
	e := &store.Evaluation{Protocol: "adm", Scores: rows[0].Scores}
	for verbose, want := range map[bool]string{false: "k = 3 ", true: "k = 3; " + arithmetic} {
		var out bytes.Buffer
		if err := PrintEvaluation(&out, e, verbose); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v\n%s", err, &out)
		}
	}
	if text := strings.Join(methodOf(rows, true), "\n"); !strings.Contains(text, "Numerics. FID: "+arithmetic) || strings.Contains(strings.Join(methodOf(rows, false), "\n"), arithmetic) {
		t.Error(text)
	}
}
