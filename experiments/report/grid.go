package report

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

// A Grid is a picture of samples: a row for each run or file, its label at the
// left, the same image numbers under each other.
type Grid struct {
	Images  int      // of each row; 0: 8, or as many as all rows have
	First   int      // number of the first image, from 0
	Columns int      // images on a line; 0: all, up to 16
	Scale   int      // pixels that a pixel is enlarged to, up to 64; 0: so many that images are at least 64 wide
	Rows    []string // of the runs that are shown, as store.Choose takes them; nil: all
	// Trace shows in place of the samples what self-attention guidance does: a row for
	// each run, image and step of its trace, with the pictures of the anatomy.
	Trace bool
	rows  []gridRow
}

// A gridRow holds the images of one run.
type gridRow struct {
	text          []string // lines of the label
	height, width int
	images        [][]uint8 // [H,W,3] each
}

// Write draws a PNG to path, whole or not at all. args are folders of runs or above
// them, and .npz files of images arr_0 [N,H,W,3]. It is an error where one of them
// has too few images, or images that cannot be read.
func (g *Grid) Write(ctx context.Context, args []string, path string) error {
	if err := g.validate(); err != nil {
		return err
	}
	if err := checkPicture(path); err != nil {
		return human.Misusef("grid: -o: %w", err)
	}
	read := g.read
	if g.Trace {
		read = g.readTraces
	}
	if err := read(ctx, args); err != nil {
		return err
	}
	picture, err := g.draw()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestCompression}
	if err := e.Encode(&out, picture); err != nil {
		return fmt.Errorf("grid: %w", err)
	}
	return store.WriteOutput(path, out.Bytes())
}

// checkPicture is an error where path is no place for a PNG.
func checkPicture(path string) error {
	if err := store.CheckOutput(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	special := err == nil && !info.Mode().IsRegular() // a device or a FIFO has any name
	if ext := filepath.Ext(path); !special && !strings.EqualFold(ext, ".png") {
		return fmt.Errorf("%s: a picture is written as PNG, expected a name that ends in .png", path)
	}
	return nil
}

func (g *Grid) validate() error {
	switch {
	case g.Images < 0:
		return human.Misusef("grid: --images is %d, expected 0 or more", g.Images)
	case g.First < 0:
		return human.Misusef("grid: --first is %d, expected 0 or more", g.First)
	case g.Columns < 0:
		return human.Misusef("grid: --columns is %d, expected 0 or more", g.Columns)
	case g.Scale < 0 || g.Scale > 64:
		return human.Misusef("grid: --scale is %d, expected 0 to 64", g.Scale)
	}
	return nil
}

// usualImages is how many images of each row are shown where nothing else is asked
// for and all rows have them.
const usualImages = 8

// read gets the images of all arguments.
func (g *Grid) read(ctx context.Context, args []string) error {
	files, runs, err := g.find(args)
	if err != nil {
		return err
	}
	wanted := g.First + cmp.Or(g.Images, usualImages)
	all := make([]*store.Images, len(runs))
	for i, m := range runs {
		if m == nil {
			if all[i], err = store.OpenImages(files[i]); err != nil {
				return err
			}
			continue
		}
		all[i] = &store.Images{Folder: filepath.Join(m.Folder, "samples"), Classes: -1}
		var damaged []string
		if err := all[i].Scan(wanted, false, func(note string) { damaged = append(damaged, note) }); err != nil {
			return err
		}
		if len(damaged) > 0 {
			return fmt.Errorf("grid: %s cannot be shown; `sagbench run` or `sample` draws them anew", strings.Join(damaged, "; "))
		}
	}
	g.label(all, runs)
	if err := g.choose(all, wanted); err != nil {
		return err
	}
	for i, s := range all {
		r := &g.rows[i]
		err := s.Each(ctx, store.Span{From: g.First, To: g.First + g.Images}, func(pixels []uint8) error {
			r.images = append(r.images, slices.Clone(pixels))
			return nil
		})
		if err != nil {
			return err
		}
		r.height, r.width = s.Height, s.Width
	}
	return nil
}

// find lists what the arguments name, in their order: the path of a file, or one of the
// chosen runs. The lists are parallel; a run is nil where there is a file.
func (g *Grid) find(args []string) (files []string, runs []*store.Metrics, err error) {
	var all []*store.Metrics
	for _, arg := range args {
		found := []*store.Metrics{nil}
		if !strings.EqualFold(filepath.Ext(arg), ".npz") {
			if found, err = store.FindRuns(arg); err != nil {
				return nil, nil, err
			}
		}
		for _, m := range found {
			files, runs = append(files, arg), append(runs, m)
			if m != nil {
				all = append(all, m)
			}
		}
	}
	if len(g.Rows) == 0 {
		return files, runs, nil
	}
	chosen, err := store.Choose(all, placeOfRun, g.Rows)
	if err != nil {
		return nil, nil, human.Misusef("--rows: %w", err)
	}
	for i := len(runs) - 1; i >= 0; i-- {
		if runs[i] != nil && !slices.Contains(chosen, runs[i]) {
			files, runs = slices.Delete(files, i, i+1), slices.Delete(runs, i, i+1)
		}
	}
	return files, runs, nil
}

// placeOfRun is the place of a run. One that is not scored has no number, and is called
// as its folder is.
func placeOfRun(m *store.Metrics) store.Place {
	if m.Scores != nil {
		return m.Place()
	}
	return store.Place{Names: slices.Compact([]string{folderTitle(m), cmp.Or(m.Label, folderTitle(m))})}
}

// folderTitle is the name of a run's folder without the run id.
func folderTitle(m *store.Metrics) string {
	name := filepath.Base(m.Folder)
	return name[:max(0, strings.LastIndexByte(name, '-'))]
}

// choose checks that all rows have the images below wanted, or settles for as many
// as all of them have where no number was asked for.
func (g *Grid) choose(all []*store.Images, wanted int) error {
	end := wanted
	for _, s := range all {
		for _, m := range s.Missing(end) {
			if m.To <= g.First {
				continue
			}
			if first := max(m.From, g.First); g.Images > 0 || first == g.First {
				return fmt.Errorf("grid: %s: has no image %d; choose fewer with --images, or others with --first", s.Folder, first)
			}
			end = m.From
			break
		}
	}
	g.Images = end - g.First
	return nil
}

// label gives each row the lines in front of it: those of a file its name, those of a
// run what tells it from the others.
func (g *Grid) label(all []*store.Images, runs []*store.Metrics) {
	known := slices.DeleteFunc(slices.Clone(runs), func(m *store.Metrics) bool { return m == nil })
	slices.SortStableFunc(known, func(a, b *store.Metrics) int { return cmp.Compare(a.Experiment, b.Experiment) })
	named, several := namesApart(known, drawn), len(byExperiment(known)) > 1
	for i, m := range runs {
		var r gridRow
		switch {
		case m != nil:
			r.text = gridLabel(m, named[m])
			if several && !slices.Equal(r.text, wrap(m.Experiment, labelWidth)) {
				r.text = slices.Concat(wrap(m.Experiment, labelWidth), r.text)
			}
		case slices.ContainsFunc(all, func(o *store.Images) bool {
			return o != all[i] && filepath.Base(o.Folder) == filepath.Base(all[i].Folder)
		}):
			r.text = []string{all[i].Folder}
		default:
			r.text = []string{strings.TrimSuffix(filepath.Base(all[i].Folder), filepath.Ext(all[i].Folder))}
		}
		g.rows = append(g.rows, r)
	}
}

// labelWidth is about how many characters a line of a label has.
const labelWidth = 24

// gridLabel is the label of the run, what its sweep chose, and what else it is
// called by. A run that is not scored has the name of its folder.
func gridLabel(m *store.Metrics, others []store.Setting) []string {
	var lines []string
	switch {
	case m.Scores == nil:
		lines = []string{folderTitle(m)}
	case m.Label != "":
		lines = wrap(m.Label, labelWidth)
	}
	settings := slices.Concat(m.Settings, others)
	for i, name := range store.SettingNames(settings) {
		lines = append(lines, name+" = "+settings[i].Value)
	}
	if len(lines) == 0 {
		lines = wrap(m.Experiment, labelWidth)
	}
	return lines
}

// wrap breaks a text between words into lines of about n characters.
func wrap(text string, n int) []string {
	var lines []string
	for _, word := range strings.Fields(text) {
		if i := len(lines) - 1; i >= 0 && len(lines[i])+1+len(word) <= n {
			lines[i] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// Sizes in the picture, in its pixels.
const (
	gridGap       = 2       // between images
	gridRowGap    = 8       // between rows
	gridMargin    = 6       // around the labels
	maxGridPixels = 1 << 27 // of the whole picture
)

// A gridLayout holds the sizes that follow from the images and labels.
type gridLayout struct {
	scale, columns       int
	lines                int // of images in a row
	cellHeight, cellWide int
	labelWide, rowHeight int
}

func (g *Grid) layout() gridLayout {
	l := gridLayout{scale: g.Scale, columns: g.Columns}
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
		l.columns = min(g.Images, 16)
	}
	l.columns = min(l.columns, g.Images)
	l.lines = (g.Images + l.columns - 1) / l.columns
	l.cellHeight, l.cellWide = height*l.scale+gridGap, width*l.scale+gridGap
	l.labelWide = characters*basicfont.Face7x13.Advance + 2*gridMargin
	l.rowHeight = max(l.lines*l.cellHeight, textLines*basicfont.Face7x13.Height+gridMargin) + gridRowGap
	return l
}

// draw lays the rows under each other, their labels at the left, on white.
func (g *Grid) draw() (*image.RGBA, error) {
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
