package npz

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

const (
	magic = "\x93NUMPY"
	// maxHeader bounds the header's text: NumPy itself refuses more than
	// 10,000 characters unless told otherwise.
	maxHeader = 64 << 10
	maxAxes   = 32 // NumPy's own limit before version 2
)

// A header is what precedes the values of an array.
type header struct {
	dtype   Dtype
	fortran bool
	shape   []int
	size    int64 // bytes from the magic to the first value
}

// readHeader reads an npy header of version 1, 2 or 3.
func readHeader(r io.Reader) (header, error) {
	var h header
	head := make([]byte, 12)
	if _, err := io.ReadFull(r, head[:8]); err != nil {
		return h, fmt.Errorf("the npy header is cut off: %w", unexpected(err))
	}
	if string(head[:6]) != magic {
		return h, fmt.Errorf("does not begin with %q but with %q: not an npy array", magic, head[:6])
	}
	width, version := 4, head[6]
	switch version {
	case 1:
		width = 2
	case 2, 3:
	default:
		return h, fmt.Errorf("npy format version %d.%d, expected 1, 2 or 3", version, head[7])
	}
	if _, err := io.ReadFull(r, head[8:8+width]); err != nil {
		return h, fmt.Errorf("the npy header is cut off: %w", unexpected(err))
	}
	length := int64(binary.LittleEndian.Uint16(head[8:]))
	if width == 4 {
		length = int64(binary.LittleEndian.Uint32(head[8:]))
	}
	if length > maxHeader {
		return h, fmt.Errorf("the npy header claims %d bytes, at most %d are read", length, maxHeader)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return h, fmt.Errorf("the npy header of %d bytes is cut off: %w", length, unexpected(err))
	}
	h.size = 8 + int64(width) + length
	return h, h.parse(string(text))
}

// parse reads the Python dictionary of a header.
func (h *header) parse(text string) error {
	p := &parser{rest: text}
	seen := map[string]bool{}
	p.expect('{')
	for p.err == nil && !p.accept('}') {
		key := p.str()
		p.expect(':')
		switch {
		case p.err != nil:
		case seen[key]:
			p.fail("key %q twice", key)
		case key == "descr":
			h.dtype = p.dtype()
		case key == "fortran_order":
			h.fortran = p.boolean()
		case key == "shape":
			h.shape = p.shape()
		default:
			p.fail("unknown key %q", key)
		}
		seen[key] = true
		if !p.accept(',') && !p.at('}') {
			p.fail("expected ',' or '}'")
		}
	}
	if p.err == nil && strings.TrimSpace(p.rest) != "" {
		p.fail("text after the dictionary")
	}
	for _, key := range []string{"descr", "fortran_order", "shape"} {
		if p.err == nil && !seen[key] {
			p.fail("missing key %q", key)
		}
	}
	return p.err
}

// count is the number of values of a shape and the bytes they take.
func (h *header) count() (values, bytes int64, err error) {
	values = 1
	empty := false
	for _, d := range h.shape {
		if d < 0 {
			return 0, 0, fmt.Errorf("shape %s has a negative axis", shapeText(h.shape))
		}
		if d == 0 {
			empty = true
			continue
		}
		if values > math.MaxInt64/int64(d)/int64(h.dtype.Size) {
			return 0, 0, fmt.Errorf("shape %s of %s is larger than any file: the header is damaged", shapeText(h.shape), h.dtype)
		}
		values *= int64(d)
	}
	if empty {
		values = 0
	}
	return values, values * int64(h.dtype.Size), nil
}

// encodeHeader is the version 1.0 header that numpy.save writes: padded with
// spaces to a multiple of 64 bytes, after room for the first axis to grow.
func encodeHeader(d Dtype, shape []int) []byte {
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }", d, shapeText(shape))
	if len(shape) > 0 {
		const growth = 21 // digits of the largest length, as numpy.lib.format reserves
		text += strings.Repeat(" ", max(0, growth-len(strconv.Itoa(shape[0]))))
	}
	text += strings.Repeat(" ", 64-(len(magic)+4+len(text)+1)%64) + "\n"
	out := append([]byte(magic), 1, 0)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(text)))
	return append(out, text...)
}

// shapeText is a shape as Python prints a tuple.
func shapeText(shape []int) string {
	parts := make([]string, len(shape))
	for i, d := range shape {
		parts[i] = strconv.Itoa(d)
	}
	if len(parts) == 1 {
		return "(" + parts[0] + ",)"
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// unexpected turns the end of a stream into an error that says so.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A parser reads the Python literals that an npy header is made of: strings,
// True and False, integers, tuples. The first fault stays in err and ends it.
type parser struct {
	rest string
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		rest := p.rest
		if len(rest) > 24 {
			rest = rest[:24] + "…"
		}
		p.err = fmt.Errorf("the npy header does not parse at %q: %s", rest, fmt.Sprintf(format, args...))
	}
}

func (p *parser) at(c byte) bool {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	return p.rest != "" && p.rest[0] == c
}

func (p *parser) accept(c byte) bool {
	if p.err != nil || !p.at(c) {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *parser) expect(c byte) {
	if !p.accept(c) {
		p.fail("expected %q", c)
	}
}

func (p *parser) str() string {
	for _, quote := range []byte{'\'', '"'} {
		if p.accept(quote) {
			end := strings.IndexByte(p.rest, quote)
			if end < 0 {
				p.fail("a string without an end")
				return ""
			}
			s := p.rest[:end]
			if strings.ContainsAny(s, "\\\n") {
				p.fail("an escape in a string")
			}
			p.rest = p.rest[end+1:]
			return s
		}
	}
	p.fail("expected a string")
	return ""
}

func (p *parser) boolean() bool {
	for text, value := range map[string]bool{"True": true, "False": false} {
		if p.at(text[0]) && strings.HasPrefix(p.rest, text) {
			p.rest = p.rest[len(text):]
			return value
		}
	}
	p.fail("expected True or False")
	return false
}

// shape reads a tuple of integers; a trailing L is Python 2's long.
func (p *parser) shape() []int {
	shape := []int{}
	p.expect('(')
	for p.err == nil && !p.accept(')') {
		if len(shape) == maxAxes {
			p.fail("more than %d axes", maxAxes)
			return nil
		}
		shape = append(shape, p.integer())
		if !p.accept(',') && !p.at(')') {
			p.fail("expected ',' or ')'")
		}
	}
	return shape
}

func (p *parser) integer() int {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	end := 0
	for end < len(p.rest) && (p.rest[end] == '-' && end == 0 || p.rest[end] >= '0' && p.rest[end] <= '9') {
		end++
	}
	n, err := strconv.Atoi(p.rest[:end])
	if err != nil {
		p.fail("expected an integer that fits 64 bits")
		return 0
	}
	p.rest = strings.TrimPrefix(p.rest[end:], "L")
	return n
}

// dtype reads the descr entry; anything but a plain number type is refused.
func (p *parser) dtype() Dtype {
	if p.at('[') {
		p.fail("a structured dtype; expected plain numbers")
		return Dtype{}
	}
	descr := p.str()
	if p.err != nil {
		return Dtype{}
	}
	d, err := parseDtype(descr)
	if err != nil {
		p.err = err
	}
	return d
}
