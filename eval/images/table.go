package images

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	pq "github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
)

// A table is an open parquet file.
type table struct {
	*pq.Reader
	rows int
}

// openTable opens a parquet file and reads its directory.
func openTable(path string) (t *table, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if fault := recover(); fault != nil { // of a reader that does not expect such a file
			err = fmt.Errorf("cannot be read: the reader of parquet failed: %v", fault)
		}
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	size, err := checkFooter(f)
	if err != nil {
		return nil, err
	}
	props := parquet.NewReaderProperties(memory.NewGoAllocator())
	props.BufferedStreamEnabled, props.PageStreamingEnabled = true, true
	props.MaxCompressedPageSize, props.MaxUncompressedPageSize = pageLimit(size), pageLimit(size)
	r, err := pq.NewParquetReader(f, pq.WithReadProps(props))
	if err != nil {
		return nil, err
	}
	n := r.NumRows()
	if n < 0 || n > maxEntries {
		return nil, fmt.Errorf("claims %d rows, at most %d are read", n, maxEntries)
	}
	left := n
	for i := range r.NumRowGroups() {
		if rows := r.MetaData().RowGroups[i].NumRows; rows < 0 || rows > left {
			return nil, fmt.Errorf("claims %d rows, but its row groups hold others: it is damaged", n)
		}
		left -= r.MetaData().RowGroups[i].NumRows
	}
	if left != 0 {
		return nil, fmt.Errorf("claims %d rows, %d more than its row groups hold: it is damaged", n, left)
	}
	return &table{r, int(n)}, nil
}

// An imageColumn is the column of images by the paths of its leaves.
type imageColumn struct {
	bytes, path string // path is "" where there is none
}

// imageColumn finds the column of images: structs with bytes, or bytes that are no text.
func (t *table) imageColumn() (imageColumn, error) {
	found := map[string]imageColumn{}
	var names, all []string
	s := t.MetaData().Schema
	for i := range s.NumColumns() {
		c := s.Column(i)
		all = append(all, quoted(c.Path()))
		parts := c.ColumnPath()
		isStruct := len(parts) == 2 && parts[1] == "bytes"
		if c.PhysicalType() != parquet.Types.ByteArray || c.MaxRepetitionLevel() > 0 || isText(c) && !isStruct || !isStruct && len(parts) != 1 {
			continue
		}
		one := imageColumn{bytes: c.Path()}
		if isStruct {
			if p := s.ColumnIndexByName(parts[0] + ".path"); p >= 0 && s.Column(p).PhysicalType() == parquet.Types.ByteArray && s.Column(p).MaxRepetitionLevel() == 0 {
				one.path = parts[0] + ".path"
			}
		}
		found[parts[0]] = one
		names = append(names, parts[0])
	}
	likely := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(imageColumns, strings.ToLower(n)) })
	switch {
	case len(likely) == 1:
		return found[likely[0]], nil
	case len(names) == 1:
		return found[names[0]], nil
	case len(names) == 0:
		return imageColumn{}, fmt.Errorf("has no column of images, structs {bytes, path} or bytes; its columns are %s", strings.Join(some(all), ", "))
	}
	return imageColumn{}, fmt.Errorf("has several columns that may be the images: %s; write a file with one of them, or call one image", strings.Join(some(names), ", "))
}

// some are the first of many names.
func some(names []string) []string {
	if len(names) > maxListed {
		return append(slices.Clone(names[:maxListed]), fmt.Sprintf("and %d more", len(names)-maxListed))
	}
	return names
}

func isText(c *schema.Column) bool {
	if _, ok := c.LogicalType().(schema.StringLogicalType); ok {
		return true
	}
	return c.ConvertedType() == schema.ConvertedTypes.UTF8
}

// textColumns are the paths of the columns of those names that hold texts, or lists of
// them, and where numbers are asked for whole ones as well.
func (t *table) textColumns(names []string, numbers bool) []string {
	var found []string
	s := t.MetaData().Schema
	for _, name := range names {
		for i := range s.NumColumns() {
			c := s.Column(i)
			parts := c.ColumnPath()
			isList := c.MaxRepetitionLevel() == 1 && !numbers && len(parts) <= 3
			isPlain := c.MaxRepetitionLevel() == 0 && len(parts) == 1
			number := numbers && (c.PhysicalType() == parquet.Types.Int32 || c.PhysicalType() == parquet.Types.Int64)
			if parts[0] == name && (isList || isPlain) && (number || c.PhysicalType() == parquet.Types.ByteArray) {
				found = append(found, c.Path())
			}
		}
	}
	return found
}

// each calls f for each row with the values of some columns, whose memory it may keep.
func (t *table) each(columns []string, f func(row int, values [][][]byte) error) error {
	row := 0
	for g := range t.NumRowGroups() {
		group := t.RowGroup(g)
		var cursors []*cursor
		for _, path := range columns {
			c, err := newCursor(group, t.MetaData().Schema.ColumnIndexByName(path))
			if err != nil {
				return fmt.Errorf("row group %d, column %s: %w", g, quoted(path), err)
			}
			defer c.Close()
			cursors = append(cursors, c)
		}
		for range group.NumRows() {
			values := make([][][]byte, len(cursors))
			for i, c := range cursors {
				var err error
				if values[i], err = c.next(); err != nil {
					return fmt.Errorf("row group %d, column %s, row %d: %w", g, quoted(columns[i]), row, err)
				}
			}
			if err := f(row, values); err != nil {
				return err
			}
			row++
		}
		for _, c := range cursors {
			c.Close()
		}
	}
	return nil
}

// A cursor reads a column of a row group row by row.
type cursor struct {
	pq.ColumnChunkReader
	rep      int16  // the largest repetition level: 0 where a row has one value
	ahead    []byte // the value that was read ahead
	hasValue bool   // and is not null
	peeked   bool
	closed   bool
}

func newCursor(group *pq.RowGroupReader, i int) (*cursor, error) {
	c, err := group.Column(i)
	if err != nil {
		return nil, err
	}
	return &cursor{ColumnChunkReader: c, rep: c.Descriptor().MaxRepetitionLevel()}, nil
}

// Close frees the column.
func (c *cursor) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	return c.ColumnChunkReader.Close()
}

// maxTexts bounds the texts of a row.
const maxTexts = 1000

// next are the values of the next row.
func (c *cursor) next() (values [][]byte, err error) {
	for first := true; ; first = false {
		if !c.peeked {
			value, has, rep, err := c.level()
			switch {
			case err != nil:
				return nil, err
			case rep < 0 && first:
				return nil, errors.New("ends before the row group does: it is damaged")
			case rep < 0:
				return values, nil
			}
			c.ahead, c.hasValue, c.peeked = value, has, true
			if rep == 0 && !first {
				return values, nil
			}
		}
		c.peeked = false
		if c.hasValue {
			values = append(values, c.ahead)
		}
		if len(values) > maxTexts {
			return nil, fmt.Errorf("has more than %d values", maxTexts)
		}
		if c.rep == 0 {
			return values, nil
		}
	}
}

// level reads one level and its value, if it has one; rep is below 0 at the end.
func (c *cursor) level() (value []byte, has bool, rep int16, err error) {
	defs, reps := make([]int16, 1), make([]int16, 1)
	var levels int64
	var read int
	switch r := c.ColumnChunkReader.(type) {
	case *pq.ByteArrayColumnChunkReader:
		v := make([]parquet.ByteArray, 1)
		if levels, read, err = r.ReadBatch(1, v, defs, reps); read > 0 {
			value = v[0]
		}
	case *pq.Int32ColumnChunkReader:
		v := make([]int32, 1)
		if levels, read, err = r.ReadBatch(1, v, defs, reps); read > 0 {
			value = strconv.AppendInt(nil, int64(v[0]), 10)
		}
	case *pq.Int64ColumnChunkReader:
		v := make([]int64, 1)
		if levels, read, err = r.ReadBatch(1, v, defs, reps); read > 0 {
			value = strconv.AppendInt(nil, v[0], 10)
		}
	default:
		return nil, false, -1, errors.New("is of a type that is not read")
	}
	if err == nil {
		err = c.Err()
	}
	switch {
	case err != nil:
		return nil, false, -1, err
	case levels == 0:
		return nil, false, -1, nil
	case c.rep == 0:
		reps[0] = 0
	}
	return value, read > 0, reps[0], nil
}
