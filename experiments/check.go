package main

import (
	"errors"
	"strconv"

	"github.com/spf13/cobra"

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

Tolerances are those of the CPU: --tolerance widens them for another device or precision,
and --emulated for another device in half precision, by what the CPU's emulation of it
is off by on the same case.
The exit status is 1 if any tensor fails.`,
		Example: `  sagbench check cases/sample-ddpm-sag
  sagbench check cases/*`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Runtime = g.runtime()
			o.Runtime.Precision = g.precision
			return refcase.Check(cmd.Context(), cmd.OutOrStdout(), args, o)
		},
	}
	c.Flags().Var((*fraction)(&o.Tolerance), "tolerance", "what a tensor may differ by, relative to its largest value, where its case allows less")
	c.Flags().Var((*multiple)(&o.Emulated), "emulated", "how many times the error of the CPU's emulation of --precision a tensor may be off by, where its case allows less")
	c.Flags().BoolVarP(&o.Quiet, "quiet", "q", false, "print the tensors that fail, and a line for each case")
	return g.computes(c)
}

// A fraction is the value of a flag for a number from 0 to below 1.
type fraction float64

func (f *fraction) String() string { return strconv.FormatFloat(float64(*f), 'g', -1, 64) }

// Type implements pflag.Value.
func (*fraction) Type() string { return "number" }

// Set implements pflag.Value.
func (f *fraction) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0 && v < 1) {
		return errors.New("expected a number from 0 to below 1")
	}
	*f = fraction(v)
	return nil
}

// A multiple is the value of a flag for a number from 0 to 100.
type multiple float64

func (m *multiple) String() string { return strconv.FormatFloat(float64(*m), 'g', -1, 64) }

// Type implements pflag.Value.
func (*multiple) Type() string { return "number" }

// Set implements pflag.Value.
func (m *multiple) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0 && v <= 100) {
		return errors.New("expected a number from 0 to 100")
	}
	*m = multiple(v)
	return nil
}
