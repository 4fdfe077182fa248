package report

import (
	"bytes"
	"image/color"
	"regexp"

	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgpdf"
)

// pdf draws the figure as PDF.
func (f *figure) pdf() ([]byte, error) {
	c := outlined{vgpdf.New(f.size.width, f.size.height)}
	c.EmbedFonts(false)
	f.draw(draw.New(c))
	var out bytes.Buffer
	_, err := c.WriteTo(&out)
	return pdfDate.ReplaceAll(out.Bytes(), []byte("(D:20000101000000)")), err
}

// pdfDate is when a PDF was made, which is made the same for all so that equal
// results give equal bytes.
var pdfDate = regexp.MustCompile(`\(D:\d{14}\)`)

// outlined is a PDF whose texts are the outlines of their letters: the fonts that PDF
// knows by itself have neither arrows nor Greek.
type outlined struct{ *vgpdf.Canvas }

// FillString implements vg.Canvas. A letter that the font lacks is the font's box.
func (c outlined) FillString(f font.Face, at vg.Point, text string) {
	var buffer sfnt.Buffer
	units := f.Face.UnitsPerEm()
	em := fixed.I(int(units))
	scale := f.Font.Size / vg.Length(units)
	place := func(p fixed.Point26_6) vg.Point {
		return vg.Point{X: at.X + vg.Length(p.X)/64*scale, Y: at.Y - vg.Length(p.Y)/64*scale}
	}
	for _, letter := range text {
		glyph, err := f.Face.GlyphIndex(&buffer, letter)
		if err != nil {
			continue
		}
		segments, err := f.Face.LoadGlyph(&buffer, glyph, em, nil)
		if err != nil {
			continue
		}
		var path vg.Path
		for _, s := range segments {
			switch s.Op {
			case sfnt.SegmentOpMoveTo:
				path.Move(place(s.Args[0]))
			case sfnt.SegmentOpLineTo:
				path.Line(place(s.Args[0]))
			case sfnt.SegmentOpQuadTo:
				path.QuadTo(place(s.Args[0]), place(s.Args[1]))
			case sfnt.SegmentOpCubeTo:
				path.CubeTo(place(s.Args[0]), place(s.Args[1]), place(s.Args[2]))
			}
		}
		if len(path) > 0 {
			path.Close()
			c.Fill(path)
		}
		if advance, err := f.Face.GlyphAdvance(&buffer, glyph, em, 0); err == nil {
			at.X += vg.Length(advance) / 64 * scale
		}
	}
}

// SetColor implements vg.Canvas; nil is black. vgpdf takes the channels for those of
// an opaque colour, where color.Color has multiplied them with the opacity.
func (c outlined) SetColor(of color.Color) {
	if of == nil {
		of = color.Black
	}
	c.Canvas.SetColor(straight(color.NRGBAModel.Convert(of).(color.NRGBA)))
}

// straight is a colour whose channels are not multiplied with its opacity.
type straight color.NRGBA

// RGBA implements color.Color, but for the multiplication.
func (s straight) RGBA() (r, g, b, a uint32) {
	return uint32(s.R) * 0x101, uint32(s.G) * 0x101, uint32(s.B) * 0x101, uint32(s.A) * 0x101
}
