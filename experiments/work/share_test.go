package work_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sagbench/experiments/human"
	"sagbench/experiments/work"
)

// A fake is a Job whose units are files of a line, which a finisher joins into one.
type fake struct {
	on     work.FS
	by     string
	folder string
	rows   []work.Row
	took   time.Duration // for a unit
	drawn  atomic.Int64
	waited string
}

func (f *fake) row(i int) string        { return filepath.Join(f.folder, f.rows[i].Key) }
func (f *fake) whole(i int) string      { return filepath.Join(f.row(i), "all") }
func (f *fake) file(u work.Unit) string { return filepath.Join(f.row(u.Row), fmt.Sprint(u.K)) }

func (f *fake) Rows() []work.Row { return f.rows }

func (f *fake) Missing(row int) ([]int, error) {
	names, err := f.on.Names(f.row(row))
	there := map[string]bool{}
	for _, n := range names {
		there[n] = true
	}
	var missing []int
	for k := range f.rows[row].Units {
		if !there["all"] && !there[fmt.Sprint(k)] {
			missing = append(missing, k)
		}
	}
	return missing, err
}

func (f *fake) There(u work.Unit) (bool, error) {
	_, err := f.on.Look(f.file(u))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (f *fake) Draw(ctx context.Context, u work.Unit) error {
	time.Sleep(f.took)
	if err := ctx.Err(); err != nil {
		return err
	}
	f.drawn.Add(1)
	_, err := work.Publish(f.on, f.file(u), f.by, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "row %d unit %d\n", u.Row, u.K)
		return err
	})
	return err
}

// tidy removes units that were drawn after the row was finished.
func (f *fake) tidy() error {
	for i := range f.rows {
		names, err := f.on.Names(f.row(i))
		if err != nil {
			return err
		}
		for _, name := range names {
			if name != "all" {
				if err := f.on.Remove(filepath.Join(f.row(i), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	return nil
}

func (f *fake) Finish(_ context.Context, row int) (bool, error) {
	missing, err := f.Missing(row)
	if err != nil || len(missing) > 0 {
		return false, err
	}
	var all bytes.Buffer
	for k := range f.rows[row].Units {
		data, err := os.ReadFile(f.file(work.Unit{row, k}))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // somebody else has joined them
		}
		if err != nil {
			return false, err
		}
		all.Write(data)
	}
	if _, err := work.Publish(f.on, f.whole(row), f.by, func(w io.Writer) error {
		_, err := w.Write(all.Bytes())
		return err
	}); err != nil {
		return false, err
	}
	entries, err := os.ReadDir(f.row(row))
	for _, e := range entries {
		if e.Name() != "all" {
			if err := os.Remove(filepath.Join(f.row(row), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
		}
	}
	return true, err
}

func (f *fake) Finished(row int) (bool, error) {
	_, err := f.on.Look(f.whole(row))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (f *fake) Wait(why string) { f.waited = why }

// quick are the times of tests.
func quick() work.Options {
	o := work.Defaults()
	o.Heartbeat, o.Stale, o.Listing, o.Patience = 20*time.Millisecond, 400*time.Millisecond, 100*time.Millisecond, 5*time.Second
	return o
}

// same is a plan that agrees with an equal one.
func same(text string) work.Plan {
	return work.Plan{[]byte(text), func(data []byte) error {
		if string(data) != text {
			return fmt.Errorf("  %s there, %s here", data, text)
		}
		return nil
	}}
}

// newRows makes the folders of rows.
func newRows(t testing.TB, folder string, units ...int) []work.Row {
	t.Helper()
	var rows []work.Row
	for i, n := range units {
		rows = append(rows, work.Row{fmt.Sprintf("row%d", i), n})
		if err := os.MkdirAll(filepath.Join(folder, rows[i].Key), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

// share has a worker do its share.
func shareOf(ctx context.Context, on work.FS, folder string, rows []work.Row, o work.Options, took time.Duration) (*fake, error) {
	w, err := work.Join(ctx, on, folder, work.About{Device: "cpu"}, same("a plan"), o)
	if err != nil {
		return nil, err
	}
	f := &fake{on: w, by: w.ID, folder: folder, rows: rows, took: took}
	if err := w.Work(ctx, f); err != nil {
		w.Leave()
		return f, err
	}
	return f, errors.Join(f.tidy(), w.Close())
}

// checkRows compares what is left in a folder with what one undisturbed worker leaves.
func checkRows(t *testing.T, folder string, rows []work.Row) {
	t.Helper()
	want := map[string]string{}
	for i, r := range rows {
		var all strings.Builder
		for k := range r.Units {
			fmt.Fprintf(&all, "row %d unit %d\n", i, k)
		}
		want[filepath.Join(r.Key, "all")] = all.String()
	}
	err := filepath.Walk(folder, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			if err == nil && info.Name() == work.Folder {
				t.Errorf("%s is left", path)
			}
			return err
		}
		name, _ := filepath.Rel(folder, path)
		data, err := os.ReadFile(path)
		if want[name] != string(data) {
			t.Errorf("%s: %d bytes that are not those of one worker", name, len(data))
		}
		delete(want, name)
		return err
	})
	if err != nil || len(want) > 0 {
		t.Errorf("missing %v, %v", want, err)
	}
}

// A slow file system counts calls that each take some time.
type slow struct {
	work.FS
	took  time.Duration
	calls atomic.Int64
	lists atomic.Int64
}

func (s *slow) call() { s.calls.Add(1); time.Sleep(s.took) }

func (s *slow) Names(folder string) ([]string, error) {
	s.lists.Add(1)
	s.call()
	return s.FS.Names(folder)
}
func (s *slow) Look(path string) (work.Info, error) { s.call(); return s.FS.Look(path) }
func (s *slow) Read(path string) ([]byte, error)    { s.call(); return s.FS.Read(path) }
func (s *slow) Create(path string, durable bool, fill func(io.Writer) error) error {
	s.call()
	return s.FS.Create(path, false, fill) // the disk of the tests is not what is counted
}
func (s *slow) Rewrite(path string, data []byte) error { s.call(); return s.FS.Rewrite(path, data) }
func (s *slow) Link(from, to string) error             { s.call(); return s.FS.Link(from, to) }
func (s *slow) Rename(from, to string) error           { s.call(); return s.FS.Rename(from, to) }
func (s *slow) Remove(path string) error               { s.call(); return s.FS.Remove(path) }
func (s *slow) MakeFolder(path string) error           { s.call(); return s.FS.MakeFolder(path) }

// 64 workers share 4,096 units over a file system on which each call takes 2 ms: at
// most 8 calls a unit, all told, and few units drawn twice.
func TestManyWorkers(t *testing.T) {
	const workers, most = 64, 8
	folder := t.TempDir()
	rows := newRows(t, folder, 1024, 1024, 1024, 1024)
	units := 4096
	on := &slow{FS: work.Disk{}, took: 2 * time.Millisecond}
	var drawn atomic.Int64
	began := time.Now()
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			o := work.Defaults()
			o.Part = work.Part{i, workers}
			f, err := shareOf(t.Context(), on, folder, rows, o, 0)
			if err != nil {
				t.Error(err)
				return
			}
			drawn.Add(f.drawn.Load())
		})
	}
	all.Wait()
	checkRows(t, folder, rows)
	calls := float64(on.calls.Load()) / float64(units)
	t.Logf("%.2f calls a unit, %d lists, %d units drawn for %d, %v", calls, on.lists.Load(), drawn.Load(), units, time.Since(began))
	if calls > most {
		t.Errorf("%.2f calls of the file system a unit, expected at most %d", calls, most)
	}
	if drawn.Load() > int64(units+workers) {
		t.Errorf("%d units drawn for %d", drawn.Load(), units)
	}
}

// Parts that overlap, a wrong n and workers without a part cost no double work.
func TestWrongParts(t *testing.T) {
	folder := t.TempDir()
	rows := newRows(t, folder, 7, 40, 13)
	var drawn atomic.Int64
	var all sync.WaitGroup
	for _, p := range []work.Part{{}, {}, {3, 4}, {3, 4}, {9, 10}, {0, 1}} {
		all.Go(func() {
			o := quick()
			o.Part = p
			f, err := shareOf(t.Context(), work.Disk{}, folder, rows, o, time.Millisecond)
			if err != nil {
				t.Error(err)
				return
			}
			drawn.Add(f.drawn.Load())
		})
	}
	all.Wait()
	checkRows(t, folder, rows)
	if drawn.Load() != 60 {
		t.Errorf("%d units drawn, want 60", drawn.Load())
	}
}

// A part that is not the first, and sees no trace of any other, gives up: its folder
// may not be that of the others. Units that it has drawn stay. Another part, even one
// that has ended, is such a trace.
func TestNotShared(t *testing.T) {
	folder := t.TempDir()
	rows := newRows(t, folder, 200)
	o := quick()
	o.Part, o.Alone = work.Part{2, 4}, 200*time.Millisecond
	for range 2 { // its own traces are none
		_, err := shareOf(t.Context(), work.Disk{}, folder, rows, o, 5*time.Millisecond)
		if !errors.As(err, new(human.Again)) || !strings.Contains(err.Error(), "part 2/4") || !strings.Contains(err.Error(), folder) {
			t.Fatalf("not found out: %v", err)
		}
	}
	f := &fake{on: work.Disk{}, folder: folder, rows: rows}
	if missing, err := f.Missing(0); err != nil || len(missing) == 200 {
		t.Errorf("nothing was kept, %v", err)
	}
	first := o
	first.Part = work.Part{0, 4}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := shareOf(ctx, work.Disk{}, folder, rows, first, 5*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("part 0 alone: %v", err)
	}
	if _, err := shareOf(t.Context(), work.Disk{}, folder, rows, o, 0); err != nil {
		t.Errorf("after part 0: %v", err)
	}
	checkRows(t, folder, rows)
}

// A worker that is silent for too long loses its unit to another; when it goes on, it
// does harmless double work.
func TestSilentWorker(t *testing.T) {
	folder := t.TempDir()
	rows := newRows(t, folder, 4)
	o := quick()
	frozen, err := work.Join(t.Context(), work.Disk{}, folder, work.About{}, same("a plan"), o)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := frozen.Claim("row0-2"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	frozen.FallSilent() // no sign of life any more
	began := time.Now()
	f, err := shareOf(t.Context(), work.Disk{}, folder, rows, o, 0)
	if err != nil || f.drawn.Load() != 4 {
		t.Errorf("%d units, %v", f.drawn.Load(), err)
	}
	if waited := time.Since(began); waited < o.Stale/2 { // its last sign of life may be a while ago
		t.Errorf("its unit was taken over after %v, with a limit of %v", waited, o.Stale)
	}
	checkRows(t, folder, rows)
	late := &fake{on: frozen, by: frozen.ID, folder: folder, rows: rows}
	if err := errors.Join(late.Draw(t.Context(), work.Unit{0, 2}), late.tidy()); err != nil {
		t.Error(err)
	}
	frozen.Leave()
	checkRows(t, folder, rows)
}

// A worker of this machine that has ended is not waited for.
func TestEndedWorker(t *testing.T) {
	folder := t.TempDir()
	rows := newRows(t, folder, 4)
	w, err := work.Join(t.Context(), work.Disk{}, folder, work.About{}, same("other settings"), work.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := w.Claim("row0-2"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := shareOf(t.Context(), work.Disk{}, folder, rows, work.Defaults(), 0); !errors.As(err, new(human.Misuse)) || !strings.Contains(err.Error(), "other settings there, a plan here") {
		t.Errorf("a worker with another plan: %v", err)
	}
	w.FallSilent()
	// It lives on as another process, one that has ended.
	m := work.IDForm.FindStringSubmatch(w.ID)
	other := fmt.Sprintf("%s-%s-%d-1-1", m[1], m[2], 1<<22+1)
	if work.Ended(w.ID) || !work.Ended(other) || work.Ended("node17-0123abcd-4194305-1-1") {
		t.Fatalf("%s, %s", w.ID, other)
	}
	if err := errors.Join(os.Rename(w.File(), filepath.Join(filepath.Dir(w.File()), other)),
		os.WriteFile(w.ClaimFile("row0-2"), []byte(other+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if f, err := shareOf(t.Context(), work.Disk{}, folder, rows, work.Defaults(), 0); err != nil || f.drawn.Load() != 4 {
		t.Errorf("%v", err) // and all of it within this test's time, not five minutes
	}
	checkRows(t, folder, rows)
}

// A row belongs to a kind of device.
func TestKind(t *testing.T) {
	folder := t.TempDir()
	w, err := work.Join(t.Context(), work.Disk{}, folder, work.About{}, same("a plan"), quick())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, kind := range []string{"AVX-512", "AVX-512"} {
		if err := w.Kind("row0", "row 1/2", kind); err != nil {
			t.Error(err)
		}
	}
	err = w.Kind("row0", "row 1/2", "AVX2")
	if !errors.As(err, new(human.Misuse)) || !strings.Contains(err.Error(), "row 1/2") || !strings.Contains(err.Error(), "there: AVX-512") || !strings.Contains(err.Error(), "here:  AVX2") {
		t.Errorf("%v", err)
	}
	w.Mix()
	if err := errors.Join(w.Kind("row0", "", "AVX2"), w.Kind("row1", "", "AVX2")); err != nil {
		t.Error(err)
	}
}

func TestPart(t *testing.T) {
	for text, want := range map[string]string{
		"0/1": "0/1", "3/16": "3/16", "15/16": "15/16",
		"16/16": "", "-1/4": "", "1": "", "1/": "", "/4": "", "a/b": "", "1/0": "", "0/99999999": "", "1/2/3": "", "": "",
	} {
		var p work.Part
		if err := p.Set(text); (err == nil) != (want != "") || p.String() != want {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}
