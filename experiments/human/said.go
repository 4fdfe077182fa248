package human

import "strings"

// Said is an error's text, in which what several faults have in common, such as
// that a library is missing, stands once: of the next ones what precedes it, and
// "the same".
func Said(err error) string {
	const long, separator = 60, ": " // bytes: shorter texts may be alike
	seen := map[string]bool{}
	again := false // the line before was there already
	var out strings.Builder
	for line := range strings.Lines(err.Error()) {
		text := strings.TrimSpace(line)
		if again = seen[text] && (again || len(text) > long); again {
			continue
		}
		seen[text] = true
		for at := 0; ; {
			next := strings.Index(line[at:], separator)
			if next < 0 {
				break
			}
			at += next + len(separator)
			tail := strings.TrimSpace(line[at:])
			if again = len(tail) > long && seen[tail]; again {
				line = line[:at] + "the same\n"
				break
			}
			seen[tail] = true
		}
		out.WriteString(line)
	}
	return out.String()
}
