package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sagbench/internal/tiny"
)

// treeOf copies files and folders into one folder and lists the files in it.
func treeOf(t *testing.T, from ...string) (folder string, files []string) {
	t.Helper()
	folder = t.TempDir()
	for _, f := range from {
		if err := os.CopyFS(folder, os.DirFS(f)); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return folder, files
}

// Whichever file of an input is a pipe, a device or a folder, the program ends: it
// says so, or does not need the file.
func TestNoFileIsWaitedFor(t *testing.T) {
	experiment := tiny.Experiment(t, t.TempDir())
	model := func(family string, settings ...string) func(string) [][]string {
		return func(folder string) [][]string {
			return [][]string{append([]string{"plan", experiment, "model=!replace {family: " + family + ", checkpoint: " + folder + "}", "guidance=!replace {}", "sweep=!replace {}"}, settings...)}
		}
	}
	check := func(folder string) [][]string { return [][]string{{"check", folder}} }
	hub := t.TempDir()
	for name, text := range map[string]string{"refs/main": "one", "snapshots/one/model_index.json": "{}"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(hub, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		tiny.Write(t, filepath.Join(hub, name), text)
	}
	results := t.TempDir()
	run := []string{"run", tiny.Experiment(t, t.TempDir(), "steps: 2", "steps: 1", "seed: 3", "seed: 3\nbootstrap: 40", "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]")}
	succeed(t, append(run, "--results", results)...)
	for name, c := range map[string]struct {
		from     string
		commands func(folder string) [][]string
	}{
		"sd":       {"../models/pretrained/sd", model("sd", "prompts=[a coat]")},
		"hub":      {hub, model("sd")},
		"unet2d":   {"refcase/testdata/cases/unet2d-cifar-tiny/model", model("unet2d")},
		"dit2d":    {"refcase/testdata/cases/dit2d-tiny/model", model("dit2d")},
		"single":   {"refcase/testdata/cases/sample-sd-singlefile", check},
		"tokenize": {"refcase/testdata/cases/tokenize", check},
		"schedule": {"refcase/testdata/cases/schedule-ddim", check},
		"gz":       {"refcase/testdata/cases/dinov2-tiny", check},
		"results": {results, func(folder string) [][]string {
			return [][]string{append(run, "--results", folder), {"verify", folder}, append([]string{"status", "--results", folder}, run[1:]...), {"table", folder}, {"plot", folder, "-o", filepath.Join(folder, "plots")}, {"grid", folder, "-o", filepath.Join(folder, "grid.png")}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole, all := treeOf(t, c.from)
			if name != "hub" { // which holds a pipeline without parts
				for _, args := range c.commands(whole) {
					succeed(t, args...)
				}
			}
			for i := range all {
				folder, files := treeOf(t, c.from)
				if strings.Contains(files[i], "s=0.5") { // what the other row has as well
					continue
				}
				what := replaceFile(t, files[i], i)
				for _, args := range c.commands(folder) {
					p := bounded(t, args...)
					status := p.status(t)
					if message := p.stderr.String(); status != 0 && p.refusal(status) != "" && !strings.Contains(message, "verify: ") {
						t.Errorf("%s is %s: %s: exit status %d\n%.2000s", files[i], what, args[0], status, message)
					}
				}
			}
		})
	}
}

// replaceFile puts a pipe, a link to a device or a folder in the place of a file.
func replaceFile(t *testing.T, path string, kind int) string {
	t.Helper()
	err := os.Remove(path)
	what := []string{"a pipe", "a device", "a folder", "a pipe"}[kind%4]
	if err == nil {
		switch what {
		case "a device":
			err = os.Symlink("/dev/zero", path)
		case "a folder":
			err = os.Mkdir(path, 0o755)
		default:
			err = syscall.Mkfifo(path, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return what
}
