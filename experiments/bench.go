package main

import (
	"strings"

	"github.com/spf13/cobra"

	"sagbench/experiments/bench"
)

func benchCommand(g *globals) *cobra.Command {
	names := bench.Sections()
	return g.computes(&cobra.Command{
		Use:   "bench [SECTION...]",
		Short: "measure network calls, the evaluator and memory on this machine",
		Long: `Prints the figures that docs/performance.md keeps, as Markdown tables. Networks of
official size run on random weights of the true shapes, written to a temporary
folder and removed afterwards (up to 2.7 GB); time does not depend on the weights.
The section precision draws images, which stay in the folder of --results if it is
given: the next call goes on there.

Sections: ` + strings.Join(names, ", ") + `.`,
		Example:   "  sagbench bench\n  sagbench bench adm-fashion sag-step\n  sagbench bench --device cuda:0",
		ValidArgs: names,
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			results := ""
			if cmd.Flags().Changed("results") {
				results = g.results
			}
			opt := g.runtime()
			opt.Precision = g.precision
			return bench.Run(cmd.Context(), cmd.OutOrStdout(), g.progress(), opt, results, args)
		},
	})
}
