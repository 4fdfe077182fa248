package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"sagbench/experiments/report"
)

func plotCommand(g *globals) *cobra.Command {
	o, folder := report.Plots{Formats: []string{"svg", "png"}, Size: "page"}, ""
	c := &cobra.Command{
		Use:   "plot RESULTS...",
		Short: "draw line plots of finished runs that sweep a number",
		Long: `Draws a line plot for each metric of each experiment whose rows differ in one swept
number (guidance.sag.scale, say) and their labels: the metric against the number, a
line for each label. It reads the metrics.json files below RESULTS alone: runs'
folders, experiments' folders, or the folder of all results. run writes the same
plots beside an experiment's tables.

Where rows have draws (bootstrap=200), a band around a line is the interval of 95 % of
each value. The files are OUT/<experiment>/<metric>.svg and .png; equal results give
equal bytes.`,
		Example: `  sagbench plot results/ablation-scale
  sagbench plot results -o figures --format pdf --size column
  sagbench plot results/ablation-scale results/families --together -o figures`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.Write(cmd.OutOrStdout(), cmp.Or(folder, g.results), args)
		},
	}
	c.Flags().StringSliceVar(&o.Formats, "format", o.Formats, "svg, png, pdf, or several with commas")
	c.Flags().StringVar(&o.Size, "size", o.Size, "page: 17 cm wide; column: 8.4 cm, the column of a paper, without a title")
	c.Flags().BoolVar(&o.Together, "together", false, "all experiments in one plot for each metric, OUT/<metric>.svg")
	c.Flags().VarP((*named)(&folder), "out", "o", "folder of the plots; that of the results if absent")
	return c
}
