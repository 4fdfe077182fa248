package libjpeg

import (
	"errors"
	"io"
)

// A huffman is a table of codes (T.81 annex C), with the short ones looked up.
type huffman struct {
	short  [1 << shortBits]uint16 // length<<8 | value; 0 where the code is longer
	limit  [17]int32              // first code of the length that is too large, at 16 bits; by length
	offset [17]int32              // index of the value less the code
	values []uint8
}

const shortBits = 9

func newHuffman(counts [16]uint8, values []uint8) (*huffman, error) {
	t := &huffman{values: append([]uint8(nil), values...)}
	code, index := int32(0), int32(0)
	for length := int32(1); length <= 16; length++ {
		n := int32(counts[length-1])
		t.offset[length] = index - code
		for i := range n {
			if length > shortBits {
				break
			}
			first := (code + i) << (shortBits - length)
			for j := range int32(1) << (shortBits - length) {
				if int(first+j) >= len(t.short) {
					return nil, errors.New("a Huffman table with too many codes")
				}
				t.short[first+j] = uint16(length)<<8 | uint16(values[index+i])
			}
		}
		code += n
		index += n
		if code > 1<<length {
			return nil, errors.New("a Huffman table with too many codes")
		}
		t.limit[length] = code << (16 - length)
		code <<= 1
	}
	return t, nil
}

// bits reads the entropy-coded bits of a scan up to the next marker.
type bits struct {
	data   []byte
	at     int    // of the next byte
	acc    uint64 // the low n bits are the next ones
	n      int
	padded int // zero bits that were invented after the end
}

var errCode = errors.New("damaged image data: no such Huffman code")

// fill makes at least 16 bits available.
func (b *bits) fill() {
	for b.n <= 48 {
		if b.at < len(b.data) {
			v := b.data[b.at]
			if v != 0xff {
				b.at++
				b.acc, b.n = b.acc<<8|uint64(v), b.n+8
				continue
			}
			if b.at+1 < len(b.data) && b.data[b.at+1] == 0 {
				b.at += 2
				b.acc, b.n = b.acc<<8|0xff, b.n+8
				continue
			}
		}
		b.acc, b.n, b.padded = b.acc<<8, b.n+8, b.padded+8
	}
}

// over is an error once invented bits were used.
func (b *bits) over() error {
	if b.padded <= b.n {
		return nil
	}
	if b.at >= len(b.data) {
		return io.ErrUnexpectedEOF
	}
	return errors.New("damaged image data: a scan ends too early")
}

// take is the next n bits, n ≤ 16.
func (b *bits) take(n int) int32 {
	if b.n < n {
		b.fill()
	}
	b.n -= n
	return int32(b.acc>>b.n) & (1<<n - 1)
}

// value is the next n bits as a signed number, T.81 EXTEND.
func (b *bits) value(n int) int32 {
	if n == 0 {
		return 0
	}
	v := b.take(n)
	if v < 1<<(n-1) {
		v += -1<<n + 1
	}
	return v
}

// symbol is the next value of a table.
func (b *bits) symbol(t *huffman) (uint8, error) {
	if b.n < 16 {
		b.fill()
	}
	code := int32(b.acc>>(b.n-16)) & 0xffff
	if s := t.short[code>>(16-shortBits)]; s != 0 {
		b.n -= int(s >> 8)
		return uint8(s), nil
	}
	for length := shortBits + 1; length <= 16; length++ {
		if code < t.limit[length] {
			b.n -= length
			return t.values[code>>(16-length)+t.offset[length]], nil
		}
	}
	return 0, errCode
}

// restart goes to the next restart marker, which has to be number i mod 8.
func (b *bits) restart(i int) error {
	if err := b.over(); err != nil {
		return err
	}
	for b.at+1 < len(b.data) && !(b.data[b.at] == 0xff && b.data[b.at+1] != 0 && b.data[b.at+1] != 0xff) {
		b.at++
	}
	switch {
	case b.at+1 >= len(b.data):
		return io.ErrUnexpectedEOF
	case b.data[b.at+1] != markerRST0+byte(i%8):
		return errors.New("damaged image data: a restart marker is missing")
	}
	*b = bits{data: b.data, at: b.at + 2}
	return nil
}
