package images

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// A Loader decodes images before they are asked for: while a network is busy with
// a batch the next one is made ready.
type Loader[T any] struct {
	Workers    int // goroutines that decode; 0 = one a core
	Ahead      int // images that are ready or in the making beyond the one that is visited; at least 1
	SkipBroken bool
	// Prepare turns an image into what Run's visit takes, in the goroutine that
	// decoded the image.
	Prepare func(Image) (T, error)
}

// Run visits the images of from in order and reports what decoding them has met.
// After a broken image, unless broken ones are skipped, no more are visited; the
// others are decoded all the same, so that the error, a *BrokenError without a
// path, lists every broken one up to maxBroken.
func (l Loader[T]) Run(ctx context.Context, from iter.Seq2[Pending, error], visit func(T) error) (Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan *load[T], max(1, l.Ahead)-1)
	jobs := make(chan *load[T])
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var failed atomic.Bool // nothing needs to be prepared any more
	for range cmp.Or(l.Workers, runtime.NumCPU()) {
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
			report.Broken = append(report.Broken, Broken{j.Name, j.broken, n - 1})
			if !l.SkipBroken {
				failed.Store(true)
				if len(report.Broken) == maxBroken {
					return report, &BrokenError{N: n, Broken: report.Broken}
				}
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

// A Conversion is something that was done to an image to make it RGB of 8 bits.
type Conversion string

// Conversions, as Pillow's convert("RGB") does them.
const (
	Grey        Conversion = "grey"     // one channel repeated over three
	Palette     Conversion = "palette"  // indices replaced by colours
	Alpha       Conversion = "alpha"    // dropped; transparent pixels keep the colour that they have in the file
	CMYK        Conversion = "cmyk"     // (255−C)·(255−K)/255, …
	Bits16      Conversion = "16-bit"   // the high byte of each channel
	ClippedGrey Conversion = "grey16"   // grey of 16 bits: min(v, 255), which is nearly white
	Animated    Conversion = "animated" // the first frame
	Page        Conversion = "page"     // the first page
)

// sentences follow "in 3 images" in notes.
var sentences = map[Conversion]string{
	Grey:        "grey is repeated over three channels",
	Palette:     "the palette is replaced by its colours",
	Alpha:       "transparency is dropped, not composited",
	CMYK:        "CMYK is converted to RGB without a colour profile",
	Bits16:      "of 16 bits a channel the high byte is kept",
	Animated:    "of several frames the first one is read",
	Page:        "of several pages the first one is read",
	ClippedGrey: "grey of 16 bits is clipped at 255, which is nearly all white, as Pillow does: save these with 8 bits",
}

// Known reports whether there is such a conversion.
func (c Conversion) Known() bool { return sentences[c] != "" }

// A Broken image is one that cannot be decoded.
type Broken struct {
	Name string
	Err  error
	At   int // place in the set, from 0
}

// A Report tells what decoding a set has met.
type Report struct {
	Decoded   int
	Converted map[Conversion]int // images by what was done to them
	Broken    []Broken           // in the order of the set
	Content   string             // of the set, as Set.Content has it; "" where it is not known
}

// count adds an image.
func (r *Report) count(done []Conversion) {
	r.Decoded++
	for _, c := range done {
		if r.Converted == nil {
			r.Converted = map[Conversion]int{}
		}
		r.Converted[c]++
	}
}

// Add adds the report on the images that follow in the set.
func (r *Report) Add(next Report) {
	for i := range next.Broken {
		next.Broken[i].At += r.Decoded + len(r.Broken)
	}
	r.Decoded += next.Decoded
	for c, n := range next.Converted {
		if r.Converted == nil {
			r.Converted = map[Conversion]int{}
		}
		r.Converted[c] += n
	}
	r.Broken = append(r.Broken, next.Broken...)
}

// Notes are the report's lines for people: what was converted, and how many
// were left out.
func (r Report) Notes() []string {
	var lines []string
	for _, c := range slices.Sorted(maps.Keys(r.Converted)) {
		lines = append(lines, fmt.Sprintf("in %s %s", plural(r.Converted[c], "image"), sentences[c]))
	}
	if len(r.Broken) > 0 {
		lines = append(lines, fmt.Sprintf("%s left out as broken: %s", plural(len(r.Broken), "image"), listed(r.Broken, ", ")))
	}
	return lines
}

// A BrokenError lists the broken images of a set, the first maxBroken of them.
type BrokenError struct {
	Path   string
	N      int // images of the set, the broken ones included
	Broken []Broken
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("%s: %d of %s broken; remove or replace them, or leave them out with --skip-broken:\n  %s",
		e.Path, len(e.Broken), plural(e.N, "image"), listed(e.Broken, "\n  "))
}

// Who has maxBroken broken images has them all broken; maxListed are named in a
// message.
const (
	maxBroken = 1000
	maxListed = 12
)

// clip cuts a text for a message.
func clip(s string) string {
	const most = 120
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func listed(broken []Broken, separator string) string {
	var lines []string
	for i, b := range broken {
		if i == maxListed {
			lines = append(lines, fmt.Sprintf("… and %d more", len(broken)-i))
			break
		}
		lines = append(lines, clip(b.Name)+": "+clip(b.Err.Error()))
	}
	return strings.Join(lines, separator)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
