package main

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/tiny"
)

// The lines of docs/results.md for Python read what the program writes. Python is that
// of the variable PYTHON, or python3; where it has no pandas and no matplotlib the test is skipped.
func TestPythonOfTheDocs(t *testing.T) {
	python := cmp.Or(os.Getenv("PYTHON"), "python3")
	if out, err := exec.Command(python, "-c", "import pandas, matplotlib").CombinedOutput(); err != nil {
		t.Skipf("%s has no pandas and matplotlib: %v\n%s", python, err, out)
	}
	page, err := os.ReadFile(filepath.Join(tiny.Root(), "docs/results.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## In Python\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)```(python|sh)\n(.*?)```").FindAllStringSubmatch(section, -1)
	if !found || len(blocks) != 4 {
		t.Fatalf("%d blocks of code", len(blocks))
	}
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	if err := os.Symlink(filepath.Join(tiny.Root(), "results"), in("results")); err != nil {
		t.Fatal(err)
	}
	all := embedded(t, 60)
	ref := all.write(t, in("ref.npz"), false)
	for _, name := range []string{"a.npz", "b.npz"} {
		all.noisy().of(func(i int, _ int64) bool { return name == "a.npz" || i < 50 }).write(t, in(name), false)
	}
	options := slices.Concat(embeddedInception, []string{"--metrics", "fid,precision", "--bootstrap", "40"})
	succeed(t, slices.Concat([]string{"eval", ref, in("a.npz"), in("b.npz"), "--json", in("all.json"), "--csv", in("scores.csv")}, options)...)
	var said strings.Builder
	for _, block := range blocks {
		code := block[2]
		if block[1] == "sh" { // in which the program is "$0" "$@"
			_, script, _ := strings.Cut(strings.TrimSpace(code), "--json -")
			p := program(slices.Concat([]string{"eval", ref, in("a.npz"), "--json", "-"}, options)...).within(t, `"$0" "$@"`+strings.Replace(script, "python3", python, 1))
			p.start(t)
			if status := p.status(t); status != 0 {
				t.Errorf("%s: exit status %d\n%s", code, status, &p.stderr)
			}
			said.WriteString(p.stdout.String())
			continue
		}
		c := exec.Command(python, "-c", code)
		c.Dir, c.Env = folder, append(os.Environ(), "MPLBACKEND=agg", "MPLCONFIGDIR="+in("matplotlib"))
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s%s", err, code, out)
		}
		said.Write(out)
	}
	for _, want := range []string{"Fashion-MNIST (cond.)", "a.npz", "b.npz", "{'fid': "} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no %q in what Python said:\n%s", want, &said)
		}
	}
	for _, picture := range []string{"fid.png", "draws.png"} {
		if info, err := os.Stat(in(picture)); err != nil || info.Size() < 1000 {
			t.Errorf("%s: %v", picture, err)
		}
	}
}
