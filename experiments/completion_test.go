package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sagbench/internal/tiny"
)

// performed is a command line within this process, with what it prints.
func performed(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := perform(t.Context(), &globals{}, args, &out, new(atomic.Bool)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// completed are what a shell is offered for the last one of the arguments.
func completed(t *testing.T, args ...string) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(performed(t, append([]string{"__complete"}, args...)...)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != ':' {
			all = append(all, line)
		}
	}
	return all
}

// A shell is offered what flags and arguments take: names that the program knows, and
// those of the experiment or of the results that the command line is about.
func TestCompletion(t *testing.T) {
	folder, results := t.TempDir(), t.TempDir()
	file := tiny.Experiment(t, folder, "steps: 2", "steps: 1", "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]")
	succeed(t, "run", file, "samples=2", "--results", results)
	broken := filepath.Join(folder, "broken.yaml")
	tiny.Write(t, broken, "name: [")
	for _, c := range []struct {
		args     string // a space between them
		has, not []string
	}{
		{"", []string{"run\tdraw an experiment's images, evaluate them and print the table", "completion\tprint a script that completes command lines in a shell"}, []string{"docs"}},
		{"run ", []string{"yaml", "yml"}, nil},
		{"run FILE --rows ", []string{"1\ts=0", "2\ts=0.5"}, nil},
		{"plan FILE sweep.guidance.sag.scale=[1,2,3] --rows 1,", []string{"1,2\ts=2", "1,3\ts=3"}, []string{"1,1\ts=1"}},
		{"sample FILE guid", []string{"guidance.sag.scale=\t0, 0.5", "bootstrap=", "samples=\t8"}, nil},
		{"status FILE model.family=", []string{"model.family=adm", "model.family=sdxl"}, []string{"model.family=no"}},
		{"submit FILE protocol=", []string{"protocol=adm", "protocol=clean-fid"}, nil},
		{"run FILE metrics=[fid,", []string{"metrics=[fid,is", "metrics=[fid,kid"}, []string{"metrics=[fid,fid"}},
		{"run FILE samples=", []string{"samples=8"}, nil},
		{"run FILE --device ", []string{"cpu", "cuda:0", "openvino:CPU"}, nil},
		{"run FILE --precision ", []string{"float32", "bfloat16"}, nil},
		{"eval REF SAMPLES --metrics fid,", []string{"fid,is", "fid,coverage"}, []string{"fid,fid"}},
		{"eval REF SAMPLES --protocol ", []string{"adm", "pytorch-fid"}, nil},
		{"eval REF SAMPLES --resize ", []string{"tf", "clean"}, nil},
		{"reference DATA --network ", []string{"inception", "dinov2"}, nil},
		{"table RESULTS --format ", []string{"terminal", "latex", "jsonl"}, nil},
		{"table RESULTS --sort=-", []string{"-s", "-FID", "-images"}, nil},
		{"table RESULTS --rows ", []string{"1\ts=0", "2\ts=0.5"}, nil},
		{"compare RESULTS --baseline ", []string{"1\ts=0", "2\ts=0.5"}, nil},
		{"compare RESULTS --format ", []string{"terminal", "csv"}, []string{"latex"}},
		{"compare RESULTS --metric ", []string{"fid", "recall"}, nil},
		{"plot RESULTS --format svg,", []string{"svg,png", "svg,pdf"}, []string{"svg,svg"}},
		{"plot RESULTS --size ", []string{"page", "column"}, nil},
		{"bench sag", []string{"sag-step"}, nil},
		{"completion ", []string{"bash", "zsh", "fish"}, nil},
		{"run BROKEN --rows ", nil, []string{"1"}},
		{"run BROKEN sam", nil, []string{"samples="}},
		{"table none --rows ", nil, nil},
	} {
		args := strings.Split(strings.NewReplacer("FILE", file, "BROKEN", broken, "RESULTS", results).Replace(c.args), " ")
		got := completed(t, args...)
		for _, want := range c.has {
			if !slices.Contains(got, want) {
				t.Errorf("%q: no %q in %q", c.args, want, got)
			}
		}
		for _, never := range c.not {
			if slices.Contains(got, never) {
				t.Errorf("%q: %q in %q", c.args, never, got)
			}
		}
		if len(c.has)+len(c.not) == 0 && len(got) > 0 {
			t.Errorf("%q: %q", c.args, got)
		}
	}
}

// The scripts are what their shells read, where these are there.
func TestCompletionScripts(t *testing.T) {
	for _, name := range []string{"bash", "zsh", "fish"} {
		script := performed(t, "completion", name)
		if !strings.Contains(script, "__complete") {
			t.Errorf("%s: %.200s", name, script)
		}
		if path, err := exec.LookPath(name); err == nil {
			file := filepath.Join(t.TempDir(), name)
			tiny.Write(t, file, script)
			if out, err := exec.Command(path, "-n", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
	if message := fail(t, "completion", "tcsh"); !strings.Contains(message, `invalid argument "tcsh"`) {
		t.Error(message)
	}
}

// A log has what goes to standard error, with times and the command line; the terminal
// and the exit status are what they are without one.
func TestLogFile(t *testing.T) {
	file, results, log := tiny.Experiment(t, t.TempDir(), "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]", "steps: 2", "steps: 1"), t.TempDir(), filepath.Join(t.TempDir(), "log")
	args := []string{"run", file, "samples=2", "--results", results, "--log", log}
	p := succeed(t, append(args, "--devices", "cpu,cpu")...)
	fail(t, "run", file+"x", "--log", log)
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		time, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if len(time) < len("2026-01-02T03:04:05Z") || time[10] != 'T' {
			t.Errorf("no time in %q", line)
		}
		lines = append(lines, text)
	}
	said := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	want := slices.Concat([]string{"sagbench " + strings.Join(p.Args[1:], " ")}, said)
	if len(lines) != len(want)+2 || !slices.Equal(lines[:len(want)], want) || !strings.HasPrefix(lines[len(want)+1], "sagbench: "+file+"x") {
		t.Errorf("%q, want %q and the command line and the message of the one that failed", lines, want)
	}
	if message := fail(t, "plan", file, "--log", filepath.Join(log, "below")); !strings.Contains(message, "--log: ") {
		t.Error(message)
	}
	if _, err := os.Stat("/dev/full"); err == nil {
		message, status := failed(t, "plan", file, "--log", "/dev/full")
		if !strings.Contains(message, "--log: write /dev/full") || status != statusAgain {
			t.Errorf("status %d: %s", status, message)
		}
	}
}
