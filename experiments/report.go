package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"sagbench/experiments/human"
	"sagbench/experiments/report"
)

func reportCommand() *cobra.Command {
	var o report.PageOptions
	c := &cobra.Command{
		Use:   "report RESULTS...",
		Short: "write an experiment's results as one HTML page",
		Long: `Writes one HTML file for each experiment below RESULTS, RESULTS/<experiment>/report.html,
from the files that run left there: what each row changes and how sure that is, the
table with differences and their intervals, plots, the same images under each
setting, the method in words, and the tables to save. run writes it at its end too.

The file needs nothing beside it and no network, has at most 5 MB, and can be
printed. --rows makes a page of some rows, which needs -o. Differences have intervals where rows have draws: run with bootstrap=200.`,
		Example: `  sagbench report results/table1-fashion
  sagbench report results/table1 -o table1.html`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Output != "" && filepath.Ext(o.Output) != ".html" {
				return human.Misusef("-o is %q, expected a name that ends in .html", o.Output)
			}
			paths, err := report.Page(cmd.Context(), args, o)
			for _, path := range paths {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return err
		},
	}
	c.Flags().StringVarP(&o.Output, "output", "o", "", "file to write instead, FILE.html, of one experiment")
	registerRows(c, &o.Rows)
	registerVerbose(c.Flags(), &o.Verbose)
	return c
}
