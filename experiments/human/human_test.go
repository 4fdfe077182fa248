package human

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	p := &Progress{w: &out, now: func() time.Time { return now }, warned: map[string]bool{}}
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
// many columns as there are.
func TestProgressOnTerminals(t *testing.T) {
	for _, columns := range []int{1, 2, 20, 40, 59, 80, 200} {
		var out bytes.Buffer
		now := time.Unix(1000, 0)
		p := &Progress{w: &out, width: func() int { return columns }, now: func() time.Time { return now }}
		p.Whole(1000)
		p.Stage("row 1/2 a label of many words\nand 日本語, s=0.5", "images", 0, 500)
		p.Worth(2)
		for range 500 {
			now = now.Add(time.Second)
			p.Add(1)
		}
		p.End()
		if strings.Contains(out.String(), "\n") {
			t.Fatalf("%d columns: a line feed in %q", columns, &out)
		}
		longest := 0
		for line := range strings.SplitSeq(out.String(), "\r") {
			line = strings.ReplaceAll(line, "\x1b[K", "")
			wide := len([]rune(line)) + strings.Count(line, "日") + strings.Count(line, "本") + strings.Count(line, "語")
			longest = max(longest, wide)
		}
		if longest >= columns || columns > 10 && longest < min(columns, 80)-3 {
			t.Errorf("%d columns: a line of %d", columns, longest)
		}
		if columns >= 80 && !strings.Contains(out.String(), "; all: 99 %, 5s left\x1b[K") {
			t.Errorf("%d columns: no word about all rows in %q", columns, &out)
		}
	}
}

// The state of all rows: the unit of the work is that of Whole.
func TestProgressOfAll(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &Progress{w: &bytes.Buffer{}, now: func() time.Time { return now }}
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
	p := &Progress{Quiet: true, w: &out, now: func() time.Time { return now }, warned: map[string]bool{}}
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
