// Package configs reads experiment files.
//
// In goes a YAML file, the files that it includes, and settings from the
// command line; out come the rows of the experiment's table, each a Block that
// is decoded into the structs of the other packages:
//
//	document, err := configs.Load("configs/table1.yaml", "samples=64")
//	rows, err := document.Rows()
//	err = rows[0].Block.Decode(&experiment)
//
// Everything is strict. An unknown or misspelt key, a value of another type, a
// sweep over a path that does not exist are errors that name file, line, what
// was expected and what was found; a document's faults come all at once.
//
// Four keys at the top of a document belong to this package and are not part of
// the rows: include, sweep, rows and label. A mapping merges over the one that
// it follows (an including file over an included one, an entry of rows over the
// document); tagged !replace it takes its place. Lists and single values always
// do.
package configs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFiles bounds the files that one document includes, each as often as it is.
const maxFiles = 256

// ownKeys may stand at the top of a document and do not reach its rows.
var ownKeys = []string{"include", "sweep", "rows", "label"}

// A Document is an experiment file with its includes merged and its overrides
// applied. Its Block is the whole of it without include, sweep, rows and label.
type Document struct {
	Block
	Files     []string // that were read, as absolute paths
	whole     *node    // with sweep, rows and label
	file      *node    // the same before the overrides
	overrides []override
}

// Load reads the experiment file at path. A file may name others by
// include: FILE or include: [FILES], relative to itself; they are merged in
// order, then the file over them. Overrides are "dotted.path=YAML value" and
// win over everything, the entries of rows and of sweep included.
func Load(path string, overrides ...string) (*Document, error) {
	l := loader{}
	whole, err := l.file(path, position{})
	faults := []error{err}
	var parsed []override
	for _, text := range overrides {
		o, err := parseOverride(text)
		faults = append(faults, err)
		parsed = append(parsed, o)
	}
	if err := Join(faults...); err != nil {
		return nil, err
	}
	file := whole
	whole, err = applyAll(file, parsed)
	if err != nil {
		return nil, err
	}
	visible := whole.without(ownKeys...)
	return &Document{Block{node: visible, at: visible.at, document: true}, l.read, whole, file, parsed}, nil
}

// A loader reads a file and what it includes.
type loader struct {
	open []string // the chain of files being read, as they were named
	ids  []string // the same as absolute paths
	read []string // absolute paths, as often as each was read
}

// file reads one file; at is the place of the include that asks for it.
func (l *loader) file(path string, at position) (*node, error) {
	id, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if l.read = append(l.read, id); len(l.read) > maxFiles {
		return nil, faultf(at, "more than %d files are included", maxFiles)
	}
	if real, err := filepath.EvalSymlinks(id); err == nil {
		id = real
	}
	if i := slices.Index(l.ids, id); i >= 0 {
		return nil, faultf(at, "include cycle: %s", strings.Join(append(slices.Clone(l.open[i:]), path), " → "))
	}
	data, err := read(path)
	if err != nil {
		return nil, l.unreadable(path, at, err)
	}
	n, err := source{name: path, data: data}.parseMapping()
	if err != nil {
		return nil, err
	}
	l.open, l.ids = append(l.open, path), append(l.ids, id)
	defer func() { l.open, l.ids = l.open[:len(l.open)-1], l.ids[:len(l.ids)-1] }()
	return l.included(path, n)
}

// included merges n over the files that it includes.
func (l *loader) included(path string, n *node) (*node, error) {
	value := n.child("include")
	if value == nil {
		return n, nil
	}
	at := n.keyPosition("include")
	names := []*node{value}
	if value.kind == list {
		names = value.items
	}
	var base *node
	var faults []error
	for _, name := range names {
		if name.kind != scalar || name.tag != tagText || name.text == "" {
			faults = append(faults, faultf(at, "include: expected a file name, found %s", name.found()))
			continue
		}
		target := name.text
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		included, err := l.file(target, at)
		faults = append(faults, err)
		if err == nil {
			base = merge(base, included)
		}
	}
	return merge(base, n.without("include")), Join(faults...)
}

// read returns a file's bytes, one more than maxBytes at most.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path) // before Open, which would wait on a pipe
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return nil, errors.New("it is no regular file; write the settings to one")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}

// unreadable reports a file that cannot be read, with the files that may have
// been meant.
func (l *loader) unreadable(path string, at position, err error) error {
	reason := err
	if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
		reason = pathError.Err
	}
	hint := ""
	if entries, dirErr := os.ReadDir(filepath.Dir(path)); dirErr == nil && errors.Is(err, fs.ErrNotExist) {
		var names []string
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext == ".yaml" || ext == ".yml" {
				names = append(names, e.Name())
			}
		}
		hint = meant(filepath.Base(path), names)
		hint = strings.Replace(hint, " known: ", " YAML files there: ", 1)
		if len(names) == 0 {
			hint = ""
		}
	}
	if at == (position{}) {
		return fmt.Errorf("%s: cannot be read: %w%s", path, reason, hint)
	}
	return faultf(at, "include: %s: cannot be read: %w%s", path, reason, hint)
}
