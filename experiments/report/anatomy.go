package report

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/experiments/report/page"
	"sagbench/experiments/store"
)

// anatomyBytes is what the pictures of all anatomies of a page may take.
const anatomyBytes = 700 << 10

// anatomies are the traces of the rows that have one, as many as fit; unshown says
// which do not.
func anatomies(rows []*store.Metrics) (out []page.Anatomy, unshown string, err error) {
	size := 0
	for _, m := range rows {
		t, err := store.ReadTrace(filepath.Join(m.Folder, store.TraceFile))
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(t.Steps) == 0 {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		a, taken, err := anatomyOf(oneLine(m.Title()), t)
		if err != nil {
			return nil, "", err
		}
		if size += taken; size > anatomyBytes {
			return out, fmt.Sprintf("That of %q and of rows after it would make this file too large; `sagbench grid --trace` draws them.", oneLine(m.Title())), nil
		}
		out = append(out, a)
	}
	return out, "", nil
}

// anatomyOf are the pictures of a trace, a line for each image and step; size is what
// they take.
func anatomyOf(label string, t *store.Trace) (a page.Anatomy, size int, err error) {
	a = page.Anatomy{Label: label}
	for n := range t.Images {
		for _, s := range t.Steps {
			line := page.AnatomyLine{Label: fmt.Sprintf("image %d, t\u00a0=\u00a0%.4g", n, s.Time)}
			a.Columns = nil
			for _, p := range picturesOf(t, s, n) {
				picture, err := storedImage(p.pixels, t.Width, t.Height)
				if err != nil {
					return a, size, err
				}
				size += len(picture.Data)
				a.Columns, line.Images = append(a.Columns, p.name), append(line.Images, picture)
			}
			a.Lines = append(a.Lines, line)
		}
	}
	return a, size, nil
}

// An anatomyPicture is one of a step's pictures, [H,W,3].
type anatomyPicture struct {
	name   string
	pixels []uint8
}

// picturesOf are the pictures of image n at a step, in the order of the method.
func picturesOf(t *store.Trace, s store.TraceStep, n int) []anatomyPicture {
	size := t.Height * t.Width * 3
	xStart, degraded, guided := s.XStart[n*size:][:size], s.Degraded[n*size:][:size], s.Guided[n*size:][:size]
	out := []anatomyPicture{{"x̂0", xStart}}
	if !s.Attention.IsZero() {
		out = append(out, anatomyPicture{"attention", overlay(t, xStart, s.Attention.Row(n))})
	}
	mask := make([]uint8, size)
	for i := range mask {
		at := i / 3
		if s.Mask.Row(n)[nearest(at/t.Width, t.Height, s.Mask.Shape[2])*s.Mask.Shape[3]+nearest(at%t.Width, t.Width, s.Mask.Shape[3])] > 0 {
			mask[i] = 255
		}
	}
	change := make([]uint8, size)
	for i := range change {
		change[i] = uint8(min(max(128+4*(int(guided[i])-int(xStart[i])), 0), 255))
	}
	return append(out, anatomyPicture{"mask", mask}, anatomyPicture{"blurred", degraded}, anatomyPicture{"change × 4", change})
}

// nearest is the place of i of n among m.
func nearest(i, n, m int) int { return i * m / n }

// overlay paints attention [P] over a grey picture: from blue, none, to orange, the
// most that the image has.
func overlay(t *store.Trace, pixels []uint8, attention []float32) []uint8 {
	height, width := gridOf(len(attention), t.Height, t.Width)
	most := max(slices.Max(attention), 1e-12)
	out := make([]uint8, len(pixels))
	for at := range t.Height * t.Width {
		grey := (float32(pixels[3*at]) + float32(pixels[3*at+1]) + float32(pixels[3*at+2])) / 3
		a := attention[nearest(at/t.Width, t.Height, height)*width+nearest(at%t.Width, t.Width, width)] / most
		for c, tone := range [3][2]float32{{0, 230}, {60, 159}, {120, 0}} {
			out[3*at+c] = uint8(0.45*grey + 0.55*(tone[0]+(tone[1]-tone[0])*a))
		}
	}
	return out
}

// gridOf is the height and width of a map of so many positions of an image of
// height×width, each a whole number of times smaller.
func gridOf(positions, height, width int) (h, w int) {
	for k := 1; k <= max(height, width); k++ {
		if h, w = height/k, width/k; h*w == positions {
			return h, w
		}
	}
	return 1, positions
}

// readTraces gets the pictures of the traces of all runs.
func (g *Grid) readTraces(_ context.Context, args []string) error {
	found, err := findRows(args, g.Rows)
	if err != nil {
		return err
	}
	for _, m := range found {
		t, err := store.ReadTrace(filepath.Join(m.Folder, store.TraceFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for n := g.First; n < t.Images && (g.Images == 0 || n < g.First+g.Images); n++ {
			for _, s := range t.Steps {
				r := gridRow{height: t.Height, width: t.Width, text: append(gridLabel(m, nil), fmt.Sprintf("image %d, t = %.4g", n, s.Time))}
				for _, p := range picturesOf(t, s, n) {
					r.images = append(r.images, p.pixels)
				}
				g.rows = append(g.rows, r)
			}
		}
	}
	if len(g.rows) == 0 {
		return fmt.Errorf("grid: %s: no trace of these images; `sagbench run EXPERIMENT.yaml trace.images=4 trace.steps=3` makes it, for rows under self-attention guidance", strings.Join(args, ", "))
	}
	g.Images = 0
	for _, r := range g.rows {
		g.Images = max(g.Images, len(r.images))
	}
	return nil
}
