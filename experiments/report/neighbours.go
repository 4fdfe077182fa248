package report

import (
	"bytes"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"io"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

// cellText is how many characters fit below a thumbnail at least.
const cellText = 11

// drawNeighbours draws a row for each sample: the sample at the left, then the reference
// images that are nearest to it, names and distances below. Pixels are enlarged to squares,
// none is resized.
func drawNeighbours(n *store.Neighbours) ([]byte, error) {
	high, wide, columns := 0, 0, 0
	each := func(visit func(row, column int, p *store.Picture, lines []string)) {
		for i, s := range n.Samples {
			visit(i, 0, s.Picture, []string{s.Name})
			for k, near := range s.Nearest {
				visit(i, k+1, near.Picture, []string{telling(near.Distance, 4), near.Name})
			}
		}
	}
	each(func(_, column int, p *store.Picture, _ []string) {
		high, wide, columns = max(high, p.Image.Height), max(wide, p.Image.Width), max(columns, column+1)
	})
	if wide == 0 {
		return nil, fmt.Errorf("neighbours: there are no images to show")
	}
	scale := max(1, (64+wide-1)/wide)
	letter := basicfont.Face7x13
	cell := image.Pt(max(wide*scale, cellText*letter.Advance)+2*gridMargin, high*scale+2*letter.Height+gridRowGap)
	const gap = 3 * gridMargin // between the samples and what is near them
	top := letter.Height + gridMargin
	size := image.Pt(gridMargin+columns*cell.X+gap, top+len(n.Samples)*cell.Y)
	if int64(size.X)*int64(size.Y) > maxGridPixels {
		return nil, fmt.Errorf("neighbours: the picture would have %d×%d pixels, more than %d; ask for fewer neighbours, or samples with --closest", size.X, size.Y, maxGridPixels)
	}
	picture := image.NewRGBA(image.Rectangle{Max: size})
	draw.Draw(picture, picture.Bounds(), image.White, image.Point{}, draw.Src)
	text := font.Drawer{Dst: picture, Src: image.Black, Face: letter}
	write := func(x, y int, line string, most int) {
		line = printable(line)
		if over := len(line) - most; over > 0 { // the end tells names apart
			line = ".." + line[over+2:]
		}
		text.Dot = fixed.P(x, y+letter.Ascent)
		text.DrawString(line)
	}
	left := func(column int) int {
		if column == 0 {
			return gridMargin
		}
		return gridMargin + gap + column*cell.X
	}
	write(left(0), gridMargin/2, "sample", cellText)
	write(left(1), gridMargin/2, "nearest in the reference, distance", (size.X-left(1))/letter.Advance)
	most := (cell.X - gridMargin) / letter.Advance
	each(func(row, column int, p *store.Picture, lines []string) {
		at := image.Pt(left(column), top+row*cell.Y)
		r := gridRow{height: p.Image.Height, width: p.Image.Width}
		r.enlarge(picture, at, p.Image.Pixels, scale)
		for i, line := range lines {
			write(at.X, at.Y+p.Image.Height*scale+i*letter.Height, line, most)
		}
	})
	var out bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestCompression}
	if err := e.Encode(&out, picture); err != nil {
		return nil, fmt.Errorf("neighbours: %w", err)
	}
	return out.Bytes(), nil
}

// printNeighbours draws a table of the samples that are closest to the reference.
func printNeighbours(w io.Writer, n *store.Neighbours) error {
	if n == nil {
		return nil
	}
	fmt.Fprintln(w, "\n"+human.Wrap(fmt.Sprintf("closest to the reference, by features of %s, of %s reference images", n.Network, human.Count(n.Reference)), human.Columns(w), 2))
	t := human.Table{Fixed: 1, Align: "llr", Head: []string{"sample", "nearest", "distance"}}
	for _, s := range n.Samples {
		t.Lines = append(t.Lines, []string{oneLine(s.Name), oneLine(s.Nearest[0].Name), telling(s.Nearest[0].Distance, 4)})
	}
	return writeTable(w, t)
}
