// Package run draws experiments: the rows of a plan go in, images in the results
// folder come out, row by row, each evaluated by package score when all of its
// images are there. A run that is interrupted, at any moment, goes on from there, and
// any number of processes may run the same experiment at once.
package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/score"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
	"sagbench/models"
	"sagbench/models/ort"
)

// Options say where results lie, how networks run, how the work is shared with other
// processes, and who is told of the progress.
type Options struct {
	Results  string // folder of all results
	Runtime  ort.Options
	Work     work.Options
	Progress *human.Progress
	Child    bool    // another process tells people how far all are
	FS       work.FS // nil: the disk
	Pictures Pictures
	// Done is called when all images are there and scored: with the folder of the
	// experiment's results, and the metrics in the order of the rows.
	Done func(folder string, scored []*store.Metrics) error
}

// Experiment draws every row of an experiment and evaluates those that have
// metrics. Any number of processes may do so at once, on any number of machines
// that share the folder of the results: each draws what no other does. Whatever
// ends it, files are whole, and the same call goes on where it stopped.
func Experiment(ctx context.Context, e *plan.Experiment, o Options) error {
	s := newSession(e, o)
	defer s.close()
	return s.run(ctx)
}

// A session is one run or preview of an experiment.
type session struct {
	*plan.Experiment
	Options
	folder string // of the experiment's results
	hashes store.Hashes
	runs   []*plan.Run
	rows   []rowState // parallel to runs
	engine *score.Engine
	todo   *plan.Forecast
	whole  bool         // batches are drawn whole, and cut to what is missing
	worker *work.Worker // nil where nothing is left to draw

	hunt        *hunt    // the search; nil where there is none
	evaluations []string // evaluation ids of its rows
	changed     bool     // the search that the folder holds was another one, and people know

	open    map[string]models.Model // networks by their keys
	known   map[string][]string     // notes by what they are of
	said    map[string]bool         // notes
	network *Network                // of the row that is being drawn
	drawing int                     // that row; -1: none
	begun   time.Time               // when its drawing began here
	drawn   int                     // images of it, since
	before  int                     // images of it that were there then
	taken   int                     // rows whose scores were there

	classes map[string]int // that images are drawn with, by the keys of the row's networks

	placements map[string]map[string]store.Placement // of graphs on other devices than the CPU, by the key of their network and their own
}

// A rowState is what is known of a row's results.
type rowState struct {
	metrics  *store.Metrics // nil where it has none, and before they were looked at
	scored   bool           // metrics hold the scores
	looked   time.Time      // time of the metrics.json that was read
	compared time.Time      // time of the images' file whose hash was compared with the one in metrics
	done     int            // images that are there, as far as people were told
	redrawn  int            // how often damaged images were removed
	told     bool           // its result, to people
}

func newSession(e *plan.Experiment, o Options) *session {
	h := store.Hashes{}
	o.Runtime.Note = o.Progress.Note
	if o.FS == nil {
		o.FS = work.Disk{}
	}
	return &session{
		Experiment: e, Options: o, folder: filepath.Join(o.Results, e.Name), hashes: h, whole: !o.Runtime.AnyBatch(), rows: make([]rowState, len(e.Rows)), drawing: -1,
		engine: score.NewEngine(o.Runtime, h, o.Progress), open: map[string]models.Model{}, known: map[string][]string{}, said: map[string]bool{},
		classes: map[string]int{}, placements: map[string]map[string]store.Placement{},
	}
}

func (s *session) run(ctx context.Context) error {
	began := time.Now()
	s.tellReplaced()
	if missing := s.CheckInputs(ctx); missing != nil {
		if todo, err := s.Forecast(ctx, s.Results, nil); err == nil {
			return fmt.Errorf("%w\n%s", missing, todo)
		}
		return missing
	}
	if err := s.identify(ctx); err != nil {
		return err
	}
	if err := s.checkPictures(); err != nil {
		return err
	}
	if err := s.seek(); err != nil {
		return err
	}
	finished, err := s.finished()
	if err != nil {
		return err
	}
	left, err := s.leftovers()
	if err != nil {
		return err
	}
	if !finished || len(left) > 0 {
		err := s.join(ctx)
		if err != nil && !(finished && store.IsReadOnly(err)) {
			return err
		}
	}
	if s.worker != nil {
		defer s.worker.Leave()
		if err := s.tidy(left); err != nil {
			return err
		}
		draw := func() error { return s.draw(ctx, s) }
		if s.hunt != nil {
			draw = func() error { return s.search(ctx) }
		}
		if err := draw(); err != nil {
			return err
		}
	}
	scored, err := s.results(ctx)
	if err != nil {
		return err
	}
	s.Progress.End()
	if s.taken > 0 {
		s.Progress.Tell(fmt.Sprintf("%d of %d rows were scored before: their scores are those of metrics.json, by its checksum; images and features were not read again, `sagbench verify %s` does that", s.taken, len(s.runs), s.folder))
	}
	if s.worker != nil && !(s.Child && s.Work.Part.I > 0) {
		s.Progress.Tell(fmt.Sprintf("all rows: %s", human.Duration(time.Since(began))))
	}
	if err := s.pictures(ctx); err != nil {
		return err
	}
	if s.Done != nil {
		if err := s.Done(s.folder, s.withOthers(scored)); err != nil {
			return err
		}
	}
	if s.worker == nil {
		return nil
	}
	if left, err = s.leftovers(); err == nil {
		err = s.tidy(left)
	}
	return errors.Join(err, s.worker.Close())
}

// withOthers adds to the metrics of the chosen rows those of the rows that were left out
// and are scored as this experiment would score them now, in the order of the table.
func (s *session) withOthers(scored []*store.Metrics) []*store.Metrics {
	if len(scored) == 0 {
		return nil
	}
	for _, r := range s.IdentifyLeft(s.folder, s.hashes) {
		if m := s.engine.Scored(r); m != nil {
			scored = append(scored, m)
		}
	}
	slices.SortStableFunc(scored, func(a, b *store.Metrics) int { return cmp.Compare(a.Row, b.Row) })
	return scored
}

// identify finds the rows' runs, without reading what another worker has read.
func (s *session) identify(ctx context.Context) (err error) {
	on := work.Patient(ctx, s.FS, s.Work.Patience)
	s.believe(on)
	s.runs, err = s.Identify(s.folder, s.hashes)
	for _, r := range s.runs {
		r.Images.Drawer.FS = on
	}
	return err
}

// draw draws what a job lacks, and scores what is not scored, together with all others
// who do.
func (s *session) draw(ctx context.Context, job work.Job) (err error) {
	if s.todo, err = s.Forecast(ctx, s.Results, s.done); err != nil {
		return err
	}
	s.tellLabels(s.todo)
	if table := filepath.Join(s.folder, store.TableFile); s.Changed && store.Exists(table) {
		s.Progress.Note(fmt.Sprintf("note: the settings of the command line make another experiment of %s: its tables and plots replace those in %s; name=NAME gives it a folder of its own", s.Name, s.folder))
	}
	if s.todo.Images() > 0 && !(s.Child && s.Work.Part.I > 0) {
		s.Progress.Tell(strings.TrimRight(s.todo.String(), "\n"))
	}
	for i, r := range s.todo.Rows {
		s.rows[i].done = s.runs[i].Samples - r.Images
	}
	s.Progress.Whole(float64(s.todo.Passes()))
	return s.worker.Work(ctx, job)
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
			faults = errors.Join(s.checkReferences(ctx), s.dispute())
		}
	}
	if faults == nil {
		faults = s.seek()
	} else if e.Search() != nil {
		newHunt(e) // of its first round, at least, the forecast can tell
	}
	if f, err = s.Forecast(ctx, s.Results, s.done); err != nil {
		return nil, faults, err
	}
	for i, r := range s.runs {
		f.Rows[i].Folder = filepath.Base(r.Folder)
	}
	s.tellLabels(f)
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

// dispute is an error where somebody is at work in the results on something else.
func (s *session) dispute() error {
	if work.ReadPlan(s.FS, s.folder) == nil {
		return nil
	}
	p, err := s.plan()
	if err != nil {
		return err
	}
	return work.Dispute(s.FS, s.folder, p, s.Work.Stale)
}

// runtime is how networks run whose files have been hashed.
func (s *session) runtime() ort.Options {
	o := s.Runtime
	o.Unchanged = func() error { return s.hashes.Unchanged(false) }
	return o
}

// notes are those of the row's networks, a function of its settings and files alone.
// Each is said once.
func (s *session) notes(ctx context.Context, r *plan.Run) ([]string, error) {
	var all []string
	for i, n := range r.Networks() {
		prompts := r.Prompts
		if i == 0 {
			prompts = slices.DeleteFunc(slices.Concat(prompts, r.NegativeTexts()), func(p string) bool { return p == "" })
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
		if p, of := n.Computes(), flagOf(n); of != "" && of != p {
			all = append(all, filepath.Base(n.Checkpoint.Path)+computesIn+p+overruled+of)
		}
	}
	if drawn := r.DescribeDraw(); drawn != "" {
		all = append(all, drawn)
	}
	all = append(all, r.PromptNotes...)
	idle, err := idlePrompt(ctx, r.Row)
	if err != nil {
		return nil, err
	}
	all = append(all, idle...)
	for _, n := range all {
		s.noteOnce(n)
	}
	return all, nil
}

// idlePrompt is a note on a negative prompt for which no guidance of the row asks.
func idlePrompt(ctx context.Context, r *plan.Row) ([]string, error) {
	if len(r.NegativeTexts()) == 0 {
		return nil, nil
	}
	costs, err := r.Costs(ctx)
	if err != nil || costs.Null {
		return nil, err
	}
	return []string{"the negative prompt changes nothing: no guidance of the row is on that asks for it, such as cfg of a scale other than 1"}, nil
}

// What notes on the precision of a network say.
const (
	computesIn = ": computes in "
	overruled  = ", as was asked for, where a flag of its authors' says "
)

// flagOf is the precision that a flag of a network's authors names, "" if none does.
func flagOf(n plan.NetworkRef) string {
	if f, ok := n.Flags.(models.WithPrecision); ok {
		return f.Precision()
	}
	return ""
}

// isOfFlags reports whether a note of a result is on flags that may not be set any
// more although the images are the same.
func isOfFlags(note string) bool {
	return models.IsFlagNote(note) || strings.Contains(note, computesIn) && strings.Contains(note, overruled)
}

// computed tells how the networks of a row compute here, where that is not in float32.
// Each note is said once.
func (s *session) computed(r *plan.Run) (all []string, err error) {
	keys, err := networkKeys(r.Row, r.Contents)
	if err != nil {
		return nil, err
	}
	for i, n := range r.Networks() {
		p := n.Computes()
		if of := flagOf(n); p == ort.Float32 || of != "" && of != p {
			continue
		}
		key := "computed " + keys[i]
		if s.known[key] == nil {
			m := s.open[keys[i]]
			if m == nil {
				if m, err = OpenNetwork(r.Row, i, s.runtime()); err != nil {
					return nil, err
				}
				defer m.Close()
			}
			note := fmt.Sprintf("%s%s%s on %s", filepath.Base(n.Checkpoint.Path), computesIn, p, s.device())
			if h, ok := m.(models.Halved); ok && h.Widened().Nodes > 0 {
				w := h.Widened()
				note += fmt.Sprintf(", where %d of its %d nodes in that precision have no kernels: they compute in float32, of values rounded to it, and what they give is rounded", w.Nodes, w.Of)
			}
			s.known[key] = []string{note}
		}
		all = append(all, s.known[key]...)
	}
	for _, n := range all {
		s.noteOnce(n)
	}
	return all, nil
}

// device is the name of the device on which networks run.
func (s *session) device() string { return cmp.Or(s.Runtime.Device, "cpu") }

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
	if len(distinct) > 0 {
		if _, err := ort.RuntimeVersion(); err != nil {
			return err // once, and not of each network
		}
	}
	faults := make([]error, len(distinct))
	for i, r := range slices.Backward(distinct) {
		if faults[i] = s.checkPrecision(r); faults[i] == nil {
			faults[i] = s.prepare(ctx, r)
		}
	}
	return errors.Join(faults...)
}

// checkPrecision is a misuse where the device lacks what a row's networks are to
// compute in.
func (s *session) checkPrecision(r *plan.Run) error {
	for _, n := range r.Networks() {
		if err := s.Runtime.CheckPrecision(n.Precision); err != nil {
			return human.Misuse{Err: fmt.Errorf("row %q: %w; --precision NAME, or precision: NAME in the model block, chooses another", r.Title(), err)}
		}
	}
	return nil
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
func (s *session) finished() (bool, error) {
	all := s.hunt == nil || s.hunt.next == 0
	for i := range s.runs {
		done, err := s.Finished(i)
		if err != nil {
			return false, err
		}
		all = all && done
		if s.rows[i].scored && done {
			s.taken++
		}
	}
	if s.hunt != nil && s.hunt.next > 0 {
		s.taken = 0 // the rounds to come score rows again
	}
	return all, nil
}

// leftovers are what processes are writing, or were when they were killed, and what
// workers had in common.
func (s *session) leftovers() (all []string, err error) {
	folders := []string{s.folder, filepath.Join(s.folder, store.SearchFolder)}
	for _, r := range s.runs {
		folders = append(folders, r.Folder, r.Images.Folder)
	}
	for _, f := range folders {
		files, err := store.Leftovers(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, files...)
	}
	const lock = ".lock" // of version 0.1.0
	for _, name := range []string{work.Folder, lock} {
		if path := filepath.Join(s.folder, name); store.Exists(path) {
			all = append(all, path)
		}
	}
	return all, nil
}

// tidy removes leftovers. Whoever writes is a worker, and was one before it began:
// where there is no other now, nobody writes what was there before.
func (s *session) tidy(left []string) error {
	if !s.worker.Alone() {
		return nil
	}
	for _, path := range left {
		if filepath.Base(path) == work.Folder {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// done counts a row's images that are there, without reading their pixels.
func (s *session) done(r *plan.Row) int {
	for _, one := range s.runs {
		if one.Row == r && one.Images.List(r.Samples) == nil {
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
			m, err := OpenNetwork(r.Row, i, s.runtimeOf(key))
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
	if s.network, err = Assemble(ctx, r.Row, opened); err != nil {
		return err
	}
	s.classes[fmt.Sprint(keys)] = s.network.Classes()
	s.network.prepareLoop(s.runtimeOf(loopKey))
	return nil
}

// closeNetworks closes all networks but those of the given keys, and the graphs between
// their calls, which are the row's own.
func (s *session) closeNetworks(keep ...string) {
	s.network.closeStages()
	delete(s.placements, loopKey)
	s.network, s.drawing = nil, -1
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

// record writes run.yaml, and beside it the prompts that the row does not name itself.
func (s *session) record(r *plan.Run) error {
	var err error
	if path := filepath.Join(r.Folder, store.RunFile); len(r.Metrics) > 0 || !store.Exists(path) || !store.Exists(filepath.Join(r.Folder, store.MetricsFile)) {
		var data []byte
		if data, err = r.Document(); err == nil {
			err = store.WriteFile(path, data)
		}
	} // else it is what the scores that are there were made by, and nothing is scored now
	if err != nil || r.Drawn == (plan.Drawn{}) && r.FileNames == nil && r.Negatives == nil {
		return err
	}
	lines := make([]store.Prompt, len(r.Prompts))
	for i := range lines {
		lines[i] = store.Prompt{Text: r.PromptOf(i), FileName: r.FileNameOf(i)}
		if r.Negatives != nil || r.NegativePrompt != "" {
			negative := r.NegativeOf(i)
			lines[i].Negative = &negative
		}
	}
	return store.WritePrompts(r.Folder, lines)
}
