package configs

import (
	"fmt"
	"slices"
	"strings"
)

// maxShown bounds the values that a line of Replaced shows.
const maxShown = 4

// Replaced says, a line for each, which overrides set what the rows differ in
// without them, because a sweep or an entry of rows chooses it: all rows have the
// same then, whatever they are called, and a sweep over it is gone.
func (doc *Document) Replaced() []string {
	before, err := (&Document{whole: doc.file}).Rows()
	after, errAfter := doc.Rows()
	if err != nil || errAfter != nil { // what is wrong is told elsewhere
		return nil
	}
	var lines []string
	for _, o := range doc.overrides {
		had := valuesAt(before, o.keys())
		if slices.Contains([]string{"rows", "sweep", "label"}, o.keys()[0]) || len(had) < 2 || len(valuesAt(after, o.keys())) > 1 {
			continue
		}
		if more := len(had) - maxShown; more > 0 {
			had = append(had[:maxShown], fmt.Sprintf("and %d more", more))
		}
		line := fmt.Sprintf("%s=%s takes the place of what the rows differ in (%s): all of them have it", o.path, clip(o.value.inline()), strings.Join(had, ", "))
		if len(after) != len(before) {
			line += fmt.Sprintf(", and of %d rows %d are left", len(before), len(after))
		}
		lines = append(lines, line+fmt.Sprintf("; sweep.%s=[VALUES] compares other values", o.path))
	}
	return lines
}

// valuesAt are the distinct values that rows have at a path, as text.
func valuesAt(rows []Row, path []string) (values []string) {
	for _, r := range rows {
		b, ok := r.Block, true
		for _, step := range path {
			if b, ok = b.At(step); !ok {
				break
			}
		}
		text := "none"
		if ok {
			text = clip(b.String())
		}
		if !slices.Contains(values, text) {
			values = append(values, text)
		}
	}
	return values
}
