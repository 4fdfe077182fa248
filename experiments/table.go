package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// tableFormats are the forms that a table can be printed in.
var tableFormats = map[string]func(io.Writer, []*Metrics, string) error{
	"terminal": perExperiment(renderTerminal),
	"markdown": perExperiment(renderMarkdown),
	"latex":    perExperiment(renderLaTeX),
	"csv":      renderCSV,
}

func tableCommand() *cobra.Command {
	format, order := "terminal", ""
	c := &cobra.Command{
		Use:   "table RESULTS...",
		Short: "print the tables of finished runs",
		Long: `Prints a table for each experiment, from the metrics.json files below RESULTS
alone: runs' folders, experiments' folders, or the folder of all results.

An arrow at a metric says which way is better. Where the authors published values,
the column "paper" beside ours holds them, — where they give none.

terminal, markdown and latex show the decimals that the metric is good for; csv
has every digit, the whole path of each setting, and one table for all experiments.
latex needs the package booktabs; the best value of each metric among the rows of
one label is bold, several where they are equal as printed, none where a label has
one row.

--sort orders the rows within each label by a metric (best first) or by a setting
(ascending); a minus before its name reverses that. Without it the rows come as in
the experiment.`,
		Example: `  sagbench table results/table1-fashion
  sagbench table results --format csv > all.csv
  sagbench table results/table1 --sort fid`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			render, ok := tableFormats[format]
			if !ok {
				return fmt.Errorf("table: --format is %q, expected one of %s", format, strings.Join(slices.Sorted(maps.Keys(tableFormats)), ", "))
			}
			rows, err := findMetrics(args...)
			if err != nil {
				return err
			}
			return render(cmd.OutOrStdout(), rows, order)
		},
	}
	c.Flags().StringVar(&format, "format", format, "terminal, markdown, csv or latex")
	c.Flags().StringVar(&order, "sort", order, "metric or setting to order the rows of a label by; with a minus the other way round")
	return c
}

// writeTables writes table.md, table.csv and table.tex into an experiment's
// folder, each whole or not at all.
func writeTables(folder string, rows []*Metrics) error {
	for _, file := range []struct{ name, format string }{{"table.md", "markdown"}, {"table.csv", "csv"}, {"table.tex", "latex"}} {
		var out strings.Builder
		if err := tableFormats[file.format](&out, rows, ""); err != nil {
			return err
		}
		if err := writeWhole(filepath.Join(folder, file.name), []byte(out.String())); err != nil {
			return err
		}
	}
	return nil
}

// printTable writes the tables of rows for people at a terminal.
func printTable(w io.Writer, rows []*Metrics) error {
	return tableFormats["terminal"](w, rows, "")
}

// perExperiment renders a table for each experiment, with a line between them.
func perExperiment(render func(io.Writer, *resultTable) error) func(io.Writer, []*Metrics, string) error {
	return func(w io.Writer, rows []*Metrics, order string) error {
		var names []string
		for _, m := range rows {
			if !slices.Contains(names, m.Experiment) {
				names = append(names, m.Experiment)
			}
		}
		for i, name := range names {
			var own []*Metrics
			for _, m := range rows {
				if m.Experiment == name {
					own = append(own, m)
				}
			}
			t := newTable(own)
			if err := t.sort(order); err != nil {
				return err
			}
			if i > 0 {
				fmt.Fprintln(w)
			}
			if err := render(w, t); err != nil {
				return fmt.Errorf("table: %w", err)
			}
		}
		return nil
	}
}
