package human

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	p := &Progress{sinks: []sink{&lines{w: &out}}, now: func() time.Time { return now }, warned: map[string]bool{}}
	p.Stage("row 1/2 s=0", "images", 100, 500)
	for range 10 {
		now = now.Add(10 * time.Second)
		p.Working(8)
		p.Add(20)
	}
	want := "row 1/2 s=0: 140/500 images, 1.6 images/s, 3m40s left\n" +
		"row 1/2 s=0: 260/500 images, 1.9 images/s, 2m04s left\n"
	if out.String() != want {
		t.Errorf("%s, want\n%s", &out, want)
	}
	now = now.Add(time.Hour)
	p.Stage("row 2/2", "images", 0, 50_000)
	now = now.Add(1000 * time.Second)
	p.Working(16)
	if line := p.line(); line != "row 2/2: 0/50000 images, 1m02s for one, 36d3h left" {
		t.Errorf("%q", line)
	}
	out.Reset()
	p.Warn("biased")
	p.Warn("biased")
	if out.String() != "warning: biased\n" {
		t.Errorf("%q", &out)
	}
}

// On a terminal of any width the line stays in its row: no line feed, and never as
// many columns as there are. Where there are twenty, it says how fast the work is and
// when all of it is done; no terminal gets an escape.
func TestProgressOnTerminals(t *testing.T) {
	for _, columns := range []int{1, 2, 20, 40, 59, 80, 200} {
		var out bytes.Buffer
		now := time.Unix(1000, 0)
		p := &Progress{sinks: []sink{&screen{w: &out, columns: func() int { return columns }}}, now: func() time.Time { return now }}
		p.Whole(1000)
		p.Stage("row 1/2 a label of many words\nand 日本語, s=0.5", "images", 0, 500)
		p.Worth(2)
		for range 490 {
			now = now.Add(time.Second)
			p.Add(1)
		}
		shown := out.String()
		p.End()
		if strings.ContainsAny(out.String(), "\n\x1b") {
			t.Fatalf("%d columns: a line feed or an escape in %q", columns, &out)
		}
		longest := 0
		for line := range strings.SplitSeq(out.String(), "\r") {
			wide := len([]rune(line)) + strings.Count(line, "日") + strings.Count(line, "本") + strings.Count(line, "語")
			longest = max(longest, wide)
		}
		if longest >= columns {
			t.Errorf("%d columns: a line of %d", columns, longest)
		}
		if !strings.HasSuffix(out.String(), "\r"+strings.Repeat(" ", columns-1)+"\r") {
			t.Errorf("%d columns: the line is not removed: %q", columns, out.String()[len(shown):])
		}
		last := shown[strings.LastIndexByte(shown, '\r')+1:]
		want := map[int]string{
			20: "row 1/2: 1.0/s, 10s", 40: "row 1/2 a: 1.0 images/s, all: 10s left",
			59: "row 1/2 a label of m: 490/500, 1.0 images/s, all: 10s left",
			80: "row 1/2 a label of: 490/500 images, 1.0 images/s, 10s left; all: 98 %, 10s left",
		}[columns]
		if want != "" && last != want || columns == 200 && !strings.HasSuffix(last, "s=0.5: 490/500 images, 1.0 images/s, 10s left; all: 98 %, 10s left") {
			t.Errorf("%d columns: %q, want %q", columns, last, want)
		}
	}
}

// Before anything is known of the speed, and where it is slow, short lines say what
// there is to say.
func TestShortProgress(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &Progress{now: func() time.Time { return now }}
	p.Stage("row 12/50 a label", "images", 0, 50_000)
	if got := p.barOf(39); got != "row 12/50 a label: 0/50000 images" {
		t.Errorf("%q", got)
	}
	now = now.Add(1000 * time.Second)
	p.Working(16)
	for columns, want := range map[int]string{79: "row 12/50 a label: 0/50000 images, 1m02s for one, 36d3h left", 39: "row 12/50 a: 1m02s for one, 36d3h left", 19: "1m02s each, 36d3h"} {
		if got := p.barOf(columns); got != want {
			t.Errorf("%d columns: %q, want %q", columns, got, want)
		}
	}
}

// What is written to a terminal is broken between words.
func TestNotesOnTerminals(t *testing.T) {
	var out bytes.Buffer
	p := &Progress{sinks: []sink{&screen{w: &out, columns: func() int { return 24 }}}, now: time.Now}
	p.Stage("row 1/2", "images", 0, 5)
	out.Reset()
	p.Note("to do: 16 images in 2 rows, and more\n       of it\ndisk:  a file with its path")
	want := blank(23) + "to do: 16 images in 2\n  rows, and more\n       of it\ndisk:  a file with its\n  path\n"
	if out.String() != want {
		t.Errorf("%q, want %q", &out, want)
	}
}

// A log has what a pipe would get, each line with its time, after what is there.
func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log Log
	fmt.Fprintln(&log, "not open")
	if err := log.Open(path); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	log.now = func() time.Time { return now }
	var screened bytes.Buffer
	p := &Progress{sinks: []sink{&screen{w: &screened, columns: func() int { return 20 }}}, now: log.now, warned: map[string]bool{}}
	p.Keep(&log)
	p.Stage("row 1/2 with a label", "images", 0, 500)
	now = now.Add(time.Minute)
	p.Add(60)
	p.Warn("a text of two lines\nand many words")
	p.End()
	fmt.Fprintln(&log, "sagbench: stopped")
	data, err := os.ReadFile(path)
	want := "before\n2026-01-02T03:05:05Z row 1/2 with a label: 60/500 images, 1.0 images/s, 7m20s left\n" +
		"2026-01-02T03:05:05Z warning: a text of two lines\n2026-01-02T03:05:05Z and many words\n2026-01-02T03:05:05Z sagbench: stopped\n"
	if err != nil || string(data) != want {
		t.Errorf("%v: %q, want %q", err, data, want)
	}
	if log.Err() != nil {
		t.Error(log.Err())
	}
	log.to = readOnly(t, path)
	fmt.Fprintln(&log, "lost")
	if log.Err() == nil {
		t.Error("no error of a file that cannot be written")
	}
	if err := new(Log).Open(filepath.Join(path, "below")); err == nil {
		t.Error("a log below a file")
	}
}

func readOnly(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// The state of all rows: the unit of the work is that of Whole.
func TestProgressOfAll(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &Progress{now: func() time.Time { return now }}
	p.Whole(400)
	p.Stage("row 1/2", "images", 0, 100) // one pass an image
	p.Worth(1)
	now = now.Add(10 * time.Second)
	p.Add(100)
	p.Stage("features", "images", 0, 100) // not counted
	now = now.Add(10 * time.Second)
	p.Add(100)
	p.Stage("row 2/2", "images", 0, 100)
	p.Worth(3)
	now = now.Add(10 * time.Second)
	p.Add(30)
	p.Working(3.4)
	if line, want := p.line(), "row 2/2: 30/100 images, 3.3 images/s, 20s left; all: 50 %, 30s left"; line != want {
		t.Errorf("%q, want %q", line, want)
	}
}

// A quiet progress writes what is out of the ordinary, and nothing else.
func TestQuietProgress(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	p := &Progress{Quiet: true, sinks: []sink{&lines{w: &out}}, now: func() time.Time { return now }, warned: map[string]bool{}}
	p.Stage("row", "images", 0, 10)
	now = now.Add(time.Hour)
	p.Add(5)
	p.Tell("row 1: FID 3")
	p.Note("note: cut")
	p.Warn("biased")
	if out.String() != "note: cut\nwarning: biased\n" {
		t.Errorf("%q", &out)
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"s = 0.5 — größer\n\tline": "s = 0.5 — größer\n\tline",
		"\x1b[31mred\x07\r\x7f":    `\x1b[31mred\x07\x0d\u007f`,
		"\u009b2J \u202egnp.exe":   `\u009b2J \u202egnp.exe`,
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A message about one input is short whatever the input holds, and says how much of
// it is left out; one about several has room for each.
func TestMessage(t *testing.T) {
	for _, c := range []struct {
		text, want string
		inputs     int
	}{
		{"f.yaml:3: no", "f.yaml:3: no", 1},
		{"f.yaml:3: \x1b[2J", `f.yaml:3: \x1b[2J`, 1},
		{"f: unknown key \"" + strings.Repeat("ä", 10_000) + "\"; known: a, b", "; known: a, b", 1},
		{"f: many\n" + strings.Repeat("  one\n", 10_000), "lines more", 1},
		{strings.Repeat("\x00", 10_000), `x00\x00`, 1},
		{strings.Repeat("a file is missing\n", 300), "a file is missing", 3},
	} {
		m := Message(fmt.Errorf("read: %w", Several{errors.New(c.text), c.inputs}))
		if len(m) > 1900*c.inputs || !strings.HasPrefix(m, "read: ") || !strings.Contains(m, c.want) || !utf8.ValidString(m) {
			t.Errorf("%.40q: %d bytes, expected %q in %q", c.text, len(m), c.want, m)
		}
	}
	m := Message(errors.New(strings.Repeat("line\n", 1000) + "last"))
	told := strings.Count(m, "line\n")
	if want := fmt.Sprintf("line\n… and %d lines more", 1001-told); told < 100 || !strings.HasSuffix(m, want) {
		t.Errorf("%d lines are told, then %q, expected %q", told, m[len(m)-40:], want)
	}
}
