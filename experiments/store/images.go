package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"sagbench/eval/images"
	"sagbench/eval/npz"
	"sagbench/experiments/work"
	"sagbench/sampling"
)

// Images are the samples folder of a run. While images are being drawn they lie
// in shards, 000016-000031.npz; once all are there, in one file,
// samples_512x32x32x3.npz, which is a shard from image 0 as well. Both hold
// arr_0 [N,H,W,3] uint8 and, for a conditional network, arr_1 [N] int64, as
// guided-diffusion's image_sample.py writes them, and drawn_on, the kinds of device
// that images were drawn on. A file appears under its name when it is whole; what a
// file system damaged nevertheless is found and left out. Any number of processes
// may draw images and put them here.
type Images struct {
	Folder        string
	Height, Width int    // of the images; 0 = not known yet
	Classes       int    // 0 = no labels, -1 = not known
	Seed          uint64 // of the labels
	Labels        sampling.Labels
	Drawer        Drawer
	shards        []shard // sorted by the first image, then the longest first
	damaged       []shard // found and left out
}

// OpenImages are the images of a single .npz file, whatever its name.
func OpenImages(path string) (*Images, error) {
	f, err := npz.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := f.Array("arr_0")
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return &Images{Folder: path, Classes: -1, shards: []shard{{Span: Span{0, a.Rows()}, path: path, whole: true}}}, nil
}

// Whole is the number of images of the file that holds most of them from the first; 0
// where there is none.
func (s *Images) Whole() int {
	n := 0
	for _, sh := range s.shards {
		if sh.whole {
			n = max(n, sh.To)
		}
	}
	return n
}

// A shard is a file with the images of a span.
type shard struct {
	Span
	path     string
	whole    bool // it is the file that is left in the end
	verified bool // its checksum was compared
}

// A Span is the images From ≤ i < To of a run.
type Span struct{ From, To int }

// Len is the number of images.
func (s Span) Len() int { return s.To - s.From }

var (
	shardName  = regexp.MustCompile(`^(\d{6,})-(\d{6,})\.npz$`)
	mergedName = regexp.MustCompile(`^samples_(\d+)x(\d+)x(\d+)x3\.npz$`)
)

// parseShard tells from a file's name which images it holds; false for other
// files.
func parseShard(folder, name string) (shard, bool) {
	s := shard{path: filepath.Join(folder, name)}
	var err1, err2 error
	if m := shardName.FindStringSubmatch(name); m != nil {
		s.From, err1 = strconv.Atoi(m[1])
		s.To, err2 = strconv.Atoi(m[2])
		s.To++
	} else if m := mergedName.FindStringSubmatch(name); m != nil {
		s.To, err1 = strconv.Atoi(m[1])
		s.whole = true
	} else {
		return s, false
	}
	return s, err1 == nil && err2 == nil && s.From < s.To
}

// Scan finds the files with images of [0, samples). Damaged ones are left out, and
// note is called with what is wrong with each, "…; its N images", to which the caller
// adds what becomes of these; with deep set every byte is read and its checksum
// compared.
func (s *Images) Scan(samples int, deep bool, note func(string)) error {
	if err := s.List(samples); err != nil {
		return err
	}
	all := s.shards
	s.shards, s.damaged = nil, nil
	for _, found := range all {
		err := s.verify(found, deep)
		switch {
		case err == nil:
			found.verified = deep
			s.shards = append(s.shards, found)
		case errors.Is(err, os.ErrPermission) || work.Unreachable(err):
			return err
		case !errors.Is(err, os.ErrNotExist): // else its images lie in one file by now
			s.leaveOut(found, err, note)
		}
	}
	return nil
}

// List finds the files with images of [0, samples) by their names alone.
func (s *Images) List(samples int) error {
	names, err := s.Drawer.fs().Names(s.Folder)
	s.shards = nil
	for _, name := range names {
		if found, ok := parseShard(s.Folder, name); ok && found.From < samples {
			s.shards = append(s.shards, found)
		}
	}
	s.sort()
	return err
}

// leaveOut leaves a damaged file out, and calls note with a line about it.
func (s *Images) leaveOut(sh shard, err error, note func(string)) {
	s.damaged = append(s.damaged, sh)
	note(fmt.Sprintf("%v; its %d images", err, sh.Len()))
}

// Drop removes the damaged files that were left out, and tells how many.
func (s *Images) Drop() (int, error) {
	n := len(s.damaged)
	for _, sh := range s.damaged {
		if err := os.Remove(sh.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return n, ExplainWrite(sh.path, err)
		}
	}
	s.damaged = nil
	return n, nil
}

// add adds a shard in its place.
func (s *Images) add(sh shard) {
	s.shards = append(s.shards, sh)
	s.sort()
}

func (s *Images) sort() {
	slices.SortFunc(s.shards, func(a, b shard) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(b.To, a.To))
	})
}

// Missing are the images of [0, samples) that no shard holds.
func (s *Images) Missing(samples int) []Span {
	var out []Span
	at := 0
	for _, sh := range s.shards {
		if sh.From > at && at < samples {
			out = append(out, Span{at, min(sh.From, samples)})
		}
		at = max(at, sh.To)
	}
	if at < samples {
		out = append(out, Span{at, samples})
	}
	return out
}

// Done counts the images of [0, samples) that are there.
func (s *Images) Done(samples int) int {
	n := samples
	for _, m := range s.Missing(samples) {
		n -= m.Len()
	}
	return n
}

// write writes the archive of a shard; fill writes the pixels. on are the kinds of
// device of its images, none where they are not to be told.
func (s *Images) write(w *npz.Writer, sh shard, on kinds, fill func(*npz.ArrayWriter) error) error {
	images, err := w.Array("arr_0", npz.Uint8, sh.Len(), s.Height, s.Width, 3)
	if err != nil {
		return err
	}
	if err := fill(images); err != nil {
		return err
	}
	if s.Classes > 0 {
		if err := npz.WriteArray(w, "arr_1", s.labels(sh.Span), sh.Len()); err != nil {
			return err
		}
	}
	if err := on.write(w); err != nil {
		return err
	}
	return w.Commit()
}

// labels are the classes of the images of a span.
func (s *Images) labels(at Span) []int64 {
	out := make([]int64, at.Len())
	for i := range out {
		out[i] = s.Labels.Of(s.Seed, at.From+i, s.Classes)
	}
	return out
}

// merged is the file that holds all of [0, samples), if there is one.
func (s *Images) merged(samples int) (shard, bool) {
	i := slices.IndexFunc(s.shards, func(sh shard) bool { return sh.whole && sh.To >= samples })
	if i < 0 {
		return shard{}, false
	}
	return s.shards[i], true
}

// Merged reports whether one file holds all of [0, samples).
func (s *Images) Merged(samples int) bool {
	_, ok := s.merged(samples)
	return ok
}

// Complete looks into the folder and reports whether all of [0, samples) lie in
// one file and there is no other.
func (s *Images) Complete(samples int) bool {
	if s.List(samples) != nil || !s.Merged(samples) || len(s.shards) > 1 {
		return false
	}
	return s.verify(s.shards[0], false) == nil
}

// Content is the file that holds all of [0, samples), by name and hash.
func (s *Images) Content(samples int) (InputFile, error) {
	whole, ok := s.merged(samples)
	if !ok {
		return InputFile{}, fmt.Errorf("%s: there is no file with all of %d images", s.Folder, samples)
	}
	sum, err := images.Hash(whole.path)
	return InputFile{filepath.Base(whole.path), sum}, err
}

// Changed is when the file that holds all of [0, samples) was last changed, by the
// clock of its server.
func (s *Images) Changed(samples int) (time.Time, error) {
	whole, ok := s.merged(samples)
	if !ok {
		return time.Time{}, fmt.Errorf("%s: there is no file with all of %d images", s.Folder, samples)
	}
	info, err := s.Drawer.fs().Look(whole.path)
	return info.Time, err
}

// Merge puts the images [0, samples), all of which are there, into one file and
// removes the files whose images lie in it, damaged ones included, and what is being
// written here: nobody needs it any more. An error is os.ErrNotExist where another
// process is doing that.
func (s *Images) Merge(ctx context.Context, samples int) error {
	whole, ok := s.merged(samples)
	if !ok {
		var err error
		if whole, err = s.join(ctx, samples); err != nil && ctx.Err() == nil {
			// The list of files may be old: has another process joined them?
			if _, missing := s.Drawer.fs().Look(whole.path); missing == nil {
				err = s.verify(whole, false)
			}
		}
		if err != nil {
			return err
		}
	}
	names, err := s.Drawer.fs().Names(s.Folder)
	if err != nil {
		return err
	}
	for _, name := range names {
		sh, ok := parseShard(s.Folder, name)
		if path := filepath.Join(s.Folder, name); ok && path != whole.path && sh.To <= whole.To || leftover.MatchString(name) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	s.shards = slices.DeleteFunc(s.shards, func(sh shard) bool { return sh.path == whole.path || sh.To <= whole.To })
	s.add(whole)
	return nil
}

// join writes the file with all of [0, samples).
func (s *Images) join(ctx context.Context, samples int) (shard, error) {
	whole := shard{Span: Span{0, samples}, path: s.mergedPath(samples), whole: true}
	on, err := s.kinds(whole.Span)
	if err != nil {
		return whole, err
	}
	w, err := npz.Create(whole.path)
	if err != nil {
		return whole, ExplainWrite(whole.path, err)
	}
	defer w.Abort()
	return whole, ExplainWrite(whole.path, s.write(w, whole, on.ifMixed(), func(w *npz.ArrayWriter) error {
		return s.Each(ctx, whole.Span, func(pixels []uint8) error { return npz.WriteRows(w, pixels) })
	}))
}

// mergedPath is where the file with all of [0, samples) lies.
func (s *Images) mergedPath(samples int) string {
	return filepath.Join(s.Folder, fmt.Sprintf("samples_%dx%dx%dx3.npz", samples, s.Height, s.Width))
}

// A shardReader streams the images of a shard.
type shardReader struct {
	span   Span
	file   *npz.File
	images *npz.Array // [N,H,W,3] uint8
	on     kinds
}

func (r *shardReader) close() {
	r.images.Close()
	r.file.Close()
}

// open opens a shard and compares shape and labels with what its name, the network
// and the seed say.
func (s *Images) open(sh shard) (*shardReader, error) {
	f, err := npz.Open(sh.path)
	if err != nil {
		return nil, err
	}
	a, err := f.Array("arr_0")
	var on kinds
	if err == nil {
		err = errors.Join(s.checkImages(sh, a), s.checkLabels(sh, f))
	}
	if err == nil {
		on, err = readKinds(f, sh.Len())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &shardReader{sh.Span, f, a, on}, nil
}

func (s *Images) checkImages(sh shard, a *npz.Array) error {
	if a.Dtype != npz.Uint8 || len(a.Shape) != 4 || a.Shape[0] != sh.Len() || a.Shape[1] < 1 || a.Shape[2] < 1 || a.Shape[3] != 3 {
		return fmt.Errorf("%s: arr_0 is %s %v, expected uint8 [%d,H,W,3]", sh.path, a.Dtype, a.Shape, sh.Len())
	}
	if s.Height == 0 {
		s.Height, s.Width = a.Shape[1], a.Shape[2]
	}
	if a.Shape[1] != s.Height || a.Shape[2] != s.Width {
		return fmt.Errorf("%s: images of %d×%d pixels, expected %d×%d", sh.path, a.Shape[1], a.Shape[2], s.Height, s.Width)
	}
	return nil
}

func (s *Images) checkLabels(sh shard, f *npz.File) error {
	if s.Classes < 0 {
		return nil
	}
	if labelled := f.Has("arr_1"); labelled != (s.Classes > 0) {
		return fmt.Errorf("%s: labels in arr_1: %v, expected: %v", sh.path, labelled, s.Classes > 0)
	}
	if s.Classes == 0 {
		return nil
	}
	a, err := f.Array("arr_1")
	if err != nil {
		return err
	}
	defer a.Close()
	labels, err := npz.ReadAll[int64](a, sh.Len())
	if err != nil {
		return err
	}
	if !slices.Equal(labels, s.labels(sh.Span)) {
		return fmt.Errorf("%s: its labels are not those that the seed and the settings give", sh.path)
	}
	return nil
}

// verify opens a shard; with deep set it reads all rows, which compares the
// checksum.
func (s *Images) verify(sh shard, deep bool) error {
	r, err := s.open(sh)
	if err != nil {
		return err
	}
	defer r.close()
	if deep {
		return r.each(sh.Span, true, func([]uint8) error { return nil })
	}
	return nil
}

// Recheck leaves out files that do not fit the size and the labels that are known
// by now, and calls note as Scan does.
func (s *Images) Recheck(note func(string)) {
	s.shards = slices.DeleteFunc(s.shards, func(sh shard) bool {
		err := s.verify(sh, false)
		if err != nil {
			s.leaveOut(sh, err, note)
		}
		return err != nil
	})
}

// A piece is a part of a shard.
type piece struct {
	shard
	of Span // of the images of the shard
}

// pieces are the parts of files that together hold a span, in order.
func (s *Images) pieces(want Span) (all []piece, err error) {
	for at := want.From; at < want.To; {
		var from shard // that with the image which reaches furthest
		for _, sh := range s.shards {
			if sh.From <= at && at < sh.To && sh.To > from.To {
				from = sh
			}
		}
		if from.To == 0 {
			return nil, fmt.Errorf("%s: image %d is missing", s.Folder, at)
		}
		to := min(from.To, want.To)
		all = append(all, piece{from, Span{at, to}})
		at = to
	}
	return all, nil
}

// Each calls visit with the pixels [H,W,3] of each image of a span, in order,
// whatever the files are. The pixels are valid during the call only. A damaged file is
// an error, which may come after images of it: the checksum is that of all its images,
// so that a file that was not verified is read to its end.
func (s *Images) Each(ctx context.Context, want Span, visit func(pixels []uint8) error) error {
	pieces, err := s.pieces(want)
	if err != nil {
		return err
	}
	for _, p := range pieces {
		r, err := s.open(p.shard)
		if err != nil {
			return err
		}
		err = r.each(p.of, !p.verified, func(pixels []uint8) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return visit(pixels)
		})
		r.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// each calls visit with each image of a span, all of which the shard holds. With
// verify set the images behind them are read as well, and the checksum compared.
func (r *shardReader) each(want Span, verify bool, visit func([]uint8) error) error {
	rowLen := r.images.RowLen()
	buffer := make([]uint8, max(1, min(r.span.Len(), 1<<20/rowLen))*rowLen)
	end := want.To
	if verify {
		end = r.span.To
	}
	for at := r.span.From; at < end; {
		n, err := npz.ReadRows(r.images, buffer)
		if err != nil {
			return err
		}
		for i := range n {
			if at+i >= want.From && at+i < want.To {
				if err := visit(buffer[i*rowLen : (i+1)*rowLen]); err != nil {
					return err
				}
			}
		}
		at += n
	}
	return nil
}
