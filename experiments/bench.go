package main

import (
	"strings"

	"github.com/spf13/cobra"

	"sagbench/experiments/bench"
)

func benchCommand(g *globals) *cobra.Command {
	names := bench.Sections()
	o := bench.Options{Images: 5000}
	c := g.computes(&cobra.Command{
		Use:   "bench [SECTION...]",
		Short: "measure network calls, the evaluator and memory on this machine",
		Long: `Prints the figures that docs/performance.md keeps, as Markdown tables. Networks of
official size run on random weights of the true shapes, written to a temporary
folder and removed afterwards (up to 2.7 GB); time does not depend on the weights.
The section precision draws images, which stay in the folder of --results if it is
given: the next call goes on there. With --write the rows of the device that is chosen
go into the table of that file, as make gpu-check does with docs/devices.md. With
--precision the sections that time networks of peers do so in float32 or in half
precision alone.

Sections: ` + strings.Join(names, ", ") + `.`,
		Example:   "  sagbench bench\n  sagbench bench adm-fashion sag-step\n  sagbench bench --device cuda:0",
		ValidArgs: names,
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("results") {
				o.Results = g.results
			}
			o.Runtime = g.runtime()
			o.Runtime.Precision = g.precision
			return bench.Run(cmd.Context(), cmd.OutOrStdout(), g.progress(), o, args)
		},
	})
	boundedInt(c.Flags(), &o.Images, "images", o.Images, 100, 50_000, "images that the section peer-evaluations scores, on the CPU")
	c.Flags().StringVar(&o.Write, "write", "", "`file` like docs/devices.md whose table takes the rows of the section precision, in place of those of the same device and precision")
	return c
}
