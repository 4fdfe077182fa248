package images

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/fuzzing"
)

// testdata/pillow holds files that Pillow 13.0 with libjpeg-turbo 3.2 and libwebp
// 1.6 wrote (440.jpg and 411.jpg: simplejpeg; PNG files of all depths: by hand),
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
	if n < 50 {
		t.Errorf("%d files, want 50", n)
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
		"rgb8.png":         nil,
		"rgb8-trns.png":    {Alpha},
		"rgb16.png":        {Bits16},
		"rgba8.png":        {Alpha},
		"grey8.png":        {Grey},
		"grey8-trns.png":   {Grey, Alpha},
		"grey16.png":       {ClippedGrey},
		"grey-alpha8.png":  {Grey, Alpha},
		"palette4.png":     {Palette},
		"420-narrow.jpg":   nil,
		"grey.jpg":         {Grey},
		"cmyk.jpg":         {CMYK},
		"lossy.webp":       nil,
		"lossless.webp":    nil,
		"lossy-alpha.webp": {Alpha},
		"bmp24.bmp":        nil,
		"bmpp.bmp":         {Palette},
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
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":          {nil, "is empty"},
		"text":             {[]byte("hello, this is no image"), "no PNG, JPEG, WebP or BMP"},
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
		"animated WebP":    {slices.Concat([]byte("RIFF\x40\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x03\x00\x00ANIM\x06\x00\x00\x00"), make([]byte, 6)), "WebP that cannot be decoded: it is animated"},
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
