package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"sagbench/eval/images"
	"sagbench/eval/npz"
	"sagbench/models"
)

// merged is the file that holds all of [0, samples), if there is one.
func (s *store) merged(samples int) (shard, bool) {
	i := slices.IndexFunc(s.shards, func(sh shard) bool { return sh.merged && sh.to >= samples })
	if i < 0 {
		return shard{}, false
	}
	return s.shards[i], true
}

// content is the file that holds all of [0, samples).
func (s *store) content(samples int) (InputFile, error) {
	whole, ok := s.merged(samples)
	if !ok {
		return InputFile{}, fmt.Errorf("%s: there is no file with all of %d images", s.folder, samples)
	}
	sum, err := images.Hash(whole.path)
	return InputFile{filepath.Base(whole.path), sum}, err
}

// merge puts the images [0, samples), all of which are there, into one file and
// removes the shards that it makes superfluous, damaged ones included.
func (s *store) merge(ctx context.Context, samples int) error {
	whole, ok := s.merged(samples)
	if !ok {
		name := fmt.Sprintf("samples_%dx%dx%dx3.npz", samples, s.height, s.width)
		whole = shard{span{0, samples}, filepath.Join(s.folder, name), true}
		err := s.create(whole, func(w *npz.ArrayWriter) error {
			return s.each(ctx, samples, 64, func(im models.Images) error { return npz.WriteRows(w, im.Pixels) })
		})
		if err != nil {
			return explainWrite(whole.path, err)
		}
	}
	return s.prune(whole)
}

// prune removes the files whose images lie in whole.
func (s *store) prune(whole shard) error {
	entries, err := os.ReadDir(s.folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		sh, ok := parseShard(s.folder, e.Name())
		if ok && sh.path != whole.path && sh.to <= whole.to {
			if err := os.Remove(sh.path); err != nil {
				return err
			}
		}
	}
	s.shards = slices.DeleteFunc(s.shards, func(sh shard) bool { return sh.path == whole.path || sh.to <= whole.to })
	s.shards = append(s.shards, whole)
	s.sort()
	return nil
}
