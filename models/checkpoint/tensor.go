package checkpoint

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"

	"github.com/x448/float16"
)

// A Tensor is a C-contiguous little-endian array that lies in File at
// [Offset, Offset+Size), or, where the file holds it in another layout
// (strided views) or compressed, in Raw.
type Tensor struct {
	DType  DType
	Shape  []int
	File   string
	Offset int64
	Size   int64  // bytes
	Raw    []byte // nil when File holds the bytes as they are

	name string   // for messages
	m    *mapping // nil for a tensor that Open did not make
}

// FromFloat32 is a tensor of data, in C order, in memory. That the shape fits
// is checked when the tensor is read or written.
func FromFloat32(data []float32, shape ...int) Tensor {
	return FromBytes(F32, littleEndian(data), shape...)
}

// FromFloat64 is like FromFloat32.
func FromFloat64(data []float64, shape ...int) Tensor {
	return FromBytes(F64, littleEndian(data), shape...)
}

// FromInt64 is like FromFloat32.
func FromInt64(data []int64, shape ...int) Tensor {
	return FromBytes(I64, littleEndian(data), shape...)
}

func littleEndian[T float32 | float64 | int64](data []T) []byte {
	raw, _ := binary.Append([]byte{}, binary.LittleEndian, data) // fails for types without a size alone
	return raw
}

// FromBytes is a tensor whose bytes, C order and little-endian, are raw, which
// is kept. Without dimensions it is a scalar.
func FromBytes(dtype DType, raw []byte, shape ...int) Tensor {
	return Tensor{DType: dtype, Shape: append([]int{}, shape...), Size: int64(len(raw)), Raw: raw[:len(raw):len(raw)]}
}

// Len is the number of elements, the product of the shape; a scalar has one.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Bytes are the elements in C order, little-endian. The slice must not be
// written to; it may be a view of the mapped file and is then valid until
// File.Close. A tensor that Open did not make is read from File.
func (t Tensor) Bytes() (b []byte, err error) {
	err = t.read(func(all []byte) error { b = all; return nil })
	return b, t.wrap(err)
}

// read calls use with the elements in C order, little-endian. The file stays
// mapped meanwhile, and a page that cannot be read is an error.
func (t Tensor) read(use func([]byte) error) (err error) {
	defer guard(&err)()
	if err := t.check(); err != nil {
		return err
	}
	b := t.Raw
	switch {
	case b != nil:
	case t.m != nil:
		t.m.mu.RLock()
		defer t.m.mu.RUnlock()
		b, err = t.m.view(t.Offset, t.Size)
	case t.Size == 0:
		b = []byte{}
	default:
		b, err = readRange(t.File, t.Offset, t.Size)
	}
	if err != nil {
		return err
	}
	return use(b)
}

// check compares shape, dtype and size.
func (t Tensor) check() error {
	item := t.DType.Size()
	if item == 0 {
		return fmt.Errorf("dtype %q is not supported", t.DType)
	}
	want, ok := byteSize(t.Shape, uint64(item))
	if !ok {
		return fmt.Errorf("shape %v is not possible", t.Shape)
	}
	if t.Size < 0 || uint64(t.Size) != want {
		return fmt.Errorf("%d bytes where shape %v of %s has %d", t.Size, t.Shape, t.DType, want)
	}
	if t.Raw != nil && int64(len(t.Raw)) != t.Size {
		return fmt.Errorf("%d bytes in memory where Size says %d", len(t.Raw), t.Size)
	}
	return nil
}

// byteSize is the number of bytes of an array; false where it is no number.
func byteSize(shape []int, item uint64) (uint64, bool) {
	n, zero := item, false
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		if d == 0 {
			zero = true
			continue
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, false
		}
		n = lo
	}
	if zero {
		return 0, true
	}
	return n, true
}

// readRange reads part of a file that is not mapped.
func readRange(path string, off, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, cause(err)
	}
	if n := info.Size(); off < 0 || off > n || size > n-off {
		return nil, fmt.Errorf("bytes [%d, %d+%d) lie outside the file of %d bytes", off, off, size, n)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, off, size), b); err != nil {
		return nil, cause(err)
	}
	return b, nil
}

// wrap says which tensor an error is about; nil stays nil.
func (t Tensor) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case t.File == "":
		return fmt.Errorf("checkpoint: tensor in memory: %w", err)
	case t.name == "":
		return fmt.Errorf("checkpoint: %s: tensor at byte %d: %w", t.File, t.Offset, err)
	}
	return fmt.Errorf("checkpoint: %s: tensor %q: %w", t.File, shorten(t.name), err)
}

// Float32 is a copy of the elements in C order, each rounded to the nearest
// float32 (ties to even; what is too large becomes infinite). BOOL yields 0
// and 1.
func (t Tensor) Float32() ([]float32, error) { return values[float32](t) }

// Float64 is like Float32, and exact except for int64 beyond 2⁵³.
func (t Tensor) Float64() ([]float64, error) { return values[float64](t) }

// Int64 is a copy of the elements of an integer or BOOL tensor; a tensor of
// floats is an error.
func (t Tensor) Int64() ([]int64, error) {
	switch t.DType {
	case F64, F32, F16, BF16:
		return nil, t.wrap(fmt.Errorf("holds %s where integers are expected", t.DType))
	}
	return values[int64](t)
}

// values converts the bytes of t.
func values[T float32 | float64 | int64](t Tensor) ([]T, error) {
	var out []T
	err := t.read(func(b []byte) error {
		out = make([]T, len(b)/t.DType.Size())
		convert(out, b, t.DType)
		return nil
	})
	if err != nil {
		return nil, t.wrap(err)
	}
	return out, nil
}

// convert fills dst from as many little-endian elements of type d. Go's
// conversions between numbers round to nearest even, once.
func convert[T float32 | float64 | int64](dst []T, b []byte, d DType) {
	le := binary.LittleEndian
	switch d {
	case F64:
		for i := range dst {
			dst[i] = T(math.Float64frombits(le.Uint64(b[8*i:])))
		}
	case F32:
		for i := range dst {
			dst[i] = T(math.Float32frombits(le.Uint32(b[4*i:])))
		}
	case F16:
		for i := range dst {
			dst[i] = T(float16.Frombits(le.Uint16(b[2*i:])).Float32())
		}
	case BF16:
		for i := range dst {
			dst[i] = T(math.Float32frombits(uint32(le.Uint16(b[2*i:])) << 16))
		}
	case I64:
		for i := range dst {
			dst[i] = T(int64(le.Uint64(b[8*i:])))
		}
	case I32:
		for i := range dst {
			dst[i] = T(int32(le.Uint32(b[4*i:])))
		}
	case I16:
		for i := range dst {
			dst[i] = T(int16(le.Uint16(b[2*i:])))
		}
	case I8:
		for i := range dst {
			dst[i] = T(int8(b[i]))
		}
	case U8:
		for i := range dst {
			dst[i] = T(b[i])
		}
	case Bool:
		for i := range dst {
			if b[i] != 0 {
				dst[i] = 1
			}
		}
	}
}
