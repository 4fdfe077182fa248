package main

import (
	"github.com/spf13/cobra"

	"sagbench/experiments/report"
)

func gridCommand() *cobra.Command {
	g := report.Grid{}
	output := ""
	c := &cobra.Command{
		Use:   "grid RESULTS... -o FILE.png",
		Short: "draw images of several rows under each other",
		Long: `Draws a PNG with the first images of each row: what stands in one column has the
same number, so it started from the same noise (and has the same label), and the
rows differ by what the text at the left says.

RESULTS are runs' folders or folders above them, whose runs come in the order of
the table, those that are not evaluated yet after them by their names; and .npz files
with arr_0 [N,H,W,3] uint8, such as a reference batch.`,
		Example: `  sagbench grid results/table1-fashion -o grid.png
  sagbench grid results/table1-fashion --trace --images 1 -o anatomy.png
  sagbench grid results/table1-fashion/*s=0-* results/table1-fashion/*s=0.8-* -o grid.png --images 16`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.Write(cmd.Context(), args, output)
		},
	}
	f := c.Flags()
	f.VarP((*named)(&output), "output", "o", "file to write, FILE.png")
	boundedInt(f, &g.Images, "images", g.Images, 0, 10_000, "images of each row; 0 = 8, or as many as all rows have")
	boundedInt(f, &g.First, "first", 0, 0, 10_000_000, "number of the first image")
	boundedInt(f, &g.Columns, "columns", 0, 0, 10_000, "images on a line; 0 = all, up to 16")
	boundedInt(f, &g.Scale, "scale", 0, 0, 64, "pixels that a pixel is enlarged to; 0 = so many that images are at least 64 wide")
	registerRows(c, &g.Rows)
	f.BoolVar(&g.Trace, "trace", false, "what self-attention guidance does to the images, from the traces that run keeps with trace.images and trace.steps")
	if err := c.MarkFlagRequired("output"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}
