package main

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/eval/npz"
)

func gridCommand() *cobra.Command {
	g := sampleGrid{images: 8}
	output := ""
	c := &cobra.Command{
		Use:   "grid RESULTS... -o FILE.png",
		Short: "draw images of several rows under each other",
		Long: `Draws a PNG with the first images of each row: what stands in one column has the
same number, so it started from the same noise (and has the same label), and the
rows differ by what the text at the left says.

RESULTS are runs' folders or folders above them, whose runs come in the order of
the table, and .npz files with arr_0 [N,H,W,3] uint8, such as a reference batch.`,
		Example: `  sagbench grid results/table1-fashion -o grid.png
  sagbench grid results/table1-fashion/*s=0-* results/table1-fashion/*s=0.8-* -o grid.png --images 16`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := g.validate(); err != nil {
				return err
			}
			if err := g.read(cmd.Context(), args); err != nil {
				return err
			}
			data, err := g.encode()
			if err != nil {
				return err
			}
			return writeWhole(output, data)
		},
	}
	f := c.Flags()
	f.StringVarP(&output, "output", "o", "", "file to write")
	f.IntVar(&g.images, "images", g.images, "images of each row")
	f.IntVar(&g.first, "first", 0, "number of the first image")
	f.IntVar(&g.columns, "columns", 0, "images on a line; 0 = all, up to 16")
	f.IntVar(&g.scale, "scale", 0, "pixels that a pixel is enlarged to; 0 = so many that images are at least 64 wide")
	if err := c.MarkFlagRequired("output"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

// A sampleGrid is a picture of samples.
type sampleGrid struct {
	images, first, columns, scale int
	rows                          []gridRow
}

// A gridRow holds the images of one run.
type gridRow struct {
	text          []string // lines of the label
	height, width int
	images        [][]uint8 // [H,W,3] each
}

func (g *sampleGrid) validate() error {
	switch {
	case g.images < 1:
		return fmt.Errorf("grid: --images is %d, expected at least 1", g.images)
	case g.first < 0:
		return fmt.Errorf("grid: --first is %d, expected 0 or more", g.first)
	case g.columns < 0:
		return fmt.Errorf("grid: --columns is %d, expected 0 or more", g.columns)
	case g.scale < 0 || g.scale > 64:
		return fmt.Errorf("grid: --scale is %d, expected 0 to 64", g.scale)
	}
	return nil
}

// read gets the images of all arguments.
func (g *sampleGrid) read(ctx context.Context, args []string) error {
	for _, arg := range args {
		if strings.EqualFold(filepath.Ext(arg), ".npz") {
			s, err := fileStore(arg)
			if err != nil {
				return err
			}
			if err := g.add(ctx, s, []string{strings.TrimSuffix(filepath.Base(arg), filepath.Ext(arg))}); err != nil {
				return err
			}
			continue
		}
		found, err := findMetrics(arg)
		if err != nil {
			return err
		}
		for _, m := range found {
			s := &store{folder: filepath.Join(m.folder, "samples"), classes: -1}
			var damaged []string
			if err := s.scan(g.first+g.images, false, func(note string) { damaged = append(damaged, note) }); err != nil {
				return err
			}
			if len(damaged) > 0 {
				return fmt.Errorf("grid: %s", strings.Join(damaged, "; "))
			}
			if err := g.add(ctx, s, m.gridLabel()); err != nil {
				return err
			}
		}
	}
	return nil
}

// fileStore makes a store of one .npz file of any name.
func fileStore(path string) (*store, error) {
	f, err := npz.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := f.Array("arr_0")
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return &store{folder: path, classes: -1, shards: []shard{{span{0, a.Rows()}, path, true}}}, nil
}

// add appends the images of a store.
func (g *sampleGrid) add(ctx context.Context, s *store, text []string) error {
	r := gridRow{text: text}
	end := g.first + g.images
	for at := g.first; at < end; {
		sh, ok := s.holder(at)
		if !ok {
			return fmt.Errorf("grid: %s: has no image %d; choose fewer with --images", s.folder, at)
		}
		to := min(sh.to, end)
		err := s.rows(ctx, sh, span{at, to}, func(pixels []uint8) error {
			r.images = append(r.images, slices.Clone(pixels))
			return nil
		})
		if err != nil {
			return err
		}
		at = to
	}
	r.height, r.width = s.height, s.width
	g.rows = append(g.rows, r)
	return nil
}

// gridLabel is the label of the run and what its sweep chose.
func (m *Metrics) gridLabel() []string {
	var lines []string
	if m.Label != "" {
		lines = wrap(m.Label, 24)
	}
	for _, c := range settingColumns([]*Metrics{m}) {
		lines = append(lines, c.title+" = "+settingOf(m, c.key))
	}
	if len(lines) == 0 {
		lines = wrap(m.Experiment, 24)
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

// encode draws the picture and is its file's content.
func (g *sampleGrid) encode() ([]byte, error) {
	picture, err := g.draw()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestCompression}
	if err := e.Encode(&out, picture); err != nil {
		return nil, fmt.Errorf("grid: %w", err)
	}
	return out.Bytes(), nil
}

// maxGridPixels bounds the picture.
const maxGridPixels = 1 << 27
