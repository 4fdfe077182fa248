package libjpeg

import (
	"errors"
	"fmt"
)

// A scan is one pass over the image: some components, and of these all
// coefficients or a band of them.
type scan struct {
	bits
	components  []*component
	dc, ac      []*huffman // of each component
	first, last int        // band of coefficients in the order of the file
	high, low   int        // successive approximation: bits before, and now
	restart     int        // MCUs between restart markers
	previous    [4]int32   // DC of each component
	run         int32      // blocks left whose band is at its end
	block       func(s *scan, i int, coefs []int16) error
}

// scan decodes the entropy-coded data that follows a scan header and returns how
// long it is.
func (d *decoder) scan(header, data []byte) (int, error) {
	if d.frame == nil {
		return 0, errors.New("a scan before the frame")
	}
	s, err := d.parseScan(header)
	if err != nil {
		return 0, err
	}
	s.data, s.restart = data, d.restart
	mcuX, mcuY := d.frame.mcuX, d.frame.mcuY
	if len(s.components) == 1 { // blocks one after the other, those that only pad left out
		mcuX, mcuY = s.components[0].blocksX, s.components[0].blocksY
	}
	for y := range mcuY {
		for x := range mcuX {
			n := y*mcuX + x
			if s.restart > 0 && n > 0 && n%s.restart == 0 {
				if err := s.bits.restart(n/s.restart - 1); err != nil {
					return 0, err
				}
				s.previous, s.run = [4]int32{}, 0
			}
			if err := s.mcu(x, y); err != nil {
				return 0, err
			}
		}
	}
	return s.at, nil
}

// mcu decodes one minimum coded unit.
func (s *scan) mcu(x, y int) error {
	single := len(s.components) == 1
	for i, c := range s.components {
		h, v := c.h, c.v
		if single {
			h, v = 1, 1
		}
		for by := range v {
			for bx := range h {
				at := 64 * ((y*v+by)*c.stride + x*h + bx)
				if err := s.block(s, i, c.coefs[at:at+64:at+64]); err != nil {
					return err
				}
			}
		}
	}
	return s.over()
}

func (d *decoder) parseScan(p []byte) (*scan, error) {
	if len(p) < 4 || len(p) != 4+2*int(p[0]) || p[0] < 1 || p[0] > 4 {
		return nil, errors.New("a damaged scan header")
	}
	n := int(p[0])
	end := p[1+2*n:]
	s := &scan{first: int(end[0]), last: int(end[1]), high: int(end[2] >> 4), low: int(end[2] & 15)}
	if err := s.setBlock(d.frame.progressive, n); err != nil {
		return nil, err
	}
	for i := range n {
		c := d.frame.component(p[1+2*i])
		dc, ac := p[2+2*i]>>4, p[2+2*i]&15
		if c == nil || dc > 3 || ac > 3 {
			return nil, errors.New("a damaged scan header")
		}
		s.components = append(s.components, c)
		s.dc, s.ac = append(s.dc, d.dc[dc]), append(s.ac, d.ac[ac])
		if needsDC := s.first == 0 && s.high == 0; needsDC && d.dc[dc] == nil || s.last > 0 && d.ac[ac] == nil {
			return nil, errors.New("a Huffman table is missing")
		}
		if err := s.begin(c, d); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// begin notes what the scan brings of a component.
func (s *scan) begin(c *component, d *decoder) error {
	if c.quant == nil {
		if c.quant = d.quant[c.table]; c.quant == nil {
			return fmt.Errorf("quantization table %d is missing", c.table)
		}
	}
	if c.seen && !d.frame.progressive {
		return errors.New("a component comes twice")
	}
	c.seen = true
	if !d.frame.progressive {
		return nil
	}
	if s.first > 0 && c.precision[0] < 0 {
		return errors.New("a progressive scan comes before that of the DC coefficients")
	}
	for k := s.first; k <= s.last; k++ {
		if p := c.precision[k]; s.high == 0 && p >= 0 || s.high > 0 && int(p) != s.high {
			return errors.New("progressive scans out of order")
		}
		c.precision[k] = int8(s.low)
	}
	return nil
}

func (f *frame) component(id byte) *component {
	for i := range f.components {
		if f.components[i].id == id {
			return &f.components[i]
		}
	}
	return nil
}

// setBlock picks the decoding of a block for the kind of scan.
func (s *scan) setBlock(progressive bool, components int) error {
	if !progressive {
		s.first, s.last, s.high, s.low = 0, 63, 0, 0 // as libjpeg: some writers put other numbers there
		s.block = (*scan).sequential
		return nil
	}
	ok := s.first <= s.last && s.last <= 63 && s.low <= 13 && (s.high == 0 || s.high == s.low+1) &&
		(s.first > 0 || s.last == 0) && (s.first == 0 || components == 1)
	switch {
	case !ok:
		return errors.New("a damaged progressive scan header")
	case s.first == 0 && s.high == 0:
		s.block = (*scan).firstDC
	case s.first == 0:
		s.block = (*scan).refineDC
	case s.high == 0:
		s.block = (*scan).firstAC
	default:
		s.block = (*scan).refineAC
	}
	return nil
}

var errIndex = errors.New("damaged image data: more than 64 coefficients")

// nextDC is the DC coefficient of a block of component i.
func (s *scan) nextDC(i int) (int32, error) {
	size, err := s.symbol(s.dc[i])
	if err != nil {
		return 0, err
	}
	if size > 15 {
		return 0, errCode
	}
	s.previous[i] += s.value(int(size))
	return s.previous[i], nil
}

// sequential decodes a block of a baseline or extended file.
func (s *scan) sequential(i int, coefs []int16) error {
	dc, err := s.nextDC(i)
	if err != nil {
		return err
	}
	coefs[0] = int16(dc)
	for k := 1; k < 64; k++ {
		symbol, err := s.symbol(s.ac[i])
		if err != nil {
			return err
		}
		run, size := int(symbol>>4), int(symbol&15)
		if size == 0 {
			if run != 15 {
				break
			}
			k += 15
			continue
		}
		if k += run; k > 63 {
			return errIndex
		}
		coefs[zigzag[k]] = int16(s.value(size))
	}
	return nil
}

// firstDC decodes the high bits of the DC coefficient, T.81 G.1.2.1.
func (s *scan) firstDC(i int, coefs []int16) error {
	dc, err := s.nextDC(i)
	coefs[0] = int16(dc << s.low)
	return err
}

func (s *scan) refineDC(_ int, coefs []int16) error {
	if s.take(1) == 1 {
		coefs[0] |= 1 << s.low
	}
	return nil
}

// firstAC decodes the high bits of a band, T.81 G.1.2.2.
func (s *scan) firstAC(i int, coefs []int16) error {
	if s.run > 0 {
		s.run--
		return nil
	}
	for k := s.first; k <= s.last; k++ {
		symbol, err := s.symbol(s.ac[i])
		if err != nil {
			return err
		}
		run, size := int(symbol>>4), int(symbol&15)
		if size == 0 {
			if run != 15 {
				s.run = 1<<run + s.take(run) - 1
				break
			}
			k += 15
			continue
		}
		if k += run; k > 63 {
			return errIndex
		}
		coefs[zigzag[k]] = int16(s.value(size) << s.low)
	}
	return nil
}

// refineAC decodes the next bit of a band, T.81 G.1.2.3.
func (s *scan) refineAC(i int, coefs []int16) error {
	k := s.first
	if s.run == 0 {
		for k <= s.last {
			symbol, err := s.symbol(s.ac[i])
			if err != nil {
				return err
			}
			run, size := int(symbol>>4), symbol&15
			fresh := int16(0)
			switch {
			case size > 1:
				return errCode
			case size == 1:
				if fresh = -1; s.take(1) == 1 {
					fresh = 1
				}
			case run < 15:
				s.run = 1<<run + s.take(run)
			}
			if s.run > 0 {
				break
			}
			// The new coefficient goes behind run more that are zero.
			if k = s.refine(coefs, k, run); fresh != 0 {
				if k > s.last {
					return errIndex
				}
				coefs[zigzag[k]] = fresh << s.low
			}
			k++
		}
	}
	if s.run > 0 {
		s.refine(coefs, k, 64)
		s.run--
	}
	return nil
}

// refine adds a bit to each coefficient from k on that is not zero, past zeros
// many that are, and returns where it stopped: at the zero after these.
func (s *scan) refine(coefs []int16, k, zeros int) int {
	for ; k <= s.last; k++ {
		z := zigzag[k]
		switch v := coefs[z]; {
		case v == 0:
			if zeros == 0 {
				return k
			}
			zeros--
		case s.take(1) == 0 || v>>s.low&1 != 0: // nothing to add, or it is there
		case v > 0:
			coefs[z] += 1 << s.low
		default:
			coefs[z] -= 1 << s.low
		}
	}
	return k
}
