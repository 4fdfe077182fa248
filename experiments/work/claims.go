package work

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// A claim spares others the work on a unit; that each unit is done does not depend on
// it. It is a file, made by O_EXCL, with the id of its worker.

func (w *Worker) claimPath(name string) string { return filepath.Join(w.folder, claimsIn, name) }

// claim takes a unit, or the finishing of a row, unless another worker has it.
func (w *Worker) claim(name string) (bool, error) {
	err := w.Create(w.claimPath(name), false, func(out io.Writer) error {
		_, err := fmt.Fprintln(out, w.ID)
		return err
	})
	if taken(err) {
		owner, _, err := w.owner(name)
		if err != nil || owner != w.ID { // ours: the answer was lost
			return false, err
		}
	} else if err != nil && !gone(err) { // gone: all is done, or somebody has removed .work
		return false, err
	}
	w.held[name] = true
	return true, nil
}

// release gives a claim back.
func (w *Worker) release(name string) error {
	delete(w.held, name)
	if err := w.Remove(w.claimPath(name)); !gone(err) {
		return err
	}
	return nil
}

// owner is the id of the worker that has a claim, and "" where the claim has just
// been made, or holds what is no id; there tells whether there is one.
func (w *Worker) owner(name string) (id string, there bool, err error) {
	data, err := w.Read(w.claimPath(name))
	if gone(err) {
		return "", false, nil
	}
	id = strings.TrimSpace(string(data))
	if strings.ContainsAny(id, "/\x00") { // no name of a file
		id = ""
	}
	return id, err == nil, err
}

// claims are the names of all claims of others.
func (w *Worker) claims() ([]string, error) {
	names, err := w.Names(filepath.Join(w.folder, claimsIn))
	out := names[:0]
	for _, n := range names {
		if !w.held[n] && !strings.HasPrefix(n, ".") {
			out = append(out, n)
		}
	}
	return out, err
}

// isFree removes a claim if its worker has ended, or has been silent for too long, and
// reports whether it is gone. Both times compared are the server's: those of the
// worker's file, and of ours.
func (w *Worker) isFree(name string) (bool, error) {
	owner, there, err := w.owner(name)
	if err != nil || !there {
		return err == nil, err
	}
	if !ended(owner) {
		path := filepath.Join(w.folder, workersIn, owner)
		if owner == "" {
			path = w.claimPath(name)
		}
		info, err := w.Look(path)
		if err != nil && !gone(err) {
			return false, err
		}
		// A worker's file is there before it claims anything.
		if err == nil && w.serverTime().Sub(info.Time) <= w.o.Stale {
			return false, nil
		}
	}
	return true, w.takeAway(w.claimPath(name))
}
