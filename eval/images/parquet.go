package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// parquetMagic begins and ends a parquet file.
const parquetMagic = "PAR1"

// imageColumns are the names of columns that are taken for the image, where several could be.
var imageColumns = []string{"image", "img", "jpg", "jpeg", "png", "webp"}

// openParquet opens the images of parquet files as one set, file after file: the column
// of structs {bytes, path}, as the hub's data sets have them, or of bytes.
func openParquet(ctx context.Context, path string, shards []string, opt Options) (*Set, error) {
	t := &tables{shards: shards}
	s := &Set{Path: path}
	for _, shard := range shards {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rows, err := t.look(shard)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", shard, err)
		}
		t.rows = append(t.rows, rows)
		if s.N += rows; s.N > maxEntries {
			return nil, fmt.Errorf("%s: has more than %d rows", shard, maxEntries)
		}
	}
	if s.N == 0 {
		return nil, fmt.Errorf("%s: is empty, expected rows with images", path)
	}
	var err error
	if t.named, err = t.distinctNames(ctx); err != nil {
		return nil, err
	}
	s.count = s.N
	if err := s.choose(opt.Subset); err != nil {
		return nil, err
	}
	s.pending = t.images(func(data []byte) (Image, error) { return Decode(data, opt.maxPixels()) })
	s.headers = t.images(func(data []byte) (Image, error) { return header(bytes.NewReader(data), opt.maxPixels()) })
	s.about = t.abouts()
	return s, s.checkHeaders(ctx, opt)
}

// Tables are parquet files whose rows are images.
type tables struct {
	shards []string
	rows   []int // of each
	named  bool  // by their column path, which has a name for each row
}

// look tells how many rows a file has, which have to be images.
func (t *tables) look(shard string) (rows int, err error) {
	f, err := openTable(shard)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	_, err = f.imageColumn()
	return f.rows, err
}

// distinctNames reports whether the column path has another name for each row.
func (t *tables) distinctNames(ctx context.Context) (bool, error) {
	var sums []uint64
	for shard, name := range t.shards {
		whole := true
		err := t.eachRow(shard, func(f *table) ([]string, error) {
			image, err := f.imageColumn()
			if whole = image.path != ""; !whole {
				return nil, err
			}
			return []string{image.path}, err
		}, func(_ int, row [][][]byte) error {
			if len(row) == 0 || len(row[0]) != 1 || len(row[0][0]) == 0 || len(row[0][0]) > maxName {
				whole = false
				return errEnough
			}
			h := fnv.New64a()
			h.Write(row[0][0])
			sums = append(sums, h.Sum64())
			if len(sums)%4096 == 0 {
				return ctx.Err()
			}
			return nil
		})
		if err != nil && err != errEnough {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		if !whole {
			return false, nil
		}
	}
	slices.Sort(sums)
	n := len(sums)
	return len(slices.Compact(sums)) == n, nil
}

var errEnough = errors.New("no more rows are wanted")

// eachRow calls each for each row of a file with the values of the columns that choose
// gives; a column may hold several values, or none.
func (t *tables) eachRow(shard int, choose func(*table) ([]string, error), each func(row int, values [][][]byte) error) (err error) {
	defer func() { // of a reader that does not expect such a file
		if fault := recover(); fault != nil {
			err = fmt.Errorf("cannot be read: the reader of parquet failed: %v", fault)
		}
	}()
	f, err := openTable(t.shards[shard])
	if err != nil {
		return err
	}
	defer f.Close()
	columns, err := choose(f)
	if err != nil {
		return err
	}
	return f.each(columns, each)
}

// name is what a row is called.
func (t *tables) name(shard, row int, path [][]byte) string {
	switch {
	case t.named && len(path) == 1:
		return string(path[0])
	case len(t.shards) > 1:
		return fmt.Sprintf("%s row %d", filepath.Base(t.shards[shard]), row)
	}
	return fmt.Sprintf("row %d", row)
}

// images are the images of all rows.
func (t *tables) images(decode func(data []byte) (Image, error)) iter.Seq2[Pending, error] {
	return func(yield func(Pending, error) bool) {
		for shard, path := range t.shards {
			err := t.eachRow(shard, func(f *table) ([]string, error) {
				image, err := f.imageColumn()
				if t.named {
					return []string{image.bytes, image.path}, err
				}
				return []string{image.bytes}, err
			}, func(row int, values [][][]byte) error {
				p := Pending{}
				if t.named {
					p.Name = t.name(shard, row, values[1])
				} else {
					p.Name = t.name(shard, row, nil)
				}
				p.Decode = func() (Image, error) {
					return Image{}, errors.New("has no bytes; images that lie in files beside the table are not read")
				}
				p.sum = func() (sum, error) { return sum{}, nil }
				if len(values[0]) == 1 {
					data := values[0][0]
					p.Decode = func() (Image, error) { return decode(data) }
					p.sum = func() (sum, error) { return sha256.Sum256(data), nil }
				}
				if !yield(p, nil) {
					return errEnough
				}
				return nil
			})
			if err == errEnough {
				return
			}
			if err != nil {
				yield(Pending{}, fmt.Errorf("%s: %w", filepath.Base(path), err))
				return
			}
		}
	}
}

// abouts are the labels and captions of all rows.
func (t *tables) abouts() iter.Seq2[About, error] {
	return func(yield func(About, error) bool) {
		for shard, path := range t.shards {
			var classes int
			err := t.eachRow(shard, func(f *table) ([]string, error) {
				image, err := f.imageColumn()
				columns := f.textColumns(classFields, true)
				classes = len(columns)
				columns = append(columns, f.textColumns(captionFields, false)...)
				if t.named {
					columns = append(columns, image.path)
				}
				return columns, err
			}, func(row int, values [][][]byte) error {
				var path [][]byte
				if t.named {
					path, values = values[len(values)-1], values[:len(values)-1]
				}
				a := About{Name: t.name(shard, row, path)}
				if err := a.addColumns(values, classes); err != nil {
					return fmt.Errorf("row %d: %w", row, err)
				}
				if !yield(a, nil) {
					return errEnough
				}
				return nil
			})
			if err == errEnough {
				return
			}
			if err != nil {
				yield(About{}, fmt.Errorf("%s: %w", path, err))
				return
			}
		}
	}
}

// addColumns takes the values of a row: the first columns are of labels, the others of
// captions.
func (a *About) addColumns(values [][][]byte, classes int) error {
	for i, column := range values {
		for _, text := range column {
			if len(text) > maxBeside {
				return fmt.Errorf("a text of %d bytes, more than the %d of a label or captions", len(text), maxBeside)
			}
			if at := invalid(text); at >= 0 {
				return fmt.Errorf("byte %d of a text is not UTF-8", at)
			}
			if i < classes {
				if err := a.setClass(strings.TrimSpace(string(text))); err != nil {
					return err
				}
			} else {
				a.addCaption(string(text))
			}
		}
	}
	return nil
}

// Bounds of a table: of its directory, in bytes, and of a page of a column, which lies in
// memory.
const (
	maxFooter = 16 << 20
	maxPage   = 256 << 20
)

// checkFooter looks at the end of a parquet file before its directory is read.
func checkFooter(f *os.File) (size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size = info.Size()
	end := make([]byte, 8)
	if size < 12 {
		return 0, fmt.Errorf("has %d bytes, expected a parquet file", size)
	}
	if _, err := f.ReadAt(end, size-8); err != nil && err != io.EOF {
		return 0, err
	}
	switch string(end[4:]) {
	case parquetMagic:
	case "PARE":
		return 0, errors.New("is an encrypted parquet file, which is not read")
	default:
		return 0, errors.New("does not end as a parquet file: it is truncated, or none; copy or write it again")
	}
	footer := int64(end[0]) | int64(end[1])<<8 | int64(end[2])<<16 | int64(end[3])<<24
	switch {
	case footer > size-8:
		return 0, fmt.Errorf("claims a directory of %d bytes in a file of %d: it is truncated or damaged; copy or write it again", footer, size)
	case footer > maxFooter:
		return 0, fmt.Errorf("has a directory of %d bytes, at most %d are read; write it with larger row groups", footer, maxFooter)
	}
	return size, nil
}

// pageLimit is the largest page of a file of a size that is read.
func pageLimit(size int64) int64 {
	if size > math.MaxInt64/mostDeflated-mostFlat {
		return maxPage
	}
	return min(maxPage, mostDeflated*size+mostFlat)
}
