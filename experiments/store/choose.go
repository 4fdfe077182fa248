package store

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Place is where a row stands in the table of its experiment, and what it can be
// called.
type Place struct {
	Number int      // from 1; 0 where it is not known
	Names  []string // the title first, then its label and each of its settings, s=0.5
}

// PlaceOf is the place of a row with a label and what the sweep chose; index counts
// from 0.
func PlaceOf(index int, label string, settings []Setting) Place {
	p := Place{Number: index + 1, Names: []string{Title(label, settings)}}
	if label != "" {
		p.Names = append(p.Names, label)
	}
	for i, name := range SettingNames(settings) {
		p.Names = append(p.Names, name+"="+settings[i].Value)
	}
	return p
}

// Place is the place of the run's row.
func (m *Metrics) Place() Place { return PlaceOf(m.Row, m.Label, m.Settings) }

// String is the place for people: 2: s=0.5.
func (p Place) String() string {
	if p.Number == 0 {
		return p.Names[0]
	}
	return fmt.Sprintf("%d: %s", p.Number, p.Names[0])
}

// IsCalled reports whether the row has a name, whatever its case, spaces and commas:
// s = 0.5 is s=0.5.
func (p Place) IsCalled(name string) bool {
	name = bare(name)
	return slices.ContainsFunc(p.Names, func(n string) bool { return strings.EqualFold(bare(n), name) })
}

// bare is a name without spaces and commas.
func bare(name string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(name), ""), ",", "")
}

// mostTold bounds the rows that an error names.
const mostTold = 30

// Choose are those of the rows, in their order, that are chosen: by their numbers,
// 2,5-7, or by a name, which may be that of several. Each of chosen is a list with
// commas, or one name. It is an error where one of them is no row's.
func Choose[T any](rows []T, place func(T) Place, chosen []string) ([]T, error) {
	places, taken := make([]Place, len(rows)), make([]bool, len(rows))
	for i, r := range rows {
		places[i] = place(r)
	}
	// take takes the rows that a test holds for, and reports whether there are any.
	take := func(holds func(Place) bool) (any bool) {
		for i, p := range places {
			if holds(p) {
				taken[i], any = true, true
			}
		}
		return any
	}
	called := func(name string) bool { return take(func(p Place) bool { return p.IsCalled(name) }) }
	for _, list := range chosen {
		if called(list) {
			continue
		}
		for one := range strings.SplitSeq(list, ",") {
			first, last, isNumber := parseNumbers(strings.TrimSpace(one))
			if isNumber && take(func(p Place) bool { return first <= p.Number && p.Number <= last }) || called(one) {
				continue
			}
			return nil, fmt.Errorf("there is no row %q; there are %s", strings.TrimSpace(one), describePlaces(places))
		}
	}
	var out []T
	for i, r := range rows {
		if taken[i] {
			out = append(out, r)
		}
	}
	return out, nil
}

// parseNumbers reads 5 or 5-7.
func parseNumbers(text string) (first, last int, ok bool) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	first, errFirst := strconv.Atoi(from)
	last, errLast := strconv.Atoi(to)
	return first, last, errFirst == nil && errLast == nil && first > 0
}

// describePlaces names rows, each once.
func describePlaces(places []Place) string {
	var texts []string
	for _, p := range places {
		if text := p.String(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	if more := len(texts) - mostTold; more > 0 {
		texts = append(texts[:mostTold], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}
