package human

import (
	"errors"
	"fmt"
	"strings"
)

// longest is the most bytes of what is said about one input.
const longest = 1900

// Message is the text of an error as people read it: what several faults have in
// common, such as that a library is missing, stands once, and for each input that the
// error is about there are 1,900 bytes at most.
func Message(err error) string {
	inputs := 1
	if s := new(Several); errors.As(err, s) {
		inputs = s.Inputs
	}
	return short(Printable(strings.TrimRight(Said(err), "\n")), inputs*longest)
}

// short is a text of most bytes at most: the middle of long lines is left out, and of
// many lines the last are counted.
func short(text string, most int) string {
	if len(text) <= most {
		return text
	}
	var out strings.Builder
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if len(line) > most/2 {
			head, tail := line[:most/3], line[len(line)-most/8:]
			line = strings.ToValidUTF8(head, "") + " … " + strings.ToValidUTF8(tail, "")
		}
		rest := fmt.Sprintf("… and %d lines more", len(lines)-i)
		if out.Len()+len(line)+len(rest)+1 > most {
			return out.String() + rest
		}
		out.WriteString(line + "\n")
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// A Several is an error about so many inputs.
type Several struct {
	Err    error
	Inputs int
}

// Error implements error.
func (s Several) Error() string { return s.Err.Error() }

// Unwrap gives package errors what is inside.
func (s Several) Unwrap() error { return s.Err }
