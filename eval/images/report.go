package images

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Conversion is something that was done to an image to make it RGB of 8 bits.
type Conversion string

// Conversions, as Pillow's convert("RGB") does them.
const (
	Grey        Conversion = "grey"    // one channel repeated over three
	Palette     Conversion = "palette" // indices replaced by colours
	Alpha       Conversion = "alpha"   // dropped; transparent pixels keep the colour that they have in the file
	CMYK        Conversion = "cmyk"    // (255−C)·(255−K)/255, …
	Bits16      Conversion = "16-bit"  // the high byte of each channel
	ClippedGrey Conversion = "grey16"  // grey of 16 bits: min(v, 255), which is nearly white
)

// said is how people are told, after "in 3 images".
var said = map[Conversion]string{
	Grey:        "grey is repeated over three channels",
	Palette:     "the palette is replaced by its colours",
	Alpha:       "transparency is dropped, not composited",
	CMYK:        "CMYK is converted to RGB without a colour profile",
	Bits16:      "of 16 bits a channel the high byte is kept",
	ClippedGrey: "grey of 16 bits is clipped at 255, which is nearly all white, as Pillow does: save these with 8 bits",
}

// A Broken image is one that cannot be decoded.
type Broken struct {
	Name string
	Err  error
}

// A Report tells what decoding a set has met.
type Report struct {
	Decoded   int
	Converted map[Conversion]int // images by what was done to them
	Broken    []Broken           // in the order of the set
}

// count adds an image.
func (r *Report) count(done []Conversion) {
	r.Decoded++
	for _, c := range done {
		if r.Converted == nil {
			r.Converted = map[Conversion]int{}
		}
		r.Converted[c]++
	}
}

// Notes are the report's lines for people: what was converted, and how many
// were left out.
func (r Report) Notes() []string {
	var lines []string
	for _, c := range slices.Sorted(maps.Keys(r.Converted)) {
		lines = append(lines, fmt.Sprintf("in %s %s", plural(r.Converted[c], "image"), said[c]))
	}
	if len(r.Broken) > 0 {
		lines = append(lines, fmt.Sprintf("%s left out as broken: %s", plural(len(r.Broken), "image"), listed(r.Broken, ", ")))
	}
	return lines
}

// A BrokenError lists the broken images of a set, all of them.
type BrokenError struct {
	Path   string
	N      int // images of the set, the broken ones included
	Broken []Broken
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("%s: %d of %s broken; remove or replace them, or leave them out with --skip-broken:\n  %s",
		e.Path, len(e.Broken), plural(e.N, "image"), listed(e.Broken, "\n  "))
}

func listed(broken []Broken, separator string) string {
	var lines []string
	for _, b := range broken {
		lines = append(lines, fmt.Sprintf("%s: %v", b.Name, b.Err))
	}
	return strings.Join(lines, separator)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
