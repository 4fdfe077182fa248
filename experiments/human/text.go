package human

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// Printable writes control characters, those that turn text around included, as
// escapes, so that a text cannot steer a terminal: \x1b for the escape character.
// Line feeds and tabs stay. JSON, which holds no raw character below the space,
// keeps its meaning.
func Printable(text string) string {
	if strings.IndexFunc(text, steers) < 0 {
		return text
	}
	var out strings.Builder
	for _, r := range text {
		switch {
		case !steers(r):
			out.WriteRune(r)
		case r < ' ':
			fmt.Fprintf(&out, `\x%02x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// steers tells characters that are no part of a text's shape.
func steers(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// CommandLine is what to type for the program with these arguments.
func CommandLine(args []string) string { return "sagbench " + Quoted(args...) }

// plain is a word that a shell takes as it is.
var plain = regexp.MustCompile(`^[\pL\pN_@%+=:,./-]+$`)

// Quoted is a command line of words, as one types it in a shell.
func Quoted(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if quoted[i] = w; !plain.MatchString(w) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// A Misuse is the error of a wrong flag, argument or setting.
type Misuse struct{ Err error }

// Error implements error.
func (m Misuse) Error() string { return m.Err.Error() }

// Unwrap gives package errors what is inside.
func (m Misuse) Unwrap() error { return m.Err }

// Misusef is fmt.Errorf for a Misuse.
func Misusef(format string, args ...any) error { return Misuse{fmt.Errorf(format, args...)} }

// An Again is the error of something that may go well when it is tried again later.
type Again struct{ Err error }

// Error implements error.
func (a Again) Error() string { return a.Err.Error() }

// Unwrap gives package errors what is inside.
func (a Again) Unwrap() error { return a.Err }

// Count is a number with commas: 1,562,500.
func Count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Bytes is a size in units of 1000: 9.8 GB.
func Bytes(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d %s", n, units[0])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// Duration is a duration for people: 3d4h, 2h10m, 5m30s, 12s.
func Duration(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%.0fs", d.Seconds())
}
