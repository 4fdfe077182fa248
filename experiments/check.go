package main

import (
	"github.com/spf13/cobra"

	"sagbench/experiments/refcase"
)

func checkCommand(g *globals) *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:   "check CASE...",
		Short: "compare our outputs with those of a reference implementation",
		Long: `Runs reference cases and prints a line for each tensor: its largest error,
the tolerance, and pass or fail. A case is a folder with case.yaml (what to run, where
the numbers come from, the tolerance), a checkpoint in the layout in which its
authors publish it, and io.safetensors with the inputs in.* and the reference's
outputs out.*. To check an import of your own checkpoint, write such a folder from
a run of your PyTorch code.

The exit status is 1 if any tensor fails.`,
		Example: `  sagbench check cases/sample-ddpm-sag
  sagbench check cases/*`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return refcase.Check(cmd.Context(), cmd.OutOrStdout(), args, g.runtime(), quiet)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the tensors that fail, and a line for each case")
	return c
}
