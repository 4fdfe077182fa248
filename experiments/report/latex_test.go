//go:build latex

package report

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// Every table compiles with pdflatex and booktabs alone, in a two-column article,
// without a box that is more than 1 pt too wide.
func TestLaTeXCompiles(t *testing.T) {
	tables := map[string]string{}
	render := func(name string, rows []*store.Metrics) {
		var out bytes.Buffer
		if err := tableFormats["latex"](&out, rows, TableOptions{}); err != nil {
			t.Fatal(err)
		}
		tables[name] = out.String()
	}
	for name, rows := range tableCases() {
		render(name, rows)
	}
	nan := math.NaN()
	special := "all specials: # $ % & ~ _ ^ \\ { } \" ` ' < > | [ ] * @ ! ? / — – − … « » “ ” ‘ ’"
	greek := "Σ₁ = BᵀB, β ≤ ψ, x̂0 ± σ, é è ñ ü å ç ø ß œ ł ž, 中文, 🙂, ↑ ↓ → × √ ∞ ∅ ½ ¹²³"
	render("special", []*store.Metrics{scored("special & odd_name #1", 0, special, "0", 1, 2, 0.5), scored("special & odd_name #1", 1, special, greek, 2, nan, 0.6)})
	noted := scored("noted", 0, greek, "0", 1, 2, 0.5)
	noted.Scores[0].Note, noted.Scores[1].Warnings = special+" "+greek, []string{strings.Repeat("a_very_long_word/", 30)}
	render("noted", []*store.Metrics{noted, scored("noted", 1, greek, strings.Repeat("long/path_to/", 12), 1, 2, 3)})
	var wide []*store.Metrics
	for i := range 4 {
		m := scored("wide", i, strings.Repeat("a label that is long ", 12), fmt.Sprint(i), 12345.678, 1234.5, 0.5)
		for k := range 14 {
			m.Scores = append(m.Scores, store.Score{Name: fmt.Sprintf("m%d", k), Title: fmt.Sprintf("Metric number %d", k), Value: 1234.5678, Std: 12.5, Direction: store.LowerIsBetter, Decimals: 4})
		}
		wide = append(wide, m)
	}
	render("wide", wide)
	drawn, err := store.FindMetrics(pageResults(t, true))
	if err != nil {
		t.Fatal(err)
	}
	render("drawn", drawn)
	committed, err := filepath.Glob(filepath.Join(tiny.Root(), "results", "*", "table.tex"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range committed {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tables["committed "+filepath.Base(filepath.Dir(path))] = string(data)
	}
	for name, table := range tables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			document := "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + table + "\n\\end{document}\n"
			if err := os.WriteFile(filepath.Join(folder, "t.tex"), []byte(document), 0o600); err != nil {
				t.Fatal(err)
			}
			c := exec.Command("pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex")
			c.Dir = folder
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, table)
			}
			for _, m := range regexp.MustCompile(`Overfull \\hbox \(([\d.]+)pt too wide\).*`).FindAllSubmatch(out, -1) {
				if w, _ := strconv.ParseFloat(string(m[1]), 64); w > 1 {
					t.Errorf("%s\n%s", m[0], table)
				}
			}
			if bytes.Contains(out, []byte("Missing character")) || bytes.Contains(out, []byte("undefined")) {
				t.Errorf("%s", out)
			}
			if keep := os.Getenv("SAGBENCH_SCREENSHOTS"); keep != "" {
				data, _ := os.ReadFile(filepath.Join(folder, "t.pdf"))
				os.WriteFile(filepath.Join(keep, strings.ReplaceAll(name, " ", "-")+".pdf"), data, 0o600)
			}
		})
	}
}
