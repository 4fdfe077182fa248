package npz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/x448/float16"
)

// A Dtype is a plain NumPy number type.
type Dtype struct {
	Kind byte // 'b' bool, 'i' signed, 'u' unsigned, 'f' floating point
	Size int  // bytes
	Big  bool // big-endian
}

// The types that this package writes.
var (
	Uint8   = Dtype{Kind: 'u', Size: 1}
	Int64   = Dtype{Kind: 'i', Size: 8}
	Float32 = Dtype{Kind: 'f', Size: 4}
	Float64 = Dtype{Kind: 'f', Size: 8}
)

// Number lists the Go types into which values are read.
type Number interface {
	uint8 | int64 | float32 | float64
}

// String is the type as NumPy writes it, "<f4".
func (d Dtype) String() string {
	order := "<"
	switch {
	case d.Size == 1:
		order = "|"
	case d.Big:
		order = ">"
	}
	return fmt.Sprintf("%s%c%d", order, d.Kind, d.Size)
}

// parseDtype reads a type as NumPy writes it.
func parseDtype(descr string) (Dtype, error) {
	if strings.HasSuffix(descr, "O") {
		return Dtype{}, errors.New("object dtype: the values are a pickle, which could run code and is refused; save the array as numbers")
	}
	plain := descr
	if plain != "" && strings.IndexByte("<>|=", plain[0]) >= 0 {
		plain = plain[1:]
	}
	if !slices.Contains([]string{"b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"}, plain) {
		return Dtype{}, fmt.Errorf("dtype %q; expected bool, an integer of 1 to 8 bytes or a float of 2, 4 or 8", descr)
	}
	d := Dtype{Kind: plain[0], Size: int(plain[1] - '0')}
	d.Big = descr[0] == '>' && d.Size > 1
	return d, nil
}

// decode converts packed values to T. Integers keep their value or it is an
// error; floating point values go into floating point types alone.
func decode[T Number](dst []T, src []byte, d Dtype) error {
	var zero T
	switch any(zero).(type) {
	case uint8:
		if d.Kind != 'b' && d != Uint8 {
			return fmt.Errorf("holds %s, expected |u1", d)
		}
		copy(any(dst).([]uint8), src)
		return nil
	case int64:
		if d.Kind == 'f' {
			return fmt.Errorf("holds %s, expected integers", d)
		}
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if d.Big {
		order = binary.BigEndian
	}
	switch d.String()[1:] {
	case "b1", "u1":
		convert(dst, func(i int) uint8 { return src[i] })
	case "u2":
		convert(dst, func(i int) uint16 { return order.Uint16(src[2*i:]) })
	case "u4":
		convert(dst, func(i int) uint32 { return order.Uint32(src[4*i:]) })
	case "u8":
		if _, signed := any(zero).(int64); signed {
			for i := range dst {
				if v := order.Uint64(src[8*i:]); v > math.MaxInt64 {
					return fmt.Errorf("value %d does not fit a signed 64-bit integer", v)
				}
			}
		}
		convert(dst, func(i int) uint64 { return order.Uint64(src[8*i:]) })
	case "i1":
		convert(dst, func(i int) int8 { return int8(src[i]) })
	case "i2":
		convert(dst, func(i int) int16 { return int16(order.Uint16(src[2*i:])) })
	case "i4":
		convert(dst, func(i int) int32 { return int32(order.Uint32(src[4*i:])) })
	case "i8":
		convert(dst, func(i int) int64 { return int64(order.Uint64(src[8*i:])) })
	case "f2":
		convert(dst, func(i int) float32 { return float16.Frombits(order.Uint16(src[2*i:])).Float32() })
	case "f4":
		convert(dst, func(i int) float32 { return math.Float32frombits(order.Uint32(src[4*i:])) })
	case "f8":
		convert(dst, func(i int) float64 { return math.Float64frombits(order.Uint64(src[8*i:])) })
	}
	return nil
}

// convert sets dst to the values at 0 … len(dst)−1.
func convert[T Number, S uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64](dst []T, at func(i int) S) {
	for i := range dst {
		dst[i] = T(at(i))
	}
}

// dtypeOf is the dtype in which values of type T are written.
func dtypeOf[T Number]() Dtype {
	var zero T
	switch any(zero).(type) {
	case uint8:
		return Uint8
	case int64:
		return Int64
	case float32:
		return Float32
	}
	return Float64
}
