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
		Use:   "compare RESULTS... | EVAL.json...",
		Short: "differences between rows of a table, or evaluated sets, with intervals, p-values and a sentence each",
		Long: `Compares with a baseline, metric by metric: the difference, its interval of 95 %, and
a p-value, in a table and in a sentence each. Compared are the rows of results, or the
sets in files that eval --json has written, of one set or of several; both from draws
(bootstrap: 200; eval --bootstrap 200). No image is needed.

The images of two rows start from the same noise and are drawn in pairs, so that what
both share, the choice of the noise above all, is not in the interval: small differences
show that the intervals of the two values would hide. Two sets are drawn in pairs where
their files have the same names; else each is drawn for itself ("unpaired").

"Better" and "worse" in the table go by each interval alone: of twenty rows that do not
differ one would look as if it did. The p-values are corrected for all comparisons that
are made at once (Holm), and the sentences go by them. Fewer comparisons, by --metric and
--rows, are corrected less: choose them before you look.

The baseline is the first row of each label, or of each network that draws where every
row has a label of its own, or the first set; or the row that --baseline names as the
folder of results or the table does: "s = 0", "IDDPM, s = 0", or its number from 1. It
need not be among the rows of --rows, which are those that are compared with it.

Sets that were evaluated in different ways are refused, with what differs; different
numbers of images are told, since FID and others change with them. --needed D tells
instead how many images of each row it takes to tell a difference of D, in pairs and
unpaired. Of an experiment that searched, the rows that are left are compared.`,
		Example: `  sagbench compare results/table1-fashion
  sagbench run configs/table1-fashion.yaml name=draws bootstrap=1000
  sagbench compare results/draws --metric fid --baseline 2 --format csv
  sagbench compare results/draws --metric fid --needed 0.5
  sagbench eval REF a b c --inception FILE --bootstrap 1000 --json abc.json
  sagbench compare abc.json --baseline b --metric fid,recall
  sagbench compare old.json new.json`,
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
