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

func parseDtype(descr string) (Dtype, error) {
	if strings.HasSuffix(descr, "O") {
		return Dtype{}, errors.New("object dtype: the values are a pickle, which could run code and is refused; save the array as numbers")
	}
	d := Dtype{}
	rest := descr
	if rest != "" && strings.IndexByte("<>|=", rest[0]) >= 0 {
		d.Big = rest[0] == '>'
		rest = rest[1:]
	}
	sizes := map[string]Dtype{
		"b1": {Kind: 'b', Size: 1}, "u1": {Kind: 'u', Size: 1}, "i1": {Kind: 'i', Size: 1},
		"u2": {Kind: 'u', Size: 2}, "u4": {Kind: 'u', Size: 4}, "u8": {Kind: 'u', Size: 8},
		"i2": {Kind: 'i', Size: 2}, "i4": {Kind: 'i', Size: 4}, "i8": {Kind: 'i', Size: 8},
		"f2": {Kind: 'f', Size: 2}, "f4": {Kind: 'f', Size: 4}, "f8": {Kind: 'f', Size: 8},
	}
	known, ok := sizes[rest]
	if !ok {
		return Dtype{}, fmt.Errorf("dtype %q; expected bool, an integer of 1 to 8 bytes or a float of 2, 4 or 8", descr)
	}
	known.Big = d.Big && known.Size > 1
	return known, nil
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
	if d.Kind == 'f' {
		decodeFloat(dst, src, d.Size, order)
		return nil
	}
	return decodeInt(dst, src, d, order)
}

func decodeFloat[T Number](dst []T, src []byte, size int, order binary.ByteOrder) {
	switch size {
	case 2:
		for i := range dst {
			dst[i] = T(float16.Frombits(order.Uint16(src[2*i:])).Float32())
		}
	case 4:
		for i := range dst {
			dst[i] = T(math.Float32frombits(order.Uint32(src[4*i:])))
		}
	case 8:
		for i := range dst {
			dst[i] = T(math.Float64frombits(order.Uint64(src[8*i:])))
		}
	}
}

func decodeInt[T Number](dst []T, src []byte, d Dtype, order binary.ByteOrder) error {
	switch d.Size {
	case 1:
		for i, b := range src[:len(dst)] {
			if d.Kind == 'i' {
				dst[i] = T(int8(b))
			} else {
				dst[i] = T(b)
			}
		}
	case 2:
		for i := range dst {
			if v := order.Uint16(src[2*i:]); d.Kind == 'i' {
				dst[i] = T(int16(v))
			} else {
				dst[i] = T(v)
			}
		}
	case 4:
		for i := range dst {
			if v := order.Uint32(src[4*i:]); d.Kind == 'i' {
				dst[i] = T(int32(v))
			} else {
				dst[i] = T(v)
			}
		}
	case 8:
		for i := range dst {
			v := order.Uint64(src[8*i:])
			if d.Kind == 'i' {
				dst[i] = T(int64(v))
				continue
			}
			var zero T
			if _, signed := any(zero).(int64); signed && v > math.MaxInt64 {
				return fmt.Errorf("value %d does not fit a signed 64-bit integer", v)
			}
			dst[i] = T(v)
		}
	}
	return nil
}

// encode packs values as the little-endian dtype of T.
func encode[T Number](dst []byte, src []T) []byte {
	switch src := any(src).(type) {
	case []uint8:
		return append(dst, src...)
	case []int64:
		dst = slices.Grow(dst, 8*len(src))
		for _, v := range src {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(v))
		}
	case []float32:
		dst = slices.Grow(dst, 4*len(src))
		for _, v := range src {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
		}
	case []float64:
		dst = slices.Grow(dst, 8*len(src))
		for _, v := range src {
			dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
		}
	}
	return dst
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
