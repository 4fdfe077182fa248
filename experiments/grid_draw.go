package main

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// Distances in the picture, in its pixels.
const (
	gridGap    = 2 // between images
	gridRowGap = 8 // between rows
	gridMargin = 6 // around the labels
)

// A gridLayout holds the sizes that follow from the images and labels.
type gridLayout struct {
	scale, columns       int
	lines                int // of images in a row
	cellHeight, cellWide int
	labelWide, rowHeight int
}

func (g *sampleGrid) layout() gridLayout {
	l := gridLayout{scale: g.scale, columns: g.columns}
	height, width, textLines, characters := 0, 0, 0, 0
	for _, r := range g.rows {
		height, width, textLines = max(height, r.height), max(width, r.width), max(textLines, len(r.text))
		for _, line := range r.text {
			characters = max(characters, len(printable(line)))
		}
	}
	if l.scale == 0 {
		l.scale = max(1, (64+width-1)/width)
	}
	if l.columns == 0 {
		l.columns = min(g.images, 16)
	}
	l.columns = min(l.columns, g.images)
	l.lines = (g.images + l.columns - 1) / l.columns
	l.cellHeight, l.cellWide = height*l.scale+gridGap, width*l.scale+gridGap
	l.labelWide = characters*basicfont.Face7x13.Advance + 2*gridMargin
	l.rowHeight = max(l.lines*l.cellHeight, textLines*basicfont.Face7x13.Height+gridMargin) + gridRowGap
	return l
}

// draw lays the rows under each other, their labels at the left, on white.
func (g *sampleGrid) draw() (*image.RGBA, error) {
	l := g.layout()
	width, height := l.labelWide+l.columns*l.cellWide, len(g.rows)*l.rowHeight
	if int64(width)*int64(height) > maxGridPixels {
		return nil, fmt.Errorf("grid: the picture would have %d×%d pixels; choose fewer images, or a smaller --scale", width, height)
	}
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.Draw(picture, picture.Bounds(), image.White, image.Point{}, draw.Src)
	for i, r := range g.rows {
		top := i*l.rowHeight + gridRowGap/2
		text := font.Drawer{Dst: picture, Src: image.Black, Face: basicfont.Face7x13}
		for j, line := range r.text {
			text.Dot = fixed.P(gridMargin, top+j*basicfont.Face7x13.Height+basicfont.Face7x13.Ascent)
			text.DrawString(printable(line))
		}
		for j, pixels := range r.images {
			at := image.Pt(l.labelWide+j%l.columns*l.cellWide, top+j/l.columns*l.cellHeight)
			r.enlarge(picture, at, pixels, l.scale)
		}
	}
	return picture, nil
}

// enlarge draws an image at a place, every pixel as a square.
func (r *gridRow) enlarge(picture *image.RGBA, at image.Point, pixels []uint8, scale int) {
	for y := range r.height * scale {
		for x := range r.width * scale {
			p := pixels[(y/scale*r.width+x/scale)*3:]
			picture.SetRGBA(at.X+x, at.Y+y, color.RGBA{p[0], p[1], p[2], 255})
		}
	}
}

// printable spells what the font has no glyph for: it knows ASCII.
func printable(s string) string {
	s = strings.NewReplacer("×", "x", "—", "-", "–", "-", "σ", "sigma", "η", "eta", "≤", "<=", "≥", ">=").Replace(s)
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
