// Package house holds the program against its own picture, docs/architecture.md.
package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sagbench/internal/tiny"
)

// picture is the table of packages in docs/architecture.md, from the top floor
// down: the package, and those that it may use.
func picture(t *testing.T) (packages []string, uses map[string][]string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(tiny.Root(), "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	uses = map[string][]string{}
	name := regexp.MustCompile("`([a-z0-9/]+)`")
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		of := name.FindStringSubmatch(cells[1])[1]
		packages, uses[of] = append(packages, of), []string{}
		for _, m := range name.FindAllStringSubmatch(cells[3], -1) {
			uses[of] = append(uses[of], m[1])
		}
	}
	if len(packages) < 10 {
		t.Fatalf("docs/architecture.md has a table of %d packages", len(packages))
	}
	return packages, uses
}

// imports are what the files of each package import, without tests.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for file, parsed := range sources(t, parser.ImportsOnly) {
		for _, i := range parsed.Imports {
			imported, _ := strconv.Unquote(i.Path.Value)
			all[path.Dir(file)] = append(all[path.Dir(file)], imported)
		}
	}
	return all
}

// sources are the program's files but for tests, parsed, by path from the root.
func sources(t *testing.T, mode parser.Mode) map[string]*ast.File {
	t.Helper()
	all := map[string]*ast.File{}
	err := filepath.WalkDir(tiny.Root(), func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin"):
			return filepath.SkipDir
		case filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		name, err := filepath.Rel(tiny.Root(), file)
		if err == nil {
			all[name], err = parser.ParseFile(token.NewFileSet(), file, nil, mode)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// SiT shows what a family costs: what its file declares is named in the table of
// families, and nowhere else.
func TestFamilyIsOneFile(t *testing.T) {
	const own = "models/sit.go"
	files := sources(t, parser.SkipObjectResolution)
	declared := map[string]bool{}
	for _, d := range files[own].Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				declared[d.Name.Name] = true
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					declared[s.Name.Name] = true
				case *ast.ValueSpec:
					for _, n := range s.Names {
						declared[n.Name] = n.Name != "_"
					}
				}
			}
		}
	}
	if !declared["SiT"] || !declared["NewSiT"] {
		t.Fatalf("%s declares %v", own, declared)
	}
	users := map[string][]string{} // by file, the names of the family's that it has
	for file, f := range files {
		if file == own || path.Dir(file) != "models" && !importsModels(f) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if name, ok := n.(*ast.Ident); ok && declared[name.Name] {
				users[file] = append(users[file], name.Name)
			}
			return true
		})
	}
	if len(users) != 1 || !slices.Equal(users["models/families/families.go"], []string{"NewSiT"}) {
		t.Errorf("the names of %s are used in %v, expected NewSiT in the table of families alone", own, users)
	}
}

// importsModels reports whether a file can name what the package models declares.
func importsModels(f *ast.File) bool {
	return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"sagbench/models"` })
}

// The arrows of the picture run down the page, and a package imports none but
// those that the picture lets it use.
func TestArrowsGoOneWay(t *testing.T) {
	packages, uses := picture(t)
	for i, p := range packages {
		for _, used := range uses[p] {
			if slices.Index(packages, used) <= i {
				t.Errorf("docs/architecture.md: %s uses %s, which does not stand below it", p, used)
			}
		}
	}
	found := imports(t)
	for _, p := range packages {
		for _, used := range uses[p] {
			if !slices.Contains(found[p], "sagbench/"+used) {
				t.Errorf("docs/architecture.md: %s no longer uses %s", p, used)
			}
		}
	}
	for p, imported := range found {
		if strings.HasPrefix(p, "internal/") {
			continue // for tests alone
		}
		if !slices.Contains(packages, p) {
			t.Errorf("docs/architecture.md does not list the package %s", p)
		}
		for _, i := range imported {
			if own, ok := strings.CutPrefix(i, "sagbench/"); ok && !slices.Contains(uses[p], own) {
				t.Errorf("%s imports %s: docs/architecture.md has no such arrow", p, own)
			}
		}
	}
}

// What belongs to one room stays in it.
func TestDoors(t *testing.T) {
	doors := map[string][]string{
		"github.com/spf13/cobra":            {"experiments"},
		"github.com/spf13/pflag":            {"experiments"},
		"github.com/schollz/progressbar/v3": {"experiments/human"},
		"github.com/olekukonko/tablewriter": {"experiments/report"},
		"gonum.org/v1/plot":                 {"experiments/report"},
		"github.com/yalue/onnxruntime_go":   {"models/ort"},
		"sagbench/configs":                  {"experiments", "experiments/plan", "experiments/refcase", "experiments/bench", "experiments/score"},
		"C":                                 {"models/kernels", "models/ort"},
		"sagbench/models/kernels":           {"models/ort", "models/onnx"},
	}
	for p, imported := range imports(t) {
		for _, i := range imported {
			if may, guarded := doors[i]; guarded && !slices.Contains(may, p) {
				t.Errorf("%s imports %s, which only %s may", p, i, strings.Join(may, ", "))
			}
		}
	}
}

// experiments/ holds the command line alone: main, flags, the sets of images that
// arguments name, and one file a command, none of them long.
func TestCommandLineIsThin(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(tiny.Root(), "experiments", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".go")
		if strings.HasSuffix(name, "_test") {
			continue
		}
		if lines := bytes.Count(data, []byte("\n")); lines > 250 {
			t.Errorf("experiments/%s.go has %d lines, expected at most 250", name, lines)
		}
		if name != "main" && name != "flags" && name != "sets" && !bytes.Contains(data, []byte("\nfunc "+name+"Command(")) {
			t.Errorf("experiments/%s.go is no command's file: it has no %sCommand", name, name)
		}
	}
}

// docs/architecture.md follows one setting from its YAML line to its table cell;
// every function and type that it names there is in the code.
func TestWalkOfASetting(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(tiny.Root(), "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, walk, found := strings.Cut(string(page), "\n## One setting, from its line to its cell\n")
	if !found {
		t.Fatal("docs/architecture.md does not follow a setting")
	}
	walk, _, _ = strings.Cut(walk, "\n## ")
	named := regexp.MustCompile("`([a-z]+(?:/[a-z]+)*)\\.((?:[A-Z]\\w*\\.)?[A-Z]\\w*)`").FindAllStringSubmatch(walk, -1)
	rooms := map[string]bool{}
	for _, m := range named {
		folder, name := m[1], m[2]
		rooms[path.Base(folder)] = true
		source, err := sourceOf(folder)
		if err != nil {
			t.Error(err)
			continue
		}
		receiver, method, isMethod := strings.Cut(name, ".")
		declared := `(?m)^(func ` + name + `[\[(]|type ` + name + ` |var ` + name + ` |const ` + name + ` |\t` + name + `\s+=? ?)`
		if isMethod {
			declared = `(?m)^func \(\w+ \*?` + receiver + `\) ` + method + `\(`
		}
		if !regexp.MustCompile(declared).MatchString(source) {
			t.Errorf("docs/architecture.md: there is no %s in %s", name, folder)
		}
	}
	for _, room := range []string{"configs", "plan", "run", "guidance", "store", "score", "report"} {
		if !rooms[room] {
			t.Errorf("the walk of a setting does not pass through %s: %v", room, rooms)
		}
	}
}

// sourceOf is the text of a package's files.
func sourceOf(folder string) (string, error) {
	files, err := filepath.Glob(filepath.Join(tiny.Root(), folder, "*.go"))
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if !strings.HasSuffix(file, "_test.go") {
			text.Write(data)
		}
	}
	if text.Len() == 0 {
		return "", &fs.PathError{Op: "docs/architecture.md names", Path: folder, Err: fs.ErrNotExist}
	}
	return text.String(), nil
}
