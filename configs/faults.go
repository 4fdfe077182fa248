package configs

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// maxFaults bounds the faults of one kind in one mapping that are told, and maxText
// the bytes of a message about several: who mends the first of a thousand faults
// mends most of them.
const (
	maxFaults = 16
	maxText   = 1600
)

// Join is errors.Join for the faults of documents: nested joins are opened and
// a message that occurs several times (one misspelt key seen from every row of
// a sweep) is kept once. Of a message of more than maxText bytes the rest is counted. It
// returns nil if there is no error.
func Join(errs ...error) error {
	seen := map[string]bool{}
	var flat []error
	for _, err := range errs {
		for _, e := range parts(err) {
			if !seen[e.Error()] {
				seen[e.Error()] = true
				flat = append(flat, e)
			}
		}
	}
	size := 0
	for i, e := range flat {
		if size += len(e.Error()) + 1; size > maxText && i > 0 {
			flat = append(flat[:i:i], fmt.Errorf("… and more (%d in all)", len(flat)))
			break
		}
	}
	if len(flat) == 1 {
		return flat[0]
	}
	return errors.Join(flat...)
}

// parts are the errors that errors.Join put together, and the parts of each; any
// other error is its own only part, also one that wraps several in a sentence of
// its own. Nil has none.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	several, ok := err.(interface{ Unwrap() []error })
	if !ok || err.Error() != errors.Join(several.Unwrap()...).Error() {
		return []error{err}
	}
	var all []error
	for _, e := range several.Unwrap() {
		all = append(all, parts(e)...)
	}
	return all
}

// A fault is a message about a place in a document.
type fault struct {
	at  position
	err error
}

// IsFault reports whether an error is, or holds, one of what a file or an override
// says.
func IsFault(err error) bool { return errors.As(err, new(*fault)) }

func faultf(at position, format string, args ...any) error {
	return &fault{at, fmt.Errorf(format, args...)}
}

func (f *fault) Error() string {
	text := f.err.Error()
	if len(text) > maxText { // it quotes a key or a value of that length
		text = shorten(text, maxText/4)
	}
	if f.at == (position{}) {
		return text
	}
	return f.at.String() + ": " + text
}

func (f *fault) Unwrap() error { return f.err }

// firstWord is the leading run of letters, digits, dots and underscores.
func firstWord(s string) string {
	rest := strings.TrimLeftFunc(s, func(r rune) bool {
		return r == '_' || r == '.' || unicode.IsLetter(r) || unicode.IsDigit(r)
	})
	return s[:len(s)-len(rest)]
}

// join appends a key to a dotted path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// lead is "path: " for the start of a message.
func lead(path string) string {
	if path == "" {
		return ""
	}
	return shorten(path, 160) + ": "
}

// inside says where a key stands.
func inside(path string) string {
	if path == "" {
		return "at the top level"
	}
	return "in " + shorten(path, 160)
}

// meant is "; did you mean …" where one of the known names is close to name,
// followed by all of them.
func meant(name string, known []string) string {
	var b strings.Builder
	if best := nearest(name, known); best != "" {
		fmt.Fprintf(&b, "; did you mean %q?", best)
	} else {
		b.WriteString(";")
	}
	if len(known) == 0 {
		b.WriteString(" there are none here")
	} else {
		fmt.Fprintf(&b, " known: %s", strings.Join(known, ", "))
	}
	return b.String()
}

// nearest is the known name with the fewest differing letters, "" if none is
// close. Case, dashes and underscores do not count.
func nearest(name string, known []string) string {
	fold := strings.NewReplacer("_", "", "-", "", " ", "")
	a := fold.Replace(strings.ToLower(name))
	best, least := "", 1+len(a)/3
	if len(a) > 64 {
		return ""
	}
	for _, k := range known {
		if d := distance(a, fold.Replace(strings.ToLower(k))); d < least || d == 0 {
			best, least = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbouring letters from a to b (Damerau and Levenshtein, no letter touched twice).
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range len(b) {
		d[0][j+1] = j + 1
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replaced := d[i-1][j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			d[i][j] = min(replaced, d[i-1][j]+1, d[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
