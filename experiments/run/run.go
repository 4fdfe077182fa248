// Package run draws experiments: the rows of a plan go in, images in the results
// folder come out, row by row, each evaluated by package score when all of its
// images are there. A run that is interrupted, at any moment, goes on from there.
package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/score"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/models/ort"
)

// Options say where results lie, how networks run, and who is told of the
// progress.
type Options struct {
	Results  string // folder of all results
	Runtime  ort.Options
	Progress *human.Progress
}

// Experiment draws every row of an experiment and evaluates those that have
// metrics. It returns the folder of the experiment's results and the metrics, in
// the order of the rows. Whatever ends it, files are whole, and the same call goes
// on where it stopped.
func Experiment(ctx context.Context, e *plan.Experiment, o Options) (folder string, scored []*store.Metrics, err error) {
	s := newSession(e, o)
	defer s.close()
	scored, err = s.run(ctx)
	return s.folder, scored, err
}

// A session is one run or preview of an experiment.
type session struct {
	*plan.Experiment
	Options
	folder string // of the experiment's results
	hashes store.Hashes
	runs   []*plan.Run
	engine *score.Engine

	open    map[string]models.Model // networks by their keys
	known   map[string][]string     // notes by what they are of
	said    map[string]bool         // notes
	network *Network                // of the row that is being drawn
	passes  int                     // of an image of that row through it
	taken   int                     // rows whose scores were there
}

func newSession(e *plan.Experiment, o Options) *session {
	h := store.Hashes{}
	o.Runtime.Note = o.Progress.Note
	return &session{
		Experiment: e, Options: o, folder: filepath.Join(o.Results, e.Name), hashes: h,
		engine: score.NewEngine(o.Runtime, h, o.Progress), open: map[string]models.Model{}, known: map[string][]string{}, said: map[string]bool{},
	}
}

func (s *session) run(ctx context.Context) ([]*store.Metrics, error) {
	s.tellReplaced()
	if missing := s.CheckInputs(ctx); missing != nil {
		if todo, err := s.Forecast(ctx, s.Results, nil); err == nil {
			return nil, fmt.Errorf("%w\n%s", missing, todo)
		}
		return nil, missing
	}
	var err error
	if s.runs, err = s.Identify(s.folder, s.hashes); err != nil {
		return nil, err
	}
	lock, err := store.LockFolder(s.folder)
	if err != nil && !(store.IsReadOnly(err) && s.finished()) {
		return nil, err
	}
	defer lock.Release()
	if lock != nil {
		if err := s.tidy(); err != nil {
			return nil, err
		}
	}
	if err := s.checkNetworks(ctx); err != nil {
		return nil, err
	}
	todo, err := s.Forecast(ctx, s.Results, s.done)
	if err != nil {
		return nil, err
	}
	if table := filepath.Join(s.folder, store.TableFile); s.Changed && store.Exists(table) && !s.finished() {
		s.Progress.Note(fmt.Sprintf("note: the settings of the command line make another experiment of %s: its tables and plots replace those in %s; name=NAME gives it a folder of its own", s.Name, s.folder))
	}
	if todo.Images() > 0 {
		if err := s.checkReferences(ctx); err != nil { // before hours of drawing
			return nil, err
		}
		s.Progress.Tell(strings.TrimRight(todo.String(), "\n"))
	}
	s.Progress.Whole(float64(todo.Passes()))
	var scored []*store.Metrics
	for i, r := range s.runs {
		s.passes = todo.Rows[i].Passes
		m, err := s.row(ctx, r)
		if err != nil {
			return nil, err
		}
		if m != nil {
			scored = append(scored, m)
		}
	}
	s.Progress.End()
	if s.taken > 0 {
		s.Progress.Tell(fmt.Sprintf("%d of %d rows were scored before: their scores are those of metrics.json, by its checksum; images and features were not read again, `sagbench verify %s` does that", s.taken, len(s.runs), s.folder))
	}
	return scored, nil
}

// Preview is what an experiment still has to do and, with trial set, how long it
// takes. Nothing is written. faults are what a run would stop at, such as missing
// files; the forecast is there all the same.
func Preview(ctx context.Context, e *plan.Experiment, o Options, trial bool) (f *plan.Forecast, faults, err error) {
	s := newSession(e, o)
	defer s.close()
	s.tellReplaced()
	if faults = s.CheckInputs(ctx); faults == nil {
		if s.runs, err = s.Identify(s.folder, s.hashes); err != nil {
			return nil, nil, err
		}
		if faults = s.checkNetworks(ctx); faults == nil {
			faults = s.checkReferences(ctx)
		}
	}
	if f, err = s.Forecast(ctx, s.Results, s.done); err != nil {
		return nil, faults, err
	}
	for i, r := range s.runs {
		f.Rows[i].Folder = filepath.Base(r.Folder)
	}
	if trial && faults == nil {
		err = timeForecast(ctx, f, s.runtime())
	}
	return f, faults, err
}

// tellReplaced says which settings of the command line undid a sweep.
func (s *session) tellReplaced() {
	for _, line := range s.Replaced {
		s.Progress.Note("note: " + line)
	}
}

// runtime is how networks run whose files have been hashed.
func (s *session) runtime() ort.Options {
	o := s.Runtime
	o.Unchanged = func() error { return s.hashes.Unchanged(false) }
	return o
}

// row draws and evaluates one row; the result is nil where it has no metrics.
func (s *session) row(ctx context.Context, r *plan.Run) (*store.Metrics, error) {
	m, scored, err := s.engine.PrepareRow(r)
	if err != nil {
		return nil, err
	}
	notes, err := s.notes(r)
	if err != nil {
		return nil, err
	}
	if !scored || !r.Images.Complete(r.Samples) {
		if err := s.draw(ctx, r); err != nil {
			return nil, err
		}
	}
	if err := s.record(r); err != nil {
		return nil, err
	}
	if len(r.Metrics) == 0 {
		s.Progress.Tell(fmt.Sprintf("%s: %d images in %s", r.NumberedTitle(), r.Samples, r.Images.Folder))
		return nil, nil
	}
	if scored {
		s.taken++
	} else {
		s.closeNetworks() // they would take memory beside the feature networks
		if err := s.engine.EvaluateRow(ctx, r, m); err != nil {
			return nil, err
		}
	}
	for _, n := range notes {
		if !slices.Contains(m.Notes, n) {
			m.Notes = append(m.Notes, n)
		}
	}
	if err := m.Write(r.Folder); err != nil {
		return nil, err
	}
	s.Progress.Tell(r.NumberedTitle() + ":" + m.Summary())
	return m, nil
}

// notes are those of the row's networks, a function of its settings and files alone.
// Each is said once.
func (s *session) notes(r *plan.Run) ([]string, error) {
	var all []string
	for i, n := range r.Networks() {
		prompts := r.Prompts
		if c, ok := n.Flags.(models.Captioned); ok && i == 0 {
			prompts = append(slices.Clone(prompts), r.NegativePrompt, c.Negative())
			prompts = slices.DeleteFunc(prompts, func(p string) bool { return p == "" })
		}
		key, err := n.Key(r.Contents[i], models.Options{})
		if err != nil {
			return nil, err
		}
		key += n.Checkpoint.Path + strings.Join(prompts, "\x00")
		if _, known := s.known[key]; !known {
			if s.known[key], err = models.Notes(&n.Ref, prompts); err != nil {
				return nil, fmt.Errorf("row %q: %w", r.Title(), err)
			}
		}
		all = append(all, s.known[key]...)
	}
	for _, n := range all {
		if !s.said[n] {
			s.said[n] = true
			s.Progress.Note("note: " + n)
		}
	}
	return all, nil
}

// checkNetworks opens every network that images are to be drawn with, before
// hours are spent on the first: a checkpoint that does not fit its flags, or an
// attention layer that is not there, is an error at once. Those of the first row
// stay open.
func (s *session) checkNetworks(ctx context.Context) error {
	seen := map[string]bool{}
	var distinct []*plan.Run
	for _, r := range s.runs {
		keys, err := networkKeys(r.Row, r.Contents)
		if err != nil {
			return err
		}
		key := fmt.Sprint(keys)
		if !seen[key] && !r.Images.Complete(r.Samples) {
			seen[key] = true
			distinct = append(distinct, r)
		}
	}
	faults := make([]error, len(distinct))
	for i, r := range slices.Backward(distinct) {
		faults[i] = s.prepare(ctx, r)
	}
	return errors.Join(faults...)
}

// checkReferences looks whether the references are of the networks that images will
// be compared by, each pair once.
func (s *session) checkReferences(ctx context.Context) error {
	seen := map[string]bool{}
	for _, r := range s.runs {
		key := r.Reference.Path
		for _, c := range r.Comparisons {
			key += "\x00" + c.Key(c.Weights.Path)
		}
		if len(r.Comparisons) == 0 || seen[key] {
			continue
		}
		seen[key] = true
		if err := s.engine.CheckReference(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// finished reports whether all images are there and scored.
func (s *session) finished() bool {
	for _, r := range s.runs {
		if _, scored, err := s.engine.PrepareRow(r); err != nil || !scored || !r.Images.Complete(r.Samples) {
			return false
		}
	}
	return true
}

// tidy removes what a killed process was writing.
func (s *session) tidy() error {
	folders := []string{s.folder}
	for _, r := range s.runs {
		folders = append(folders, r.Folder, r.Images.Folder)
	}
	for _, f := range folders {
		if err := store.RemoveLeftovers(f); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

// done counts a row's images that are there, without reading their pixels.
func (s *session) done(r *plan.Row) int {
	for _, one := range s.runs {
		if one.Row == r && one.Images.Scan(r.Samples, false, func(string) {}) == nil {
			return one.Images.Done(r.Samples)
		}
	}
	return 0
}

// prepare opens the row's networks, unless they are open, and closes all others
// first.
func (s *session) prepare(ctx context.Context, r *plan.Run) error {
	keys, err := networkKeys(r.Row, r.Contents)
	if err != nil {
		return err
	}
	s.closeNetworks(keys...)
	opened := make([]models.Model, len(keys))
	for i, key := range keys {
		if s.open[key] == nil {
			m, err := OpenNetwork(r.Row, i, s.runtime())
			if err != nil {
				return err
			}
			s.open[key] = m
		}
		opened[i] = s.open[key]
	}
	if err := s.hashes.Unchanged(false); err != nil {
		return err
	}
	if p, ok := opened[0].(models.Incomplete); ok && p.Lacks() != nil {
		return fmt.Errorf("row %q: %w", r.Title(), p.Lacks())
	}
	s.network, err = Assemble(ctx, r.Row, opened)
	return err
}

// closeNetworks closes all networks but those of the given keys.
func (s *session) closeNetworks(keep ...string) {
	s.network = nil
	for key, m := range s.open {
		if !slices.Contains(keep, key) {
			m.Close()
			delete(s.open, key)
		}
	}
}

func (s *session) close() {
	s.Progress.End()
	s.closeNetworks()
	s.engine.Close()
}

// draw makes the images of a run that are missing and puts all of them into one
// file. Whatever ends it, what is on the disk is whole.
func (s *session) draw(ctx context.Context, r *plan.Run) error {
	damaged := func(what string) { s.Progress.Note(what + " are computed again") }
	if err := r.Images.Scan(r.Samples, true, damaged); err != nil {
		return err
	}
	if r.Images.Merged(r.Samples) {
		return r.Images.Merge(ctx, r.Samples)
	}
	if err := s.prepare(ctx, r); err != nil {
		return err
	}
	r.Images.Classes = s.network.Classes()
	r.Images.Recheck(damaged)
	missing := r.Images.Missing(r.Samples)
	if len(missing) > 0 {
		if err := s.record(r); err != nil {
			return err
		}
	}
	s.Progress.Stage(r.NumberedTitle(), "images", r.Images.Done(r.Samples), r.Samples)
	s.Progress.Worth(float64(s.passes))
	defer s.Progress.End()
	for _, at := range jobs(missing, r.Batch) {
		images, err := drawImages(ctx, r.Row, s.network, at, func(done, of int) {
			s.Progress.Working(float64(at.Len()) * float64(done) / float64(of))
		})
		if err == nil {
			err = s.hashes.Unchanged(false)
		}
		if err != nil {
			return err
		}
		r.Images.Height, r.Images.Width = images.Height, images.Width
		if err := r.Images.Put(at, images.Pixels); err != nil {
			return err
		}
		s.Progress.Add(at.Len())
	}
	return r.Images.Merge(ctx, r.Samples)
}

// record writes run.yaml.
func (s *session) record(r *plan.Run) error {
	data, err := r.Document()
	if err != nil {
		return err
	}
	return store.WriteFile(filepath.Join(r.Folder, store.RunFile), data)
}
