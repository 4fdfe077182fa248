package libjpeg

import (
	"errors"
	"fmt"
	"io"
)

// Markers, T.81 table B.1.
const (
	markerSOF0  = 0xc0
	markerSOF1  = 0xc1
	markerSOF2  = 0xc2
	markerDHT   = 0xc4
	markerRST0  = 0xd0
	markerRST7  = 0xd7
	markerSOI   = 0xd8
	markerEOI   = 0xd9
	markerSOS   = 0xda
	markerDQT   = 0xdb
	markerDNL   = 0xdc
	markerDRI   = 0xdd
	markerDAC   = 0xcc
	markerAPP0  = 0xe0
	markerAPP14 = 0xee
	markerTEM   = 0x01
)

// isFrame reports whether the marker begins a frame, of any process.
func isFrame(m byte) bool {
	return m >= markerSOF0 && m <= 0xcf && m != markerDHT && m != 0xc8 && m != markerDAC
}

func be16(b []byte) int { return int(b[0])<<8 | int(b[1]) }

// segments reads a file's markers with what follows them.
type segments struct{ r io.Reader }

func (s *segments) start() error {
	var b [2]byte
	if err := s.full(b[:]); err != nil {
		return err
	}
	if b[0] != 0xff || b[1] != markerSOI {
		return errors.New("does not begin with FF D8")
	}
	return nil
}

func (s *segments) full(b []byte) error {
	_, err := io.ReadFull(s.r, b)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// next is the next marker and its payload; bytes before it are skipped, as
// libjpeg does.
func (s *segments) next() (marker byte, payload []byte, err error) {
	var b [2]byte
	for b[0] != 0xff || b[1] == 0 || b[1] == 0xff || b[1] >= markerRST0 && b[1] <= markerRST7 || b[1] == markerTEM {
		b[0] = b[1]
		if err := s.full(b[1:]); err != nil {
			return 0, nil, err
		}
	}
	if marker = b[1]; marker == markerEOI || marker == markerSOI {
		return marker, nil, nil
	}
	if err := s.full(b[:]); err != nil {
		return 0, nil, err
	}
	n := be16(b[:])
	if n < 2 {
		return 0, nil, fmt.Errorf("a segment of length %d", n)
	}
	payload = make([]byte, n-2)
	return marker, payload, s.full(payload)
}

// A byteReader reads bytes in memory from a position that can be moved.
type byteReader struct {
	data []byte
	at   int
}

func (r *byteReader) Read(p []byte) (int, error) {
	if r.at >= len(r.data) {
		return 0, io.EOF
	}
	n := copy(p, r.data[r.at:])
	r.at += n
	return n, nil
}

// zigzag maps the order in the file to the natural one.
var zigzag = [64]uint8{
	0, 1, 8, 16, 9, 2, 3, 10,
	17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34,
	27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36,
	29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46,
	53, 60, 61, 54, 47, 55, 62, 63,
}

func (d *decoder) quantTables(p []byte) error {
	for len(p) > 0 {
		bits, id := p[0]>>4, p[0]&15
		size := 64 << min(bits, 1)
		if bits > 1 || id > 3 || len(p) < 1+size {
			return errors.New("a damaged quantization table")
		}
		t := &[64]uint16{}
		for i, z := range zigzag {
			if bits == 0 {
				t[z] = uint16(p[1+i])
			} else {
				t[z] = uint16(be16(p[1+2*i:]))
			}
		}
		d.quant[id] = t
		p = p[1+size:]
	}
	return nil
}

func (d *decoder) huffmanTables(p []byte) error {
	for len(p) > 0 {
		if len(p) < 17 {
			return errors.New("a damaged Huffman table")
		}
		class, id := p[0]>>4, p[0]&15
		n := 0
		for _, c := range p[1:17] {
			n += int(c)
		}
		if class > 1 || id > 3 || n > 256 || len(p) < 17+n {
			return errors.New("a damaged Huffman table")
		}
		t, err := newHuffman([16]uint8(p[1:17]), p[17:17+n])
		if err != nil {
			return err
		}
		if class == 0 {
			d.dc[id] = t
		} else {
			d.ac[id] = t
		}
		p = p[17+n:]
	}
	return nil
}
