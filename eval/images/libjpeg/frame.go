package libjpeg

import (
	"errors"
	"fmt"
	"io"
)

// A frame is the geometry of the image.
type frame struct {
	progressive   bool
	height, width int
	components    []component
	hMax, vMax    int // largest sampling factors
	mcuX, mcuY    int // MCUs across and down, in a scan of several components
}

// A component is one channel.
type component struct {
	id         byte
	h, v       int // sampling factors
	table      byte
	quant      *[64]uint16 // of its first scan
	seen       bool
	rows, cols int      // samples that the image needs
	blocksX    int      // blocks across that cover them
	blocksY    int      // and down
	stride     int      // blocks in a row in memory: whole MCUs
	coefs      []int16  // 64 a block, natural order
	precision  [64]int8 // progressive: lowest bit that has come, by order in the file; -1 = none
}

func parseFrame(marker byte, p []byte) (*frame, error) {
	switch marker {
	case markerSOF0, markerSOF1, markerSOF2:
	default:
		return nil, fmt.Errorf("the process of marker FF%02X is not supported: baseline, extended and progressive Huffman-coded files are", marker)
	}
	if len(p) < 6 || len(p) != 6+3*int(p[5]) {
		return nil, errors.New("a damaged frame header")
	}
	f := &frame{progressive: marker == markerSOF2, height: be16(p[1:]), width: be16(p[3:])}
	n := int(p[5])
	switch {
	case p[0] != 8:
		return nil, fmt.Errorf("%d bits a sample are not supported, 8 are", p[0])
	case f.height == 0 || f.width == 0:
		return nil, fmt.Errorf("an image of %d×%d pixels", f.width, f.height)
	case n != 1 && n != 3 && n != 4:
		return nil, fmt.Errorf("%d components, expected 1, 3 or 4", n)
	}
	for i := range n {
		b := p[6+3*i:]
		c := component{id: b[0], h: int(b[1] >> 4), v: int(b[1] & 15), table: b[2]}
		if c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 || c.table > 3 {
			return nil, errors.New("a damaged frame header")
		}
		f.hMax, f.vMax = max(f.hMax, c.h), max(f.vMax, c.v)
		f.components = append(f.components, c)
	}
	for i, c := range f.components {
		if f.hMax%c.h != 0 || f.vMax%c.v != 0 {
			return nil, fmt.Errorf("sampling factors %d×%d beside %d×%d are not supported", c.h, c.v, f.hMax, f.vMax)
		}
		for _, other := range f.components[:i] {
			if other.id == c.id {
				return nil, fmt.Errorf("two components are numbered %d", c.id)
			}
		}
	}
	return f, nil
}

func ceil(a, b int) int { return (a + b - 1) / b }

// allocate makes room for the coefficients, unless a file of that size cannot
// hold them: each block takes at least one bit.
func (f *frame) allocate(size int) error {
	f.mcuX, f.mcuY = ceil(f.width, 8*f.hMax), ceil(f.height, 8*f.vMax)
	blocks := 0
	for i := range f.components {
		c := &f.components[i]
		c.rows, c.cols = ceil(f.height*c.v, f.vMax), ceil(f.width*c.h, f.hMax)
		c.blocksX, c.blocksY = ceil(c.cols, 8), ceil(c.rows, 8)
		c.stride = f.mcuX * c.h
		blocks += c.blocksX * c.blocksY
	}
	if blocks > 8*size {
		return io.ErrUnexpectedEOF
	}
	for i := range f.components {
		c := &f.components[i]
		c.coefs = make([]int16, 64*c.stride*f.mcuY*c.v)
		for k := range c.precision {
			c.precision[k] = -1
		}
	}
	return nil
}

// coefficients is how many of a block's precisions tell something.
func (f *frame) coefficients() int {
	if f.progressive {
		return 64
	}
	return 0
}
