package configs

import (
	"fmt"
	"slices"
	"strings"
)

// maxRows bounds the rows of a table: beyond it a sweep is taken for a mistake.
const maxRows = 2_000

// maxValues bounds the values of all rows together.
const maxValues = 4_000_000

// A Setting is one choice that tells a row from the others.
type Setting struct{ Path, Value string }

// A Row is one row of the table: the document with the row's choices made.
type Row struct {
	Label    string    // the label: key of the entry of rows, "" if it has none
	Settings []Setting // what sweep chose, slowest path first
	Block    Block
}

// Rows lists the rows of the table. Without sweep and rows there is one. An
// entry of rows is a mapping that is merged over the document; its own sweep is
// added to the document's. A sweep maps dotted paths to lists of values, or to ranges; its
// rows are their product, the first path slowest. An override of a swept path
// leaves one value of it.
func (doc *Document) Rows() ([]Row, error) {
	entries := []*node{nil}
	if n := doc.whole.child("rows"); n != nil {
		at := doc.whole.keyPosition("rows")
		if n.kind != list || len(n.items) == 0 {
			return nil, faultf(at, "rows: expected a list of rows, found %s", n.found())
		}
		entries = n.items
	}
	var rows []Row
	var faults []error
	left := maxValues
	for i, entry := range entries {
		more, err := doc.entry(i, entry, &left)
		faults = append(faults, err)
		if rows = append(rows, more...); len(rows) > maxRows {
			faults = append(faults, fmt.Errorf("%s: the table has more than %d rows", doc.Position(), maxRows))
		}
		if len(rows) > maxRows || left < 0 {
			break
		}
	}
	if err := Join(faults...); err != nil {
		return nil, err
	}
	return rows, nil
}

// entry lists the rows of entry i of rows; nil stands for the document itself. Their
// values are taken off left.
func (doc *Document) entry(i int, entry *node, left *int) ([]Row, error) {
	n := doc.whole.without("include", "rows")
	if entry != nil {
		if entry.kind != mapping {
			return nil, faultf(entry.at, "rows.%d: expected keys and values (key: value), found %s", i, entry.found())
		}
		for _, name := range []string{"rows", "include"} {
			if entry.child(name) != nil {
				return nil, faultf(entry.keyPosition(name), "rows.%d: %s cannot stand in a row", i, name)
			}
		}
		var own []override // what concerns rows is in the entry already
		for _, o := range doc.overrides {
			if o.keys()[0] != "rows" {
				own = append(own, o)
			}
		}
		var err error
		if n, err = applyAll(merge(n, entry), own); err != nil {
			return nil, err
		}
	}
	label, err := labelOf(n)
	axes, sweepErr := doc.axes(n)
	if err := Join(err, sweepErr); err != nil {
		return nil, err
	}
	total := 1
	for _, a := range axes {
		if total *= len(a.values); total > maxRows {
			return nil, faultf(a.at, "the sweep has more than %d rows", maxRows)
		}
	}
	n = n.without(ownKeys...)
	if *left -= total * n.count(); *left < 0 {
		return nil, faultf(n.at, "the rows hold more than %d values together; split the file", maxValues)
	}
	return product(n, label, axes, total)
}

func labelOf(n *node) (string, error) {
	l := n.child("label")
	if l.isNull() {
		return "", nil
	}
	if l.kind != scalar {
		return "", faultf(n.keyPosition("label"), "label: expected text, found %s", l.found())
	}
	return l.text, nil
}

// An axis is one path of a sweep with its values.
type axis struct {
	path   string
	at     position
	values []*node
}

// axes reads n's sweep and checks it against n.
func (doc *Document) axes(n *node) ([]axis, error) {
	sweep := n.child("sweep")
	if sweep.isNull() {
		return nil, nil
	}
	if sweep.kind != mapping {
		return nil, faultf(n.keyPosition("sweep"), "sweep: expected dotted paths and lists (guidance.sag.scale: [0, 0.5]), found %s", sweep.found())
	}
	var out []axis
	var faults []error
	for _, k := range sweep.keys {
		a := axis{k.name, k.at, nil}
		if slices.ContainsFunc(doc.overrides, func(o override) bool { return o.path == k.name }) {
			continue // the command line fixes exactly this path
		}
		err := a.read(sweep.children[k.name])
		if err == nil {
			err = a.undoes(out)
		}
		if err == nil {
			err = doc.hides(a)
		}
		faults = append(faults, err)
		out = append(out, a)
	}
	return out, Join(faults...)
}

// hides is an error where a sweep would undo an override below its path.
func (doc *Document) hides(a axis) error {
	for _, o := range doc.overrides {
		if strings.HasPrefix(o.path, a.path+".") {
			return faultf(o.at, "the sweep at %s replaces the whole of %q; override that, or sweep.%s", a.at, a.path, a.path)
		}
	}
	return nil
}

// undoes is an error where the axis would replace what an earlier one chose.
func (a axis) undoes(earlier []axis) error {
	for _, e := range earlier {
		if strings.HasPrefix(e.path, a.path+".") {
			return faultf(a.at, "sweep path %q: it replaces what %q chooses (%s); write it before that one", a.path, e.path, e.at)
		}
	}
	return nil
}

// read takes the list of values, or of those that a range stands for.
func (a *axis) read(n *node) (err error) {
	top, _, _ := strings.Cut(a.path, ".")
	if isRange(n) {
		if n, err = a.evenly(n); err != nil {
			return err
		}
	}
	switch {
	case strings.Contains("."+a.path+".", ".."):
		return faultf(a.at, "sweep path %q: a key is empty", a.path)
	case slices.Contains(ownKeys, top):
		return faultf(a.at, "sweep path %q: %s cannot be swept", a.path, top)
	case n.kind == mapping:
		return faultf(a.at, "sweep path %q: expected a list of values, found %s; write the whole path with dots: %s.…: [values], or a range: {range: [0, 1.5], points: 7}", a.path, n.found(), a.path)
	case n.kind != list:
		return faultf(a.at, "sweep path %q: expected a list of values, found %s", a.path, n.found())
	case len(n.items) == 0:
		return faultf(a.at, "sweep path %q: the list is empty; give it values or remove it", a.path)
	}
	seen := map[string]bool{}
	for _, item := range n.items {
		id, err := Canonical(Block{node: item})
		if err != nil {
			return err
		}
		if seen[string(id)] {
			return faultf(a.at, "sweep path %q: %s stands twice in the list", a.path, clip(item.inline()))
		}
		seen[string(id)] = true
	}
	a.values = n.items
	return nil
}

// check looks for the parent of the path; the last key is left to the strict
// decoding of the row, since a document need not mention a default.
func (a axis) check(n *node) error {
	steps := strings.Split(a.path, ".")
	done := ""
	for _, step := range steps[:len(steps)-1] {
		have := n
		if n.kind != list {
			have, _ = opened(n, a.at)
		}
		b := Block{node: have, path: done}
		next, ok := b.At(step)
		if !ok {
			where := "the document"
			if done != "" {
				where = fmt.Sprintf("%q", done)
			}
			return faultf(a.at, "sweep path %q: there is no %q in %s%s", a.path, step, where, meant(step, b.steps()))
		}
		n, done = next.node, join(done, step)
	}
	return nil
}

// product lists the total rows of the axes' values over n, first axis slowest.
func product(n *node, label string, axes []axis, total int) ([]Row, error) {
	rows := make([]Row, 0, total)
	var faults []error
	for i := range total {
		row := Row{Label: label}
		out, rest := n, total
		for _, a := range axes {
			rest /= len(a.values)
			v := a.values[i/rest%len(a.values)]
			next, err := a.choose(out, v)
			if faults = append(faults, err); err == nil {
				out = next
			}
			row.Settings = append(row.Settings, Setting{a.path, v.plain()})
		}
		row.Block = Block{node: out, at: n.at, document: true}
		if err := Join(faults...); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// choose returns n with v at the axis' path.
func (a axis) choose(n, v *node) (*node, error) {
	if err := a.check(n); err != nil {
		return nil, err
	}
	out, err := set(n, strings.Split(a.path, "."), "", a.at, v)
	if err != nil {
		return nil, faultf(a.at, "sweep path %q: %w", a.path, err)
	}
	return out, nil
}

// plain is a single value's text, or the flow style of a list or mapping.
func (n *node) plain() string {
	if n.kind == scalar && n.tag == tagText {
		return n.text
	}
	return n.inline()
}
