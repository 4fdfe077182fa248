package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"sagbench/experiments/report"
)

func compareCommand() *cobra.Command {
	o := report.DifferenceOptions{Format: "terminal"}
	needed := 0.0
	c := &cobra.Command{
		Use:   "compare RESULTS...",
		Short: "differences between the rows of a table, with confidence intervals",
		Long: `Compares rows with a baseline, metric by metric: the difference and its interval of
95 %, from the draws that run keeps beside metrics.json where an experiment asks for
them (bootstrap: 200). The images of two rows start from the same noise and are drawn
in pairs, so that what both rows share, the choice of the noise above all, is not in
the interval: small differences show that the intervals of the two values would hide.

A row is better or worse where the interval leaves 0 out. Of twenty rows that do not
differ one will look as if it did.

The baseline is the first row of each label, or of each network that draws where every
row has a label of its own, or the row that --baseline names as the folder of results
or the table does: "s = 0", "IDDPM, s = 0", or its number from 1. It need not be among
the rows of --rows, which are those that are compared with it.

--needed D tells instead how many images of each row it takes to tell a difference of D.
Of an experiment that searched, the rows that are left are compared.`,
		Example: `  sagbench compare results/table1-fashion
  sagbench run configs/table1-fashion.yaml name=draws bootstrap=1000
  sagbench compare results/draws --metric fid --baseline 2 --format csv
  sagbench compare results/draws --metric fid --needed 0.5`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("needed") {
				return report.Needed(cmd.OutOrStdout(), args, o, needed)
			}
			return report.Differences(cmd.OutOrStdout(), args, o)
		},
	}
	c.Flags().StringVar(&o.Format, "format", o.Format, "terminal or csv")
	registerRows(c, &o.Rows)
	c.Flags().StringVar(&o.Baseline, "baseline", "", "row to compare with; the first of each label, or network, if absent")
	c.Flags().StringSliceVar(&o.Metrics, "metric", nil, "metrics to compare, separated by commas; all if absent")
	c.Flags().Var(&boundedNumber{&needed, 1e-9, 1e9}, "needed", "a difference of the one --metric: how many images it takes to tell it, in place of the differences")
	return c
}

// A boundedNumber is a number that a flag sets, with both ends of its range.
type boundedNumber struct {
	to       *float64
	low, top float64
}

func (b *boundedNumber) String() string {
	if b.to == nil || *b.to == 0 {
		return ""
	}
	return strconv.FormatFloat(*b.to, 'g', -1, 64)
}

// Type implements pflag.Value.
func (*boundedNumber) Type() string { return "number" }

// Set implements pflag.Value.
func (b *boundedNumber) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= b.low && v <= b.top) {
		return fmt.Errorf("expected a number from %g to %g, such as 0.5", b.low, b.top)
	}
	*b.to = v
	return nil
}
