package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"sagbench/eval/npz"
	"sagbench/experiments/work"
)

// A Drawer is who puts images into a folder: one of any number of processes. The
// zero value is the only one, on a device of which it does not tell.
type Drawer struct {
	FS    work.FS // nil: the disk
	ID    string  // of the worker, in names of files that it is writing
	Kind  string  // of its device; shards say which they were drawn on
	Mixed bool    // other kinds may have drawn as well
}

func (d Drawer) fs() work.FS {
	if d.FS == nil {
		return work.Disk{}
	}
	return d.FS
}

// Put writes the images of a span, [N,H,W,3], as a shard. Where another process has
// put it there already, that one stays; an error tells that it is another one.
func (s *Images) Put(at Span, pixels []uint8) error {
	sh := shard{Span: at, path: filepath.Join(s.Folder, shardOf(at))}
	by := s.Drawer.ID
	if by == "" {
		by = fmt.Sprint(os.Getpid())
	}
	on := kinds{}
	if s.Drawer.Kind != "" {
		on[s.Drawer.Kind] = at.Len()
	}
	for attempt := 0; ; attempt++ {
		first, err := work.Publish(s.Drawer.fs(), sh.path, by, func(w io.Writer) error {
			return s.write(npz.NewWriter(w, sh.path), sh, on, func(w *npz.ArrayWriter) error { return npz.WriteRows(w, pixels) })
		})
		switch {
		case errors.Is(err, os.ErrNotExist) && attempt == 0: // the folder is new
			if err := s.Drawer.fs().MakeFolder(s.Folder); err != nil {
				return ExplainWrite(s.Folder, err)
			}
			continue
		case err != nil:
			return ExplainWrite(sh.path, err)
		case !first:
			again, err := s.compare(sh, pixels)
			if err != nil {
				return err
			}
			if again && attempt < 3 {
				continue
			}
		}
		s.add(sh)
		return nil
	}
}

// shardOf is the name of the file with the images of a span.
func shardOf(at Span) string { return fmt.Sprintf("%06d-%06d.npz", at.From, at.To-1) }

// compare compares a shard that is there with the pixels that were drawn here. One
// that is damaged is removed: again tells that its place is free.
func (s *Images) compare(sh shard, pixels []uint8) (again bool, err error) {
	r, err := s.open(sh)
	var theirs []uint8
	if err == nil {
		defer r.close()
		theirs, err = npz.ReadAll[uint8](r.images, len(pixels))
	}
	switch {
	case errors.Is(err, os.ErrNotExist): // all images lie in one file by now
		return false, nil
	case work.Unreachable(err) || errors.Is(err, os.ErrPermission):
		return false, err
	case err != nil:
		return true, s.Drawer.fs().Remove(sh.path)
	case bytes.Equal(theirs, pixels):
		return false, nil
	}
	there := r.on.String()
	if s.Drawer.Mixed && there != s.Drawer.Kind {
		return false, nil
	}
	return false, fmt.Errorf("%s: images %d to %d were drawn twice, with different bytes; what was there is kept\n  there: %s\n  here:  %s\nOn one kind of device that must not be: its memory or its driver may be faulty. To draw them again, remove the file",
		sh.path, sh.From, sh.To-1, there, kinds{s.Drawer.Kind: 1})
}

// There asks whether the images of a span are there as one shard.
func (s *Images) There(at Span) (bool, error) {
	_, err := s.Drawer.fs().Look(filepath.Join(s.Folder, shardOf(at)))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// kinds count images by the kind of device that they were drawn on; "" is one that
// was not recorded. In a file they are the array drawn_on [bytes], as JSON: in every
// shard, and in the file with all images where there are several kinds.
type kinds map[string]int

const kindsArray = "drawn_on"

// maxKinds bounds the size of that array.
const maxKinds = 1 << 20

func (k kinds) write(w *npz.Writer) error {
	if len(k) == 0 {
		return nil
	}
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return npz.WriteArray(w, kindsArray, data, len(data))
}

// ifMixed is k where it has several kinds that are known.
func (k kinds) ifMixed() kinds {
	known := len(k)
	if _, has := k[""]; has {
		known--
	}
	if known < 2 {
		return nil
	}
	return k
}

// String names the kinds for people.
func (k kinds) String() string {
	var all string
	for i, name := range slices.Sorted(maps.Keys(k)) {
		if i > 0 {
			all += "; "
		}
		if name == "" {
			name = "a device that was not recorded"
		}
		all += name
	}
	return all
}

// readKinds are the kinds of a file of n images.
func readKinds(f *npz.File, n int) (kinds, error) {
	if !f.Has(kindsArray) {
		return kinds{"": n}, nil
	}
	a, err := f.Array(kindsArray)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	data, err := npz.ReadAll[uint8](a, maxKinds)
	if err != nil {
		return nil, err
	}
	k, sum := kinds{}, 0
	err = json.Unmarshal(data, &k)
	for _, count := range k {
		sum += count
	}
	if err != nil || sum != n {
		return nil, fmt.Errorf("%s: %s does not say what its %d images were drawn on", f.Path(), kindsArray, n)
	}
	return k, nil
}

// kinds are those of the images of a span.
func (s *Images) kinds(want Span) (kinds, error) {
	pieces, err := s.pieces(want)
	if err != nil {
		return nil, err
	}
	all := kinds{}
	for _, p := range pieces {
		r, err := s.open(p.shard)
		if err != nil {
			return nil, err
		}
		r.close()
		for name, count := range r.on {
			if len(r.on) == 1 {
				count = p.of.Len()
			}
			all[name] += count // of several kinds is only a file of all images so far, which is taken whole
		}
	}
	return all, nil
}

// Devices counts the images of the file that holds all of [0, samples) by the kind of
// device that they were drawn on; nil where that was one.
func (s *Images) Devices(samples int) (map[string]int, error) {
	whole, ok := s.merged(samples)
	if !ok {
		return nil, nil
	}
	r, err := s.open(whole)
	if err != nil {
		return nil, err
	}
	r.close()
	return r.on.ifMixed(), nil
}
