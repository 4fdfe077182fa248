package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The ways in which a pickle opcode is followed by its argument.
const (
	unknown = iota // no such opcode
	fixed          // n bytes
	counted        // a length of n bytes, little-endian, and as many bytes
	lines          // n lines
)

type argument struct {
	kind byte
	n    int
}

// opcodes are those of pickle protocols 0 to 5 (CPython, Lib/pickletools.py).
var opcodes = [256]argument{
	'(': {fixed, 0}, ')': {fixed, 0}, '.': {fixed, 0}, '0': {fixed, 0}, '1': {fixed, 0}, '2': {fixed, 0},
	'N': {fixed, 0}, 'Q': {fixed, 0}, 'R': {fixed, 0}, ']': {fixed, 0}, 'a': {fixed, 0}, 'b': {fixed, 0},
	'd': {fixed, 0}, 'e': {fixed, 0}, 'l': {fixed, 0}, 'o': {fixed, 0}, 's': {fixed, 0}, 't': {fixed, 0},
	'u': {fixed, 0}, '}': {fixed, 0}, 0x81: {fixed, 0}, 0x85: {fixed, 0}, 0x86: {fixed, 0}, 0x87: {fixed, 0},
	0x88: {fixed, 0}, 0x89: {fixed, 0}, 0x8f: {fixed, 0}, 0x90: {fixed, 0}, 0x91: {fixed, 0}, 0x92: {fixed, 0},
	0x93: {fixed, 0}, 0x94: {fixed, 0}, 0x97: {fixed, 0}, 0x98: {fixed, 0},

	'K': {fixed, 1}, 'h': {fixed, 1}, 'q': {fixed, 1}, 0x80: {fixed, 1}, 0x82: {fixed, 1},
	'M': {fixed, 2}, 0x83: {fixed, 2}, 'J': {fixed, 4}, 'j': {fixed, 4}, 'r': {fixed, 4}, 0x84: {fixed, 4},
	'G': {fixed, 8}, frame: {fixed, 8},

	'U': {counted, 1}, 'C': {counted, 1}, 0x8c: {counted, 1}, long1: {counted, 1},
	'B': {counted, 4}, 'T': {counted, 4}, 'X': {counted, 4}, long4: {counted, 4},
	0x8d: {counted, 8}, 0x8e: {counted, 8}, 0x96: {counted, 8},

	'F': {lines, 1}, 'I': {lines, 1}, 'L': {lines, 1}, 'P': {lines, 1}, 'S': {lines, 1}, 'V': {lines, 1},
	'g': {lines, 1}, 'p': {lines, 1}, 'c': {lines, 2}, 'i': {lines, 2},
}

const (
	mark  = '('
	stop  = '.'
	frame = 0x95
	long1 = 0x8a
	long4 = 0x8b

	maxMarks  = 10_000 // nested containers; Python's own recursion limit is 1,000
	maxDigits = 4096   // of a number, and characters of a class name
)

// A scanner walks over the opcodes of one pickle without obeying them. It runs
// before gopickle, which allocates what an opcode claims to be followed by.
type scanner struct {
	data  []byte
	pos   int
	marks int
	b     *budget
	edits []edit
}

// An edit replaces the byte at pos of the pickle by b.
type edit struct {
	pos int
	b   byte
}

// sanitize returns a copy of the pickle at the start of data, up to and
// including its STOP, that gopickle can be trusted with: every argument lies
// within data, numbers and nesting are small, the objects it makes fit into b.
//
// The copy differs from the original where gopickle would fail on legitimate
// files or get in our way (see rewrite); no length changes.
func sanitize(data []byte, b *budget) ([]byte, error) {
	s := &scanner{data: data, b: b}
	for {
		at := s.pos
		op, arg, err := s.next()
		if err != nil {
			return nil, fmt.Errorf("pickle: opcode 0x%02x at byte %d: %w", op, at, err)
		}
		s.rewrite(op, at, arg)
		if op == stop {
			break
		}
	}
	if err := b.take(int64(s.pos), "the pickle"); err != nil {
		return nil, err
	}
	clean := bytes.Clone(data[:s.pos])
	for _, e := range s.edits {
		clean[e.pos] = e.b
	}
	return clean, nil
}

// next steps over one opcode and its argument, which it returns, and charges
// the budget with the most that gopickle allocates for them.
func (s *scanner) next() (op byte, arg []byte, err error) {
	if s.pos >= len(s.data) {
		return 0, nil, errors.New("the pickle is truncated: it ends without STOP")
	}
	op = s.data[s.pos]
	s.pos++
	switch a := opcodes[op]; a.kind {
	case fixed:
		arg, err = s.bytes(uint64(a.n))
		if err == nil && op == frame {
			err = s.fits(binary.LittleEndian.Uint64(arg))
		}
	case counted:
		arg, err = s.counted(a.n)
	case lines:
		arg, err = s.lines(a.n)
	default:
		err = errors.New("no such opcode")
	}
	if err != nil {
		return op, nil, err
	}
	if err := checkNumber(op, arg); err != nil {
		return op, nil, err
	}
	if err := s.count(op); err != nil {
		return op, nil, err
	}
	return op, arg, s.b.take(cost(op)+2*int64(len(arg)), "the pickle")
}

// cost is the most that gopickle and our constructors allocate for an opcode,
// with what the value adds to the container or memo it is put into.
func cost(op byte) int64 {
	switch op {
	case ']', '}', 0x8f, 'R', 'o', 'i', 'c', 'Q', 'P', 0x81, 0x92, 0x93:
		return 512
	}
	return 128
}

// count keeps the number of open marks small: gopickle makes a new stack for
// each. POP may close one as well, so that the count may be too high, never
// too low.
func (s *scanner) count(op byte) error {
	switch op {
	case mark:
		if s.marks++; s.marks > maxMarks {
			return fmt.Errorf("nested deeper than %d containers", maxMarks)
		}
	case '1', 'd', 'e', 'i', 'l', 'o', 't', 'u', 0x90, 0x91:
		s.marks = max(s.marks-1, 0)
	}
	return nil
}

// checkNumber bounds the numbers whose decoding costs more than linear time.
func checkNumber(op byte, arg []byte) error {
	switch op {
	case long1, long4, 'F', 'I', 'L', 'g', 'p', 'c', 'i', 'P':
		if len(arg) > maxDigits {
			return fmt.Errorf("an argument of %d bytes where at most %d make sense", len(arg), maxDigits)
		}
	}
	return nil
}

func (s *scanner) fits(n uint64) error {
	if left := uint64(len(s.data) - s.pos); n > left {
		return fmt.Errorf("the pickle is truncated: %d bytes wanted, %d left", n, left)
	}
	return nil
}

func (s *scanner) bytes(n uint64) ([]byte, error) {
	if err := s.fits(n); err != nil {
		return nil, err
	}
	arg := s.data[s.pos : s.pos+int(n)]
	s.pos += int(n)
	return arg, nil
}

func (s *scanner) counted(width int) ([]byte, error) {
	head, err := s.bytes(uint64(width))
	if err != nil {
		return nil, err
	}
	var n [8]byte
	copy(n[:], head)
	return s.bytes(binary.LittleEndian.Uint64(n[:]))
}

func (s *scanner) lines(n int) ([]byte, error) {
	from := s.pos
	for range n {
		i := bytes.IndexByte(s.data[s.pos:], '\n')
		if i < 0 {
			return nil, errors.New("the pickle is truncated: a line without end")
		}
		s.pos += i + 1
	}
	return s.data[from:s.pos], nil
}

// hidden maps what rewrite makes of a module's name to the name.
var hidden = map[string]string{"!ollections": "collections", "!_builtin__": "__builtin__", "!opy_reg": "copy_reg"}

// rewrite notes the edits that opcode op at byte at of the pickle needs:
//   - gopickle answers collections.OrderedDict, object and _reconstructor
//     itself, but refuses the arguments that Python 2 gives them and hides
//     duplicate keys: their modules are renamed so that FindClass is asked.
//   - Sets become lists: a Go map panics on keys that Python can hash.
//   - gopickle panics on a long of no bytes, which is how Python 2 writes 0L.
func (s *scanner) rewrite(op byte, at int, arg []byte) {
	switch op {
	case 'c', 'i':
		module, _, _ := bytes.Cut(arg, []byte("\n"))
		switch string(module) {
		case "collections", "__builtin__", "copy_reg":
			s.edits = append(s.edits, edit{at + 1, '!'})
		}
	case 0x8f: // EMPTY_SET → EMPTY_LIST
		s.edits = append(s.edits, edit{at, ']'})
	case 0x90: // ADDITEMS → APPENDS
		s.edits = append(s.edits, edit{at, 'e'})
	case 0x91: // FROZENSET → LIST
		s.edits = append(s.edits, edit{at, 'l'})
	case long1: // → BININT1 0
		if len(arg) == 0 {
			s.edits = append(s.edits, edit{at, 'K'})
		}
	case long4: // → BININT 0
		if len(arg) == 0 {
			s.edits = append(s.edits, edit{at, 'J'})
		}
	}
}
