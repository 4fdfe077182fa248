package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"sagbench/experiments/report"
)

func plotCommand(g *globals) *cobra.Command {
	formats, folder := []string{"svg", "png"}, ""
	c := &cobra.Command{
		Use:   "plot RESULTS...",
		Short: "draw line plots of finished runs that sweep a number",
		Long: `Draws a line plot for each metric of each experiment whose rows differ in one swept
number (guidance.sag.scale, say) and their labels: the metric against the number, a
line for each label. It reads the metrics.json files below RESULTS alone: runs'
folders, experiments' folders, or the folder of all results. run writes the same
plots beside an experiment's tables.

The files are OUT/<experiment>/<metric>.svg and .png; equal results give equal bytes.`,
		Example: `  sagbench plot results/ablation-scale
  sagbench plot results -o figures --format svg`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return report.Plots(cmd.OutOrStdout(), cmp.Or(folder, g.results), args, formats)
		},
	}
	c.Flags().StringSliceVar(&formats, "format", formats, "svg, png or both")
	c.Flags().VarP((*named)(&folder), "out", "o", "folder of the plots; that of the results if absent")
	return c
}
