package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"sagbench/eval/npz"
	"sagbench/sampling"
)

// A store is the samples folder of a run. While images are being drawn they lie
// in shards, 000016-000031.npz; once all are there, in one file,
// samples_512x32x32x3.npz, which is a shard from image 0 as well. Both hold
// arr_0 [N,H,W,3] uint8 and, for a conditional network, arr_1 [N] int64, as
// guided-diffusion's image_sample.py writes them. A file appears by rename, so
// it is whole; what a file system damaged nevertheless is found and left out.
type store struct {
	folder        string
	height, width int     // of the images; 0 = not known yet
	classes       int     // 0 = no labels, -1 = not known
	seed          uint64  // of the labels
	shards        []shard // sorted by from, then the longest first
}

// A shard is a file with the images [from, to).
type shard struct {
	span
	path   string
	merged bool
}

// A span is the images [from, to).
type span struct{ from, to int }

func (s span) len() int { return s.to - s.from }

var (
	shardName  = regexp.MustCompile(`^(\d{6,})-(\d{6,})\.npz$`)
	mergedName = regexp.MustCompile(`^samples_(\d+)x(\d+)x(\d+)x3\.npz$`)
)

// nameOf is a shard's file name.
func (s span) nameOf() string { return fmt.Sprintf("%06d-%06d.npz", s.from, s.to-1) }

// parseShard reads a file name; false for files of others.
func parseShard(folder, name string) (shard, bool) {
	s := shard{path: filepath.Join(folder, name)}
	var err1, err2 error
	if m := shardName.FindStringSubmatch(name); m != nil {
		s.from, err1 = strconv.Atoi(m[1])
		s.to, err2 = strconv.Atoi(m[2])
		s.to++
	} else if m := mergedName.FindStringSubmatch(name); m != nil {
		s.to, err1 = strconv.Atoi(m[1])
		s.merged = true
	} else {
		return s, false
	}
	return s, err1 == nil && err2 == nil && s.from < s.to
}

// scan lists the shards with images of [0, samples). Damaged ones are left out,
// each with a note; with deep set every byte is read and its checksum compared.
func (s *store) scan(samples int, deep bool, note func(string)) error {
	s.shards = nil
	entries, err := os.ReadDir(s.folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		found, ok := parseShard(s.folder, e.Name())
		if !ok || found.from >= samples {
			continue
		}
		if err := s.verify(found, deep); err != nil {
			if errors.Is(err, os.ErrPermission) {
				return err
			}
			note(damaged(found, err))
			continue
		}
		s.shards = append(s.shards, found)
	}
	s.sort()
	return nil
}

func (s *store) sort() {
	slices.SortFunc(s.shards, func(a, b shard) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to))
	})
}

// missing are the images of [0, samples) that no shard holds.
func (s *store) missing(samples int) []span {
	var out []span
	at := 0
	for _, sh := range s.shards {
		if sh.from > at && at < samples {
			out = append(out, span{at, min(sh.from, samples)})
		}
		at = max(at, sh.to)
	}
	if at < samples {
		out = append(out, span{at, samples})
	}
	return out
}

// done counts the images of [0, samples) that are there.
func (s *store) done(samples int) int {
	n := samples
	for _, m := range s.missing(samples) {
		n -= m.len()
	}
	return n
}

// put writes the images of a span, [N,H,W,3], as a shard.
func (s *store) put(at span, pixels []uint8) error {
	sh := shard{span: at, path: filepath.Join(s.folder, at.nameOf())}
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return explainWrite(s.folder, err)
	}
	err := s.create(sh, func(w *npz.ArrayWriter) error { return npz.WriteRows(w, pixels) })
	if err != nil {
		return explainWrite(sh.path, err)
	}
	s.shards = append(s.shards, sh)
	s.sort()
	return nil
}

// create writes a shard's file; fill writes the pixels.
func (s *store) create(sh shard, fill func(*npz.ArrayWriter) error) error {
	w, err := npz.Create(sh.path)
	if err != nil {
		return err
	}
	defer w.Abort()
	images, err := w.Array("arr_0", npz.Uint8, sh.len(), s.height, s.width, 3)
	if err != nil {
		return err
	}
	if err := fill(images); err != nil {
		return err
	}
	if s.classes > 0 {
		labels, err := w.Array("arr_1", npz.Int64, sh.len())
		if err != nil {
			return err
		}
		if err := npz.WriteRows(labels, s.labels(sh.span)); err != nil {
			return err
		}
	}
	return w.Commit()
}

// labels are the classes of the images of a span.
func (s *store) labels(at span) []int64 {
	out := make([]int64, at.len())
	for i := range out {
		out[i] = sampling.Label(s.seed, at.from+i, s.classes)
	}
	return out
}
