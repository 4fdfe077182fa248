package images

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/fuzzing"
)

// testdata/pillow holds files that Pillow 13.0 with libjpeg-turbo 3.2 and libwebp
// 1.6 wrote (440.jpg and 411.jpg: simplejpeg; tiles, planes, big-endian and deep TIFF
// files: tifffile; PNG files of all depths, PPM files and the rest: by hand),
// and sums.txt the sha256 of numpy.asarray(Image.open(file).convert("RGB")).
func TestPixelsEqualPillow(t *testing.T) {
	list, err := os.Open("testdata/pillow/sums.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	n := 0
	for lines := bufio.NewScanner(list); lines.Scan(); n++ {
		var want, size, name string
		if _, err := fmt.Sscan(lines.Text(), &want, &size, &name); err != nil {
			t.Fatal(err)
		}
		im, err := Decode(readFile(t, "testdata/pillow/"+name), DefaultMaxPixels)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := fmt.Sprintf("%dx%d", im.Height, im.Width); got != size {
			t.Errorf("%s: %s, want %s", name, got, size)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(im.Pixels)); got != want {
			t.Errorf("%s: other pixels than Pillow's", name)
		}
	}
	if n < 110 {
		t.Errorf("%d files, want 110", n)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestConversions(t *testing.T) {
	for name, want := range map[string][]Conversion{
		"rgb8.png":                  nil,
		"rgb8-trns.png":             {Alpha},
		"rgb16.png":                 {Bits16},
		"rgba8.png":                 {Alpha},
		"grey8.png":                 {Grey},
		"grey8-trns.png":            {Grey, Alpha},
		"grey16.png":                {ClippedGrey},
		"grey-alpha8.png":           {Grey, Alpha},
		"palette4.png":              {Palette},
		"420-narrow.jpg":            nil,
		"grey.jpg":                  {Grey},
		"cmyk.jpg":                  {CMYK},
		"lossy.webp":                nil,
		"lossless.webp":             nil,
		"lossy-alpha.webp":          {Alpha},
		"bmp24.bmp":                 nil,
		"animated.png":              {Alpha, Animated},
		"animated.gif":              {Palette, Animated},
		"a.gif":                     {Palette},
		"transparent.gif":           {Palette, Alpha},
		"animated-lossy.webp":       {Animated},
		"animated-lossy-alpha.webp": {Alpha, Animated},
		"rgb-lzw.tif":               nil,
		"rgba.tif":                  {Alpha},
		"cmyk16.tif":                {CMYK, Bits16},
		"grey16.tif":                {ClippedGrey},
		"grey-alpha.tif":            {Grey, Alpha},
		"palette4.tif":              {Palette},
		"pages.tif":                 {Page},
		"rgb16-big.tif":             {Bits16},
		"a.ppm":                     nil,
		"max65535.ppm":              {Bits16},
		"a.pbm":                     {Grey},
		"max65535.pgm":              {ClippedGrey},
		"bmpp.bmp":                  {Palette},
	} {
		im, err := Decode(readFile(t, "testdata/pillow/"+name), DefaultMaxPixels)
		if err != nil || !slices.Equal(im.Converted, want) {
			t.Errorf("%s: %v %v, want %v", name, im.Converted, err, want)
		}
	}
}

// pngFile is a PNG file of that header whose pixel data is packed.
func pngFile(width, height uint32, depth, colorType byte, packed []byte) []byte {
	var out bytes.Buffer
	out.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		binary.Write(&out, binary.BigEndian, uint32(len(data)))
		body := append([]byte(kind), data...)
		out.Write(body)
		binary.Write(&out, binary.BigEndian, crc32.ChecksumIEEE(body))
	}
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, width), height)
	chunk("IHDR", append(header, depth, colorType, 0, 0, 0))
	chunk("IDAT", packed)
	chunk("IEND", nil)
	return out.Bytes()
}

func deflated(data []byte) []byte {
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	z.Write(data)
	z.Close()
	return out.Bytes()
}

// Whatever is broken is an error that says so, before memory is taken.
func TestBrokenImages(t *testing.T) {
	jpeg := readFile(t, "testdata/pillow/420-restarts.jpg")
	huge := bytes.Clone(jpeg)
	at := bytes.Index(huge, []byte{0xff, 0xc0})
	copy(huge[at+5:], []byte{0x1f, 0xff, 0x1f, 0xff}) // 8191×8191
	canvas := readFile(t, "testdata/pillow/lossy-alpha.webp")
	canvas[24]++
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"other canvas":     {canvas, ", its canvas "},
		"nothing":          {nil, "is empty"},
		"text":             {[]byte("hello, this is no image"), "no PNG, JPEG, WebP, BMP, GIF, TIFF or PPM"},
		"huge PNG":         {pngFile(1<<20, 1<<20, 8, 2, nil), "more than the 67108864 that are read"},
		"bomb PNG":         {pngFile(8000, 8000, 8, 2, deflated(nil)), "cannot hold 64000000 pixels"},
		"short PNG":        {pngFile(2, 2, 8, 2, deflated([]byte{0, 1, 2, 3})), "not enough pixel data"},
		"cut PNG":          {readFile(t, "testdata/pillow/rgb8.png")[:60], "not enough pixel data"},
		"cut JPEG":         {jpeg[:len(jpeg)-20], "truncated"},
		"JPEG header":      {jpeg[:30], "truncated"},
		"huge JPEG":        {huge, "truncated"},
		"cut WebP":         {readFile(t, "testdata/pillow/lossy.webp")[:100], "truncated"},
		"cut BMP":          {readFile(t, "testdata/pillow/bmp24.bmp")[:100], "truncated"},
		"JPEG of another":  {bytes.Replace(jpeg, []byte{0xff, 0xc0}, []byte{0xff, 0xc3}, 1), "FFC3 is not supported"},
		"cut progressive":  {readFile(t, "testdata/pillow/420-progressive.jpg")[:700], "truncated"},
		"lacking a scan":   {endEarly(t, "testdata/pillow/420-progressive.jpg"), "scans are not all there"},
		"animated WebP":    {slices.Concat([]byte("RIFF\x40\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x03\x00\x00ANIM\x06\x00\x00\x00"), make([]byte, 6)), "WebP that cannot be decoded: there is no frame in it"},
		"AVIF":             {[]byte("\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1"), "is AVIF, which is not read; save it as PNG"},
		"HEIC":             {[]byte("\x00\x00\x00\x1cftypheic\x00\x00\x00\x00"), "is HEIC, which is not read"},
		"JPEG XL":          {[]byte("\xff\x0a\xfa\x1f\x01"), "is JPEG XL, which is not read"},
		"BigTIFF":          {[]byte("II+\x00\x08\x00\x00\x00"), "is BigTIFF"},
		"LFS":              {[]byte("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"},
		"bomb PPM":         {[]byte("P6 8000 8000 255\n123"), "cannot hold 64000000 pixels"},
		"bomb plain PPM":   {[]byte("P3 8000 8000 255\n1 2 3"), "cannot hold 64000000 pixels"},
		"huge PPM":         {[]byte("P6 999999999 999999999 255\n123"), "more than the 67108864 that are read"},
		"wide PPM":         {[]byte("P6 2 2 70000\n123"), "largest value 70000"},
		"cut PPM":          {readFile(t, "testdata/pillow/a.ppm")[:100], "truncated"},
		"cut plain PGM":    {readFile(t, "testdata/pillow/plain.pgm")[:165], "truncated"},
		"large plain PGM":  {[]byte("P2 2 1 7\n1 8 "), "a value is 8, more than the largest one, 7"},
		"odd plain PGM":    {[]byte("P2 2 1 7\n1 x "), "expected a number"},
		"odd plain PBM":    {[]byte("P1 2 1\n1 2 "), "expected 0 or 1"},
		"cut GIF":          {readFile(t, "testdata/pillow/a.gif")[:100], "truncated"},
		"bomb GIF":         {slices.Concat([]byte("GIF89a\x40\x1f\x40\x1f\x00\x00\x00,\x00\x00\x00\x00\x40\x1f\x40\x1f\x00\x02\x02\x44\x01\x00;")), "cannot hold 64000000 pixels"},
		"empty GIF":        {[]byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;"), "there is no image in it"},
		"cut TIFF":         {readFile(t, "testdata/pillow/rgb.tif")[:200], "truncated"},
		"bomb TIFF":        {tiffOf(map[int]int{tagWidth: 8000, tagHeight: 8000, tagBits: 8, tagCompression: 8, tagPhotometric: 2, tagSamples: 3, tagStripOffsets: 8, tagStripBytes: 4}), "cannot hold 64000000 pixels"},
		"tiled TIFF bomb":  {append(tiffOf(map[int]int{tagWidth: 1, tagHeight: 1 << 20, tagBits: 8, tagCompression: 8, tagPhotometric: 1, tagTileWidth: 1024, tagTileHeight: 1 << 20, tagTileOffsets: 8, tagTileBytes: 4}), make([]byte, 1000)...), "pixels in tiles"},
		"float TIFF":       {tiffOf(map[int]int{tagWidth: 1, tagHeight: 1, tagBits: 32, tagPhotometric: 1, tagStripOffsets: 8, tagStripBytes: 4, tagSampleFormat: 3}), "floating point"},
		"YCbCr TIFF":       {tiffOf(map[int]int{tagWidth: 1, tagHeight: 1, tagBits: 8, tagPhotometric: 6, tagSamples: 3, tagStripOffsets: 8, tagStripBytes: 3}), "colours of kind 6; which is not read; save it as PNG"},
		"JPEG in TIFF":     {tiffOf(map[int]int{tagWidth: 1, tagHeight: 1, tagBits: 8, tagCompression: 7, tagPhotometric: 1, tagStripOffsets: 8, tagStripBytes: 3}), "compression 7 (JPEG)"},
		"animated by name": {[]byte("RIFF\x04\x00\x00\x00WEBP"), "WebP that cannot be decoded"},
	} {
		_, err := Decode(c.data, DefaultMaxPixels)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := Decode(readFile(t, "testdata/pillow/rgb8.png"), 34); err == nil {
		t.Error("35 pixels were read where 34 are the most")
	}
}

// tiffOf is a TIFF file of those tags, without pixels.
func tiffOf(tags map[int]int) []byte {
	out := append([]byte("II*\x00\x08\x00\x00\x00"), byte(len(tags)), 0)
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		out = binary.LittleEndian.AppendUint16(out, uint16(tag))
		out = append(out, 4, 0, 1, 0, 0, 0)
		out = binary.LittleEndian.AppendUint32(out, uint32(tags[tag]))
	}
	return append(out, 0, 0, 0, 0)
}

// endEarly is a progressive file that ends before its last scan.
func endEarly(t *testing.T, path string) []byte {
	data := readFile(t, path)
	last := bytes.LastIndex(data, []byte{0xff, 0xda})
	return append(bytes.Clone(data[:last]), 0xff, 0xd9)
}

// A JPEG file that lacks its end marker alone is read, as Pillow does.
func TestJPEGWithoutEnd(t *testing.T) {
	data := readFile(t, "testdata/pillow/444-narrow.jpg")
	whole, err := Decode(data, DefaultMaxPixels)
	if err != nil {
		t.Fatal(err)
	}
	cut, err := Decode(data[:len(data)-2], DefaultMaxPixels)
	if err != nil || !slices.Equal(cut.Pixels, whole.Pixels) {
		t.Errorf("without its end marker: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	names, err := filepath.Glob("testdata/pillow/*.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		f.Add(readFile(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const maxPixels = 1 << 16
		var im Image
		var err error
		fuzzing.Bounded(t, len(data)+maxPixels, 64, func() { im, err = Decode(data, maxPixels) })
		if err == nil && (im.Height < 1 || im.Width < 1 || len(im.Pixels) != im.Height*im.Width*3) {
			t.Errorf("%d×%d pixels in %d bytes", im.Height, im.Width, len(im.Pixels))
		}
	})
}
