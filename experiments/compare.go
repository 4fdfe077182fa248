package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/olekukonko/tablewriter/tw"
	"github.com/spf13/cobra"

	"sagbench/configs"
	"sagbench/eval"
)

func compareCommand() *cobra.Command {
	format, baseline := "terminal", ""
	var metrics []string
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

The baseline is the first row of each label, or the one that --baseline names as the
folder of results or the table does: "s = 0", "IDDPM, s = 0", or its number from 1.`,
		Example: `  sagbench run configs/table1-fashion.yaml bootstrap=200
  sagbench compare results/table1-fashion
  sagbench compare results/table1-fashion --metric fid --baseline 2 --format csv`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			render, ok := map[string]func(io.Writer, []difference) error{"terminal": printDifferences, "csv": differencesCSV}[format]
			if !ok {
				return fmt.Errorf("compare: --format is %q, expected terminal or csv", format)
			}
			rows, err := findMetrics(args...)
			if err != nil {
				return err
			}
			found, err := compareRows(rows, baseline, metrics)
			if err != nil {
				return fmt.Errorf("compare: %w", err)
			}
			return render(cmd.OutOrStdout(), found)
		},
	}
	c.Flags().StringVar(&format, "format", format, "terminal or csv")
	c.Flags().StringVar(&baseline, "baseline", "", "row to compare with; the first of each label if absent")
	c.Flags().StringSliceVar(&metrics, "metric", nil, "metrics to compare, separated by commas; all if absent")
	return c
}

// A difference is that of a row's score from the baseline's.
type difference struct {
	row, baseline *Metrics
	score         Score // the row's
	value         float64
	interval      eval.Interval
}

// verdict says what the interval allows to say.
func (d difference) verdict() string {
	low, high := d.interval.Low, d.interval.High
	switch {
	case low <= 0 && high >= 0:
		return "no difference seen"
	case high < 0 == (d.score.Direction == lowerIsBetter):
		return "better"
	}
	return "worse"
}

// title names the row among the others of its experiment.
func (m *Metrics) title() string {
	var settings []configs.Setting
	for _, s := range m.Settings {
		settings = append(settings, configs.Setting{Path: s.Path, Value: s.Value})
	}
	return describe(m.Label, settings)
}

// compareRows compares every row with the baseline of its experiment and label.
func compareRows(rows []*Metrics, baseline string, metrics []string) ([]difference, error) {
	type group struct{ experiment, label string }
	bases := map[group]*Metrics{}
	for _, m := range rows {
		switch g := (group{m.Experiment, m.Label}); {
		case baseline == "" && bases[g] == nil:
			bases[g] = m
		case baseline != "" && m.named(baseline):
			bases[group{experiment: m.Experiment}] = m
		}
	}
	var out []difference
	var faults []error
	for _, m := range rows {
		base := bases[group{m.Experiment, m.Label}]
		if baseline != "" {
			base = bases[group{experiment: m.Experiment}]
		}
		if base == nil {
			faults = append(faults, fmt.Errorf("%s has no row %q; it has %s", m.Experiment, baseline, strings.Join(titles(rows, m.Experiment), "; ")))
			break
		}
		if base == m {
			continue
		}
		found, err := m.against(base, metrics)
		out, faults = append(out, found...), append(faults, err)
	}
	if len(out) == 0 && errors.Join(faults...) == nil {
		faults = append(faults, errors.New("one row alone; there is nothing to compare it with"))
	}
	return out, errors.Join(faults...)
}

// named reports whether a row is called so, or has that number in its table.
func (m *Metrics) named(name string) bool {
	return strings.EqualFold(m.title(), name) || name == strconv.Itoa(m.Row+1)
}

func titles(rows []*Metrics, experiment string) []string {
	var out []string
	for _, m := range rows {
		if m.Experiment == experiment {
			out = append(out, fmt.Sprintf("%d: %q", m.Row+1, m.title()))
		}
	}
	return out
}

// against compares a row's scores with the baseline's, draw by draw.
func (m *Metrics) against(base *Metrics, metrics []string) ([]difference, error) {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: rows %q and %q: %w", m.Experiment, m.title(), base.title(), fmt.Errorf(format, args...))
	}
	switch {
	case m.Bootstrap == 0 || base.Bootstrap == 0:
		return nil, fail("there are no draws; `sagbench run EXPERIMENT.yaml bootstrap=200` makes them, and the images are not drawn again")
	case m.Bootstrap != base.Bootstrap || m.Samples != base.Samples:
		return nil, fail("%d draws of %d images, %d of %d: these are no pairs", m.Bootstrap, m.Samples, base.Bootstrap, base.Samples)
	case m.Evaluation != base.Evaluation:
		return nil, fail("they were evaluated in different ways (reference, network, protocol, metrics or versions); run the experiment again")
	}
	own, err := readReplicates(m.folder, m.Bootstrap)
	if err != nil {
		return nil, err
	}
	others, err := readReplicates(base.folder, base.Bootstrap)
	if err != nil {
		return nil, err
	}
	for _, name := range metrics {
		if own.values[name] == nil {
			return nil, fail("there is no metric %q; known: %s", name, strings.Join(own.names, ", "))
		}
	}
	var out []difference
	for _, s := range m.Scores {
		b, ok := base.Score(s.Name)
		mine, theirs := own.values[s.Name], others.values[s.Name]
		if !ok || mine == nil || theirs == nil || len(metrics) > 0 && !slices.Contains(metrics, s.Name) {
			continue
		}
		pairs := make([]float64, len(mine))
		for i := range pairs {
			pairs[i] = mine[i] - theirs[i]
		}
		d := difference{row: m, baseline: base, score: s, value: s.Value - b.Value}
		d.interval = eval.NewInterval(d.value, pairs)
		out = append(out, d)
	}
	return out, nil
}

func printDifferences(w io.Writer, all []difference) error {
	lines := [][]string{}
	for _, d := range all {
		decimals := d.score.Decimals + 1
		number := func(v float64) string { return strconv.FormatFloat(v, 'f', decimals, 64) }
		lines = append(lines, []string{d.row.title(), d.baseline.title(), d.score.Title + " " + arrowOf(d.score.Direction),
			number(d.score.Value), fmt.Sprintf("%+.*f", decimals, d.value), number(d.interval.Low) + " … " + number(d.interval.High), d.verdict()})
	}
	return writeTable(w, []string{"row", "baseline", "metric", "value", "difference", "95 %", ""}, lines,
		tw.Alignment{tw.AlignLeft, tw.AlignLeft, tw.AlignLeft, tw.AlignRight, tw.AlignRight, tw.AlignRight, tw.AlignLeft})
}

func differencesCSV(w io.Writer, all []difference) error {
	out := csv.NewWriter(w)
	lines := [][]string{{"experiment", "row", "baseline", "metric", "value", "difference", "low", "high", "verdict"}}
	for _, d := range all {
		line := []string{d.row.Experiment, d.row.title(), d.baseline.title(), d.score.Name}
		for _, v := range []float64{d.score.Value, d.value, d.interval.Low, d.interval.High} {
			line = append(line, strconv.FormatFloat(v, 'g', -1, 64))
		}
		lines = append(lines, append(line, d.verdict()))
	}
	return out.WriteAll(lines)
}
