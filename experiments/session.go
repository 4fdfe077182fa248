package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/models"
	"sagbench/models/ort"
)

// A session is one call of run, sample or plan on an experiment.
type session struct {
	*experiment
	results  string // folder of all results
	folder   string // of the experiment's
	options  ort.Options
	out      io.Writer // for results
	progress *progress // for what is going on
	hashes   hashes
	runs     []*run
	resume   string // the command line that goes on

	open     map[string]models.Model // networks by their keys
	network  *network                // of the row in the making
	compared map[string]*compared    // what the row being evaluated is compared with, by feature network
}

// A run is a row with its place on the disk.
type run struct {
	*row
	id       string
	contents []string // sha256 of the files of each of the row's networks
	folder   string
	store    *store

	samples InputFile // all images, once they are looked at
}

// A compared is a feature network with the reference's features.
type compared struct {
	*extractor
	reference *referenceOf
}

// A referenceOf keeps reference features, and what was derived from them, for
// the rows that follow.
type referenceOf struct {
	key      string
	features *eval.Features
}

func newSession(g *globals, path string, overrides []string, out io.Writer) (*session, error) {
	e, err := loadExperiment(path, overrides)
	if err != nil {
		return nil, err
	}
	return &session{
		experiment: e, results: g.results, folder: filepath.Join(g.results, e.name), options: g.runtime(), out: out,
		progress: newProgress(os.Stderr), hashes: hashes{}, open: map[string]models.Model{}, compared: map[string]*compared{}, resume: commandLine(os.Args[1:]),
	}, nil
}

// commandLine is what to type for the program with these arguments.
func commandLine(args []string) string {
	line := "sagbench"
	for _, a := range args {
		if strings.ContainsAny(a, " \t\n\"'$&|;<>()[]{}*?!~#`\\") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		line += " " + a
	}
	return line
}

// tidy removes what a killed process was writing.
func (s *session) tidy() error {
	folders := []string{s.folder}
	for _, r := range s.runs {
		folders = append(folders, r.folder, r.store.folder)
	}
	for _, f := range folders {
		if err := removeLeftovers(f); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

// identify gives every row its run id and its folder. Checkpoints are read.
func (s *session) identify() error {
	first := map[string]*run{}
	var faults []error
	for _, r := range s.rows {
		contents, err := s.hashes.networks(r)
		if err != nil {
			faults = append(faults, fmt.Errorf("checkpoint: %w", err))
			continue
		}
		id, err := r.runID(contents...)
		if err != nil {
			return err
		}
		one := &run{row: r, id: id, contents: contents}
		if other, twice := first[id]; twice {
			faults = append(faults, fmt.Errorf("%s: rows %q and %q draw the same images (run %s): nothing that they differ in changes pixels; remove one of them", s.path, other.title(), r.title(), id))
		}
		first[id] = one
		if one.folder, err = s.place(r.folderOf(id), id); err != nil {
			return err
		}
		one.store = &store{folder: filepath.Join(one.folder, "samples"), seed: r.Seed, classes: -1}
		s.runs = append(s.runs, one)
	}
	return configs.Join(faults...)
}

// place is a run's folder: the one with its id that is there, whatever the row
// was called then, or else a new one.
func (s *session) place(name, id string) (string, error) {
	wanted := filepath.Join(s.folder, name)
	if exists(wanted) {
		return wanted, nil
	}
	entries, err := os.ReadDir(s.folder)
	if err != nil && !os.IsNotExist(err) {
		return "", err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasSuffix(e.Name(), "-"+id) {
			return filepath.Join(s.folder, e.Name()), nil
		}
	}
	return wanted, nil
}

// done counts a row's images that are there, without reading them all.
func (s *session) done(r *row) int {
	for _, one := range s.runs {
		if one.row == r && one.store.scan(r.Samples, false, func(string) {}) == nil {
			return one.store.done(r.Samples)
		}
	}
	return 0
}

// prepare opens the row's networks, unless they are open, and closes all others
// first.
func (s *session) prepare(r *run) error {
	keys, err := r.networkKeys(r.contents)
	if err != nil {
		return err
	}
	s.closeNetworks(keys...)
	opened := make([]models.Model, len(keys))
	for i, key := range keys {
		if s.open[key] == nil {
			m, err := r.openNetwork(i, s.options)
			if err != nil {
				return err
			}
			s.open[key] = m
		}
		opened[i] = s.open[key]
	}
	if p, ok := opened[0].(models.Incomplete); ok && p.Lacks() != nil {
		return fmt.Errorf("row %q: %w", r.title(), p.Lacks())
	}
	s.network, err = r.assemble(opened)
	return err
}

// closeNetworks closes all networks but those of the given keys.
func (s *session) closeNetworks(but ...string) {
	s.network = nil
	for key, m := range s.open {
		if !slices.Contains(but, key) {
			m.Close()
			delete(s.open, key)
		}
	}
}

func (s *session) close() {
	s.progress.end()
	s.closeNetworks()
	for name, c := range s.compared {
		c.close()
		delete(s.compared, name)
	}
}

// draw makes the images of a run that are missing and puts all of them into one
// file. Whatever ends it, what is on the disk is whole.
func (s *session) draw(ctx context.Context, r *run) error {
	if err := r.store.scan(r.Samples, true, s.progress.note); err != nil {
		return err
	}
	if _, ok := r.store.merged(r.Samples); ok {
		return r.store.merge(ctx, r.Samples)
	}
	if err := s.prepare(r); err != nil {
		return err
	}
	r.store.classes = s.network.Classes()
	r.store.recheck(s.progress.note)
	missing := r.store.missing(r.Samples)
	if len(missing) > 0 {
		if err := s.record(r); err != nil {
			return err
		}
	}
	s.progress.stage(s.rowName(r), "images", r.store.done(r.Samples), r.Samples)
	defer s.progress.end()
	for _, at := range jobs(missing, r.Batch) {
		images, err := r.draw(ctx, s.network, at, func(done, of int) {
			s.progress.working(float64(at.len()) * float64(done) / float64(of))
		})
		if err != nil {
			return err
		}
		r.store.height, r.store.width = images.Height, images.Width
		if err := r.store.put(at, images.Pixels); err != nil {
			return err
		}
		s.progress.add(at.len())
	}
	return r.store.merge(ctx, r.Samples)
}

// rowName says where the session is.
func (s *session) rowName(r *run) string {
	return fmt.Sprintf("row %d/%d %s", r.index+1, len(s.rows), r.title())
}

// record writes run.yaml.
func (s *session) record(r *run) error {
	data, err := r.document()
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(r.folder, "run.yaml"), data)
}

// complete reports whether all of a run's images lie in one file and nothing
// else is left to do with them.
func (r *run) complete() bool {
	if err := r.store.scan(r.Samples, false, func(string) {}); err != nil {
		return false
	}
	whole, ok := r.store.merged(r.Samples)
	return ok && len(r.store.shards) == 1 && r.store.shards[0].path == whole.path
}

// images are a run's images for Inception.
func (r *run) images(ctx context.Context) iter.Seq2[images.Pending, error] {
	return func(yield func(images.Pending, error) bool) {
		at := 0
		err := r.store.each(ctx, r.Samples, 1, func(im models.Images) error {
			one := images.Image{Height: im.Height, Width: im.Width, Pixels: slices.Clone(im.Pixels)}
			decode := func() (images.Image, error) { return one, nil }
			if !yield(images.Pending{Name: fmt.Sprintf("image %d", at), Decode: decode}, nil) {
				return errEnough
			}
			at++
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(images.Pending{}, err)
		}
	}
}

var errEnough = errors.New("no more images are wanted")
