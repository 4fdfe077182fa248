// Package lying is a file system for tests that lies as network file systems may:
// it shows old lists of folders, calls files stale, does what it is asked and says
// that it did not.
package lying

import (
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"sagbench/experiments/work"
)

// An FS lies about another one, as one machine sees it: what it has done itself it
// sees. Its methods may be called by several goroutines.
type FS struct {
	work.FS
	Often float64       // how often it lies, from 0 to 1
	Old   time.Duration // age of the oldest list that it shows

	mu    sync.Mutex
	dice  *rand.Rand
	lists map[string][]list
	Lies  map[string]int // told so far, by kind
}

type list struct {
	names []string
	at    time.Time
}

// New is a file system that lies about the disk, in the order that a seed gives.
func New(seed uint64) *FS {
	return &FS{FS: work.Disk{}, Often: 0.15, Old: 300 * time.Millisecond, dice: rand.New(rand.NewPCG(seed, 0)), lists: map[string][]list{}, Lies: map[string]int{}}
}

// lie decides whether to tell a kind of lie now.
func (f *FS) lie(kind string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dice.Float64() >= f.Often {
		return false
	}
	f.Lies[kind]++
	return true
}

// Names implements work.FS: it may show an old list.
func (f *FS) Names(folder string) ([]string, error) {
	if f.lie("stale folder") {
		return nil, syscall.ESTALE
	}
	names, err := f.FS.Names(folder)
	if err != nil {
		return nil, err
	}
	old := f.lie("old list")
	f.mu.Lock()
	defer f.mu.Unlock()
	known := append(f.lists[folder], list{slices.Clone(names), time.Now()})
	known = slices.DeleteFunc(known, func(l list) bool { return time.Since(l.at) > f.Old })
	f.lists[folder] = known
	if old && len(known) > 0 {
		return slices.Clone(known[f.dice.IntN(len(known))].names), nil
	}
	return names, nil
}

// Look implements work.FS.
func (f *FS) Look(path string) (work.Info, error) {
	if f.lie("stale file") {
		return work.Info{}, syscall.ESTALE
	}
	return f.FS.Look(path)
}

// Read implements work.FS.
func (f *FS) Read(path string) ([]byte, error) {
	if f.lie("stale content") {
		return nil, syscall.ESTALE
	}
	return f.FS.Read(path)
}

// Create implements work.FS: of a call that made the file, the answer may be that of
// its repetition.
func (f *FS) Create(path string, durable bool, fill func(io.Writer) error) error {
	err := f.FS.Create(path, durable, fill)
	f.forget(path)
	if err == nil && f.lie("lost answer of O_EXCL") {
		return syscall.EEXIST
	}
	return err
}

// Rewrite implements work.FS.
func (f *FS) Rewrite(path string, data []byte) error {
	if f.lie("stale rewrite") {
		return syscall.ESTALE
	}
	return f.FS.Rewrite(path, data)
}

// Link implements work.FS.
func (f *FS) Link(from, to string) error {
	defer f.forget(to)
	return f.done("link", f.FS.Link(from, to), syscall.EEXIST)
}

// Rename implements work.FS.
func (f *FS) Rename(from, to string) error {
	defer f.forget(to)
	return f.done("rename", f.FS.Rename(from, to), syscall.ENOENT)
}

// Remove implements work.FS.
func (f *FS) Remove(path string) error {
	defer f.forget(path)
	return f.done("remove", f.FS.Remove(path), syscall.ENOENT)
}

// forget drops the old lists of the folder of a file that was made or removed here.
func (f *FS) forget(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.lists, filepath.Dir(path))
}

// done is the answer to a call that was done: that to its repetition, where the first
// one was lost, or an error that tells nothing.
func (f *FS) done(call string, err error, again syscall.Errno) error {
	switch {
	case err == nil && f.lie("lost answer of "+call):
		return again
	case err == nil && f.lie("error after "+call):
		return syscall.EIO
	}
	return err
}
