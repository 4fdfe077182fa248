package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"sagbench/eval/npz"
	"sagbench/models"
)

// A shardReader streams the images of a shard.
type shardReader struct {
	file   *npz.File
	images *npz.Array // [N,H,W,3] uint8
}

func (r *shardReader) close() { errors.Join(r.images.Close(), r.file.Close()) }

// open opens a shard and compares its form and its labels with what its name,
// the network and the seed say.
func (s *store) open(sh shard) (*shardReader, error) {
	f, err := npz.Open(sh.path)
	if err != nil {
		return nil, err
	}
	a, err := f.Array("arr_0")
	if err == nil {
		err = errors.Join(s.checkImages(sh, a), s.checkLabels(sh, f))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &shardReader{f, a}, nil
}

func (s *store) checkImages(sh shard, a *npz.Array) error {
	if a.Dtype != npz.Uint8 || len(a.Shape) != 4 || a.Shape[0] != sh.len() || a.Shape[1] < 1 || a.Shape[2] < 1 || a.Shape[3] != 3 {
		return fmt.Errorf("%s: arr_0 is %s %v, expected uint8 [%d,H,W,3]", sh.path, a.Dtype, a.Shape, sh.len())
	}
	if s.height == 0 {
		s.height, s.width = a.Shape[1], a.Shape[2]
	}
	if a.Shape[1] != s.height || a.Shape[2] != s.width {
		return fmt.Errorf("%s: images of %d×%d pixels, expected %d×%d", sh.path, a.Shape[1], a.Shape[2], s.height, s.width)
	}
	return nil
}

func (s *store) checkLabels(sh shard, f *npz.File) error {
	if s.classes < 0 {
		return nil
	}
	if labelled := f.Has("arr_1"); labelled != (s.classes > 0) {
		return fmt.Errorf("%s: labels in arr_1: %v, expected: %v", sh.path, labelled, s.classes > 0)
	}
	if s.classes == 0 {
		return nil
	}
	a, err := f.Array("arr_1")
	if err != nil {
		return err
	}
	defer a.Close()
	labels, err := npz.ReadAll[int64](a, sh.len())
	if err != nil {
		return err
	}
	if !slices.Equal(labels, s.labels(sh.span)) {
		return fmt.Errorf("%s: its labels are not those that the seed gives", sh.path)
	}
	return nil
}

// verify opens a shard; with deep set it reads every byte, which compares the
// checksum.
func (s *store) verify(sh shard, deep bool) error {
	r, err := s.open(sh)
	if err != nil {
		return err
	}
	defer r.close()
	if !deep {
		return nil
	}
	rowLen := r.images.RowLen()
	buffer := make([]uint8, max(1, min(sh.len(), 4<<20/rowLen))*rowLen)
	for {
		if _, err := npz.ReadRows(r.images, buffer); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// recheck leaves out shards that do not fit what is known by now.
func (s *store) recheck(note func(string)) {
	s.shards = slices.DeleteFunc(s.shards, func(sh shard) bool {
		err := s.verify(sh, false)
		if err != nil {
			note(damaged(sh, err))
		}
		return err != nil
	})
}

// damaged is the line about a shard that is left out.
func damaged(sh shard, err error) string {
	return fmt.Sprintf("%v; its %d images are computed again", err, sh.len())
}

// each streams the images [0, samples) in order, in batches of size (the last
// one may be smaller) whatever the shards are. The pixels are valid during the
// call only.
func (s *store) each(ctx context.Context, samples, size int, visit func(models.Images) error) error {
	rowLen := s.height * s.width * 3
	batch := make([]uint8, 0, size*rowLen)
	flush := func() error {
		im := models.Images{N: len(batch) / rowLen, Height: s.height, Width: s.width, Pixels: batch}
		err := visit(im)
		batch = batch[:0]
		return err
	}
	for at := 0; at < samples; {
		sh, ok := s.holder(at)
		if !ok {
			return fmt.Errorf("%s: image %d is missing", s.folder, at)
		}
		to := min(sh.to, samples)
		err := s.rows(ctx, sh, span{at, to}, func(row []uint8) error {
			if batch = append(batch, row...); len(batch) == cap(batch) {
				return flush()
			}
			return nil
		})
		if err != nil {
			return err
		}
		at = to
	}
	if len(batch) > 0 {
		return flush()
	}
	return nil
}

// holder is the shard with image at that reaches furthest.
func (s *store) holder(at int) (best shard, ok bool) {
	for _, sh := range s.shards {
		if sh.from <= at && at < sh.to && sh.to > best.to {
			best, ok = sh, true
		}
	}
	return best, ok
}

// rows visits the images of a span of a shard, one after the other.
func (s *store) rows(ctx context.Context, sh shard, want span, visit func([]uint8) error) error {
	r, err := s.open(sh)
	if err != nil {
		return err
	}
	defer r.close()
	rowLen := r.images.RowLen()
	buffer := make([]uint8, max(1, min(sh.len(), 1<<20/rowLen))*rowLen)
	for at := sh.from; at < want.to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := npz.ReadRows(r.images, buffer)
		if err != nil {
			return err
		}
		for i := range n {
			if at+i >= want.from && at+i < want.to {
				if err := visit(buffer[i*rowLen : (i+1)*rowLen]); err != nil {
					return err
				}
			}
		}
		at += n
	}
	return nil
}
