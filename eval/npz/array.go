package npz

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// FortranLimit is the largest array in column-major order, in bytes, that is
// read: its rows are not contiguous, so the whole of it has to lie in memory.
const FortranLimit = 1 << 30

// An array of an archive that is read as a whole may unpack to mostDeflated times
// its size and mostFlat bytes: only constants shrink more.
const (
	mostDeflated = 64
	mostFlat     = 64 << 20
)

// An Array is an array of a file, read from its first row to its last.
type Array struct {
	Name  string // without ".npy"
	Shape []int  // empty for a scalar
	Dtype Dtype  // of the values in the file

	label   string // file and array, for messages
	stream  io.ReadCloser
	values  io.Reader // the values in C order
	fortran bool      // the stream holds them in column-major order
	rows    int       // rows not yet read
	data    int64     // bytes that the values take
	stored  int64     // bytes that they take in the file
	buf     []byte
	err     error // sticky
}

// newArray reads the header from stream, which holds size bytes in all and takes
// stored of the file.
func newArray(label string, stream io.ReadCloser, size, stored int64) (*Array, error) {
	h, err := readHeader(stream)
	if err != nil {
		return nil, fmt.Errorf("npz: %s: %w", label, err)
	}
	values, data, err := h.count()
	if err != nil {
		return nil, fmt.Errorf("npz: %s: %w", label, err)
	}
	if found := size - h.size; found != data {
		what := "shorter"
		if found > data {
			what = "longer"
		}
		return nil, fmt.Errorf("npz: %s: the data is %s than its header says: shape %s of %s takes %d bytes, the file holds %d",
			label, what, shapeText(h.shape), h.dtype, data, found)
	}
	a := &Array{Shape: h.shape, Dtype: h.dtype, label: label, stream: stream, values: stream, data: data, stored: stored}
	a.fortran = h.fortran && len(h.shape) > 1 && values > 0
	a.rows = a.Rows()
	if a.fortran && data > FortranLimit {
		return nil, fmt.Errorf("npz: %s: %d bytes in fortran order, at most %d are read; save it in C order (numpy.ascontiguousarray)",
			label, data, FortranLimit)
	}
	if a.fortran {
		return a, a.loadable()
	}
	return a, nil
}

// loadable is an error where the values may not be read as a whole.
func (a *Array) loadable() error {
	if a.data/mostDeflated > a.stored+mostFlat/mostDeflated {
		return fmt.Errorf("npz: %s: claims %d bytes in %d deflated ones, which no numbers but constants shrink to; save it uncompressed (numpy.savez)", a.label, a.data, a.stored)
	}
	return nil
}

// Rows is the length of the first axis; a scalar has one row.
func (a *Array) Rows() int {
	if len(a.Shape) == 0 {
		return 1
	}
	return a.Shape[0]
}

// RowLen is the number of values of a row.
func (a *Array) RowLen() int {
	n := 1
	for _, d := range a.Shape[min(1, len(a.Shape)):] {
		n *= d
	}
	return n
}

// Close ends the reading, whole or not.
func (a *Array) Close() error { return a.stream.Close() }

// ReadRows fills dst with the next rows, in C order whatever the file's order
// is, and returns how many there were; dst holds whole rows. After the last
// row, and after the checksum has been verified, it returns 0 and io.EOF.
// uint8 is read from uint8 and bool alone, int64 from integers alone.
func ReadRows[T Number](a *Array, dst []T) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := readRows(a, dst)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("npz: %s: %w", a.label, err)
	}
	a.err = err
	return n, err
}

func readRows[T Number](a *Array, dst []T) (int, error) {
	if a.rows == 0 {
		if err := a.finish(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	rowLen := a.RowLen()
	want := a.rows
	if rowLen > 0 {
		want = min(len(dst)/rowLen, a.rows)
	}
	if want == 0 {
		return 0, fmt.Errorf("a buffer of %d values, one row takes %d", len(dst), rowLen)
	}
	if a.fortran {
		if err := a.reorder(); err != nil {
			return 0, err
		}
	}
	dst = dst[:want*rowLen]
	const chunk = 1 << 16 // values converted at a time: bounds the raw copy
	for len(dst) > 0 {
		part := dst[:min(chunk, len(dst))]
		a.buf = slices.Grow(a.buf[:0], len(part)*a.Dtype.Size)
		raw := a.buf[:len(part)*a.Dtype.Size]
		if _, err := io.ReadFull(a.values, raw); err != nil {
			return 0, fmt.Errorf("the values end %d rows before the header says: %w", a.rows, unexpected(err))
		}
		if err := decode(part, raw, a.Dtype); err != nil {
			return 0, err
		}
		dst = dst[len(part):]
	}
	a.rows -= want
	if a.rows == 0 { // the last rows are handed out only if the checksum fits
		return want, a.finish()
	}
	return want, nil
}

// finish reads to the end of the stream, where the zip checksum is verified.
func (a *Array) finish() error {
	var b [1]byte
	switch n, err := io.ReadFull(a.stream, b[:]); {
	case n > 0:
		return errors.New("values follow the last row of the header's shape")
	case err != io.EOF:
		return fmt.Errorf("the data is damaged: %w", err)
	}
	return nil
}

// reorder loads a column-major array and puts it into C order.
func (a *Array) reorder() error {
	raw, err := readBounded(a.stream, a.data)
	if err != nil {
		return err
	}
	size, axes := a.Dtype.Size, len(a.Shape)
	out := make([]byte, len(raw))
	stride := make([]int, axes) // of the file, in values
	for i, s := 0, 1; i < axes; i++ {
		stride[i] = s
		s *= a.Shape[i]
	}
	index := make([]int, axes)
	from := 0
	for to := 0; to < len(out); to += size {
		copy(out[to:to+size], raw[from*size:])
		for axis := axes - 1; axis >= 0; axis-- {
			index[axis]++
			from += stride[axis]
			if index[axis] < a.Shape[axis] {
				break
			}
			from -= stride[axis] * a.Shape[axis]
			index[axis] = 0
		}
	}
	a.values = bytes.NewReader(out)
	a.fortran = false
	return nil
}

// readBounded reads n bytes, growing as they arrive: a header that claims much
// over a short stream must not take the memory first.
func readBounded(r io.Reader, n int64) ([]byte, error) {
	var out []byte
	for int64(len(out)) < n {
		step := min(n-int64(len(out)), max(1<<20, int64(len(out))))
		at := len(out)
		out = append(out, make([]byte, step)...)
		if _, err := io.ReadFull(r, out[at:]); err != nil {
			return nil, fmt.Errorf("the values end before the header says: %w", unexpected(err))
		}
	}
	return out, nil
}

// ReadAll reads a whole array of at most limit values, in C order.
func ReadAll[T Number](a *Array, limit int) ([]T, error) {
	rowLen := a.RowLen()
	total := a.data / int64(a.Dtype.Size)
	if total > int64(limit) {
		return nil, fmt.Errorf("npz: %s: %d values, expected at most %d", a.label, total, limit)
	}
	if err := a.loadable(); err != nil {
		return nil, err
	}
	batch := make([]T, min(a.Rows(), max(1, (1<<20)/max(1, rowLen)))*rowLen)
	out := make([]T, 0, min(total, 1<<23))
	for {
		n, err := ReadRows(a, batch)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, batch[:n*rowLen]...)
	}
}

// A zeroSum verifies that the stream's CRC-32 is zero.
type zeroSum struct {
	io.ReadCloser
	sum uint32
}

func (z *zeroSum) Read(p []byte) (int, error) {
	n, err := z.ReadCloser.Read(p)
	z.sum = crc32.Update(z.sum, crc32.IEEETable, p[:n])
	if err == io.EOF && z.sum != 0 {
		return n, fmt.Errorf("CRC-32 is %08x, the directory says 00000000", z.sum)
	}
	return n, err
}
