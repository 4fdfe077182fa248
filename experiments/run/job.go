package run

import (
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
	"sagbench/experiments/store"
	"sagbench/experiments/work"
)

// A session is the work.Job that the workers on an experiment share. A unit is a
// batch: images kB to (k+1)B of a row.
var _ work.Job = (*session)(nil)

// join makes the session one of the workers on the experiment, after all that could
// make it fail for good.
func (s *session) join(ctx context.Context) error {
	kind, err := s.Runtime.Kind()
	if err != nil {
		return err
	}
	if err := errors.Join(s.checkNetworks(ctx), s.checkReferences(ctx)); err != nil {
		if work.Unreachable(err) {
			return err
		}
		return human.Misuse{Err: err}
	}
	p, err := s.plan()
	if err != nil {
		return err
	}
	s.worker, err = work.Join(ctx, s.FS, s.folder, work.About{Device: s.Runtime.Device, Kind: kind}, p, s.Work)
	if err != nil {
		if errors.As(err, new(human.Misuse)) || errors.As(err, new(human.Again)) {
			return err
		}
		return store.ExplainWrite(filepath.Join(s.folder, work.Folder), err)
	}
	for _, r := range s.runs {
		r.Images.Drawer = store.Drawer{FS: s.worker.FS, ID: s.worker.ID, Kind: kind, Mixed: s.Work.Mixed}
	}
	return nil
}

// Rows implements work.Job.
func (s *session) Rows() []work.Row {
	var rows []work.Row
	for _, r := range s.runs {
		rows = append(rows, work.Row{Key: r.ID, Units: (r.Samples + r.Batch - 1) / r.Batch})
	}
	return rows
}

// Missing implements work.Job.
func (s *session) Missing(row int) ([]int, error) {
	r := s.runs[row]
	if err := r.Images.List(r.Samples); err != nil {
		return nil, err
	}
	s.tell(row)
	return unitsOf(r.Images.Missing(r.Samples), r.Batch), nil
}

// unitsOf are the batches in which images are missing.
func unitsOf(missing []store.Span, batch int) []int {
	var units []int
	for _, m := range missing {
		for k := m.From / batch; k*batch < m.To; k++ {
			if len(units) == 0 || units[len(units)-1] != k {
				units = append(units, k)
			}
		}
	}
	return units
}

// tell tells people how many images of a row are there, by whomever.
func (s *session) tell(row int) {
	r, state := s.runs[row], &s.rows[row]
	done := r.Images.Done(r.Samples)
	switch more := done - state.done; {
	case more == 0:
	case row == s.drawing:
		s.Progress.Add(more)
	default:
		s.Progress.Elsewhere(float64(more * s.todo.Rows[row].Passes))
	}
	state.done = done
}

// batch are the images of a unit: all of them, and those that are missing.
func (s *session) batch(u work.Unit) (all store.Span, missing []store.Span) {
	r := s.runs[u.Row]
	all = store.Span{From: u.K * r.Batch, To: (u.K + 1) * r.Batch}
	for _, m := range r.Images.Missing(r.Samples) {
		m.From, m.To = max(m.From, all.From), min(m.To, all.To)
		if m.Len() > 0 {
			missing = append(missing, m)
		}
	}
	return all, missing
}

// There implements work.Job.
func (s *session) There(u work.Unit) (bool, error) {
	_, missing := s.batch(u)
	for _, m := range missing {
		there, err := s.runs[u.Row].Images.There(m)
		if err != nil || !there {
			return false, err
		}
	}
	return true, nil
}

// Draw implements work.Job.
func (s *session) Draw(ctx context.Context, u work.Unit) error {
	if err := s.begin(ctx, u.Row); err != nil {
		return err
	}
	r := s.runs[u.Row]
	all, missing := s.batch(u)
	if s.whole { // which images are drawn together may not depend on how many there are
		if err := s.drawSpan(ctx, r, all, missing...); err != nil {
			return err
		}
	} else {
		for _, m := range missing {
			if err := s.drawSpan(ctx, r, m, m); err != nil {
				return err
			}
		}
	}
	s.tell(u.Row)
	return nil
}

// begin makes a row the one that is being drawn.
func (s *session) begin(ctx context.Context, row int) error {
	if s.drawing == row {
		return nil
	}
	r := s.runs[row]
	if err := s.worker.Kind(r.ID, r.NumberedTitle(), r.Images.Drawer.Kind); err != nil {
		return err
	}
	if _, err := s.notes(ctx, r); err != nil {
		return err
	}
	if _, err := s.computed(r); err != nil {
		return err
	}
	if err := s.prepare(ctx, r); err != nil {
		return err
	}
	if err := s.record(r); err != nil {
		return err
	}
	r.Images.Classes = s.network.Classes()
	s.drawing, s.begun, s.drawn, s.before = row, time.Now(), 0, s.rows[row].done
	s.Progress.Stage(r.NumberedTitle(), "images", s.rows[row].done, r.Samples)
	s.Progress.Worth(float64(s.todo.Rows[row].Passes))
	return nil
}

// drawSpan draws the images of a span and keeps some of them.
func (s *session) drawSpan(ctx context.Context, r *plan.Run, at store.Span, keep ...store.Span) error {
	s.worker.Tell(func(a *work.About) {
		a.Row, a.Doing, a.Step = r.ID, fmt.Sprintf("images %d to %d", at.From, at.To-1), 0
	})
	images, err := drawImages(ctx, r.Row, s.network, at, func(done, of int) {
		s.worker.Tell(func(a *work.About) { a.Step, a.Steps = done, of })
		s.Progress.Working(float64(at.Len()) * float64(done) / float64(of))
	})
	if err == nil {
		err = s.hashes.Unchanged(false)
	}
	if err == nil {
		err = s.recordDevices(r, s.before)
	}
	if err != nil {
		return err
	}
	r.Images.Height, r.Images.Width = images.Height, images.Width
	size := images.Height * images.Width * 3
	for _, k := range keep {
		if err := r.Images.Put(k, images.Pixels[(k.From-at.From)*size:(k.To-at.From)*size]); err != nil {
			return err
		}
		s.drawn += k.Len()
		s.worker.Tell(func(a *work.About) {
			a.Drawn += k.Len()
			a.Rate = float64(s.drawn) / time.Since(s.begun).Seconds()
		})
	}
	return nil
}

// Finished implements work.Job.
func (s *session) Finished(row int) (bool, error) {
	r, state := s.runs[row], &s.rows[row]
	if len(r.Metrics) > 0 {
		info, err := r.Images.Drawer.FS.Look(filepath.Join(r.Folder, store.MetricsFile))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		if state.metrics == nil || !info.Time.Equal(state.looked) {
			state.looked = info.Time
			if state.metrics, state.scored, err = s.engine.PrepareRow(r); err != nil {
				return false, err
			}
		}
		if !state.scored {
			return false, nil
		}
	}
	if !r.Images.Complete(r.Samples) {
		return false, nil
	}
	if scored, err := s.ofTheseImages(r, state); err != nil || !scored {
		return false, err
	}
	return s.traced(r)
}

// ofTheseImages reports whether the scores of a row are those of its images, and has
// them made anew where not: metrics.json may be there alone, as in a clone of the
// repository, and the images drawn later, on a processor that rounds otherwise. Files
// are read only where they are younger than their scores.
func (s *session) ofTheseImages(r *plan.Run, state *rowState) (bool, error) {
	if !state.scored || state.metrics == nil {
		return true, nil
	}
	changed, err := r.Images.Changed(r.Samples)
	if err != nil || !changed.After(state.looked) || changed.Equal(state.compared) {
		return err == nil, err
	}
	content, err := r.Images.Content(r.Samples)
	if err != nil {
		return false, err
	}
	state.compared, state.scored = changed, content == state.metrics.Inputs.Samples
	return state.scored, nil
}

// maxRedrawn bounds how often damaged images of a row are drawn again.
const maxRedrawn = 3

// Finish implements work.Job: the images of a row are verified, put into one file and
// scored.
func (s *session) Finish(ctx context.Context, row int) (bool, error) {
	r, state := s.runs[row], &s.rows[row]
	s.worker.Tell(func(a *work.About) { a.Row, a.Doing, a.Step, a.Steps = r.ID, "finishing", 0, 0 })
	s.Progress.End()
	if err := s.hashes.Confirm(); err != nil {
		return false, err
	}
	if whole, err := s.merge(ctx, r, state); err != nil || !whole {
		return false, err
	}
	if err := s.record(r); err != nil {
		return false, err
	}
	if err := s.trace(ctx, r); err != nil {
		return false, err
	}
	if len(r.Metrics) > 0 && !state.scored {
		s.closeNetworks() // they would take memory beside the feature networks
		if err := s.engine.EvaluateRow(ctx, r, state.metrics); err != nil {
			return false, err
		}
		state.scored = true
	}
	if _, err := s.result(ctx, row); err != nil {
		return false, err
	}
	if len(r.Metrics) > 0 {
		info, err := r.Images.Drawer.FS.Look(filepath.Join(r.Folder, store.MetricsFile))
		state.looked = info.Time
		return err == nil, err
	}
	return true, nil
}

// merge puts the images of a row into one file. It is false where some of them are
// missing, such as damaged ones, which it removes.
func (s *session) merge(ctx context.Context, r *plan.Run, state *rowState) (bool, error) {
	damaged := func(what string) { s.Progress.Note(what + " are computed again") }
	if err := r.Images.Scan(r.Samples, true, damaged); err != nil {
		return false, err
	}
	if !r.Images.Merged(r.Samples) {
		if err := s.prepare(ctx, r); err != nil {
			return false, err
		}
		r.Images.Classes = s.network.Classes()
		r.Images.Recheck(damaged)
	}
	dropped, err := r.Images.Drop()
	if err != nil {
		return false, err
	}
	if dropped > 0 {
		if state.redrawn++; state.redrawn > maxRedrawn {
			return false, fmt.Errorf("%s: images that were drawn anew are damaged again; look at the disk and its file system", r.Images.Folder)
		}
	}
	if len(r.Images.Missing(r.Samples)) > 0 {
		return false, nil
	}
	joined := !r.Images.Merged(r.Samples)
	err = r.Images.Merge(ctx, r.Samples)
	if errors.Is(err, os.ErrNotExist) { // another worker has done it
		return false, nil
	}
	if joined && err == nil {
		state.scored = false // what was scored before is another file
	}
	return err == nil, err
}

// results are the metrics of all rows, each of which is finished.
func (s *session) results(ctx context.Context) (scored []*store.Metrics, err error) {
	for i := range s.runs {
		m, err := s.result(ctx, i)
		if err != nil {
			return nil, err
		}
		if m != nil {
			scored = append(scored, m)
		}
	}
	return scored, nil
}

// result writes what is known of a row that is finished and tells people; nil where
// it has no metrics.
func (s *session) result(ctx context.Context, row int) (m *store.Metrics, err error) {
	r, state := s.runs[row], &s.rows[row]
	notes, err := s.notes(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.record(r); err != nil {
		return nil, err
	}
	if !r.Images.Complete(r.Samples) { // a unit was drawn again after they were put into one file
		if err := r.Images.Merge(ctx, r.Samples); err != nil {
			return nil, err
		}
	}
	labels, err := s.labels(r)
	if err != nil {
		return nil, err
	}
	notes = append(slices.Clone(notes), labels...)
	text := fmt.Sprintf("%s: %d images in %s", r.NumberedTitle(), r.Samples, r.Images.Folder)
	if m = state.metrics; m != nil {
		if m.Placements, err = store.ReadPlacements(r.Folder); err != nil {
			return nil, err
		}
		m.Notes = slices.DeleteFunc(m.Notes, func(n string) bool { return isOfFlags(n) && !slices.Contains(notes, n) })
		precisions, err := s.precisions(r, m)
		if err != nil {
			return nil, err
		}
		for _, n := range slices.Concat(notes, precisions, store.DescribePlacements(m.Placements)) {
			if !slices.Contains(m.Notes, n) {
				m.Notes = append(m.Notes, n)
			}
		}
		m.Search = s.searched(row)
		if m.Devices, err = r.Images.Devices(r.Samples); err != nil {
			return nil, err
		}
		if err := m.Write(r.Folder); err != nil {
			return nil, err
		}
		text = r.NumberedTitle() + ":" + m.Summary()
	}
	if !state.told {
		state.told = true
		s.Progress.Tell(text)
	}
	return m, nil
}

// precisions are notes on how the row's images were computed, where that is not in
// float32 and the result does not tell. Which device has drawn them its placements
// say, not the one of this process, which may only score them.
func (s *session) precisions(r *plan.Run, m *store.Metrics) ([]string, error) {
	told := func(n string) bool { return strings.Contains(n, computesIn) && !isOfFlags(n) }
	if m.Precision == "" || slices.ContainsFunc(m.Notes, told) {
		return nil, nil
	}
	drew := slices.ContainsFunc(m.Placements, func(p store.Placement) bool { return p.Device == s.device() })
	if drew || len(m.Placements) == 0 && s.device() == "cpu" {
		return s.computed(r)
	}
	return nil, nil
}

// Wait implements work.Job.
func (s *session) Wait(why string) {
	if !s.Child {
		s.Progress.Tell(why)
	}
}
