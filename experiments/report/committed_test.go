package report

import (
	"bytes"
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/experiments/report/page"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// Every table and plot that is committed is what its metrics.json give today, byte
// for byte: go test ./experiments/report -run CommittedTables -update writes them anew
// where their form has changed.
func TestCommittedTables(t *testing.T) {
	folders := map[string]bool{}
	for _, pattern := range []string{"table1-fashion", "table2-fashion", "families", "guidances", "ablation-*", "search", "search-sweep"} { // as in .gitignore
		found, err := filepath.Glob(filepath.Join(tiny.Root(), "results", pattern, store.TableFile))
		if err != nil || len(found) == 0 {
			t.Errorf("results/%s: no table (%v)", pattern, err)
		}
		for _, table := range found {
			folders[filepath.Dir(table)] = true
		}
	}
	for folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			rows := rowsOfTable(t, folder)
			now := t.TempDir()
			if *update {
				now = folder
			}
			if err := writeTables(now, rows); err != nil {
				t.Fatal(err)
			}
			if err := writePlots(now, rows); err != nil {
				t.Fatal(err)
			}
			plots, err := filepath.Glob(filepath.Join(folder, "*.svg"))
			if err != nil {
				t.Fatal(err)
			}
			for _, committed := range append(plots, filepath.Join(folder, "table.md"), filepath.Join(folder, store.TableFile)) {
				want, err := os.ReadFile(filepath.Join(now, filepath.Base(committed)))
				if err != nil {
					t.Errorf("%s: its metrics.json give no such file", committed)
					continue
				}
				if got, err := os.ReadFile(committed); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s is not what its metrics.json give (%v):\n%s", committed, err, want)
				}
			}
		})
	}
}

// README says of Tables 1 and 2 in miniature what their pages say, and of the families
// where IDDPM gains.
func TestReadmeSaysTheVerdicts(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(tiny.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(string(text)), " ")
	for name, chosen := range map[string]func(page.Verdict) bool{
		"table1-fashion": func(page.Verdict) bool { return true },
		"table2-fashion": func(page.Verdict) bool { return true },
		"ablation-scale": func(v page.Verdict) bool { return v.Group == "IDDPM" && strings.Contains(v.Text, "(better)") },
	} {
		all, _, caution := verdicts(rowsOfTable(t, filepath.Join(tiny.Root(), "results", name)))
		all = slices.DeleteFunc(all, func(v page.Verdict) bool { return !chosen(v) })
		if len(all) == 0 {
			t.Errorf("%s: no verdict: %s", name, caution)
		}
		for _, v := range all {
			want := v.Text
			if v.Group != "" {
				want = "**" + v.Group + "** " + want
			}
			if !strings.Contains(words, "- "+want) {
				t.Errorf("%s: README.md does not say\n- %s", name, want)
			}
		}
	}
}

// rowsOfTable are the metrics of the runs that an experiment's table.csv names, each
// of which is beside it.
func rowsOfTable(t *testing.T, folder string) []*store.Metrics {
	t.Helper()
	f, err := os.Open(filepath.Join(folder, store.TableFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil || len(lines) < 2 {
		t.Fatalf("%s: %d lines (%v)", f.Name(), len(lines), err)
	}
	run := slices.Index(lines[0], "run")
	if run < 0 {
		t.Fatalf("%s has no column run: %q", f.Name(), lines[0])
	}
	var runs []string
	for _, line := range lines[1:] {
		found, err := filepath.Glob(filepath.Join(folder, "*-"+line[run]))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %d folders of run %s, expected one (%v)", folder, len(found), line[run], err)
		}
		runs = append(runs, found[0])
	}
	rows, err := store.FindMetrics(runs...)
	if err != nil || len(rows) != len(runs) {
		t.Fatalf("%s: %d metrics.json of %d runs (%v)", folder, len(rows), len(runs), err)
	}
	return rows
}
