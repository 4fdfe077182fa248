package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A lock keeps other processes out of an experiment's folder. The kernel drops
// it when the process ends, however it ends.
type lock struct{ f *os.File }

// lockFolder takes the lock of a folder, which is made if need be. If another
// process holds it, the error names that process.
func lockFolder(folder string) (*lock, error) {
	path := filepath.Join(folder, ".lock")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, explainWrite(folder, err)
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, explainWrite(path, err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return nil, errors.Join(held(folder, f, err), f.Close())
		}
		if !current(f, path) { // its holder removed it while we opened it
			f.Close()
			continue
		}
		l := &lock{f}
		if err := l.sign(); err != nil {
			l.release()
			return nil, explainWrite(path, err)
		}
		return l, nil
	}
}

// held says who holds the lock.
func held(folder string, f *os.File, err error) error {
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%s cannot be locked: %w; choose a folder on a local disk with --results", folder, err)
	}
	who := "another process"
	if pid, err := io.ReadAll(io.LimitReader(f, 32)); err == nil && len(pid) > 0 {
		who = "process " + strings.TrimSpace(string(pid))
	}
	return fmt.Errorf("%s is in use by %s; wait until it is done or stop it, or choose another folder with --results", folder, who)
}

// current reports whether f is still the file at path.
func current(f *os.File, path string) bool {
	mine, err1 := f.Stat()
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, there)
}

// sign writes our process id into the lock.
func (l *lock) sign() error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0)
	return err
}

// release gives the folder back. The file goes first, while nobody else can
// hold it.
func (l *lock) release() {
	os.Remove(l.f.Name())
	l.f.Close()
}
