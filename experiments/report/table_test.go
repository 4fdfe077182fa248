package report

import (
	"bytes"
	"flag"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/experiments/store"
)

var update = flag.Bool("update", false, "write the golden files of the tables")

// scored is a row with the given values of FID, IS and precision; NaN stands for
// a metric that was not asked for.
func scored(experiment string, row int, label, scale string, fid, is, precision float64) *store.Metrics {
	m := &store.Metrics{Format: store.MetricsFormat, Experiment: experiment, Run: strings.Repeat(string(rune('a'+row)), 10), Row: row, Label: label, Samples: 512}
	if scale != "" {
		m.Settings = []store.Setting{{Path: "guidance.sag.scale", Value: scale}}
	}
	for _, s := range []store.Score{{Name: "fid", Title: "FID", Value: fid, Direction: store.LowerIsBetter, Decimals: 2}, {Name: "is", Title: "IS", Value: is, Direction: store.HigherIsBetter, Decimals: 2}, {Name: "precision", Title: "Precision", Value: precision, Direction: store.HigherIsBetter, Decimals: 3}} {
		if !math.IsNaN(s.Value) {
			m.Scores = append(m.Scores, s)
		}
	}
	return m
}

// tableCases are what the golden files of the same name show.
func tableCases() map[string][]*store.Metrics {
	nan := math.NaN()
	table1 := []*store.Metrics{
		scored("table1", 0, "ImageNet (uncond.)", "0", 26.314159, 39.5, .6123),
		scored("table1", 1, "ImageNet (uncond.)", "0.5", 20.3, 45.1, .66),
		scored("table1", 2, "ImageNet (uncond.)", "0.8", 20.304, 45.104, .6799),
		scored("table1", 3, "LSUN Cat", "0", 7.1, nan, .6),
		scored("table1", 4, "LSUN Cat", "0.05", 6.9, nan, .59),
	}
	for i, published := range []map[string]float64{{"fid": 26.21, "is": 39.70, "precision": .61}, {"fid": 20.31, "is": 45.30, "precision": .66}, {"fid": 20.08, "is": 45.56, "precision": .68}, {"fid": 7.03, "precision": .60}, {"fid": 6.87, "precision": .60}} {
		table1[i].Published = published
		table1[i].Scores[0].Note = "FID by a Cholesky factor of the reference's covariance"
	}
	table1[1].Scores[1].Std = 0.5011
	table1[4].Scores[1].Note = "k = 3"
	table1[4].Scores[1].Warnings = []string{"512 images in 2048 dimensions"}

	odd := []*store.Metrics{
		scored("odd & ends", 0, `50%_a|b*c & {d} \e$ #1`, "[0, 1]", nan, 1e6, -0.00049),
		scored("odd & ends", 1, "~<^>\ntwo  lines", "x_y", 1.005, 2, nan),
		scored("odd & ends", 1, "~<^>\ntwo  lines", "x_y", 1.006, 2, nan),
		scored("odd & ends", 2, "", "", 3, 4, 5),
	}
	odd[0].Scores = append(odd[0].Scores, store.Score{Name: "fid", Title: "FID", Value: nan, Direction: store.LowerIsBetter, Decimals: 2}) // a file cannot hold it, memory can
	odd[0].Settings = append(odd[0].Settings, store.Setting{Path: "guidance.cfg.scale", Value: "0.50"}, store.Setting{Path: "sampler.cfg.scale", Value: "a&b"})
	odd[3].Config = []byte(`{"guidance":{"sag":{"scale":0.10},"cfg":{"scale":"auto"}},"sampler":{"cfg":true}}`)
	return map[string][]*store.Metrics{"table1": table1, "odd": odd, "one": {scored("one", 0, "", "", 1, 2, nan)}}
}

func TestTableGolden(t *testing.T) {
	extension := map[string]string{"terminal": "txt", "markdown": "md", "csv": "csv", "latex": "tex", "jsonl": "jsonl"}
	for name, rows := range tableCases() {
		for _, format := range slices.Sorted(maps.Keys(tableFormats)) {
			var got bytes.Buffer
			err := tableFormats[format](&got, rows, TableOptions{})
			if name == "odd" && format == "jsonl" { // JSON has no NaN
				if err == nil || !strings.Contains(err.Error(), "NaN") {
					t.Errorf("%s as %s: %v", name, format, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s as %s: %v", name, format, err)
				continue
			}
			path := filepath.Join("testdata", "table", name+"."+extension[format])
			if *update {
				if err := store.WriteFile(path, got.Bytes()); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("%s:\n%s\nwant\n%s", path, got.String(), want)
			}
		}
	}
}

func TestTableSort(t *testing.T) {
	for _, c := range []struct{ by, want string }{
		{"", "abcde"},
		{"FID", "bcaed"},       // lower is better
		{"-fid", "acbde"},      // worst first
		{"precision", "cbade"}, // higher is better
		{"-s", "cbaed"},
		{"guidance.sag.scale", "abcde"},
		{"images", "abcde"},
		{"is", "cbade"}, // the cats have none
	} {
		table := newTable(tableCases()["table1"], false)
		if err := table.sort(c.by); err != nil {
			t.Errorf("%q: %v", c.by, err)
			continue
		}
		got := ""
		for row := range table.rows() {
			got += map[string]string{"26.31": "a", "20.30": "b", "7.10": "d", "6.90": "e"}[row[2].text]
		}
		// b and c print the same FID
		if want := strings.ReplaceAll(c.want, "c", "b"); got != want {
			t.Errorf("%q: %s, want %s", c.by, got, want)
		}
	}
	err := newTable(tableCases()["table1"], false).sort("fdi")
	if err == nil || err.Error() != `table: --sort is "fdi", which is no column; known: s, FID, IS, Precision, images` {
		t.Error(err)
	}
	odd := newTable(tableCases()["odd"], false)
	if err := odd.sort("-fid"); err != nil {
		t.Fatal(err)
	}
	if got := odd.groups[1].rows[0]; got[6].exact != "1.006" {
		t.Errorf("worst first: %+v", got)
	}
}

// Rows in which the metric is no number go last, whichever way is up.
func TestTableSortNaN(t *testing.T) {
	nan := math.NaN()
	for _, by := range []string{"fid", "-fid"} {
		table := newTable([]*store.Metrics{scored("x", 0, "", "1", nan, 1, 1), scored("x", 1, "", "2", 5, 1, 1), scored("x", 2, "", "3", 4, 1, 1)}, false)
		if err := table.sort(by); err != nil {
			t.Fatal(err)
		}
		if last := table.groups[0].rows[2]; last[0].text != "1" {
			t.Errorf("--sort %s: %v is last", by, last)
		}
	}
}

func TestTableBest(t *testing.T) {
	table := newTable(tableCases()["table1"], false)
	var got []string
	for row := range table.rows() {
		for j, cell := range row {
			if cell.best {
				got = append(got, table.columns[j].title+" "+cell.text)
			}
		}
	}
	want := []string{"FID 20.30", "IS 45.10", "FID 20.30", "IS 45.10", "Precision 0.680", "Precision 0.600", "FID 6.90"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestShowTables(t *testing.T) {
	results := t.TempDir()
	for _, m := range slices.Backward(append(tableCases()["table1"], tableCases()["one"]...)) {
		if err := m.Write(filepath.Join(results, m.Experiment, m.Run)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(folders []string, format, order string) (string, error) {
		var out bytes.Buffer
		err := Tables(&out, folders, TableOptions{Format: format, Sort: order})
		return out.String(), err
	}
	golden := func(name string) string {
		data, err := os.ReadFile(filepath.Join("testdata", "table", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for _, c := range []struct {
		folders             []string
		format, order, want string
	}{
		{[]string{results}, "terminal", "", golden("one.txt") + "\n" + golden("table1.txt")},
		{[]string{filepath.Join(results, "table1")}, "markdown", "", golden("table1.md")},
		{[]string{filepath.Join(results, "one"), filepath.Join(results, "table1")}, "latex", "images", golden("one.tex") + "\n" + golden("table1.tex")},
		{[]string{filepath.Join(results, "one", "aaaaaaaaaa")}, "csv", "", golden("one.csv")},
	} {
		if got, err := run(c.folders, c.format, c.order); err != nil || got != c.want {
			t.Errorf("%+v: %v\n%s", c, err, got)
		}
	}
	var some bytes.Buffer
	if err := Tables(&some, []string{results}, TableOptions{Format: "csv", Rows: []string{"table1, 1", "lsun cat"}}); err == nil || some.Len() > 0 || !strings.Contains(err.Error(), `--rows: there is no row "table1"; there are 1: run; 1: ImageNet (uncond.) s=0; 2: `) {
		t.Errorf("%v\n%s", err, &some)
	}
	if err := Tables(&some, []string{filepath.Join(results, "table1")}, TableOptions{Format: "csv", Rows: []string{"2", "lsun cat"}}); err != nil {
		t.Fatal(err)
	}
	for row, want := range map[string]int{"ImageNet": 1, "LSUN Cat": 2, ",0.5,": 1} {
		if n := strings.Count(some.String(), row); n != want {
			t.Errorf("%d rows with %q, want %d:\n%s", n, row, want, &some)
		}
	}
	for _, c := range []struct{ folder, format, order, want string }{
		{results, "html", "", `table: --format is "html", expected one of csv, jsonl, latex, markdown, terminal`},
		{results, "terminal", "x", `table: --sort is "x", which is no column; known: FID, IS, images`},
		{results, "csv", "x", `table: --sort is "x", which is no column; known: s, FID, IS, Precision, images`},
		{filepath.Join(results, "none"), "terminal", "", "none"},
	} {
		if got, err := run([]string{c.folder}, c.format, c.order); err == nil || !strings.Contains(err.Error(), c.want) || got != "" {
			t.Errorf("%+v: %v\n%s", c, err, got)
		}
	}
}

func TestWriteTables(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "new")
	rows := tableCases()["table1"]
	for range 2 {
		if err := writeTables(folder, rows); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 3 {
		t.Fatal(entries, err)
	}
	for _, name := range []string{"table.md", "table.csv", "table.tex"} {
		got, err := os.ReadFile(filepath.Join(folder, name))
		want, err2 := os.ReadFile(filepath.Join("testdata", "table", "table1"+filepath.Ext(name)))
		if err != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v %v\n%s", name, err, err2, got)
		}
	}
}

// Warnings that differ in their numbers alone share a footnote, at the head where
// all rows have them; names keep their digits, and what is no warning its numbers.
func TestFootnotesByKind(t *testing.T) {
	rows := []*store.Metrics{scored("x", 0, "", "1", 1, 1, 1), scored("x", 1, "", "2", 5, 1, 1), scored("x", 2, "", "3", 4, 1, 1)}
	for i, about := range []string{"0.54", "12", "2.1e-05"} {
		rows[i].Scores[0].Warnings = []string{
			"16 images in 256 dimensions: FID is biased upwards, by roughly " + about,
			"ref" + about[:1] + ".npz: 48 images",
		}
		rows[i].Scores[1].Note = "k = " + about
	}
	table := newTable(rows, false)
	want := []string{
		"¹ warning: 16 images in 256 dimensions: FID is biased upwards, by roughly 2.1e-05 to 12",
		"² warning: ref0.npz: 48 images", "³ k = 0.54", "⁴ warning: ref1.npz: 48 images", "⁵ k = 12", "⁶ warning: ref2.npz: 48 images", "⁷ k = 2.1e-05",
	}
	if got := table.footer(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for _, m := range rows {
		m.Scores[0].Warnings, m.Scores[1].Note = m.Scores[0].Warnings[:1], ""
	}
	if table = newTable(rows, false); len(table.notes) != 1 || !slices.Equal(table.columns[1].notes, []int{1}) {
		t.Errorf("one kind: %q at %v", table.footer(), table.columns[1].notes)
	}
}

// Below a table stands what networks computed in that did not in float32, with the
// rows where these differ.
func TestPrecisionsOf(t *testing.T) {
	row := func(precision, s string) *store.Metrics {
		return &store.Metrics{Precision: precision, Settings: []store.Setting{{Path: "guidance.sag.scale", Value: s}}}
	}
	for _, c := range []struct {
		rows []*store.Metrics
		want []string
	}{
		{[]*store.Metrics{row("", "0"), row("", "1")}, nil},
		{[]*store.Metrics{row("float16", "0"), row("float16", "1")}, []string{"precision: float16"}},
		{[]*store.Metrics{row("float16", "0"), row("", "1"), row("bfloat16, cg: float32", "2")}, []string{"precision: bfloat16, cg: float32 (s=2)", "precision: float16 (s=0)"}},
	} {
		if got := precisionsOf(c.rows); !slices.Equal(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
