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
	{"GIF", func(h string) bool { return strings.HasPrefix(h, "GIF87a") || strings.HasPrefix(h, "GIF89a") }, gifConfig, leastGIF, decodeGIF},
	{"TIFF", func(h string) bool { return strings.HasPrefix(h, "II*\x00") || strings.HasPrefix(h, "MM\x00*") }, tiffConfig, leastTIFF, decodeTIFF},
	{"PPM", isPNM, pnmConfig, leastPNM, decodePNM},
}

// foreign are formats that are not read, by what their files begin with after a number of
// bytes.
var foreign = []struct {
	name, begins string
	at           int
}{
	{"AVIF", "ftypavif", 4}, {"AVIF", "ftypavis", 4}, {"HEIC", "ftyphei", 4}, {"HEIC", "ftyphev", 4}, {"HEIF", "ftypmif1", 4}, {"HEIF", "ftypmsf1", 4},
	{"JPEG XL", "\xff\x0a", 0}, {"JPEG XL", "JXL ", 4}, {"JPEG 2000", "jP  ", 4}, {"JPEG 2000", "\xff\x4f\xff\x51", 0}, {"a video", "ftyp", 4},
	{"BigTIFF", "II+\x00", 0}, {"BigTIFF", "MM\x00+", 0}, {"PSD", "8BPS", 0}, {"OpenEXR", "v/1\x01", 0}, {"QOI", "qoif", 0}, {"DDS", "DDS ", 0},
	{"an icon", "\x00\x00\x01\x00", 0}, {"PAM", "P7\n", 0}, {"PFM", "PF\n", 0}, {"PFM", "Pf\n", 0}, {"Radiance HDR", "#?RADIANCE", 0}, {"PDF", "%PDF", 0},
	{"SVG", "<svg", 0}, {"an .npy array", "\x93NUMPY", 0}, {"a zip archive", "PK\x03\x04", 0}, {"a Git LFS pointer", "version https://", 0},
}

// unknown says what a file is that begins so and has no format that is read.
func unknown(head string) error {
	for _, f := range foreign {
		if len(head) >= f.at && strings.HasPrefix(head[f.at:], f.begins) {
			return fmt.Errorf("is %s, which is not read; save it as PNG, which keeps its pixels", f.name)
		}
	}
	return errUnknown
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

var errUnknown = errors.New("is no PNG, JPEG, WebP, BMP, GIF, TIFF or PPM image")

// check looks at the format and the size that a file claims.
func check(head string, rest io.Reader, maxPixels int) (f *format, height, width int, err error) {
	f = formatOf(head)
	switch {
	case head == "":
		return nil, 0, 0, errors.New("is empty")
	case f == nil:
		return nil, 0, 0, unknown(head)
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

func decodePNG(data []byte) (im Image, err error) {
	p, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return Image{}, err
	}
	depth, colorType := pngHeader(data)
	im, err = toRGB(p)
	if animatedPNG(data) {
		defer func() { im.Converted = append(im.Converted, Animated) }()
	}
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

// animatedPNG reports whether there are further frames than the one in IDAT.
func animatedPNG(data []byte) bool {
	at := bytes.Index(data, []byte("acTL"))
	return at >= 0 && at+8 <= len(data) && at < bytes.Index(data, []byte("IDAT")) && binary.BigEndian.Uint32(data[at+4:]) > 1
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
