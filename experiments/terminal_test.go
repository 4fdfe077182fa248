package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"

	"sagbench/internal/tiny"
)

// A terminal is one of tmux, in which a command line runs.
type terminal struct {
	socket  string
	columns int
	record  string // file of all that was written to it
}

// newTerminal runs a command line of the program in a folder. The test is skipped where
// there is no tmux.
func newTerminal(t *testing.T, columns, rows int, folder string, args ...string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("there is no tmux")
	}
	own, err := os.MkdirTemp("", "") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(own) })
	s := &terminal{filepath.Join(own, "tmux"), columns, filepath.Join(own, "record")}
	script := `stty -echo; read go; "$0" "$@"; echo "ended with $?"; read go`
	s.tmux(t, append([]string{"-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(columns), "-y", fmt.Sprint(rows), "-c", folder,
		"env", asProgram + "=1", "LC_ALL=C.UTF-8", "sh", "-c", script, os.Args[0]}, args...)...)
	t.Cleanup(func() { exec.Command("tmux", "-S", s.socket, "kill-server").Run() })
	s.tmux(t, "pipe-pane", "cat >"+s.record)
	s.tmux(t, "send-keys", "Enter")
	return s
}

// tmux is a command to tmux, with what it prints.
func (s *terminal) tmux(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("tmux", append([]string{"-u", "-S", s.socket}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("tmux %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// linesOf are those that are not empty.
func linesOf(screen string) (lines []string) {
	for line := range strings.Lines(screen) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// inProgress matches a line that changes while something is in work.
var inProgress = regexp.MustCompile(`\d/\d+ images|images/s|/s, | left$`)

// On a terminal one line is rewritten while the program works, never two of them stand
// there, and in the end none; it says how fast the work is and when all rows are done.
// No line is wider than the terminal, so that none is broken by it, and none of the
// tables lacks a value. Nothing is an escape, with or without NO_COLOR.
func TestTerminal(t *testing.T) {
	for _, c := range []struct {
		columns, rows int
		noColour      string
		label         string
	}{{80, 24, "", "label: a model with a name of some length"}, {40, 20, "1", ""}} {
		t.Run(fmt.Sprintf("%dx%d", c.columns, c.rows), func(t *testing.T) {
			folder := t.TempDir()
			tiny.Experiment(t, folder, "steps: 2", "steps: 8", "batch: 2", "batch: 4", "seed: 3", "seed: 3\nbootstrap: 40\n"+c.label)
			t.Setenv("NO_COLOR", c.noColour)
			if c.noColour == "" {
				os.Unsetenv("NO_COLOR")
			}
			s := newTerminal(t, c.columns, c.rows, folder, "run", "tiny.yaml", "--results", "r", "--threads", "1")
			seen := map[string]bool{}
			for deadline := time.Now().Add(3 * time.Minute); ; {
				screen, ended := s.tmux(t, "capture-pane", "-p"), false
				var moving []string
				for _, line := range linesOf(screen) {
					ended = ended || strings.HasPrefix(line, "ended with ")
					if inProgress.MatchString(line) {
						moving = append(moving, line)
						seen[line] = true
					}
				}
				if len(moving) > 1 {
					t.Fatalf("two lines of progress:\n%s", screen)
				}
				if ended {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("no end after three minutes:\n%s", screen)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if len(seen) < 3 {
				t.Errorf("%d states of the line were seen: %v", len(seen), seen)
			}
			whole := s.tmux(t, "capture-pane", "-p", "-S", "-")
			s.check(t, whole, linesOf(s.tmux(t, "capture-pane", "-p", "-J", "-S", "-")))
			for _, want := range []string{"ended with 0", "all rows: ", "FID", "sFID", "IS", "Precision", "Recall", "images", "s=0.5", "│"} {
				if !strings.Contains(whole, want) {
					t.Errorf("no %q in\n%s", want, whole)
				}
			}
		})
	}
}

// check looks at the terminal in the end, whose lines are joined where it broke them,
// and at all that was written to it.
func (s *terminal) check(t *testing.T, whole string, joined []string) {
	t.Helper()
	if got := linesOf(whole); len(got) != len(joined) {
		t.Errorf("%d lines, %d without those that the terminal broke\n%s", len(got), len(joined), whole)
	}
	for _, line := range joined {
		if inProgress.MatchString(line) {
			t.Errorf("a line of progress is left: %s", line)
		}
	}
	record, err := os.ReadFile(s.record)
	if err != nil {
		t.Fatal(err)
	}
	text := string(record)
	if strings.Contains(text, "\x1b") {
		t.Errorf("an escape in %q", text)
	}
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if n := runewidth.StringWidth(line); n > s.columns || n == s.columns && inProgress.MatchString(line) {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
	if !regexp.MustCompile(`images/s[^\r\n]* all: [^\r\n]*left`).MatchString(text) {
		t.Errorf("the speed and the time of all rows were never told together: %q", text)
	}
}

// In a pipe there is no escape and no line that is written over.
func TestNoEscapesInPipes(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder, "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]", "steps: 2", "steps: 1")
	results := filepath.Join(folder, "r")
	for _, args := range [][]string{{"run", file, "samples=2", "--results", results}, {"plan", file}, {"table", results}} {
		p := succeed(t, args...)
		if text := p.stdout.String() + p.stderr.String(); strings.ContainsAny(text, "\x1b\r") || text == "" {
			t.Errorf("%s: %q", args[0], text)
		}
	}
}
