package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
)

// suffixes of the files that are taken for images, whatever their case. What a
// file really is its first bytes tell.
var suffixes = []string{".png", ".jpg", ".jpeg", ".webp", ".bmp"}

func isImageFile(name string) bool {
	return slices.Contains(suffixes, strings.ToLower(path.Ext(name)))
}

// hidden files are not images: ".DS_Store", and the "._a.png" that macOS puts
// beside a.png.
func isHidden(name string) bool { return strings.HasPrefix(path.Base(name), ".") }

// maxFile bounds the file of one image.
const maxFile = 1 << 29

// A file is one image of a folder or an archive.
type file struct {
	name string // slash-separated, below the folder or in the archive
	size int64  // as the directory says
	open func() (io.ReadCloser, error)
}

// A listing is what a folder or an archive holds.
type listing struct {
	files  []file
	others map[string]int // files that are not taken for images, by suffix
}

// add takes a file for an image or leaves it out.
func (l *listing) add(f file) {
	switch {
	case isHidden(f.name):
	case isImageFile(f.name):
		l.files = append(l.files, f)
	default:
		if l.others == nil {
			l.others = map[string]int{}
		}
		l.others[strings.ToLower(path.Ext(f.name))]++
	}
}

func (l *listing) sort() {
	slices.SortFunc(l.files, func(a, b file) int { return cmp.Compare(a.name, b.name) })
}

// unread says which files are left out; "" if none.
func (l *listing) unread() string {
	var kinds []string
	for _, suffix := range slices.Sorted(maps.Keys(l.others)) {
		kinds = append(kinds, fmt.Sprintf("%d %s", l.others[suffix], cmp.Or(suffix, "without a suffix")))
	}
	return strings.Join(kinds, ", ")
}

// newSet makes a set of the files, whose headers are looked at unless broken
// images are left out anyway.
func (l *listing) newSet(ctx context.Context, path string, opt Options, closer io.Closer) (*Set, error) {
	known := strings.Join(suffixes, ", ")
	unread := l.unread()
	if len(l.files) == 0 {
		if unread == "" {
			return nil, fmt.Errorf("%s: is empty, expected images (%s)", path, known)
		}
		return nil, fmt.Errorf("%s: holds no images: %s; images are read from %s", path, unread, known)
	}
	s := &Set{Path: path, N: len(l.files), closer: closer}
	if unread != "" {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: files that are not read: %s; images are read from %s", path, unread, known))
	}
	s.pending = l.images(func(f file) (Image, error) { return f.decode(opt.maxPixels()) })
	if opt.SkipBroken {
		return s, nil
	}
	headers := Loader[struct{}]{Ahead: 256, Prepare: func(Image) (struct{}, error) { return struct{}{}, nil }}
	visit := func(struct{}) error { return nil }
	_, err := headers.Run(ctx, l.images(func(f file) (Image, error) { return Image{}, f.checkHeader(opt.maxPixels()) }), visit)
	if broken := (*BrokenError)(nil); errors.As(err, &broken) { // list all, those with a good header as well
		_, err = headers.Run(ctx, s.pending, visit)
	}
	return s, At(err, path)
}

// At puts the set's path into a *BrokenError, or before another error.
func At(err error, path string) error {
	broken := (*BrokenError)(nil)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken):
		broken.Path = path
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

func (l *listing) images(decode func(file) (Image, error)) iter.Seq2[Pending, error] {
	return func(yield func(Pending, error) bool) {
		for _, f := range l.files {
			if !yield(Pending{f.name, func() (Image, error) { return decode(f) }}, nil) {
				return
			}
		}
	}
}

// decode reads and decodes the image.
func (f file) decode(maxPixels int) (im Image, err error) {
	if f.size > maxFile {
		return im, fmt.Errorf("%d bytes, more than the %d that an image file may have", f.size, maxFile)
	}
	r, err := f.open()
	if err != nil {
		return im, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := io.ReadAll(io.LimitReader(r, f.size+1))
	if err != nil {
		return im, err
	}
	return Decode(data, maxPixels)
}

// checkHeader reads the size of the image.
func (f file) checkHeader(maxPixels int) (err error) {
	r, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return checkHeader(r, maxPixels)
}
