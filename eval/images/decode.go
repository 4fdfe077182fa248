package images

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"strings"

	"golang.org/x/image/bmp"
	"golang.org/x/image/webp"

	"sagbench/eval/images/libjpeg"
)

// A format is a kind of image file.
type format struct {
	name   string
	is     func(head string) bool // the first 16 bytes
	config func(io.Reader) (image.Config, error)
	// least is the size of the smallest file that can hold so many pixels: memory
	// is not taken on a header's word. nil where the format has no such bound or
	// its decoder knows it.
	least  func(data []byte, pixels int) int
	decode func(data []byte) (Image, error)
}

var formats = []*format{
	{"PNG", begins("\x89PNG\r\n\x1a\n"), png.DecodeConfig, leastPNG, decodePNG},
	{"JPEG", begins("\xff\xd8\xff"), libjpeg.DecodeConfig, nil, decodeJPEG},
	{"WebP", func(h string) bool { return len(h) >= 12 && h[:4] == "RIFF" && h[8:12] == "WEBP" }, webp.DecodeConfig, nil, decodeWebP},
	{"BMP", begins("BM"), bmp.DecodeConfig, leastBMP, decodeBMP},
}

func begins(magic string) func(string) bool {
	return func(head string) bool { return strings.HasPrefix(head, magic) }
}

// formatOf is the format of a file that begins so; nil if none.
func formatOf(head string) *format {
	for _, f := range formats {
		if f.is(head) {
			return f
		}
	}
	return nil
}

var errUnknown = errors.New("is no PNG, JPEG, WebP or BMP image")

// check looks at the format and the size that a file claims.
func check(head string, rest io.Reader, maxPixels int) (f *format, height, width int, err error) {
	f = formatOf(head)
	switch {
	case head == "":
		return nil, 0, 0, errors.New("is empty")
	case f == nil:
		return nil, 0, 0, errUnknown
	}
	c, err := f.config(rest)
	if err != nil {
		return nil, 0, 0, f.explain(err)
	}
	if c.Width < 1 || c.Height < 1 {
		return nil, 0, 0, fmt.Errorf("%s of %d×%d pixels", f.name, c.Width, c.Height)
	}
	if c.Width > maxPixels/c.Height {
		return nil, 0, 0, fmt.Errorf("%s of %d×%d pixels, more than the %d that are read", f.name, c.Width, c.Height, maxPixels)
	}
	return f, c.Height, c.Width, nil
}

// explain says what an error of a decoder means.
func (f *format) explain(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s that is truncated", f.name)
	}
	return fmt.Errorf("%s that cannot be decoded: %w", f.name, err)
}

// header reads as much of a file as tells its format and size: an image without
// pixels.
func header(r io.Reader, maxPixels int) (im Image, err error) {
	b := bufio.NewReader(r)
	head, err := b.Peek(16)
	if err != nil && err != io.EOF {
		return im, err
	}
	_, im.Height, im.Width, err = check(string(head), b, maxPixels)
	return im, err
}

// Decode decodes the file of one image of at most maxPixels pixels.
func Decode(data []byte, maxPixels int) (Image, error) {
	f, height, width, err := check(string(data[:min(16, len(data))]), bytes.NewReader(data), maxPixels)
	if err != nil {
		return Image{}, err
	}
	pixels := height * width
	if f.least != nil && len(data) < f.least(data, pixels) {
		return Image{}, fmt.Errorf("%s that is truncated: %d bytes cannot hold %d pixels", f.name, len(data), pixels)
	}
	im, err := f.decode(data)
	if err != nil {
		return Image{}, f.explain(err)
	}
	return im, nil
}

// pngHeader are the bit depth and the colour type of a PNG file.
func pngHeader(data []byte) (depth, colorType byte) { return data[24], data[25] }

// leastPNG: deflate packs at most 1032 bytes into one.
func leastPNG(data []byte, pixels int) int {
	depth, colorType := pngHeader(data)
	channels := []int{1, 1, 3, 1, 2, 1, 4}[min(colorType, 6)]
	return pixels * channels * int(depth) / 8 / 1032
}

func decodePNG(data []byte) (Image, error) {
	p, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return Image{}, err
	}
	depth, colorType := pngHeader(data)
	im, err := toRGB(p)
	if depth == 16 {
		im.Converted = append(im.Converted, Bits16)
	}
	switch colorType {
	case 0:
		if depth == 16 {
			im.Converted = []Conversion{ClippedGrey}
			clipGrey(p, im.Pixels)
		} else {
			im.Converted = append(im.Converted, Grey)
		}
	case 3:
		im.Converted = append(im.Converted, Palette)
	case 4:
		im.Converted = append(im.Converted, Grey, Alpha)
	case 6:
		im.Converted = append(im.Converted, Alpha)
	}
	if colorType < 4 && bytes.Contains(data[:min(len(data), bytes.Index(data, []byte("IDAT"))+1)], []byte("tRNS")) {
		im.Converted = append(im.Converted, Alpha)
	}
	return im, err
}

// leastBMP: rows are not compressed.
func leastBMP(data []byte, pixels int) int {
	return pixels * int(binary.LittleEndian.Uint16(data[28:])) / 8
}

func decodeBMP(data []byte) (Image, error) {
	p, err := bmp.Decode(bytes.NewReader(data))
	if err != nil {
		return Image{}, err
	}
	im, err := toRGB(p)
	if _, ok := p.(*image.Paletted); ok {
		im.Converted = append(im.Converted, Palette)
	}
	return im, err
}

func decodeJPEG(data []byte) (Image, error) {
	j, err := libjpeg.Decode(data)
	if err != nil {
		return Image{}, err
	}
	im := Image{Height: j.Height, Width: j.Width, Pixels: j.Pixels}
	switch j.Channels {
	case 1:
		im.Pixels = make([]uint8, 3*len(j.Pixels))
		repeat(im.Pixels, j.Pixels)
		im.Converted = []Conversion{Grey}
	case 4:
		im.Pixels = make([]uint8, len(j.Pixels)/4*3)
		for i := range len(j.Pixels) / 4 {
			rgbOfCMYK(im.Pixels[3*i:], j.Pixels[4*i:])
		}
		im.Converted = []Conversion{CMYK}
	}
	return im, nil
}

// rgbOfCMYK is Pillow's conversion of a pixel of a JPEG file, whose inks it takes
// for stored as their complements, as Adobe does: (255−C)·(255−K)/255 with C and
// K the ink.
func rgbOfCMYK(out, in []uint8) {
	black := int(in[3]) // 255 − K
	for c := range 3 {
		t := (255-int(in[c]))*black + 128
		out[c] = uint8(max(black-(t>>8+t)>>8, 0))
	}
}
