package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"sagbench/experiments/human"
)

// Unreachable reports whether an error is that of a file system that is away for a
// while, or that has another idea of a file than this machine: the same call may
// succeed later.
func Unreachable(err error) bool {
	for _, e := range []syscall.Errno{syscall.EIO, syscall.ESTALE, syscall.ETIMEDOUT, syscall.EAGAIN, syscall.EINTR, syscall.ENOTCONN, syscall.ESHUTDOWN, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.ECONNREFUSED, syscall.ECONNRESET} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Patient is a file system that makes calls again, for some time, which fail because
// it is away; then the error is a human.Again. A call whose answer was lost meets its
// own work the next time: Publish and Worker know how to tell.
func Patient(ctx context.Context, on FS, most time.Duration) FS { return patient{on, ctx, most} }

type patient struct {
	FS
	ctx  context.Context
	most time.Duration
}

// try makes a call until it succeeds, or fails for good.
func (p patient) try(call func() error) error {
	began, wait := time.Now(), time.Millisecond
	for {
		err := call()
		if !Unreachable(err) {
			return err
		}
		if time.Since(began) > p.most {
			return human.Again{Err: fmt.Errorf("%w; tried for %s", err, human.Duration(p.most))}
		}
		if stopped := pause(p.ctx, wait); stopped != nil {
			return errors.Join(stopped, err)
		}
		wait = min(2*wait, 10*time.Second)
	}
}

func (p patient) Names(folder string) (names []string, err error) {
	err = p.try(func() (err error) { names, err = p.FS.Names(folder); return err })
	return names, err
}

func (p patient) Look(path string) (i Info, err error) {
	err = p.try(func() (err error) { i, err = p.FS.Look(path); return err })
	return i, err
}

func (p patient) Read(path string) (data []byte, err error) {
	err = p.try(func() (err error) { data, err = p.FS.Read(path); return err })
	return data, err
}

func (p patient) Create(path string, durable bool, fill func(io.Writer) error) error {
	return p.try(func() error { return p.FS.Create(path, durable, fill) })
}

func (p patient) Link(from, to string) error {
	return p.try(func() error { return p.FS.Link(from, to) })
}

func (p patient) Rename(from, to string) error {
	return p.try(func() error { return p.FS.Rename(from, to) })
}

func (p patient) Remove(path string) error {
	return p.try(func() error { return p.FS.Remove(path) })
}

func (p patient) MakeFolder(path string) error {
	return p.try(func() error { return p.FS.MakeFolder(path) })
}
