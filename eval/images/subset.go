package images

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"sync"
)

// A Chooser chooses images of a set.
type Chooser interface {
	// Choose gives the numbers, from 0 and rising, of the images that are chosen of n. An
	// error says that there are too few.
	Choose(n int) ([]int, error)
	String() string // how they are chosen, for notes: "the first 100"
}

// choose leaves of the set the images that are chosen, and notes it. Nil chooses all.
func (s *Set) choose(c Chooser) error {
	if c == nil {
		return nil
	}
	chosen, err := c.Choose(s.N)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Path, err)
	}
	s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %d of its %s are read: %s", s.Path, len(chosen), plural(s.N, "image"), c))
	s.chosen, s.N = chosen, len(chosen)
	return nil
}

// pick leaves of a sequence what lies at the chosen places, which rise; nil chooses all.
func pick[T any](all iter.Seq2[T, error], chosen []int) iter.Seq2[T, error] {
	if chosen == nil || all == nil {
		return all
	}
	return func(yield func(T, error) bool) {
		at, next := 0, 0
		for v, err := range all {
			if err != nil {
				yield(v, err)
				return
			}
			if at == chosen[next] {
				if next++; !yield(v, nil) || next == len(chosen) {
					return
				}
			}
			at++
		}
	}
}

// A sum is the sha256 of what an image is in its container: of its file's bytes or, in an
// array, of its pixels. It is zero where these cannot be read: such an image is broken.
type sum [sha256.Size]byte

// Content identifies the images that the set gives, in hexadecimal: the sha256 of the
// sha256s of their files, 32 bytes each, in the order of the set. Neither names nor the
// container count, so that a folder, an archive of it and a table of the same files
// have one. Images of an array count by their height, width and pixels: their content is
// never that of files. An image that cannot be read has zeros.
func (s *Set) Content(ctx context.Context) (string, error) {
	sums := func(yield func(Pending, error) bool) {
		for p, err := range s.Images() {
			read := func() (Image, error) {
				sum, err := p.sum()
				return Image{Pixels: sum[:]}, err
			}
			if !yield(Pending{Name: p.Name, Decode: read}, err) {
				return
			}
		}
	}
	all := sha256.New()
	load := Loader[[]byte]{Ahead: 64, Prepare: func(im Image) ([]byte, error) { return im.Pixels, nil }}
	_, err := load.Run(ctx, sums, func(one []byte) error {
		_, err := all.Write(one)
		return err
	})
	if broken := (*BrokenError)(nil); errors.As(err, &broken) { // the disk fails
		err = fmt.Errorf("%s: %w", broken.Broken[0].Name, broken.Broken[0].Err)
	}
	if err != nil {
		return "", WithPath(err, s.Path)
	}
	return fmt.Sprintf("%x", all.Sum(nil)), nil
}

// blocks are buffers of those that read files.
var blocks = sync.Pool{New: func() any { return new([1 << 18]byte) }}

// sum is the sha256 of the file. What cannot be opened, or is no whole entry of its archive,
// is broken; where the disk fails is an error.
func (f file) sum() (out sum, err error) {
	r, err := f.open()
	if err != nil {
		return out, nil
	}
	defer r.Close()
	h := sha256.New()
	block := blocks.Get().(*[1 << 18]byte)
	defer blocks.Put(block)
	if _, err := io.CopyBuffer(h, r, block[:]); err != nil {
		if disk := (*fs.PathError)(nil); errors.As(err, &disk) {
			return out, err
		}
		return out, nil
	}
	return sum(h.Sum(nil)), nil
}

// sum is the sha256 of an image of an array.
func (im Image) sum() sum {
	h := sha256.New()
	fmt.Fprintf(h, "array %d %d\n", im.Height, im.Width)
	h.Write(im.Pixels)
	return sum(h.Sum(nil))
}
