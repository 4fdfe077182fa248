package work

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sagbench/experiments/human"
)

// Folder is the name, in a folder that is worked on, of the one in which workers
// tell each other what they do. It is removed when the work is done.
const Folder = ".work"

// What lies in it:
const (
	planFile    = "plan.json" // what the work is, by the first worker
	claimsIn    = "claims"    // a file for each unit that is being made, with the id of its worker
	workersIn   = "workers"   // a file for each worker, an About, whose time is its last sign of life
	partsIn     = "parts"     // a file for each part that was ever begun
	kindsEnding = ".kind"     // of a file for each row: the kind of device that draws it
)

// An About is what a worker tells of itself at each sign of life.
type About struct {
	Host   string  `json:"host"`
	PID    int     `json:"pid"`
	Part   string  `json:"part,omitempty"` // 3/16
	Device string  `json:"device"`
	Kind   string  `json:"kind,omitempty"`  // of the device
	Plan   string  `json:"plan,omitempty"`  // sha256 of the plan.json that it works by
	Row    string  `json:"row,omitempty"`   // the row that it works on, by its key
	Doing  string  `json:"doing,omitempty"` // for people: images 16 to 31
	Step   int     `json:"step,omitempty"`  // of Steps
	Steps  int     `json:"steps,omitempty"`
	Drawn  int     `json:"drawn"`          // images, by this worker
	Rate   float64 `json:"rate,omitempty"` // images a second, in this row
}

// aboutBytes is the size of a worker's file, which is rewritten in place.
const aboutBytes = 1024

// encoded is the content of the worker's file, always of the same length.
func (a About) encoded() []byte {
	data, err := json.Marshal(a)
	if err != nil || len(data) >= aboutBytes { // a very long name
		data, _ = json.Marshal(About{Plan: a.Plan})
	}
	return append(append(data, bytes.Repeat([]byte(" "), aboutBytes-1-len(data))...), '\n')
}

// A Plan is what the work is.
type Plan struct {
	Data []byte
	// Differs is nil where other data describes the same work, or else tells the
	// differences.
	Differs func(data []byte) error
}

// A Worker is one of those that work on a folder. Its methods are called by one
// goroutine, but for Tell.
type Worker struct {
	FS
	ID     string
	o      Options
	folder string // .work
	held   map[string]bool
	stop   func() // ends the signs of life

	mu    sync.Mutex // guards what follows
	about About
	now   time.Time // of the last sign of life, by the server's clock
}

// ReadPlan is the plan of those who work on a folder; nil where there is none.
func ReadPlan(on FS, folder string) []byte {
	data, err := on.Read(filepath.Join(folder, Folder, planFile))
	if err != nil {
		return nil
	}
	return data
}

// Join makes this process one of the workers on a folder. Where others are at work
// on something else, that is an error.
func Join(ctx context.Context, on FS, folder string, about About, plan Plan, o Options) (*Worker, error) {
	w := &Worker{FS: Patient(ctx, on, o.Patience), ID: newID(), o: o, folder: filepath.Join(folder, Folder), held: map[string]bool{}, about: about, stop: func() {}}
	w.about.Host, w.about.PID, w.about.Part = hostName(), os.Getpid(), o.Part.String()
	if err := w.register(); err != nil {
		return nil, err
	}
	if err := w.agree(plan); err != nil {
		w.Leave()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var life sync.WaitGroup
	life.Go(func() {
		for pause(ctx, o.Heartbeat) == nil {
			w.beat()
		}
	})
	w.stop = func() {
		cancel()
		life.Wait()
	}
	return w, nil
}

// register makes the worker's own file, before it touches anything else.
func (w *Worker) register() error {
	for attempt := 0; ; attempt++ {
		err := error(nil)
		for _, f := range []string{claimsIn, workersIn, partsIn} {
			err = errors.Join(err, w.MakeFolder(filepath.Join(w.folder, f)))
		}
		if err == nil {
			err = w.write(w.own(), w.about.encoded())
		}
		if err == nil && w.o.Part.N > 1 {
			err = w.write(filepath.Join(w.folder, partsIn, fmt.Sprint(w.o.Part.I)), nil)
		}
		if err == nil {
			return nil
		}
		if !gone(err) || attempt == 10 { // others may just have removed .work
			return err
		}
	}
}

// write makes a small file, unless it is there.
func (w *Worker) write(path string, data []byte) error {
	err := w.Create(path, false, func(out io.Writer) error {
		_, err := out.Write(data)
		return err
	})
	if taken(err) {
		return nil
	}
	return err
}

// own is the worker's file.
func (w *Worker) own() string { return filepath.Join(w.folder, workersIn, w.ID) }

// agree makes the plan that of the folder, or finds that it is. A plan by which
// nobody alive works is replaced.
func (w *Worker) agree(plan Plan) error {
	path := filepath.Join(w.folder, planFile)
	for {
		theirs, err := w.Read(path)
		if gone(err) {
			first := false
			if first, err = w.Publish(path, func(out io.Writer) error {
				_, err := out.Write(plan.Data)
				return err
			}); err == nil && !first {
				continue
			}
			theirs = plan.Data
		}
		if err != nil {
			return err
		}
		key := planKey(theirs)
		differs := plan.Differs(theirs)
		if differs == nil {
			w.mu.Lock()
			w.about.Plan = key
			w.mu.Unlock()
			w.beat()
			return nil
		}
		w.beat() // which tells the time
		others, err := w.Others()
		if err == nil {
			err = disputed(filepath.Dir(w.folder), others, key, w.o.Stale, differs)
		}
		if err == nil {
			err = w.takeAway(path)
		}
		if err != nil {
			return err
		}
	}
}

// disputed is an error where one of the others, alive, works on a folder by the plan with
// this key, which differs from ours.
func disputed(folder string, others []Other, key string, stale time.Duration, differs error) error {
	for _, o := range others {
		if o.Plan == key && !o.Ended && o.Silent <= stale {
			return human.Misusef("%s is being worked on, with other settings, by %s:\n%w\nUse the same experiment file, settings and version of the program, or wait until that is done, or choose another folder with --results",
				folder, o, differs)
		}
	}
	return nil
}

// Dispute is the error with which Join would refuse a plan now, from outside.
func Dispute(on FS, folder string, plan Plan, stale time.Duration) error {
	theirs := ReadPlan(on, folder)
	if theirs == nil {
		return nil
	}
	differs := plan.Differs(theirs)
	if differs == nil {
		return nil
	}
	others, _, err := Watch(on, folder)
	return errors.Join(err, disputed(folder, others, planKey(theirs), stale, differs))
}

// planKey tells a plan from all others.
func planKey(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// takeAway removes a file of whose content one is sure to be the only one to have
// removed it: it is renamed first. That it is gone is no error.
func (w *Worker) takeAway(path string) error {
	aside := TemporaryName(path, w.ID)
	if err := w.Rename(path, aside); err != nil && !gone(err) {
		return err
	}
	if err := w.Remove(aside); err != nil && !gone(err) {
		return err
	}
	return nil
}

// Publish is the function Publish by this worker.
func (w *Worker) Publish(path string, fill func(io.Writer) error) (first bool, err error) {
	return Publish(w.FS, path, w.ID, fill)
}

// Tell changes what the worker tells of itself from its next sign of life on.
func (w *Worker) Tell(change func(*About)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.about)
}

// beat is a sign of life. That it fails is no error: others may then do double work.
func (w *Worker) beat() {
	w.mu.Lock()
	data := w.about.encoded()
	w.mu.Unlock()
	if w.Rewrite(w.own(), data) != nil {
		return
	}
	if info, err := w.Look(w.own()); err == nil {
		w.mu.Lock()
		w.now = info.Time
		w.mu.Unlock()
	}
}

// Leave ends the worker: its claims are free, its file is removed.
func (w *Worker) Leave() {
	w.stop()
	for name := range w.held {
		w.release(name)
	}
	w.Remove(w.own())
}

// Close ends the worker when all work is done: what the workers had in common goes.
// Some of them may still have to find out that there is nothing left.
func (w *Worker) Close() error {
	w.Leave()
	return Clear(filepath.Dir(w.folder))
}

// Clear removes what workers on a folder, where nothing is left to do, had in common.
func Clear(folder string) (err error) {
	for range 3 { // another worker may remove the same, or give a sign of life
		if err = os.RemoveAll(filepath.Join(folder, Folder)); err == nil {
			break
		}
	}
	return err
}

// Kind makes a kind of device that of a row, or compares it with the one that it
// has. Another one is an error unless the options allow it.
func (w *Worker) Kind(row, title, kind string) error {
	path := filepath.Join(w.folder, row+kindsEnding)
	for {
		theirs, err := w.Read(path)
		if err == nil {
			if string(theirs) == kind || w.o.Mixed {
				return nil
			}
			return human.Misusef("%s: its images so far were drawn on another kind of device, which may differ in their last bits\n  there: %s\n  here:  %s\nRun it on such a device, or give --mixed to mix them: metrics.json will count the images of each kind", title, theirs, kind)
		}
		if !gone(err) {
			return err
		}
		if first, err := w.Publish(path, func(out io.Writer) error {
			_, err := io.WriteString(out, kind)
			return err
		}); err != nil || first {
			return err
		}
	}
}

// pause sleeps, unless ctx is done earlier, which is an error.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// An Other is a worker as others see it.
type Other struct {
	About
	ID     string
	Silent time.Duration // since its last sign of life
	Ended  bool          // it ran on this machine, and does not any more
}

// String names the worker for people.
func (o Other) String() string {
	name := fmt.Sprintf("process %d on %s", o.PID, o.Host)
	if o.Part != "" {
		name += ", part " + o.Part
	}
	return fmt.Sprintf("%s (last heard of %s ago)", name, human.Duration(o.Silent))
}

// Others are the other workers on the folder.
func (w *Worker) Others() ([]Other, error) {
	all, err := workers(w.FS, w.folder, w.serverTime())
	for i, o := range all {
		if o.ID == w.ID {
			return append(all[:i], all[i+1:]...), err
		}
	}
	return all, err
}

// Alone reports whether no other worker can be here: none but those that have ended
// or have been silent for very long.
func (w *Worker) Alone() bool {
	others, err := w.Others()
	return err == nil && !slices.ContainsFunc(others, func(o Other) bool { return !o.Ended && o.Silent < w.o.Abandoned })
}

func (w *Worker) serverTime() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// workers are those whose files lie below a folder .work, at a time of its server.
func workers(on FS, folder string, now time.Time) ([]Other, error) {
	names, err := on.Names(filepath.Join(folder, workersIn))
	if err != nil {
		return nil, err
	}
	var all []Other
	for _, id := range names {
		path := filepath.Join(folder, workersIn, id)
		info, err := on.Look(path)
		var data []byte
		if err == nil {
			data, err = on.Read(path)
		}
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		o := Other{ID: id, Silent: max(0, now.Sub(info.Time)), Ended: ended(id)}
		json.Unmarshal(bytes.TrimSpace(data), &o.About) // one that has just begun has written nothing
		if o.Host == "" {
			o.Host = strings.SplitN(id, "-", 2)[0]
		}
		all = append(all, o)
	}
	return all, nil
}
