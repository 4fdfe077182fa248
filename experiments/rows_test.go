package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/internal/tiny"
)

// A run of some rows draws these alone. Its tables hold the others that are scored under
// the same settings, and when all rows are there the files are those of a run of all.
func TestRunOfRows(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "[0, 0.5]", "[0, 0.5, 1]", "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]", "steps: 2", "steps: 1", "samples: 8", "samples: 2")
	whole, results := t.TempDir(), t.TempDir()
	succeed(t, "run", file, "--results", whole)
	table := func() string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(results, "tiny", "table.csv"))
		if err != nil {
			t.Fatal(err)
		}
		rows := ""
		for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n")[1:] {
			rows += strings.Split(line, ",")[1] + " "
		}
		return rows
	}
	for _, c := range []struct{ rows, row, want string }{
		{"2", "row 2/3 s=0.5:  FID", "0.5 "},
		{"s=1", "row 3/3 s=1:  FID", "0.5 1 "},
		{"1,2", "row 1/3 s=0:  FID", "0 0.5 1 "},
	} {
		p := succeed(t, "run", file, "--results", results, "--rows", c.rows)
		if got := table(); got != c.want || !strings.Contains(p.stderr.String(), c.row) {
			t.Errorf("--rows %s: the table has %q, want %q\n%s", c.rows, got, c.want, &p.stderr)
		}
	}
	tiny.Same(t, tiny.Tree(t, results), tiny.Tree(t, whole))
	if page, err := os.ReadFile(filepath.Join(whole, "tiny", "report.html")); err != nil || strings.Contains(string(page), "images are not shown") {
		t.Errorf("the page of a run shows no images: %v", err)
	}

	succeed(t, "run", file, "--results", results, "--rows", "3", "samples=3") // others have two images
	if got := table(); got != "1 " {
		t.Errorf("of other settings the table has %q", got)
	}
	drawn := t.TempDir()
	succeed(t, "sample", file, "--results", drawn, "--rows", "1", "--rows", "3")
	if folders, _ := filepath.Glob(filepath.Join(drawn, "tiny", "s=*")); len(folders) != 2 {
		t.Errorf("sample drew %q", folders)
	}
	said := succeed(t, "plan", file, "--results", drawn, "--rows", "2-3").stdout.String()
	if !strings.Contains(said, "\n2  s=0.5       2      2 ") || !strings.Contains(said, "\n3  s=1         2      0 ") || !strings.Contains(said, "to do: 2 images in 2 rows") {
		t.Error(said)
	}
	if said := succeed(t, "status", file, "--results", drawn, "--rows", "s=1").stdout.String(); !strings.Contains(said, "\n3  s=1     2/2 ") || strings.Contains(said, "s=0") {
		t.Error(said)
	}
	succeed(t, "submit", file, "--slurm", "--array", "2", "--dry-run", "--device", "cpu", "--results", drawn, "--rows", "s=0", "--rows", "3")
	if script, err := os.ReadFile(filepath.Join(drawn, "tiny", ".work", "job.sbatch")); err != nil || !strings.Contains(string(script), "--rows s=0 --rows 3 ") {
		t.Errorf("%v\n%s", err, script)
	}
	if message := fail(t, "run", file, "--rows", "4"); !strings.Contains(message, `--rows: `+file+`: there is no row "4"; there are 1: s=0; 2: s=0.5; 3: s=1`) {
		t.Error(message)
	}
}
