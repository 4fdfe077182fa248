package configs

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Join is errors.Join for the faults of documents: nested joins are opened and
// a message that occurs several times (one misspelt key seen from every row of
// a sweep) is kept once. It returns nil if there is no error.
func Join(errs ...error) error {
	seen := map[string]bool{}
	var flat []error
	var add func(error)
	add = func(err error) {
		if err == nil {
			return
		}
		if several, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range several.Unwrap() {
				add(e)
			}
			return
		}
		if !seen[err.Error()] {
			seen[err.Error()] = true
			flat = append(flat, err)
		}
	}
	for _, err := range errs {
		add(err)
	}
	if len(flat) == 1 {
		return flat[0]
	}
	return errors.Join(flat...)
}

// A fault is a message about a place in a document.
type fault struct {
	at  position
	err error
}

func faultf(at position, format string, args ...any) error {
	return &fault{at, fmt.Errorf(format, args...)}
}

func (f *fault) Error() string { return f.at.String() + ": " + f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// firstWord is the leading run of letters, digits, dots and underscores.
func firstWord(s string) string {
	end := strings.IndexFunc(s, func(r rune) bool {
		return r != '_' && r != '.' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	if end < 0 {
		return s
	}
	return s[:end]
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
	return path + ": "
}

// inside says where a key stands.
func inside(path string) string {
	if path == "" {
		return "at the top level"
	}
	return "in " + path
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

// distance counts the insertions, deletions and replacements from a to b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
