package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"sagbench/eval/images"
	"sagbench/eval/npz"
	"sagbench/models"
	"sagbench/models/checkpoint"
)

// An input is a file that rows of an experiment read.
type input struct {
	inputPath
	kind   inputKind
	source Source
	rows   []*row // that need it

	shares []share // of the rows, where it is a feature network
}

type inputKind string

const (
	networkInput   inputKind = "checkpoint"
	referenceInput inputKind = "reference batch"
)

// inputs lists the files that the rows read, in the order of the rows.
func (e *experiment) inputs() []*input {
	var all []*input
	for _, r := range e.rows {
		need := func(kind inputKind, p inputPath) *input {
			i := slices.IndexFunc(all, func(in *input) bool { return in.kind == kind && in.Path == p.Path })
			if i < 0 {
				i = len(all)
				all = append(all, &input{inputPath: p, kind: kind, source: r.sourceOf(p.Path)})
			}
			all[i].rows = append(all[i].rows, r)
			return all[i]
		}
		for _, s := range r.networks() {
			need(networkInput, s.checkpoint)
			for _, p := range s.parts() {
				need(networkInput, p)
			}
		}
		if len(r.metrics) > 0 {
			need(referenceInput, r.reference)
			for _, s := range r.shares {
				in := need(inputKind(s.title), r.networkFiles[s.name])
				in.shares = append(in.shares, s)
			}
		}
	}
	return all
}

// checkInputs opens every file that the rows read, without loading it. The
// error tells, in one message, of each that is not there or is broken, which
// rows need it and where its authors publish it.
func (e *experiment) checkInputs() error {
	all := e.inputs()
	var faults []string
	for _, in := range all {
		if problem := in.problem(); problem != "" {
			faults = append(faults, in.describe(problem))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d of %d input files are missing or cannot be read; nothing was computed\n\n%s",
		e.name, len(faults), len(all), strings.Join(faults, "\n"))
}

// problem says why the file cannot be used; "" if it can.
func (in *input) problem() string {
	if len(in.Unset) > 0 {
		var hints []string
		for _, name := range in.Unset {
			hints = append(hints, fmt.Sprintf("%s is not set; name the folder with %[1]s=DIR", name))
		}
		return strings.Join(hints, "; ")
	}
	info, err := os.Stat(in.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file"
	case err != nil:
		return err.Error()
	case info.IsDir() && in.shares != nil:
		return "is a folder, expected a file"
	case info.IsDir(): // some checkpoints and sets of images are folders
		return ""
	}
	if err := in.open(); err != nil {
		return err.Error()
	}
	return ""
}

// open reads the directory of a file: whether it is whole enough to be one of
// its kind.
func (in *input) open() error {
	if in.shares != nil {
		return in.openNetwork()
	}
	if in.kind != referenceInput {
		f, err := checkpoint.Open(in.Path)
		if err != nil {
			return err
		}
		return f.Close()
	}
	if kind, err := images.KindOf(in.Path); err != nil || kind != images.NPZ {
		return err
	}
	f, err := npz.Open(in.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if !f.Has("arr_0") && !(f.Has("mu") && f.Has("sigma")) {
		return fmt.Errorf("%s: holds %s; expected a reference batch with arr_0, or mu and sigma", in.Path, strings.Join(f.Names(), ", "))
	}
	return nil
}

// openNetwork opens a feature network as each of the rows does, and looks whether
// it has what their metrics need.
func (in *input) openNetwork() error {
	seen := map[string]bool{}
	for _, s := range in.shares {
		use := s.key("") + " " + s.names()
		if seen[use] {
			continue
		}
		seen[use] = true
		x, err := s.flags.Extractor(in.Path, models.Options{})
		if err != nil {
			return err
		}
		err = s.able(x)
		x.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// describe is a paragraph about a file that has a problem.
func (in *input) describe(problem string) string {
	var out strings.Builder
	name := in.Path[strings.LastIndexByte(in.Path, '/')+1:]
	fmt.Fprintf(&out, "  %s  %s", name, in.kind)
	if in.source.Size != "" {
		fmt.Fprintf(&out, ", %s", in.source.Size)
	}
	fmt.Fprintf(&out, "\n    %s: %s (%s)\n", in.Path, problem, in.At)
	fmt.Fprintf(&out, "    needed by: %s\n", in.neededBy())
	if in.source.Page != "" {
		fmt.Fprintf(&out, "    published: %s\n", in.source.Page)
	}
	return out.String()
}

// neededBy names the rows, each label once: Cat scale=0, scale=0.05; Horse scale=0.
func (in *input) neededBy() string {
	var groups []string
	for i, r := range in.rows {
		if i > 0 && r.label != "" && r.label == in.rows[i-1].label {
			groups[len(groups)-1] += ", " + describe("", r.settings)
		} else {
			groups = append(groups, r.title())
		}
	}
	return strings.Join(groups, "; ")
}
