package work_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sagbench/experiments/work"
	"sagbench/internal/lying"
)

// On a file system that shows old lists, calls files stale and loses answers of link,
// O_EXCL, rename and unlink, workers leave what one leaves on a good one.
func TestLyingFileSystem(t *testing.T) {
	folder := t.TempDir()
	rows := newRows(t, folder, 60, 1, 100, 39)
	machines := make([]*lying.FS, 8)
	var drawn atomic.Int64
	var all sync.WaitGroup
	for i := range machines {
		machines[i] = lying.New(uint64(i))
		all.Go(func() {
			o := quick()
			o.Part = work.Part{I: i, N: len(machines)}
			f, err := shareOf(t.Context(), machines[i], folder, rows, o, time.Millisecond)
			if err != nil {
				t.Error(err)
				return
			}
			drawn.Add(f.drawn.Load())
		})
	}
	all.Wait()
	checkRows(t, folder, rows)
	lies := map[string]int{}
	for _, m := range machines {
		for kind, n := range m.Lies {
			lies[kind] += n
		}
	}
	t.Logf("%d units drawn for 200; lies: %v", drawn.Load(), lies)
	for _, kind := range []string{"old list", "stale folder", "stale file", "lost answer of O_EXCL", "lost answer of link", "error after link", "lost answer of remove"} {
		if lies[kind] == 0 {
			t.Errorf("no lie of kind %q was told", kind)
		}
	}
}

// A refusing file system has no hard links, or answers to link what a test wants.
type refusing struct {
	work.FS
	answer error
	does   bool // nevertheless
}

func (r refusing) Link(from, to string) error {
	if r.does {
		if err := r.FS.Link(from, to); err != nil {
			return err
		}
	}
	return r.answer
}

// The first file under a name stays, however link answers; nothing else is left.
func TestPublish(t *testing.T) {
	text := func(s string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	for name, on := range map[string]work.FS{
		"links":                    work.Disk{},
		"no links":                 refusing{work.Disk{}, syscall.EPERM, false},
		"answer lost":              refusing{work.Disk{}, syscall.EEXIST, true},
		"answer lost, other error": refusing{work.Disk{}, syscall.EIO, true},
	} {
		folder := t.TempDir()
		path := filepath.Join(folder, "file")
		if first, err := work.Publish(on, path, "a", text("one")); !first || err != nil {
			t.Errorf("%s: first: %v, %v", name, first, err)
		}
		if first, err := work.Publish(on, path, "b", text("two")); first || err != nil {
			t.Errorf("%s: second: %v, %v", name, first, err)
		}
		if data, err := os.ReadFile(path); string(data) != "one" || err != nil {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		full := errors.New("the disk is full")
		if _, err := work.Publish(on, filepath.Join(folder, "other"), "c", func(io.Writer) error { return full }); !errors.Is(err, full) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := work.Publish(on, filepath.Join(folder, "none", "file"), "d", text("x")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if names, err := work.Disk.Names(work.Disk{}, folder); !slices.Equal(names, []string{"file"}) || err != nil {
			t.Errorf("%s: %v is left, %v", name, names, err)
		}
	}
	away := refusing{work.Disk{}, syscall.EACCES, false}
	folder := t.TempDir()
	if _, err := work.Publish(away, filepath.Join(folder, "file"), "e", text("x")); !errors.Is(err, syscall.EACCES) {
		t.Errorf("%v", err)
	}
	if left := fmt.Sprint(os.ReadDir(folder)); left != "[] <nil>" {
		t.Errorf("%s is left", left)
	}
}
