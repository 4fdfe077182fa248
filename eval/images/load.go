package images

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
)

// A Loader decodes images ahead of what looks at them: while a network is busy
// with a batch the next one is made ready.
type Loader[T any] struct {
	Workers    int // goroutines that decode; 0 = one a core
	Ahead      int // images that are ready or in the making beyond the one that is visited; at least 1
	SkipBroken bool
	// Prepare makes of an image what is visited, in the goroutine that decoded it.
	Prepare func(Image) (T, error)
}

// Run visits the images in order. Once one is broken, unless these are skipped,
// no more are visited; the rest is decoded all the same, so that the error, a
// *BrokenError without a path, lists every one of them.
func (l Loader[T]) Run(ctx context.Context, from iter.Seq2[Pending, error], visit func(T) error) (Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan *load[T], max(1, l.Ahead)-1)
	jobs := make(chan *load[T])
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var failed atomic.Bool // nothing needs to be prepared any more
	for range l.workers() {
		running.Go(func() {
			for j := range jobs {
				j.work(l.Prepare, &failed)
			}
		})
	}
	var ended error
	running.Go(func() {
		defer close(jobs)
		defer close(queue)
		ended = feed(ctx, from, queue, jobs)
	})
	var report Report
	n := 0
	for j := range queue {
		<-j.ready
		n++
		switch {
		case j.fault != nil:
			return report, j.fault
		case j.broken != nil:
			report.Broken = append(report.Broken, Broken{j.Name, j.broken})
			if !l.SkipBroken {
				failed.Store(true)
			}
		default:
			report.count(j.converted)
			if failed.Load() {
				continue
			}
			if err := visit(j.value); err != nil {
				return report, err
			}
		}
	}
	switch {
	case ended != nil:
		return report, ended
	case failed.Load():
		return report, &BrokenError{N: n, Broken: report.Broken}
	case report.Decoded == 0 && len(report.Broken) > 0:
		return report, fmt.Errorf("every image is broken: %s", listed(report.Broken[:min(5, len(report.Broken))], "; "))
	}
	return report, nil
}

func (l Loader[T]) workers() int {
	if l.Workers > 0 {
		return l.Workers
	}
	return runtime.NumCPU()
}

// feed hands each image to the visitor, in order, and to a worker. The queue's
// length is what bounds the images in memory.
func feed[T any](ctx context.Context, from iter.Seq2[Pending, error], queue, jobs chan<- *load[T]) error {
	for p, err := range from {
		if err != nil {
			return err
		}
		j := &load[T]{Pending: p, ready: make(chan struct{})}
		select {
		case queue <- j:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case jobs <- j:
		case <-ctx.Done():
			j.fault = ctx.Err()
			close(j.ready)
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// A load is one image on its way. Its fields are written before ready is closed.
type load[T any] struct {
	Pending
	ready     chan struct{}
	value     T
	converted []Conversion
	broken    error // with this image
	fault     error // with anything else
}

func (j *load[T]) work(prepare func(Image) (T, error), failed *atomic.Bool) {
	defer close(j.ready)
	im, err := j.decode()
	if err != nil {
		j.broken = err
		return
	}
	j.converted = im.Converted
	if !failed.Load() {
		j.value, j.fault = prepare(im)
	}
}

// decode takes a decoder's panic for an error: an image is no reason to end the
// program, whatever is in it.
func (j *load[T]) decode() (im Image, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("cannot be decoded: the decoder failed: %v", fault)
		}
	}()
	return j.Decode()
}
