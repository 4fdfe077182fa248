package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/internal/tiny"
)

func distancesOf(device, precision, found string) []string {
	return []string{"ADM", device, precision, found, "", "", "", "2026-11-30"}
}

// Rows stand in place of those of the same device and precision, once however often
// they are written; what is around them stays.
func TestRowsOfMeasurement(t *testing.T) {
	table := func(rows ...[]string) string {
		all := "# Devices\n\n| other | table |\n| --- | --- |\n| cpu | 1 |\n\n" + distancesMark + "\n\n" + tableRow(distanceColumns) + "|" + strings.Repeat(" --- |", len(distanceColumns)) + "\n"
		for _, r := range rows {
			all += tableRow(r)
		}
		return all
	}
	cpu, half, gpu := distancesOf("cpu, A", "float32", "1"), distancesOf("cpu, A", "bfloat16", "2"), distancesOf("cuda:0, G | 2", "float32", "3")
	after := "\nText | of | the | page.\n"
	for name, c := range map[string]struct {
		old, rows, want [][]string
	}{
		"into an empty table": {nil, [][]string{cpu, half}, [][]string{cpu, half}},
		"at the end":          {[][]string{cpu}, [][]string{gpu}, [][]string{cpu, gpu}},
		"another processor":   {[][]string{cpu}, [][]string{distancesOf("cpu, B", "float32", "4")}, [][]string{cpu, distancesOf("cpu, B", "float32", "4")}},
		"in place": {
			[][]string{cpu, half, half, gpu}, [][]string{distancesOf("cpu, A", "bfloat16", "5")},
			[][]string{cpu, distancesOf("cpu, A", "bfloat16", "5"), gpu},
		},
		"two precisions": {
			[][]string{cpu, gpu, half}, [][]string{distancesOf("cpu, A", "float32", "6"), distancesOf("cpu, A", "bfloat16", "7")},
			[][]string{distancesOf("cpu, A", "float32", "6"), distancesOf("cpu, A", "bfloat16", "7"), gpu},
		},
		"nothing": {[][]string{cpu, gpu}, nil, [][]string{cpu, gpu}},
	} {
		for _, rest := range []string{"", after} {
			got := table(c.old...) + rest
			for range 2 {
				var err error
				if got, err = replaceRows(got, c.rows); err != nil || got != table(c.want...)+rest {
					t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, table(c.want...)+rest)
				}
			}
		}
	}
	got, err := replaceRows(strings.TrimSuffix(table(cpu), "\n"), [][]string{gpu})
	if err != nil || got != table(cpu, gpu) {
		t.Errorf("a file that ends in a row: %v\n%s", err, got)
	}
	for _, without := range []string{"", distancesMark + "\n\n", strings.ReplaceAll(table(cpu), distancesMark, ""), strings.ReplaceAll(table(cpu), "FID", "KID")} {
		if got, err := replaceRows(without, [][]string{cpu}); err == nil {
			t.Errorf("rows were put into\n%s\nas\n%s", without, got)
		}
	}
}

// The page has a table that rows go into.
func TestDevicesPageTakesRows(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(tiny.Root(), "docs/devices.md"))
	if err != nil {
		t.Fatal(err)
	}
	same, err := replaceRows(string(page), nil)
	if err != nil || same != string(page) {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "devices.md")
	if err := os.WriteFile(path, page, 0o644); err != nil {
		t.Fatal(err)
	}
	row := distancesOf("openvino:NPU, an NPU", "float16", "0")
	if err := writeRows(path, [][]string{row}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || strings.Replace(string(got), tableRow(row), "", 1) != string(page) || string(got) == string(page) {
		t.Errorf("%v\n%s", err, got)
	}
}
