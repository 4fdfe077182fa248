package images

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
)

// GIF is read here and not by image/gif, which replaces the colour of transparent pixels
// that Pillow keeps.

// A gifFrame is the first frame of a GIF file.
type gifFrame struct {
	height, width         int // of the screen
	left, top, wide, high int // of the frame on it
	palette               []byte
	transparent           int // index that is, -1 if none
	interlaced, more      bool
	codeSize              int
	data                  []byte // compressed
}

// gifConfig reads the size of the screen.
func gifConfig(r io.Reader) (image.Config, error) {
	head := make([]byte, 13)
	if _, err := io.ReadFull(r, head); err != nil {
		return image.Config{}, err
	}
	return image.Config{Width: int(binary.LittleEndian.Uint16(head[6:])), Height: int(binary.LittleEndian.Uint16(head[8:]))}, nil
}

// leastGIF: a code of 12 bits stands for at most 4096 pixels.
func leastGIF(_ []byte, pixels int) int { return pixels / 2731 / 2 }

// gifBlocks are sub-blocks up to the empty one, joined, and what follows them.
func gifBlocks(data []byte) (joined, rest []byte, err error) {
	for {
		if len(data) < 1 {
			return nil, nil, io.ErrUnexpectedEOF
		}
		n := int(data[0])
		if n == 0 {
			return joined, data[1:], nil
		}
		if len(data) < 1+n {
			return nil, nil, io.ErrUnexpectedEOF
		}
		joined = append(joined, data[1:1+n]...)
		data = data[1+n:]
	}
}

// gifTable takes a colour table, if the flags say that there is one.
func gifTable(flags byte, data []byte) (table, rest []byte, err error) {
	if flags&0x80 == 0 {
		return nil, data, nil
	}
	n := 3 << (flags&7 + 1)
	if len(data) < n {
		return nil, nil, io.ErrUnexpectedEOF
	}
	return data[:n], data[n:], nil
}

// readGIF finds the first frame.
func readGIF(data []byte) (f gifFrame, err error) {
	if len(data) < 13 {
		return f, io.ErrUnexpectedEOF
	}
	f.width, f.height, f.transparent = int(binary.LittleEndian.Uint16(data[6:])), int(binary.LittleEndian.Uint16(data[8:])), -1
	global, data, err := gifTable(data[10], data[13:])
	if err != nil {
		return f, err
	}
	found := false
	for len(data) > 0 {
		kind := data[0]
		data = data[1:]
		switch {
		case kind == '!':
			if len(data) < 1 {
				return f, io.ErrUnexpectedEOF
			}
			label := data[0]
			var block []byte
			if block, data, err = gifBlocks(data[1:]); err != nil {
				return f, orFound(found, err)
			}
			if label == 0xf9 && len(block) >= 4 && !found && block[0]&1 == 1 {
				f.transparent = int(block[3])
			}
		case kind == ',' && found:
			f.more = true
			return f, nil
		case kind == ',':
			if data, err = f.descriptor(global, data); err != nil {
				return f, err
			}
			found = true
		case kind == ';' && !found:
			return f, errors.New("there is no image in it")
		case kind == ';':
			return f, nil
		}
	}
	return f, orFound(found, io.ErrUnexpectedEOF)
}

// orFound is no error where the first frame was found: what follows does not matter.
func orFound(found bool, err error) error {
	if found {
		return nil
	}
	return err
}

// descriptor reads a frame.
func (f *gifFrame) descriptor(global, data []byte) (rest []byte, err error) {
	if len(data) < 9 {
		return nil, io.ErrUnexpectedEOF
	}
	short := func(at int) int { return int(binary.LittleEndian.Uint16(data[at:])) }
	f.left, f.top, f.wide, f.high = short(0), short(2), short(4), short(6)
	if f.left+f.wide > f.width || f.top+f.high > f.height || f.wide < 1 || f.high < 1 {
		return nil, fmt.Errorf("its first frame, %d×%d at (%d,%d), does not lie in its %d×%d pixels", f.wide, f.high, f.left, f.top, f.width, f.height)
	}
	flags := data[8]
	f.interlaced = flags&0x40 != 0
	local, data, err := gifTable(flags, data[9:])
	if err != nil {
		return nil, err
	}
	if f.palette = global; local != nil {
		f.palette = local
	}
	if len(data) < 1 {
		return nil, io.ErrUnexpectedEOF
	}
	if f.codeSize = int(data[0]); f.codeSize < 1 || f.codeSize > 8 {
		return nil, fmt.Errorf("codes of %d bits, expected 1 to 8", f.codeSize)
	}
	f.data, rest, err = gifBlocks(data[1:])
	return rest, err
}

// decodeGIF decodes the first frame, on the screen, as Pillow does: the rest of the screen
// has the transparent colour, or the first one.
func decodeGIF(data []byte) (Image, error) {
	f, err := readGIF(data)
	if err != nil {
		return Image{}, err
	}
	im := Image{Height: f.height, Width: f.width, Pixels: make([]uint8, f.height*f.width*3), Converted: []Conversion{Palette}}
	color := func(out []uint8, index int) {
		switch {
		case f.palette == nil: // grey
			out[0], out[1], out[2] = uint8(index), uint8(index), uint8(index)
		case 3*index+3 <= len(f.palette):
			copy(out[:3], f.palette[3*index:])
		}
	}
	eachRow(im, func(_ int, out []uint8) {
		for x := range im.Width {
			color(out[3*x:], max(f.transparent, 0))
		}
	})
	r := lzw.NewReader(bytes.NewReader(f.data), lzw.LSB, f.codeSize)
	defer r.Close()
	row := make([]byte, f.wide)
	for i := range f.high {
		if _, err := io.ReadFull(r, row); err != nil {
			return Image{}, err
		}
		out := im.Pixels[3*((f.top+f.rowOf(i))*f.width+f.left):]
		for x, index := range row {
			clear(out[3*x : 3*x+3]) // an index beyond the palette is black
			color(out[3*x:], int(index))
		}
	}
	if f.transparent >= 0 {
		im.Converted = append(im.Converted, Alpha)
	}
	if f.more {
		im.Converted = append(im.Converted, Animated)
	}
	return im, nil
}

// rowOf is where the row lies that is stored as number i.
func (f *gifFrame) rowOf(i int) int {
	if !f.interlaced {
		return i
	}
	for _, pass := range [][2]int{{0, 8}, {4, 8}, {2, 4}, {1, 2}} {
		n := 0
		if f.high > pass[0] {
			n = (f.high - pass[0] + pass[1] - 1) / pass[1]
		}
		if i < n {
			return pass[0] + i*pass[1]
		}
		i -= n
	}
	return i
}
