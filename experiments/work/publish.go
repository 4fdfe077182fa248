package work

import (
	"errors"
	"io"
	"path/filepath"
	"syscall"
)

// Publish makes a file of what fill writes appear under its name, whole, unless
// there is one of that name: the first stays, whoever wrote it, and is never
// replaced. first tells that it is ours. by is the id of the worker, which is a part
// of the temporary name.
func Publish(on FS, path, by string, fill func(io.Writer) error) (first bool, err error) {
	temporary := TemporaryName(path, by)
	for range 8 {
		err = on.Create(temporary, true, fill)
		if taken(err) { // ours, of a call whose answer was lost: is it whole?
			on.Remove(temporary)
			continue
		}
		if err != nil {
			return false, err
		}
		if first, err = link(on, temporary, path); !gone(err) {
			break
		} // it was tidied by a worker for whom all is there
	}
	if removed := on.Remove(temporary); err == nil && !gone(removed) {
		err = removed
	}
	return first, err
}

// TemporaryName is what a file is called while a worker writes it.
func TemporaryName(path, by string) string {
	folder, name := filepath.Split(path)
	return folder + "." + name + "." + by
}

// link gives a file its name, unless that is taken.
func link(on FS, from, to string) (first bool, err error) {
	err = on.Link(from, to)
	if err == nil {
		return true, nil
	}
	if info, fault := on.Look(from); fault == nil && info.Links > 1 {
		return true, nil // the answer was lost
	}
	switch {
	case taken(err):
		return false, nil
	case !refusesLinks(err):
		return false, err
	}
	if _, fault := on.Look(to); fault == nil {
		return false, nil
	} else if !gone(fault) {
		return false, fault
	}
	return true, on.Rename(from, to)
}

// refusesLinks tells of a file system without hard links, as some in user space are.
func refusesLinks(err error) bool {
	for _, e := range []syscall.Errno{syscall.EPERM, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EMLINK, syscall.EXDEV} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
