package work

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sagbench/experiments/human"
)

// A Row is one of the rows that the work consists of.
type Row struct {
	Key   string // tells it from all others; part of names of files
	Units int
}

// A Unit is unit K of a row, both counted from 0.
type Unit struct{ Row, K int }

// A Job is what a worker does of work that it shares with others.
type Job interface {
	// Rows are the rows, in the order of the work.
	Rows() []Row
	// Missing lists the folder of a row: the units that are not there. It may be
	// out of date, and name too many.
	Missing(row int) ([]int, error)
	// There asks for one unit.
	There(u Unit) (bool, error)
	// Draw makes a unit, which appears under its name whole. That another worker was
	// first is no error. The row may even be finished by now, without regard to what
	// Draw makes; that is removed when Work has returned.
	Draw(ctx context.Context, u Unit) error
	// Finish does what is left of a row whose units are all there. False: it found
	// that some of them are not.
	Finish(ctx context.Context, row int) (bool, error)
	// Finished reports whether anybody has finished a row.
	Finished(row int) (bool, error)
	// Wait tells people what is waited for.
	Wait(why string)
}

// A share is what a worker knows of the work.
type share struct {
	*Worker
	job   Job
	rows  []rowState
	units []Unit
	at    int                  // where in units to look for the next one
	end   int                  // of this worker's own part; behind it others are at work
	busy  map[string]time.Time // claims of others, and when they were seen or looked at

	listed time.Time     // when all of this was up to date
	wrong  int           // how often it has been wrong since
	idle   time.Duration // the last pause for want of work
	told   bool          // what is waited for
}

type rowState struct {
	Row
	there    []bool            // by unit
	sure     map[int]time.Time // units that were seen there, which a list may not show yet
	left     int               // units that are not there
	finished bool
}

// Work does what is left of a job together with all others who do; it returns when
// every row is finished, by whomever.
func (w *Worker) Work(ctx context.Context, job Job) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go w.watch(ctx, cancel)
	s := &share{Worker: w, job: job, busy: map[string]time.Time{}}
	for i, r := range job.Rows() {
		done, err := job.Finished(i)
		if err != nil {
			return err
		}
		s.rows = append(s.rows, rowState{Row: r, there: make([]bool, r.Units), sure: map[int]time.Time{}, finished: done})
		for k := range r.Units {
			s.units = append(s.units, Unit{i, k})
		}
	}
	if s.end = len(s.units); w.o.Part.N > 0 {
		s.at, s.end = len(s.units)*w.o.Part.I/w.o.Part.N, len(s.units)*(w.o.Part.I+1)/w.o.Part.N
	}
	err := s.list()
	if err == nil {
		err = s.freeClaims()
	}
	for err == nil && !s.finished() {
		if err = ctx.Err(); err == nil {
			err = s.turn(ctx)
		}
	}
	if cause := context.Cause(ctx); err != nil && errors.As(cause, new(human.Again)) {
		return cause
	}
	return err
}

func (s *share) finished() bool {
	for _, r := range s.rows {
		if !r.finished {
			return false
		}
	}
	return true
}

// list brings what is known up to date, from names in folders alone.
func (s *share) list() error {
	for i := range s.rows {
		r := &s.rows[i]
		if r.finished || r.left == 0 && !s.listed.IsZero() {
			continue
		}
		if err := s.listRow(i); err != nil {
			return err
		}
	}
	names, err := s.claims()
	busy := map[string]time.Time{}
	for _, n := range names {
		busy[n] = time.Now()
		if seen, known := s.busy[n]; known {
			busy[n] = seen
		}
	}
	s.busy = busy
	s.listed, s.wrong = time.Now(), 0
	return err
}

func (s *share) listRow(i int) error {
	missing, err := s.job.Missing(i)
	if err != nil {
		return err
	}
	r := &s.rows[i]
	for k := range r.there {
		r.there[k] = true
	}
	r.left = 0
	for _, k := range missing {
		if seen, ok := r.sure[k]; !ok || time.Since(seen) > s.o.Listing {
			r.there[k] = false
			r.left++
		}
	}
	return nil
}

// freeClaims frees the units of workers that have ended, if they ran on this machine,
// or that are silent: their files are looked at once in the time between two signs
// of life.
func (s *share) freeClaims() error {
	ids, err := s.Names(filepath.Join(s.folder, workersIn))
	if err != nil {
		return err
	}
	dead := slices.DeleteFunc(ids, func(id string) bool { return !ended(id) })
	for name, looked := range s.busy {
		if len(dead) == 0 && time.Since(looked) < s.o.Heartbeat {
			continue
		}
		freed, err := s.isFree(name)
		if err != nil {
			return err
		}
		if s.busy[name] = time.Now(); freed {
			delete(s.busy, name)
		}
	}
	for _, id := range dead {
		s.Remove(filepath.Join(s.folder, workersIn, id))
	}
	return nil
}

// many wrong entries make a list old.
const many = 2

// turn does one thing.
func (s *share) turn(ctx context.Context) error {
	ended := s.at == s.end // this worker's own part; others are at work behind it
	if ended || s.wrong >= many || time.Since(s.listed) > s.o.Listing {
		if err := s.list(); err != nil {
			return err
		}
	}
	if ended {
		s.end = -1
		s.jump()
	}
	for i, r := range s.rows {
		if r.left == 0 && !r.finished && !s.isBusy(finishName(r.Row)) {
			return s.finish(ctx, i)
		}
	}
	for range s.units {
		s.at %= len(s.units)
		u := s.units[s.at]
		r := &s.rows[u.Row]
		if !r.finished && !r.there[u.K] && !s.isBusy(unitName(r.Row, u.K)) {
			return s.draw(ctx, u)
		}
		s.at++
	}
	return s.wait(ctx)
}

func unitName(r Row, k int) string { return fmt.Sprintf("%s-%d", r.Key, k) }
func finishName(r Row) string      { return r.Key + "-finish" }

func (s *share) isBusy(name string) bool {
	_, busy := s.busy[name]
	return busy
}

// draw makes a unit, unless another worker has it.
func (s *share) draw(ctx context.Context, u Unit) error {
	r := &s.rows[u.Row]
	name := unitName(r.Row, u.K)
	ok, err := s.claim(name)
	if err != nil {
		return err
	}
	if !ok {
		s.busy[name] = time.Now()
		s.wrong++
		s.jump()
		return nil
	}
	s.idle, s.told = 0, false
	there, err := s.job.There(u) // since it was listed
	if err == nil && !there {
		r.finished, err = s.job.Finished(u.Row) // which removes the units
	}
	switch {
	case err != nil:
	case there || r.finished:
		s.wrong++
	default:
		err = s.job.Draw(ctx, u)
	}
	if err == nil {
		r.there[u.K], r.sure[u.K] = true, time.Now()
		r.left--
		s.at++
	}
	return errors.Join(err, s.release(name))
}

// jump chooses any unit that may be missing as the next: where others are at work,
// going on one by one would meet them again and again.
func (s *share) jump() {
	var missing []int
	for i, u := range s.units {
		r := &s.rows[u.Row]
		if !r.finished && !r.there[u.K] && !s.isBusy(unitName(r.Row, u.K)) {
			missing = append(missing, i)
		}
	}
	if len(missing) > 0 {
		s.at = missing[rand.IntN(len(missing))]
	}
}

// finish finishes a row whose units are all there, unless another worker is at it.
func (s *share) finish(ctx context.Context, i int) (err error) {
	r := &s.rows[i]
	if r.finished, err = s.job.Finished(i); err != nil || r.finished {
		return err
	}
	ok, err := s.claim(finishName(r.Row))
	if err != nil {
		return err
	}
	if !ok {
		s.busy[finishName(r.Row)] = time.Now()
		return nil
	}
	err = patient{ctx: ctx, most: s.o.Patience}.try(func() (err error) {
		if r.finished, err = s.job.Finished(i); err == nil && !r.finished {
			r.finished, err = s.job.Finish(ctx, i)
		}
		return err
	})
	if err = errors.Join(err, s.release(finishName(r.Row))); err != nil || r.finished {
		return err
	}
	clear(r.sure) // a damaged unit was removed
	if err := s.listRow(i); err != nil || r.left > 0 {
		return err
	}
	return s.rest(ctx) // it was an old list that did not show a unit
}

// longestWait is the most that a worker waits before it looks again.
const longestWait = 5 * time.Second

// rest is a pause that gets longer as long as there is nothing to do.
func (s *share) rest(ctx context.Context) error {
	s.idle = min(max(2*s.idle, 50*time.Millisecond), longestWait)
	return pause(ctx, s.idle)
}

// wait lets others go on with the last units, and sees whether they do.
func (s *share) wait(ctx context.Context) error {
	if s.idle > time.Second && !s.told {
		s.told = true
		s.job.Wait(s.waitedFor())
	}
	if err := s.rest(ctx); err != nil {
		return err
	}
	if err := s.list(); err != nil {
		return err
	}
	return s.freeClaims()
}

// waitedFor names the workers that others wait for.
func (s *share) waitedFor() string {
	owners := map[string]bool{}
	for name := range s.busy {
		if id, _, err := s.owner(name); err == nil {
			owners[id] = true
		}
	}
	others, err := s.Others()
	var names []string
	for _, o := range others {
		if owners[o.ID] {
			names = append(names, o.String())
		}
	}
	if err != nil || len(names) == 0 {
		return "waiting for other workers"
	}
	return "waiting for " + strings.Join(names, "; ")
}

// watch ends the work of a worker that was announced as one of several, by its part,
// and sees no trace of any other: the folder may be one of this machine alone, in
// which each would do all the work. Part 0 is the one that all others look for.
func (w *Worker) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	if w.o.Part.N < 2 || w.o.Part.I == 0 {
		return
	}
	for began := time.Now(); ; {
		if pause(ctx, w.o.Alone/20) != nil || w.seesOthers() {
			return
		}
		if time.Since(began) > w.o.Alone {
			cancel(human.Again{Err: fmt.Errorf("part %s: no other worker was seen in %s for %v. Either this folder is not shared with the machines that the other parts run on: give --results one that is. Or no other part has begun: start part 0 first, or leave --part out",
				w.o.Part, filepath.Dir(w.folder), w.o.Alone)})
			return
		}
	}
}

// seesOthers reports whether another part was ever begun here, or another worker is
// here.
func (w *Worker) seesOthers() bool {
	parts, err := w.Names(filepath.Join(w.folder, partsIn))
	if err != nil || len(parts) > 1 {
		return err == nil
	}
	others, err := w.Others()
	return err == nil && slices.ContainsFunc(others, func(o Other) bool { return o.Part != w.o.Part.String() })
}
