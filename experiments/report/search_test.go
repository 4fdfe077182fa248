package report

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"sagbench/experiments/report/page"
	"sagbench/experiments/store"
)

// searchedRows are rows of a search: one was dropped, with the best score of all over
// its few images, and two are left.
func searchedRows(t *testing.T, folder string) []*store.Metrics {
	t.Helper()
	noise := make([]float64, 100)
	for b := range noise {
		noise[b] = float64(b*37%100) / 50
	}
	shifted := func(by, own float64) []float64 {
		out := make([]float64, len(noise))
		for b := range out {
			out[b] = by + noise[b] + own*float64(b%2)
		}
		return out
	}
	rows := []*store.Metrics{
		drawnRow(t, folder, 0, "0", 20, shifted(20, 0)),
		drawnRow(t, folder, 1, "0.5", 9, shifted(9, 1)),
		drawnRow(t, folder, 2, "0.8", 21, shifted(21, 1)),
	}
	rule := store.SearchRule{Metrics: []string{"fid"}, Budget: 400, Confidence: 0.95, First: 50, Eta: 2, Samples: 200, Rows: 3, Level: 0.01}
	for i, m := range rows {
		m.Search = &store.Searched{Round: 2, Rounds: 2, Rule: rule, Drawn: 250}
		if i > 0 {
			m.Search.Against = "ADM s=0"
			m.Search.Differences = []store.SearchDifference{{Metric: "fid", Value: m.Scores[0].Value, Change: 1, Low: -0.5, High: 2.5}}
		}
	}
	rows[1].Samples, rows[1].Search.Round, rows[1].Search.Dropped = 50, 1, true
	rows[1].Search.Differences[0] = store.SearchDifference{Metric: "fid", Value: 9, Change: 2.345, Low: 0.00123, High: 4.69}
	for _, m := range rows {
		if err := m.Write(m.Folder); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

// Tables show how many images each row got and when it was dropped, and call no score of
// fewer images the best.
func TestSearchTable(t *testing.T) {
	rows := searchedRows(t, t.TempDir())
	for format, wants := range map[string][]string{
		"terminal": {
			"search by FID: these rows cannot be told apart, ADM s=0 looks best: ADM s=0, ADM s=0.8; 250 of 600 images in 2 rounds, confidence 95 %",
			"1: FID +2.345 [0.001, 4.690]",
			"dropped: the round, and the difference to the best row of that round at equal numbers of images",
		},
		"csv":   {"e,ADM,0.5,9,lower,50,1,1,", "e,ADM,0.8,21,lower,100,,2,"},
		"latex": {`\textbf{20.00}`},
	} {
		var out bytes.Buffer
		if err := tableFormats[format](&out, rows, TableOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", format, want, &out)
			}
		}
		if format == "latex" && strings.Contains(out.String(), `\textbf{9.00}`) {
			t.Errorf("the best of unequal numbers of images:\n%s", &out)
		}
	}
	rows[2].Search.Dropped = true
	if got := searchLegend(rows)[0]; !strings.HasPrefix(got, "search by FID: ADM s=0 is the best row; ") {
		t.Error(got)
	}
	for _, m := range rows {
		m.Search.Rule.Metrics, m.Search.Dropped = []string{"fid", "recall"}, false
	}
	if got := searchLegend(rows)[0]; !strings.HasPrefix(got, "search by FID and recall: no other row is seen to beat these in both: ADM s=0, ADM s=0.5, ADM s=0.8; ") {
		t.Error(got)
	}
	if lines := searchLegend([]*store.Metrics{{}}); lines != nil {
		t.Errorf("without a search: %q", lines)
	}
}

// The page says of each row what the search decided, and draws no figure over rows of
// unequal numbers of images.
func TestSearchPage(t *testing.T) {
	rows := searchedRows(t, t.TempDir())
	all, of, caution := verdicts(rows)
	var texts []string
	for _, v := range all {
		texts = append(texts, fmt.Sprint(v.Mark, " ", v.Text))
	}
	want := []string{
		fmt.Sprint(page.Undecided, " ", "s = 0: left after round 2 of 100 images, and the best there."),
		fmt.Sprint(page.Worse, " ", "s = 0.5: dropped in round 1 at 50 images against ADM s=0: FID +2.345 [0.001, 4.690]."),
		fmt.Sprint(page.Undecided, " ", "s = 0.8: left after round 2 of 100 images against ADM s=0: FID +1.00 [−0.50, 2.50]."),
	}
	if got := strings.Join(texts, "\n"); got != strings.Join(want, "\n") || len(of) > 0 || !strings.HasPrefix(caution, "Search by FID: ") {
		t.Errorf("%s\nwant\n%s\n%v, %s", got, strings.Join(want, "\n"), of, caution)
	}
	figures, err := figuresOf(rows)
	if err != nil || len(figures) != 1 || len(figures[0].ticks) != 2 {
		t.Errorf("%d figures, %v", len(figures), err)
	}
	rows[2].Search.Dropped = true
	if _, err := figuresOf(rows); err == nil || !strings.Contains(err.Error(), "the search has left one row") {
		t.Errorf("a plot of one row: %v", err)
	}
	if f := pageFigures(rows); len(f) > 0 {
		t.Errorf("%d figures of one row", len(f))
	}
}

func TestNeeded(t *testing.T) {
	folder := t.TempDir()
	rows := searchedRows(t, folder)
	var out bytes.Buffer
	if err := Differences(&out, []string{folder}, DifferenceOptions{Format: "terminal"}); err != nil || strings.Contains(out.String(), "0.5 ") || !strings.Contains(out.String(), "left out: rows that a search dropped (1)") {
		t.Errorf("%v\n%s", err, &out)
	}
	out.Reset()
	// Differences of 0 and 1 in turn: a standard error of √(25/99) = 0.502519 with 100 images; (2.80159·0.502519/0.1)²·100 = 19820.7.
	if err := Needed(&out, []string{folder}, DifferenceOptions{Format: "csv", Metrics: []string{"fid"}}, 0.1); err != nil || !strings.Contains(out.String(), "e,ADM s=0.8,ADM s=0,fid,100,0.50251") || !strings.Contains(out.String(), ",0.1,19821,") {
		t.Errorf("%v\n%s", err, &out)
	}
	out.Reset()
	if err := Needed(&out, []string{folder}, DifferenceOptions{Format: "terminal", Metrics: []string{"fid"}}, 0.1); err != nil || !strings.Contains(out.String(), "19,821") {
		t.Errorf("%v\n%s", err, &out)
	}
	for want, call := range map[string]func() error{
		"--needed is -1, expected a difference greater than 0": func() error {
			return Needed(&out, []string{folder}, DifferenceOptions{Format: "csv", Metrics: []string{"fid"}}, -1)
		},
		"name it with --metric": func() error { return Needed(&out, []string{folder}, DifferenceOptions{Format: "csv"}, 1) },
		`--format is "html"`: func() error {
			return Needed(&out, []string{folder}, DifferenceOptions{Format: "html", Metrics: []string{"fid"}}, 1)
		},
		`there is no metric "kid"; known: fid`: func() error {
			return Needed(&out, []string{folder}, DifferenceOptions{Format: "csv", Metrics: []string{"kid"}}, 1)
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	equal := &store.Replicates{Names: []string{"fid"}, Values: map[string][]float64{"fid": make([]float64, 100)}}
	for _, m := range rows {
		if err := equal.Write(m.Folder); err != nil {
			t.Fatal(err)
		}
	}
	if err := Needed(&out, []string{folder}, DifferenceOptions{Format: "csv", Metrics: []string{"fid"}}, 1); err == nil || !strings.Contains(err.Error(), "the draws of FID do not differ") {
		t.Errorf("equal draws: %v", err)
	}
}
