package main

import (
	"github.com/spf13/cobra"

	"sagbench/experiments/human"
	"sagbench/experiments/refcase"
)

func checkCommand(g *globals) *cobra.Command {
	var o refcase.Options
	c := &cobra.Command{
		Use:   "check CASE...",
		Short: "compare our outputs with those of a reference implementation",
		Long: `Runs reference cases and prints a line for each tensor: its largest error,
the tolerance, and pass or fail. A case is a folder with case.yaml (what to run, where
the numbers come from, the tolerance), a checkpoint in the layout in which its
authors publish it, and io.safetensors with the inputs in.* and the reference's
outputs out.*. To check an import of your own checkpoint, write such a folder from
a run of your PyTorch code.

Tolerances are those of the CPU: --tolerance widens them for another device or precision.
The exit status is 1 if any tensor fails.`,
		Example: `  sagbench check cases/sample-ddpm-sag
  sagbench check cases/*`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !(o.Tolerance >= 0 && o.Tolerance < 1) {
				return human.Misusef("--tolerance is %g, expected a number from 0 to below 1", o.Tolerance)
			}
			o.Runtime = g.runtime()
			o.Runtime.Precision = g.precision
			return refcase.Check(cmd.Context(), cmd.OutOrStdout(), args, o)
		},
	}
	c.Flags().Float64Var(&o.Tolerance, "tolerance", 0, "what a tensor may differ by, relative to its largest value, where its case allows less")
	c.Flags().BoolVarP(&o.Quiet, "quiet", "q", false, "print the tensors that fail, and a line for each case")
	return g.computes(c)
}
