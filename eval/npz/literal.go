package npz

import (
	"fmt"
	"strconv"
	"strings"
)

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
