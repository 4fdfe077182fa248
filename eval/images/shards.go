package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sagbench/eval/npz"
)

// maxShards bounds the files that make up a set.
const maxShards = 100_000

// isPattern reports whether a path that is not there may stand for several.
func isPattern(path string) bool { return strings.ContainsAny(path, "*?[{") }

// expand lists the files that a pattern stands for: braces as WebDataset writes them,
// shard-{000..004}.tar or {a,b}.tar, and *, ? and [a-z] of file names.
func expand(pattern string) ([]string, error) {
	braced, err := expandBraces(pattern)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pattern, err)
	}
	var all []string
	for _, one := range braced {
		if !strings.ContainsAny(one, "*?[") {
			if _, err := os.Stat(one); err != nil {
				return nil, fmt.Errorf("%s: its file %s: %w", pattern, one, errors.Unwrap(err))
			}
			all = append(all, one)
			continue
		}
		found, err := filepath.Glob(one)
		if err != nil {
			return nil, fmt.Errorf("%s: is no pattern of file names: %w", pattern, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: no file has such a name", one)
		}
		all = append(all, found...)
	}
	if len(all) > maxShards {
		return nil, fmt.Errorf("%s: stands for %d files, at most %d are read", pattern, len(all), maxShards)
	}
	for i, one := range all {
		if at := slices.Index(all[:i], one); at >= 0 && len(all) < 1000 {
			return nil, fmt.Errorf("%s: stands for %s twice", pattern, one)
		}
	}
	return all, nil
}

// expandBraces replaces {a,b} and {000..004} of a pattern by each of what they hold.
func expandBraces(pattern string) ([]string, error) {
	open := strings.IndexByte(pattern, '{')
	if open < 0 {
		return []string{pattern}, nil
	}
	size := strings.IndexByte(pattern[open:], '}')
	if size < 0 {
		return nil, errors.New("has { without }")
	}
	inner := pattern[open+1 : open+size]
	rest, err := expandBraces(pattern[open+size+1:])
	if err != nil {
		return nil, err
	}
	var choices []string
	if from, to, ok := strings.Cut(inner, ".."); ok {
		if choices, err = numbers(from, to); err != nil {
			return nil, err
		}
	} else {
		choices = strings.Split(inner, ",")
	}
	if len(choices) > maxShards/len(rest) {
		return nil, fmt.Errorf("stands for more than %d files", maxShards)
	}
	var all []string
	for _, c := range choices {
		for _, r := range rest {
			all = append(all, pattern[:open]+c+r)
		}
	}
	return all, nil
}

// numbers are those from one to another, with as many digits as the first.
func numbers(from, to string) ([]string, error) {
	a, errA := strconv.ParseUint(from, 10, 63)
	b, errB := strconv.ParseUint(to, 10, 63)
	switch {
	case errA != nil || errB != nil || b < a:
		return nil, fmt.Errorf("has {%s..%s}, expected {FIRST..LAST} with numbers", clip(from), clip(to))
	case b-a >= maxShards:
		return nil, fmt.Errorf("stands for more than %d files", maxShards)
	}
	var all []string
	for n := a; n <= b; n++ {
		all = append(all, fmt.Sprintf("%0*d", len(from), n))
	}
	return all, nil
}

// openShards opens files that make up a set, shard after shard. path is what the set is
// called.
func openShards(ctx context.Context, path string, shards []string, opt Options) (*Set, error) {
	if len(shards) > maxShards {
		return nil, fmt.Errorf("%s: holds %d files, at most %d make up a set", path, len(shards), maxShards)
	}
	kind := kindOfShard(shards[0])
	for _, s := range shards {
		if kindOfShard(s) != kind || kind == "" {
			return nil, fmt.Errorf("%s: holds %s and %s, expected files of one kind: .tar, .npz or .parquet", path, filepath.Base(shards[0]), filepath.Base(s))
		}
	}
	switch kind {
	case Tar:
		return openTar(ctx, path, shards, opt)
	case Parquet:
		return openParquet(ctx, path, shards, opt)
	}
	return openArrays(path, shards, opt)
}

// kindOfShard is the kind of a file by its suffix; "" where it may not be a shard.
func kindOfShard(path string) Kind {
	switch shardSuffix(path) {
	case "":
		return ""
	case ".npz":
		return NPZ
	case ".parquet":
		return Parquet
	}
	return Tar
}

// openArrays opens the arrays arr_0 of .npz files as one set.
func openArrays(path string, shards []string, opt Options) (_ *Set, err error) {
	all := &Set{Path: path}
	var open closers
	all.closer = &open
	defer func() {
		if err != nil {
			err = errors.Join(err, open.Close())
		}
	}()
	var parts []*Set
	for _, shard := range shards {
		f, err := npz.Open(shard)
		if err != nil {
			return nil, err
		}
		open = append(open, f)
		part, err := OfArray(shard, func() (*npz.Array, error) { return f.Array("arr_0") }, nil, nil)
		if err != nil {
			return nil, err
		}
		if f.Has("arr_1") {
			part.LabelledBy(func() (*npz.Array, error) { return f.Array("arr_1") })
		}
		all.N += part.N
		all.Warnings = append(all.Warnings, part.Warnings...)
		parts = append(parts, part)
	}
	all.count = all.N
	all.pending = func(yield func(Pending, error) bool) {
		for _, part := range parts {
			for p, err := range part.pending {
				p.Name = filepath.Base(part.Path) + " " + p.Name
				if err != nil {
					err = fmt.Errorf("%s: %w", filepath.Base(part.Path), err)
				}
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
	}
	all.about = func(yield func(About, error) bool) {
		for _, part := range parts {
			for a, err := range part.about {
				a.Name = filepath.Base(part.Path) + " " + a.Name
				if !yield(a, err) || err != nil {
					return
				}
			}
		}
	}
	all.headers = func(yield func(Pending, error) bool) {
		for _, part := range parts {
			for i := range part.N {
				size := func() (Image, error) { return Image{Height: part.size[0], Width: part.size[1]}, nil }
				if !yield(Pending{Name: filepath.Base(part.Path) + " " + arrayName(i), Decode: size}, nil) {
					return
				}
			}
		}
	}
	return all, all.choose(opt.Subset)
}

// Files are the files that make up the set that a path names where it names no file or
// folder: those of a list, which comes first, or of a pattern. Nil elsewhere.
func Files(path string) ([]string, error) {
	if list := listPath(path); list != "" {
		all := []string{list}
		err := readList(list, func(_ int, name string) error {
			all = append(all, inList(list, name))
			return nil
		})
		return all, err
	}
	if _, err := os.Stat(path); err != nil && isPattern(path) {
		return expand(path)
	}
	return nil, nil
}
