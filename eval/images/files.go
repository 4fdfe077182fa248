package images

import (
	"archive/zip"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// suffixes of the files that are taken for images, in upper or lower case. Their
// formats are told by their first bytes.
var suffixes = []string{".png", ".apng", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}

func isImageFile(name string) bool {
	return slices.Contains(suffixes, strings.ToLower(path.Ext(name)))
}

// isHidden tells names that are not images of the set, whatever lies there: those
// with a dot in front, such as ".DS_Store", ".ipynb_checkpoints" and the "._a.png"
// that macOS puts beside a.png; the folder where its archives keep these; and the
// previews that a Synology makes. What lies in a hidden folder is hidden.
func isHidden(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." && part != ".." || part == "__MACOSX" || part == "@eaDir" {
			return true
		}
	}
	return false
}

// maxFile bounds the file of one image.
const maxFile = 1 << 29

// A file is one image of a folder or an archive, or a file that tells of one.
type file struct {
	name string // slash-separated, below the folder or in the archive
	size int64  // as the directory says
	open func() (io.ReadCloser, error)
}

// A listing is what a folder or an archive holds.
type listing struct {
	files  []file
	sides  []file                   // files that may tell of an image
	others map[string]int           // files that are not taken for images, by suffix
	shards []string                 // those of them that may be shards of a set, by their names
	key    func(name string) string // that an image and the files beside it have in common; nil = fileKey
	// besides finds what lies beside the image of a name; nil: sides tell
	besides func(name string) ([]file, error)
	flat    bool // images in subfolders are left out
	below   int  // how many these are
}

// add lists a file as an image, or counts it among the others.
func (l *listing) add(f file) {
	switch {
	case isHidden(f.name):
	case l.flat && strings.Contains(strings.TrimPrefix(f.name, "./"), "/"):
		if isImageFile(f.name) {
			l.below++
		}
	case isImageFile(f.name):
		l.files = append(l.files, f)
	case isSide(f.name):
		l.sides = append(l.sides, f)
	default:
		if shardSuffix(f.name) != "" {
			l.shards = append(l.shards, f.name)
		}
		l.other(f.name)
	}
}

// other counts a file that is not read.
func (l *listing) other(name string) {
	if l.others == nil {
		l.others = map[string]int{}
	}
	l.others[strings.ToLower(path.Ext(name))]++
}

// sort puts the files into the order of the set, those beside images into the order of
// keys. Those beside no image are not read.
func (l *listing) sort() {
	slices.SortFunc(l.files, func(a, b file) int { return cmp.Compare(a.name, b.name) })
	slices.Sort(l.shards)
	if len(l.sides) == 0 {
		return
	}
	slices.SortStableFunc(l.sides, l.compareKeys)
	images := slices.Clone(l.files)
	slices.SortFunc(images, l.compareKeys)
	l.sides = slices.DeleteFunc(l.sides, func(f file) bool {
		_, found := slices.BinarySearchFunc(images, f, l.compareKeys)
		if !found {
			l.other(f.name)
		}
		return !found
	})
}

// shardPaths are the paths of the files that may be shards.
func (l *listing) shardPaths(root string) []string {
	all := make([]string, len(l.shards))
	for i, name := range l.shards {
		all[i] = filepath.Join(root, filepath.FromSlash(name))
	}
	return all
}

// unread says which files are left out; "" if none.
func (l *listing) unread() string {
	var kinds []string
	for _, suffix := range slices.Sorted(maps.Keys(l.others)) {
		kinds = append(kinds, fmt.Sprintf("%d %s", l.others[suffix], cmp.Or(suffix, "without a suffix")))
	}
	return strings.Join(kinds, ", ")
}

// newSet makes a set of the files. Their headers are read first, unless broken
// images are left out anyway. notes are what else is to be said of it.
func (l *listing) newSet(ctx context.Context, path string, opt Options, closer io.Closer, notes ...string) (*Set, error) {
	unread := l.unread()
	if len(l.files) == 0 {
		return nil, l.noImages(path, unread)
	}
	s := &Set{Path: path, N: len(l.files), count: len(l.files), Below: l.below, Warnings: notes, closer: closer}
	if l.below > 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %s in subfolders left out, as by the program of the chosen protocol", path, plural(l.below, "image")))
	}
	if unread != "" {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: files that are not read: %s; images are read from %s", path, unread, known))
	}
	if err := s.choose(opt.Subset); err != nil {
		return nil, err
	}
	s.pending = l.images(func(f file) (Image, error) { return f.decode(opt.maxPixels()) })
	s.headers = l.images(func(f file) (Image, error) { return f.header(opt.maxPixels()) })
	s.about = l.abouts(path)
	return s, s.checkHeaders(ctx, opt)
}

// known are the suffixes of images for messages.
var known = strings.Join(suffixes, ", ")

// noImages says that there are none at a path; unread are the files that are there.
func (l *listing) noImages(path, unread string) error {
	switch {
	case l.below > 0:
		return fmt.Errorf("%s: holds no images but those of its subfolders, %d, which the program of the chosen protocol does not read; name the folder that holds them, or choose the protocol adm or clean-fid", path, l.below)
	case unread == "":
		return fmt.Errorf("%s: is empty, expected images (%s)", path, known)
	}
	return fmt.Errorf("%s: holds no images: %s; images are read from %s", path, unread, known)
}

// checkHeaders reads the headers of all images; where one is broken the error lists every
// broken image, those with a good header as well.
func (s *Set) checkHeaders(ctx context.Context, opt Options) error {
	if opt.SkipBroken {
		return nil
	}
	load := Loader[struct{}]{Ahead: 256, Prepare: func(Image) (struct{}, error) { return struct{}{}, nil }}
	visit := func(struct{}) error { return nil }
	_, err := load.Run(ctx, pick(s.headers, s.chosen), visit)
	if broken := (*BrokenError)(nil); errors.As(err, &broken) {
		_, err = load.Run(ctx, s.Images(), visit)
	}
	return WithPath(err, s.Path)
}

// WithPath is an error of reading a set with the set's path: inside a *BrokenError,
// before any other. Nil stays nil.
func WithPath(err error, path string) error {
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
			if !yield(Pending{f.name, func() (Image, error) { return decode(f) }, f.sum}, nil) {
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

// header reads the size of the image.
func (f file) header(maxPixels int) (im Image, err error) {
	r, err := f.open()
	if err != nil {
		return im, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return header(r, maxPixels)
}

// listFolder lists a folder and those below it. Links are followed, but not
// back to a folder that they lie in.
func listFolder(root string, flat bool) (*listing, error) {
	l := &listing{flat: flat}
	if err := l.walk(root, "", nil); err != nil {
		return nil, err
	}
	l.sort()
	return l, nil
}

func (l *listing) walk(root, below string, above []os.FileInfo) error {
	folder := filepath.Join(root, filepath.FromSlash(below))
	self, err := os.Stat(folder)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(above, func(a os.FileInfo) bool { return os.SameFile(a, self) }) {
		return fmt.Errorf("%s: is a link to a folder that it lies in; remove it", folder)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	above = append(slices.Clip(above), self)
	for _, e := range entries {
		name := e.Name()
		if below != "" {
			name = below + "/" + name
		}
		if isHidden(name) {
			continue
		}
		path := filepath.Join(root, filepath.FromSlash(name))
		info, err := os.Stat(path) // of what a link leads to
		switch {
		case err != nil && isImageFile(name):
			l.add(file{name: name, open: func() (io.ReadCloser, error) { return nil, err }}) // listed as broken
		case err != nil:
			return err
		case info.IsDir():
			if err := l.walk(root, name, above); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			l.add(file{name, info.Size(), func() (io.ReadCloser, error) { return os.Open(filepath.Join(root, filepath.FromSlash(name))) }})
		}
	}
	return nil
}

func openZip(ctx context.Context, path string, opt Options) (*Set, error) {
	z, err := zip.OpenReader(path)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are names here, nothing is extracted
		return nil, fmt.Errorf("%s: is no zip archive, or not all of one (%w)", path, err)
	}
	l, err := listZip(&z.Reader, opt.Flat)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), z.Close())
	}
	s, err := l.newSet(ctx, path, opt, z)
	if err != nil {
		return nil, errors.Join(err, z.Close())
	}
	return s, nil
}

// listZip lists the images of an archive, stored or deflated.
func listZip(z *zip.Reader, flat bool) (*listing, error) {
	l := &listing{flat: flat}
	seen := map[string]bool{}
	for _, e := range z.File {
		if strings.HasSuffix(e.Name, "/") {
			continue
		}
		if seen[e.Name] {
			return nil, fmt.Errorf("two entries are named %q; which one is meant cannot be known", e.Name)
		}
		seen[e.Name] = true
		l.add(file{e.Name, int64(min(e.UncompressedSize64, maxFile+1)), func() (io.ReadCloser, error) { return openEntry(e) }})
	}
	l.sort()
	return l, nil
}

func openEntry(e *zip.File) (io.ReadCloser, error) {
	switch {
	case e.Flags&1 != 0:
		return nil, errors.New("is encrypted")
	case e.UncompressedSize64 > mostDeflated*e.CompressedSize64+mostFlat:
		return nil, fmt.Errorf("claims %d bytes in %d deflated ones, which no image needs", e.UncompressedSize64, e.CompressedSize64)
	}
	return e.Open()
}

// An entry may unpack to mostDeflated times its size and mostFlat bytes: files of
// images hardly shrink, except bitmaps of one colour.
const (
	mostDeflated = 64
	mostFlat     = 16 << 20
)
