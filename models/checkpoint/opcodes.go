package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// The ways in which an opcode is followed by its argument.
const (
	fixed   = iota // n bytes
	counted        // a length of n bytes, little-endian, and as many bytes
	lines          // n lines
)

// opcodes are those of pickle protocols 0 to 5 (CPython, Lib/pickletools.py),
// by the argument that follows.
var opcodes = []struct {
	kind, n int
	codes   string
}{
	{fixed, 0, "().012NQR]abdelostu}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"},
	{fixed, 1, "Khq\x80\x82"}, {fixed, 2, "M\x83"}, {fixed, 4, "Jjr\x84"}, {fixed, 8, "G\x95"},
	{counted, 1, "UC\x8c\x8a"}, {counted, 4, "BTX\x8b"}, {counted, 8, "\x8d\x8e\x96"},
	{lines, 1, "FILPSVgp"}, {lines, 2, "ci"},
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

// next steps over one opcode and its argument, which it returns as a part of
// data, and charges the budget with the most that obeying it allocates.
func (u *unpickler) next() (op byte, arg []byte, err error) {
	at := u.pos
	if at >= len(u.data) {
		return 0, nil, errors.New("the pickle is truncated: it ends without STOP")
	}
	op = u.data[at]
	u.pos++
	if arg, err = u.argument(op); err != nil {
		return op, nil, err
	}
	switch op {
	case long1, long4, 'F', 'I', 'L', 'g', 'p', 'c', 'i', 'P': // decoding takes more than linear time
		err = checkDigits(len(arg))
	case mark:
		if len(u.marks) == maxMarks {
			err = fmt.Errorf("nested deeper than %d containers", maxMarks)
		}
	case frame:
		if err = u.fits(unsigned(arg)); err == nil && u.pos < u.frameEnd {
			err = errors.New("a frame begins within another")
		} else if err == nil {
			u.frameEnd = u.pos + int(unsigned(arg))
		}
	}
	if err != nil {
		return op, nil, err
	}
	return op, arg, u.b.take(cost(op)+2*int64(len(arg))+int64(u.pos-at), "the pickle")
}

// argument steps over the argument of op.
func (u *unpickler) argument(op byte) (arg []byte, err error) {
	for _, o := range opcodes {
		if strings.IndexByte(o.codes, op) < 0 {
			continue
		}
		if o.kind == lines {
			return u.lines(o.n)
		}
		if arg, err = u.bytes(uint64(o.n)); err == nil && o.kind == counted {
			arg, err = u.bytes(unsigned(arg))
		}
		return arg, err
	}
	return nil, errors.New("no such opcode")
}

// cost is the most bytes that an opcode allocates beside copies of its
// argument, with what the value adds to the container or memo it is put into.
func cost(op byte) int64 {
	switch op {
	case ']', '}', 0x8f, 'R', 'o', 'i', 'c', 'Q', 'P', 0x81, 0x92, 0x93:
		return 512
	}
	return 128
}

func checkDigits(n int) error {
	if n > maxDigits {
		return fmt.Errorf("an argument of %d bytes where at most %d make sense", n, maxDigits)
	}
	return nil
}

func (u *unpickler) fits(n uint64) error {
	if left := uint64(len(u.data) - u.pos); n > left {
		return fmt.Errorf("the pickle is truncated: %d bytes wanted, %d left", n, left)
	}
	return nil
}

// bytes steps over n bytes.
func (u *unpickler) bytes(n uint64) ([]byte, error) {
	if err := u.fits(n); err != nil {
		return nil, err
	}
	from, to := u.pos, u.pos+int(n)
	if from < u.frameEnd && to > u.frameEnd {
		return nil, errors.New("an argument reaches across the end of a frame")
	}
	u.pos = to
	return u.data[from:to], nil
}

// lines steps over n lines, each with its line feed.
func (u *unpickler) lines(n int) ([]byte, error) {
	from := u.pos
	for range n {
		i := bytes.IndexByte(u.data[u.pos:], '\n')
		if i < 0 {
			return nil, errors.New("the pickle is truncated: a line without end")
		}
		if _, err := u.bytes(uint64(i + 1)); err != nil {
			return nil, err
		}
	}
	return u.data[from:u.pos], nil
}

// unsigned is a little-endian number of at most 8 bytes.
func unsigned(b []byte) uint64 {
	var n [8]byte
	copy(n[:], b)
	return binary.LittleEndian.Uint64(n[:])
}

// literal decodes None, a truth value, a number or a string.
func literal(op byte, arg []byte) (any, error) {
	switch op {
	case 'N': // NONE
		return nil, nil
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		return op == 0x88, nil
	case 'K', 'M': // BININT1, BININT2
		return int(unsigned(arg)), nil
	case 'J': // BININT
		return int(int32(unsigned(arg))), nil
	case 'I': // INT
		switch s := line(arg); s {
		case "00", "01":
			return s == "01", nil
		default:
			return strconv.Atoi(s)
		}
	case 'L': // LONG
		s := strings.TrimSuffix(line(arg), "L")
		i, err := strconv.ParseInt(s, 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			if n, ok := new(big.Int).SetString(s, 10); ok {
				return n, nil
			}
		}
		return int(i), err
	case long1, long4: // LONG1, LONG4
		return long(arg), nil
	case 'F': // FLOAT
		return strconv.ParseFloat(line(arg), 64)
	case 'G': // BINFLOAT
		return math.Float64frombits(binary.BigEndian.Uint64(arg)), nil
	case 'S': // STRING
		s := line(arg)
		if n := len(s); n < 2 || s[0] != s[n-1] || s[0] != '\'' && s[0] != '"' {
			return nil, errors.New("a STRING without quotes")
		}
		return s[1 : len(s)-1], nil
	case 'V': // UNICODE
		return line(arg), nil
	}
	return string(arg), nil // BINSTRING, SHORT_BINSTRING, BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
}

// long decodes a little-endian number in two's complement.
func long(b []byte) any {
	if len(b) <= 8 {
		unused := 64 - 8*len(b)
		return int(int64(unsigned(b)<<unused) >> unused)
	}
	bigEndian := bytes.Clone(b)
	slices.Reverse(bigEndian)
	n := new(big.Int).SetBytes(bigEndian)
	if bigEndian[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n
}

func line(arg []byte) string { return strings.TrimSuffix(string(arg), "\n") }
