package images

import (
	"errors"
	"fmt"
	"image"
	"io"
	"math"
)

// A pnmHeader is the header of a PBM, PGM or PPM file (netpbm's pbm(5), pgm(5), ppm(5)).
type pnmHeader struct {
	kind          byte // '1' to '6'
	height, width int
	maxval        int // 1 in a PBM
	size          int // of the header, in bytes
}

func isPNM(head string) bool {
	return len(head) > 2 && head[0] == 'P' && head[1] >= '1' && head[1] <= '6' && (isSpace(head[2]) || head[2] == '#')
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// readPNM reads a header. One whitespace follows it.
func readPNM(data []byte) (h pnmHeader, err error) {
	if len(data) < 2 {
		return h, io.ErrUnexpectedEOF
	}
	h.kind, h.maxval = data[1], 1
	tokens := pnmTokens{data: data, at: 2}
	fields := []*int{&h.width, &h.height, &h.maxval}
	if h.kind == '1' || h.kind == '4' {
		fields = fields[:2]
	}
	for _, f := range fields {
		if *f, err = tokens.number(); err != nil {
			return h, err
		}
	}
	if h.maxval < 1 || h.maxval > 65535 {
		return h, fmt.Errorf("the largest value %d, expected 1 to 65535", h.maxval)
	}
	if tokens.at == len(data) {
		return h, io.ErrUnexpectedEOF
	}
	h.size = tokens.at + 1
	return h, nil
}

// pnmTokens reads numbers between whitespace and comments.
type pnmTokens struct {
	data []byte
	at   int
}

// skip passes over whitespace and comments.
func (t *pnmTokens) skip() {
	for t.at < len(t.data) {
		switch c := t.data[t.at]; {
		case isSpace(c):
			t.at++
		case c == '#':
			for t.at < len(t.data) && t.data[t.at] != '\n' && t.data[t.at] != '\r' {
				t.at++
			}
		default:
			return
		}
	}
}

// number is the next one, of at most ten digits.
func (t *pnmTokens) number() (n int, err error) {
	t.skip()
	begin := t.at
	for ; t.at < len(t.data) && t.data[t.at] >= '0' && t.data[t.at] <= '9' && t.at-begin < 10; t.at++ {
		n = 10*n + int(t.data[t.at]-'0')
	}
	switch {
	case t.at > begin:
		return n, nil
	case t.at == len(t.data):
		return 0, io.ErrUnexpectedEOF
	}
	return 0, fmt.Errorf("byte %d is %q, expected a number", t.at, t.data[t.at])
}

// pnmHeaderSize bounds a header with its comments.
const pnmHeaderSize = 1 << 16

func pnmConfig(r io.Reader) (image.Config, error) {
	data, err := io.ReadAll(io.LimitReader(r, pnmHeaderSize))
	if err != nil {
		return image.Config{}, err
	}
	h, err := readPNM(data)
	return image.Config{Width: h.width, Height: h.height}, err
}

// leastPNM: nothing is compressed, and a number of a plain file takes a byte and a space.
func leastPNM(data []byte, pixels int) int {
	h, err := readPNM(data)
	if err != nil {
		return 0
	}
	switch h.kind {
	case '1':
		return pixels
	case '2':
		return 2*pixels - 1
	case '3':
		return 6*pixels - 1
	case '4':
		return pixels / 8
	}
	return pixels * h.channels() * h.sampleSize()
}

func (h pnmHeader) channels() int {
	if h.kind == '3' || h.kind == '6' {
		return 3
	}
	return 1
}

func (h pnmHeader) sampleSize() int {
	if h.maxval > 255 {
		return 2
	}
	return 1
}

// decodePNM decodes as Pillow does: colours, and grey of up to 8 bits, are scaled to 255;
// grey of more bits is scaled to 65535 and clipped.
func decodePNM(data []byte) (Image, error) {
	h, err := readPNM(data)
	if err != nil {
		return Image{}, err
	}
	im := Image{Height: h.height, Width: h.width, Pixels: make([]uint8, h.height*h.width*3)}
	values := data[h.size:]
	if h.kind == '4' {
		im.Converted = []Conversion{Grey}
		return im, h.bitmap(im, values)
	}
	next := h.binary(values)
	switch h.kind {
	case '1':
		next = h.bits(values)
	case '2', '3':
		next = h.plain(values)
	}
	n := h.channels()
	wide := n == 1 && h.maxval > 255
	switch {
	case wide:
		im.Converted = []Conversion{ClippedGrey}
	case n == 1:
		im.Converted = []Conversion{Grey}
	case h.maxval > 255:
		im.Converted = []Conversion{Bits16}
	}
	scale := scaled(h.maxval, wide)
	for i := range h.height * h.width {
		out := im.Pixels[3*i : 3*i+3]
		for c := range n {
			v, err := next()
			if err != nil {
				return Image{}, err
			}
			out[c] = scale(v)
		}
		if n == 1 {
			out[1], out[2] = out[0], out[0]
		}
	}
	return im, nil
}

// scaled is how Pillow's decoders bring values up to maxval to those of 8 bits, rounding
// halves to even; wide ones go to 65535 and are clipped.
func scaled(maxval int, wide bool) func(v int) uint8 {
	most := 255.0
	if wide {
		most = 65535
	}
	return func(v int) uint8 {
		return uint8(min(255, math.RoundToEven(float64(v)/float64(maxval)*most)))
	}
}

// bitmap reads rows of bits, of which 1 is black.
func (h pnmHeader) bitmap(im Image, values []byte) error {
	row := (h.width + 7) / 8
	if len(values) < row*h.height {
		return io.ErrUnexpectedEOF
	}
	eachRow(im, func(y int, out []uint8) {
		for x := range h.width {
			if values[y*row+x/8]>>(7-x%8)&1 == 0 {
				out[3*x], out[3*x+1], out[3*x+2] = 255, 255, 255
			}
		}
	})
	return nil
}

// binary gives values of one byte or two, the high one first.
func (h pnmHeader) binary(values []byte) func() (int, error) {
	size := h.sampleSize()
	return func() (v int, err error) {
		if len(values) < size {
			return 0, io.ErrUnexpectedEOF
		}
		for _, b := range values[:size] {
			v = v<<8 | int(b)
		}
		values = values[size:]
		return v, nil
	}
}

// bits gives the values of a plain PBM, whose digits need no space between them: 0 for 1,
// which is black.
func (h pnmHeader) bits(values []byte) func() (int, error) {
	tokens := pnmTokens{data: values}
	return func() (int, error) {
		tokens.skip()
		if tokens.at == len(values) {
			return 0, io.ErrUnexpectedEOF
		}
		c := values[tokens.at]
		tokens.at++
		if c != '0' && c != '1' {
			return 0, fmt.Errorf("a pixel is %q, expected 0 or 1", c)
		}
		return int('1' - c), nil
	}
}

// plain gives the numbers of a plain PGM or PPM.
func (h pnmHeader) plain(values []byte) func() (int, error) {
	tokens := pnmTokens{data: values}
	return func() (int, error) {
		v, err := tokens.number()
		if err == nil && v > h.maxval {
			err = fmt.Errorf("a value is %d, more than the largest one, %d", v, h.maxval)
		}
		if err == nil && tokens.at < len(values) && !isSpace(values[tokens.at]) && values[tokens.at] != '#' {
			err = errors.New("a value is no number")
		}
		return v, err
	}
}
