package libjpeg

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// The inverse DCT is within a level of T.81's formula in float64.
func TestIDCT(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	basis := func(x, u int) float64 {
		c := 1.0
		if u == 0 {
			c = math.Sqrt2 / 2
		}
		return c / 2 * math.Cos(float64(2*x+1)*float64(u)*math.Pi/16)
	}
	for range 200 {
		var coefs [64]int16
		var quant [64]uint16
		for k := range coefs {
			quant[k] = uint16(1 + r.IntN(30))
			if r.IntN(4) == 0 || k == 0 {
				coefs[k] = int16(r.IntN(25) - 12)
			}
		}
		var got [64]uint8
		idct(coefs[:], &quant, got[:], 8)
		for i, v := range got {
			want := 128.0
			for k, c := range coefs {
				want += float64(c) * float64(quant[k]) * basis(i/8, k/8) * basis(i%8, k%8)
			}
			if want = min(max(want, 0), 255); math.Abs(float64(v)-want) > 1 {
				t.Fatalf("sample %d is %d, want %.2f", i, v, want)
			}
		}
	}
}

// Interpolated rows, by hand from jdsample.c's weights.
func TestUpsample(t *testing.T) {
	out := make([]uint8, 5)
	h2v1(out, []uint8{10, 20, 40})
	if want := []uint8{10, 13, 17, 25, 35}; !bytes.Equal(out, want) {
		t.Errorf("h2v1: %v, want %v", out, want)
	}
	out = make([]uint8, 6)
	h2v2(out, []int32{40, 80, 160})
	if want := []uint8{10, 12, 18, 25, 35, 40}; !bytes.Equal(out, want) {
		t.Errorf("h2v2: %v, want %v", out, want)
	}
}

// Segments that contradict each other or what can be are errors.
func TestDamagedSegments(t *testing.T) {
	whole, err := os.ReadFile("../testdata/pillow/420-restarts.jpg")
	if err != nil {
		t.Fatal(err)
	}
	at := func(marker byte) int { return bytes.Index(whole, []byte{0xff, marker}) }
	edit := func(offset int, b ...byte) []byte {
		data := bytes.Clone(whole)
		copy(data[offset:], b)
		return data
	}
	frame, scan, table := at(0xc0), at(0xda), at(0xc4)
	crowded := edit(table+5, 3) // three codes of one bit
	for i, n := range crowded[table+6 : table+21] {
		if n >= 3 {
			crowded[table+6+i] -= 3
			break
		}
	}
	segment := whole[frame : frame+2+be16(whole[frame+2:])]
	for want, data := range map[string][]byte{
		"does not begin":                  whole[2:],
		"12 bits a sample":                edit(frame+4, 12),
		"0 pixels":                        edit(frame+5, 0, 0),
		"a damaged frame header":          edit(frame+11, 0x50),
		"sampling factors":                edit(frame+11, 0x32, whole[frame+12], whole[frame+13], 0x21),
		"two components are numbered":     edit(frame+13, whole[frame+10]),
		"two frames":                      append(append(bytes.Clone(whole[:scan]), segment...), whole[scan:]...),
		"a damaged scan header":           edit(scan+5, 99),
		"a Huffman table is missing":      edit(scan+6, 0x33),
		"too many codes":                  crowded,
		"a restart marker is missing":     edit(at(0xd0)+1, 0xd5),
		"a segment of length 1":           edit(frame+2, 0, 1),
		"a damaged quantization table":    edit(at(0xdb)+4, 0x0f),
		"before the frame":                append(bytes.Clone(whole[:frame]), whole[frame+len(segment):]...),
		"arithmetic coding":               edit(table+1, markerDAC),
		"no image":                        {0xff, markerSOI, 0xff, markerEOI},
		"quantization table 3 is missing": edit(frame+12, 3),
	} {
		if _, err := Decode(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
