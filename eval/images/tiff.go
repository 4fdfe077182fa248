package images

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
	"slices"

	"golang.org/x/image/tiff/lzw"
)

// TIFF is read here and not by golang.org/x/image/tiff: that reader takes planes for
// pixels without a word, loses the colour of transparent pixels, and knows neither CMYK
// nor 2 and 4 bits nor orientation, which Pillow applies in this format.

// Tags of a TIFF image (TIFF 6.0, section 8).
const (
	tagWidth          = 256
	tagHeight         = 257
	tagBits           = 258
	tagCompression    = 259
	tagPhotometric    = 262
	tagFillOrder      = 266
	tagStripOffsets   = 273
	tagOrientation    = 274
	tagSamples        = 277
	tagRowsPerStrip   = 278
	tagStripBytes     = 279
	tagPlanar         = 284
	tagPredictor      = 317
	tagColorMap       = 320
	tagTileWidth      = 322
	tagTileHeight     = 323
	tagTileOffsets    = 324
	tagTileBytes      = 325
	tagExtraSamples   = 338
	tagSampleFormat   = 339
	maxTIFFEntries    = 4096
	maxTIFFBlocks     = 1 << 20
	maxTIFFSamples    = 6
	maxTIFFColorTable = 3 * 256
)

// A tiffImage is the first image of a TIFF file.
type tiffImage struct {
	data  []byte
	order binary.ByteOrder
	tags  map[int][]int // those of interest
	more  bool          // there are further images

	width, height         int // as stored
	bits, samples, planes int // of a sample; of a pixel; separate ones
	photometric           int
	blockWidth, rows      int // of a strip or tile
}

// tiffTags are the tags that are read, with the most values that each may have.
var tiffTags = map[int]int{
	tagWidth: 1, tagHeight: 1, tagBits: 8, tagCompression: 1, tagPhotometric: 1, tagFillOrder: 1, tagStripOffsets: maxTIFFBlocks, tagOrientation: 1,
	tagSamples: 1, tagRowsPerStrip: 1, tagStripBytes: maxTIFFBlocks, tagPlanar: 1, tagPredictor: 1, tagColorMap: maxTIFFColorTable,
	tagTileWidth: 1, tagTileHeight: 1, tagTileOffsets: maxTIFFBlocks, tagTileBytes: maxTIFFBlocks, tagExtraSamples: 8, tagSampleFormat: 8,
}

// readTIFF reads the tags of the first image.
func readTIFF(data []byte) (*tiffImage, error) {
	t := &tiffImage{data: data, tags: map[int][]int{}}
	switch {
	case len(data) < 8:
		return nil, io.ErrUnexpectedEOF
	case data[0] == 'I':
		t.order = binary.LittleEndian
	default:
		t.order = binary.BigEndian
	}
	at := int(t.order.Uint32(data[4:]))
	if at > len(data)-2 {
		return nil, io.ErrUnexpectedEOF
	}
	n := int(t.order.Uint16(data[at:]))
	at += 2
	if n > maxTIFFEntries {
		return nil, fmt.Errorf("%d tags, at most %d are read", n, maxTIFFEntries)
	}
	if at+12*n > len(data) {
		return nil, io.ErrUnexpectedEOF
	}
	for i := range n {
		if err := t.readTag(data[at+12*i:]); err != nil {
			return nil, err
		}
	}
	if end := at + 12*n; end+4 <= len(data) {
		t.more = t.order.Uint32(data[end:]) != 0
	}
	return t, t.layOut()
}

// readTag reads one entry of the directory, if its tag is of interest.
func (t *tiffImage) readTag(entry []byte) error {
	tag, kind, count := int(t.order.Uint16(entry)), t.order.Uint16(entry[2:]), int(t.order.Uint32(entry[4:]))
	most, known := tiffTags[tag]
	size := map[uint16]int{1: 1, 3: 2, 4: 4}[kind]
	if !known || count == 0 {
		return nil
	}
	if size == 0 || count > most {
		return fmt.Errorf("tag %d has %d values of type %d, expected at most %d whole numbers", tag, count, kind, most)
	}
	raw := entry[8:12]
	if size*count > 4 {
		at := int(t.order.Uint32(raw))
		if at > len(t.data)-size*count {
			return io.ErrUnexpectedEOF
		}
		raw = t.data[at:]
	}
	values := make([]int, count)
	for i := range values {
		switch size {
		case 1:
			values[i] = int(raw[i])
		case 2:
			values[i] = int(t.order.Uint16(raw[2*i:]))
		case 4:
			values[i] = int(t.order.Uint32(raw[4*i:]))
		}
	}
	t.tags[tag] = values
	return nil
}

// tag is the first value of a tag; other where there is none.
func (t *tiffImage) tag(tag, other int) int {
	if v := t.tags[tag]; len(v) > 0 {
		return v[0]
	}
	return other
}

// layOut finds out what the pixels are made of, and refuses what is not read.
func (t *tiffImage) layOut() error {
	t.width, t.height = t.tag(tagWidth, 0), t.tag(tagHeight, 0)
	t.bits, t.samples, t.photometric = t.tag(tagBits, 1), t.tag(tagSamples, 1), t.tag(tagPhotometric, 0)
	if slices.ContainsFunc(t.tags[tagBits], func(b int) bool { return b != t.bits }) {
		return fmt.Errorf("samples of %v bits; %s", t.tags[tagBits], asPNG)
	}
	if f := t.tag(tagSampleFormat, 1); f != 1 {
		return fmt.Errorf("samples that are signed or floating point numbers (sample format %d), which have no grey levels; %s", f, asPNG)
	}
	colors, known := map[int]int{0: 1, 1: 1, 2: 3, 3: 1, 5: 4}[t.photometric]
	if !known {
		return fmt.Errorf("colours of kind %d; %s", t.photometric, asPNG)
	}
	if t.bits*t.samples > 64 {
		return fmt.Errorf("%d samples of %d bits a pixel; %s", t.samples, t.bits, asPNG)
	}
	deep := t.bits == 8 || t.bits == 16 && t.photometric != 3
	if !deep && !(colors == 1 && t.samples == 1 && slices.Contains([]int{1, 2, 4}, t.bits)) || t.samples < colors || t.samples > maxTIFFSamples || t.photometric == 0 && t.samples > 1 {
		return fmt.Errorf("%d samples of %d bits a pixel for colours of kind %d; %s", t.samples, t.bits, t.photometric, asPNG)
	}
	if colors == 1 && t.bits == 16 && (t.samples > 1 || t.photometric == 0 && t.order == binary.BigEndian) || colors == 1 && t.samples > 1 && t.tag(tagExtraSamples, 0) == 1 {
		return fmt.Errorf("grey of %d samples of %d bits in this form; %s", t.samples, t.bits, asPNG)
	}
	if t.tag(tagFillOrder, 1) != 1 {
		return fmt.Errorf("bits in the order %d; %s", t.tag(tagFillOrder, 1), asPNG)
	}
	t.planes = 1
	switch p := t.tag(tagPlanar, 1); {
	case p == 2 && t.samples > 1 && t.bits == 8:
		t.planes = t.samples
	case p == 2 && t.samples > 1 || p != 1 && p != 2:
		return fmt.Errorf("planes of %d bits; %s", t.bits, asPNG)
	}
	if p := t.tag(tagPredictor, 1); p != 1 && !(p == 2 && t.bits >= 8) {
		return fmt.Errorf("the predictor %d of samples of %d bits; %s", p, t.bits, asPNG)
	}
	t.blockWidth, t.rows = t.width, min(t.tag(tagRowsPerStrip, t.height), t.height)
	if len(t.tags[tagTileOffsets]) > 0 {
		t.blockWidth, t.rows = t.tag(tagTileWidth, 0), t.tag(tagTileHeight, 0)
		if t.blockWidth > max(1024, t.width+16) || t.rows > max(1024, t.height+16) {
			return fmt.Errorf("tiles of %d×%d pixels", t.blockWidth, t.rows)
		}
	}
	if t.blockWidth < 1 || t.rows < 1 {
		return fmt.Errorf("%d×%d pixels in strips or tiles of %d×%d", t.width, t.height, t.blockWidth, t.rows)
	}
	return nil
}

// asPNG is what to do about a file that is not read.
const asPNG = "which is not read; save it as PNG"

// tiffConfig reads the whole of a file: its tags may lie at the end.
func tiffConfig(r io.Reader) (image.Config, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile))
	if err != nil {
		return image.Config{}, err
	}
	t, err := readTIFF(data)
	if err != nil {
		return image.Config{}, err
	}
	if o := t.tag(tagOrientation, 1); o > 4 && o < 9 {
		return image.Config{Width: t.height, Height: t.width}, nil
	}
	return image.Config{Width: t.width, Height: t.height}, nil
}

// leastTIFF: LZW packs at most some 3000 bytes into one, deflate 1032, PackBits 64.
func leastTIFF(data []byte, pixels int) int {
	t, err := readTIFF(data)
	if err != nil {
		return 0
	}
	least := pixels * t.samples * t.bits / 8
	switch t.tag(tagCompression, 1) {
	case 1:
		return least
	case 32773:
		return least / 64
	}
	return least / 3000
}

func decodeTIFF(data []byte) (Image, error) {
	t, err := readTIFF(data)
	if err != nil {
		return Image{}, err
	}
	raw, err := t.rawPixels()
	if err != nil {
		return Image{}, err
	}
	im := Image{Height: t.height, Width: t.width, Pixels: make([]uint8, t.height*t.width*3)}
	if err := t.toRGB(&im, raw); err != nil {
		return Image{}, err
	}
	if t.more {
		im.Converted = append(im.Converted, Page)
	}
	return turn(im, t.tag(tagOrientation, 1)), nil
}

// rowBytes are the bytes of a row of so many pixels of one plane.
func (t *tiffImage) rowBytes(width int) int { return (width*t.samples/t.planes*t.bits + 7) / 8 }

// rawPixels are the rows of all planes, one plane after another, unpacked and put together.
func (t *tiffImage) rawPixels() ([]byte, error) {
	offsets, sizes := t.tags[tagStripOffsets], t.tags[tagStripBytes]
	if tiles := t.tags[tagTileOffsets]; len(tiles) > 0 {
		offsets, sizes = tiles, t.tags[tagTileBytes]
	}
	across, down := (t.width+t.blockWidth-1)/t.blockWidth, (t.height+t.rows-1)/t.rows
	if need := across * down * t.planes; len(offsets) < need || len(sizes) < need {
		return nil, fmt.Errorf("%d strips or tiles, expected %d", min(len(offsets), len(sizes)), need)
	}
	if across > 1 && t.blockWidth*t.bits%8 != 0 {
		return nil, fmt.Errorf("tiles of %d pixels of %d bits; %s", t.blockWidth, t.bits, asPNG)
	}
	if area := across * down * t.blockWidth * t.rows; area > 4*t.width*t.height+1<<21 {
		return nil, fmt.Errorf("%d pixels in tiles for %d×%d", area, t.width, t.height)
	}
	row := t.rowBytes(t.width)
	out := make([]byte, t.planes*t.height*row)
	for plane := range t.planes {
		for y := range down {
			for x := range across {
				i := (plane*down+y)*across + x
				rows := min(t.rows, t.height-y*t.rows)
				block, err := t.unpack(offsets[i], sizes[i], rows)
				if err != nil {
					return nil, err
				}
				wide := t.rowBytes(t.blockWidth)
				for r := range rows {
					to := out[(plane*t.height+y*t.rows+r)*row+x*wide:]
					copy(to[:min(wide, row-x*wide)], block[r*wide:])
				}
			}
		}
	}
	return out, nil
}

// unpack is the content of a strip or tile: so many rows.
func (t *tiffImage) unpack(offset, size, rows int) ([]byte, error) {
	if offset > len(t.data) || size > len(t.data)-offset {
		return nil, io.ErrUnexpectedEOF
	}
	packed := t.data[offset:][:size]
	wide := t.rowBytes(t.blockWidth)
	var from io.Reader
	switch c := t.tag(tagCompression, 1); c {
	case 1:
		from = bytes.NewReader(packed)
	case 5:
		r := lzw.NewReader(bytes.NewReader(packed), lzw.MSB, 8)
		defer r.Close()
		from = r
	case 8, 32946:
		r, err := zlib.NewReader(bytes.NewReader(packed))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		from = r
	case 32773:
		from = bytes.NewReader(unpackBits(packed, rows*wide))
	default:
		name := map[int]string{2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 34925: "LZMA", 50000: "zstd", 50001: "WebP"}[c]
		return nil, fmt.Errorf("compression %d (%s); %s", c, name, asPNG)
	}
	block := make([]byte, rows*wide)
	if _, err := io.ReadFull(from, block); err != nil {
		return nil, err
	}
	if t.tag(tagPredictor, 1) == 2 {
		t.undiff(block, wide)
	}
	return block, nil
}

// unpackBits undoes PackBits (TIFF 6.0, section 9), up to most bytes.
func unpackBits(in []byte, most int) []byte {
	var out []byte
	for len(in) > 1 && len(out) < most {
		n := int(int8(in[0]))
		in = in[1:]
		switch {
		case n >= 0:
			n = min(n+1, len(in))
			out = append(out, in[:n]...)
			in = in[n:]
		case n > -128:
			out = append(out, bytes.Repeat(in[:1], 1-n)...)
			in = in[1:]
		}
	}
	return out[:min(len(out), most)]
}

// undiff adds to each sample the one of the pixel before (TIFF 6.0, section 14).
func (t *tiffImage) undiff(block []byte, wide int) {
	samples := t.samples / t.planes
	for ; len(block) >= wide; block = block[wide:] {
		row := block[:wide]
		if t.bits == 8 {
			for i := samples; i < wide; i++ {
				row[i] += row[i-samples]
			}
			continue
		}
		for i := 2 * samples; i+1 < wide; i += 2 {
			t.order.PutUint16(row[i:], t.order.Uint16(row[i:])+t.order.Uint16(row[i-2*samples:]))
		}
	}
}

// sample gives sample c of pixel x of a row y as it is stored.
func (t *tiffImage) sample(raw []byte, y, x, c int) int {
	row := t.rowBytes(t.width)
	if t.planes > 1 {
		return int(raw[(c*t.height+y)*row+x])
	}
	line := raw[y*row:]
	i := x*t.samples + c
	switch t.bits {
	case 8:
		return int(line[i])
	case 16:
		return int(t.order.Uint16(line[2*i:]))
	}
	return int(line[i*t.bits/8]) >> (8 - t.bits - i*t.bits%8) & (1<<t.bits - 1)
}

// toRGB makes RGB of the pixels, as Pillow's unpackers and its convert("RGB") do.
func (t *tiffImage) toRGB(im *Image, raw []byte) error {
	high := 0 // bits that are dropped of a sample
	if t.bits == 16 {
		high = 8
	}
	var pixel func(y, x int, out []uint8)
	extra := t.tag(tagExtraSamples, 0)
	switch t.photometric {
	case 0, 1:
		im.Converted = []Conversion{Grey}
		most := 1<<t.bits - 1
		pixel = func(y, x int, out []uint8) {
			v := t.sample(raw, y, x, 0)
			switch {
			case t.bits == 16:
				v = min(v, 255) // also where white is 0
			case t.photometric == 0:
				v = (most - v) * 255 / most
			default:
				v = v * 255 / most
			}
			out[0], out[1], out[2] = uint8(v), uint8(v), uint8(v)
		}
		if t.bits == 16 {
			im.Converted = []Conversion{ClippedGrey}
		}
	case 2:
		pixel = func(y, x int, out []uint8) {
			for c := range 3 {
				out[c] = uint8(t.sample(raw, y, x, c) >> high)
			}
			if extra == 1 && t.samples > 3 {
				unmultiply(out, t.sample(raw, y, x, 3)>>high)
			}
		}
	case 3:
		table := t.tags[tagColorMap]
		n := len(table) / 3
		if n == 0 {
			return errors.New("a palette without colours")
		}
		im.Converted = []Conversion{Palette}
		pixel = func(y, x int, out []uint8) {
			if v := t.sample(raw, y, x, 0); v < n {
				for c := range 3 {
					out[c] = uint8(table[c*n+v] >> 8)
				}
			}
		}
	case 5:
		im.Converted = []Conversion{CMYK}
		pixel = func(y, x int, out []uint8) {
			var complements [4]uint8
			for c := range complements {
				complements[c] = uint8(255 - t.sample(raw, y, x, c)>>high)
			}
			rgbOfCMYK(out, complements[:])
		}
	}
	if high > 0 && t.photometric > 1 {
		im.Converted = append(im.Converted, Bits16)
	}
	if colors := map[int]int{2: 3, 5: 4}[t.photometric]; t.samples > max(colors, 1) {
		im.Converted = append(im.Converted, Alpha)
	}
	eachRow(*im, func(y int, out []uint8) {
		for x := range im.Width {
			pixel(y, x, out[3*x:3*x+3])
		}
	})
	return nil
}

// unmultiply divides colours by the alpha that they were multiplied by.
func unmultiply(out []uint8, alpha int) {
	for c := range out {
		switch alpha {
		case 0:
			out[c] = 0
		case 255:
		default:
			out[c] = uint8(min(255, int(out[c])*255/alpha))
		}
	}
}

// turn puts an image upright whose first row and column lie where an EXIF orientation of 1
// to 8 says; others leave it as it is.
func turn(im Image, orientation int) Image {
	if orientation < 2 || orientation > 8 {
		return im
	}
	out := Image{Height: im.Height, Width: im.Width, Pixels: make([]uint8, len(im.Pixels)), Converted: im.Converted}
	if orientation > 4 {
		out.Height, out.Width = im.Width, im.Height
	}
	for y := range out.Height {
		for x := range out.Width {
			fromY, fromX := y, x
			if orientation > 4 {
				fromY, fromX = x, y
			}
			if orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8 {
				fromX = im.Width - 1 - fromX
			}
			if orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7 {
				fromY = im.Height - 1 - fromY
			}
			copy(out.Pixels[3*(y*out.Width+x):][:3], im.Pixels[3*(fromY*im.Width+fromX):])
		}
	}
	return out
}
