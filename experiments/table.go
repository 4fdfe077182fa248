package main

import (
	"github.com/spf13/cobra"

	"sagbench/experiments/report"
)

func tableCommand() *cobra.Command {
	o := report.TableOptions{Format: "terminal"}
	c := &cobra.Command{
		Use:   "table RESULTS...",
		Short: "print the tables of finished runs",
		Long: `Prints a table for each experiment, from the metrics.json files below RESULTS
alone: runs' folders, experiments' folders, or the folder of all results.

An arrow at a metric says which way is better. Where the authors published values,
the column "paper" beside ours holds them, — where they give none.

terminal, markdown and latex show the decimals that the metric is good for, and what
does not fit the terminal, 100 columns or the page stands in several tables; csv
has every digit, the whole path of each setting, and one table for all experiments.
latex is a table environment that needs the package booktabs alone and fits a column,
or the page (table*); the best value of each metric among the rows of one label is
bold, several where they are equal as printed, none where a label has one row.

csv says run id, protocol, feature network, the direction of each metric, and the ends
of its interval as well; jsonl has a line for each score, with the swept number as
"step", for dashboards.

--sort orders the rows within each label by a metric (best first) or by a setting
(ascending); a minus before its name reverses that. Without it the rows come as in
the experiment.`,
		Example: `  sagbench table results/table1-fashion
  sagbench table results --format csv > all.csv
  sagbench table results/table1 --sort fid`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return report.Tables(cmd.OutOrStdout(), args, o)
		},
	}
	c.Flags().StringVar(&o.Format, "format", o.Format, "terminal, markdown, csv, latex or jsonl")
	registerVerbose(c.Flags(), &o.Verbose)
	registerRows(c, &o.Rows)
	c.Flags().StringVar(&o.Sort, "sort", "", "metric or setting to order the rows of a label by; with a minus the other way round")
	return c
}
