// Package images reads sets of images for evaluators.
//
// In goes a path: a folder or a .zip of PNG, JPEG, WebP and BMP files, a .npy
// array, or an array of an .npz file. Out come RGB images of 8 bits a channel in
// a documented order, one at a time: an image is decoded when it is asked for,
// in any goroutine, so memory does not grow with their number. Pixels are those
// that Pillow's Image.open(path).convert("RGB") has, since that is what every
// public evaluator reads: alpha is dropped and not composited, grey is repeated,
// the EXIF orientation, gamma and colour profile are ignored.
//
// Nothing in a file is trusted: sizes are checked before memory is taken,
// archives are read and never extracted.
package images

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sagbench/eval/npz"
	"strings"
)

// An Image is RGB, 8 bits a channel, [Height,Width,3].
type Image struct {
	Height, Width int
	Pixels        []uint8
	Converted     []Conversion // what was done to the file's pixels to make them so
}

// A Pending image is one that is not decoded yet.
type Pending struct {
	Name   string                // the path below the folder or in the archive, or "image 12" of an array
	Decode func() (Image, error) // callable in any goroutine, once; an error says what is wrong with this image alone

	sum func() (sum, error) // of what Decode reads; callable instead of it
}

// Options say how a set is read. The zero value refuses sets with broken images.
type Options struct {
	SkipBroken bool // leave broken images out, count and list them
	Flat       bool // leave images in subfolders out
	MaxPixels  int  // of one image; 0 = DefaultMaxPixels

	Subset Chooser // of the images; nil = all
}

// DefaultMaxPixels is the largest image that is read, 8192×8192: a file that
// claims more is taken for damaged.
const DefaultMaxPixels = 1 << 26

func (o Options) maxPixels() int {
	if o.MaxPixels > 0 {
		return o.MaxPixels
	}
	return DefaultMaxPixels
}

// A Set is an ordered set of images.
type Set struct {
	Path     string
	N        int      // images, those that turn out to be broken included
	Below    int      // images in subfolders that were left out
	Warnings []string // what is suspicious about the set

	pending iter.Seq2[Pending, error]
	headers iter.Seq2[Pending, error] // images without pixels; nil where all have one size
	about   iter.Seq2[About, error]   // what the container tells of the images
	chosen  []int                     // of all these, by their numbers; nil = all
	count   int                       // of all these
	size    [2]int                    // height and width of those of an array
	closer  io.Closer
}

// Mixed looks for two of the chosen images that differ in size, and names them; ""
// where there are none. choose lists those that count among n images, which are the
// ones whose headers can be read. No pixels are read.
func (s *Set) Mixed(ctx context.Context, choose func(n int) []int) (string, error) {
	headers := pick(s.headers, s.chosen)
	if headers == nil {
		return "", nil
	}
	all := make([]Image, s.N)
	names := make([]string, s.N)
	numbered := func(yield func(Pending, error) bool) {
		at := 0
		for p, err := range headers {
			i := at
			at++
			names[i] = p.Name
			decode := func() (im Image, err error) {
				im, err = p.Decode()
				if err == nil {
					all[i] = im
				}
				return im, err
			}
			if !yield(Pending{Name: p.Name, Decode: decode}, err) {
				return
			}
		}
	}
	load := Loader[struct{}]{Ahead: 256, SkipBroken: true, Prepare: func(Image) (struct{}, error) { return struct{}{}, nil }}
	if _, err := load.Run(ctx, numbered, func(struct{}) error { return nil }); err != nil {
		return "", WithPath(err, s.Path)
	}
	var whole []int
	for i, im := range all {
		if im.Height > 0 {
			whole = append(whole, i)
		}
	}
	first := -1
	for _, c := range choose(len(whole)) {
		i := whole[c]
		if first < 0 {
			first = i
		}
		if a, b := all[first], all[i]; a.Height != b.Height || a.Width != b.Width {
			return fmt.Sprintf("%s has %d×%d pixels, %s has %d×%d", names[first], a.Height, a.Width, names[i], b.Height, b.Width), nil
		}
	}
	return "", nil
}

// Size is the height and width in pixels of the first image that can be read; 0 where
// none can.
func (s *Set) Size() (height, width int) {
	all := pick(s.headers, s.chosen)
	if all == nil {
		all = s.Images()
	}
	for p, err := range all {
		if err != nil {
			break
		}
		if im, err := p.Decode(); err == nil {
			return im.Height, im.Width
		}
	}
	return 0, 0
}

// Open opens what lies at a path: a folder, a .zip, a tar or a parquet file of images,
// a .npy array, several tar, .npz or parquet files in a folder or named by a pattern,
// shard after shard, or a list of files, @ and its path. Files of a folder, a .zip or a
// tar are in the byte order of their slash-separated paths. Where one has no readable
// header the error is a *BrokenError that lists every broken image of the set, unless
// they are skipped.
func Open(ctx context.Context, path string, opt Options) (*Set, error) {
	kind, err := KindOf(path)
	if err != nil {
		return nil, err
	}
	switch kind {
	case Folder:
		l, err := listFolder(path, opt.Flat)
		if err != nil {
			return nil, err
		}
		if len(l.files) == 0 && l.below == 0 && len(l.shards) > 0 {
			return openShards(ctx, path, l.shardPaths(path), opt)
		}
		return l.newSet(ctx, path, opt, nil)
	case Zip:
		return openZip(ctx, path, opt)
	case Tar:
		return openTar(ctx, path, []string{path}, opt)
	case Parquet:
		return openParquet(ctx, path, []string{path}, opt)
	case List:
		return openList(ctx, path, opt)
	case Pattern:
		shards, err := expand(path)
		if err != nil {
			return nil, err
		}
		return openShards(ctx, path, shards, opt)
	case Array:
		return OfArray(path, func() (*npz.Array, error) { return npz.OpenArray(path) }, nil, opt.Subset)
	}
	return nil, fmt.Errorf("%s: is %s, expected a folder, a .zip, a .tar, a .parquet or an .npy of images", path, kind)
}

// Rename gives broken images, which are known by their places, the names that they have in
// this set.
func (s *Set) Rename(broken []Broken) error {
	at := 0
	for p, err := range s.Images() {
		if err != nil || len(broken) == 0 {
			return err
		}
		if broken[0].At == at {
			broken[0].Name = p.Name
			broken = broken[1:]
		}
		at++
	}
	return nil
}

// Images are the images in order, to be ranged over once. An error ends them: the
// set's file cannot be read further.
func (s *Set) Images() iter.Seq2[Pending, error] { return pick(s.pending, s.chosen) }

// Close closes the set's file.
func (s *Set) Close() error {
	if s.closer == nil {
		return nil
	}
	return s.closer.Close()
}

// A Kind is what lies at a path.
type Kind string

// Kinds of sets.
const (
	Folder  Kind = "a folder"
	Zip     Kind = "a .zip"
	Tar     Kind = "a .tar" // compressed or not
	Parquet Kind = "a parquet file"
	List    Kind = "a list of files"
	Pattern Kind = "a pattern of files"
	Array   Kind = "an .npy array"
	NPZ     Kind = "an .npz archive" // any other file, in the belief that it is one
)

// KindOf tells what lies at a path by its first bytes and its suffix.
func KindOf(path string) (Kind, error) {
	switch {
	case path == Standard:
		return Tar, nil
	case listPath(path) != "":
		return List, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		if isPattern(path) {
			return Pattern, nil
		}
		return "", err
	}
	if info.IsDir() {
		return Folder, nil
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: is neither a file nor a folder", path)
	}
	head, err := fileHead(path)
	if err != nil {
		return "", err
	}
	suffix := strings.ToLower(filepath.Ext(path))
	switch {
	case strings.HasPrefix(head, "\x93NUMPY"), suffix == ".npy":
		return Array, nil
	case suffix == ".zip":
		return Zip, nil
	case suffix == ".txt":
		return "", fmt.Errorf("%s: is a text; a list of the paths of images is named with @ before it, @%s", path, path)
	case suffix == ".pkl", suffix == ".pickle":
		return "", fmt.Errorf("%s: is a pickle, which is a program and is not run; write its arrays to an .npz in Python: numpy.savez(\"ref.npz\", mu=ref[\"fid\"][\"mu\"], sigma=ref[\"fid\"][\"sigma\"])", path)
	case kindOfShard(path) == Parquet, strings.HasPrefix(head, parquetMagic):
		return Parquet, nil
	case kindOfShard(path) == NPZ:
		return NPZ, nil
	case kindOfShard(path) == Tar, compression(head) != "", isTar(head) && strings.Trim(head, "\x00") != "":
		return Tar, nil
	case isImageFile(path) || formatOf(head[:min(16, len(head))]) != nil:
		return "", fmt.Errorf("%s: is one image, expected a folder or an archive of them", path)
	}
	return NPZ, nil
}

func fileHead(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 512))
	return string(head), err
}
