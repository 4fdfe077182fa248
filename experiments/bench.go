package main

import (
	"strings"

	"github.com/spf13/cobra"

	"sagbench/experiments/bench"
)

func benchCommand(g *globals) *cobra.Command {
	names := bench.Sections()
	return &cobra.Command{
		Use:   "bench [SECTION...]",
		Short: "measure network calls, the evaluator and memory on this machine",
		Long: `Prints the figures that docs/performance.md keeps, as Markdown tables. Networks of
official size run on random weights of the true shapes, written to a temporary
folder and removed afterwards (up to 2.7 GB); time does not depend on the weights.

Sections: ` + strings.Join(names, ", ") + `.`,
		Example:   "  sagbench bench\n  sagbench bench adm-fashion sag-step\n  sagbench bench --device cuda:0",
		ValidArgs: names,
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			results := ""
			if cmd.Flags().Changed("results") {
				results = g.results
			}
			return bench.Run(cmd.Context(), cmd.OutOrStdout(), g.runtime(), results, args)
		},
	}
}
