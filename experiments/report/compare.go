package report

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"sagbench/eval"
	"sagbench/experiments/human"
	"sagbench/experiments/search"
	"sagbench/experiments/store"
)

// DifferenceOptions say what is compared with what.
type DifferenceOptions struct {
	Format   string   // one of DifferenceFormats
	Baseline string   // a row's title, or its number from 1; "": the first row of each label (see groupsOf)
	Metrics  []string // names of those to compare; nil: all
	Rows     []string // to compare with the baseline, as store.Choose takes them; nil: all
}

// DifferenceFormats are the values of DifferenceOptions.Format.
var DifferenceFormats = []string{"terminal", "csv"}

// Differences compares the rows of the runs below the folders and prints to w how
// they differ from a baseline, with intervals of 95 %. It is an error where rows have
// no draws or were evaluated in different ways.
func Differences(w io.Writer, folders []string, o DifferenceOptions) error {
	render, ok := map[string]func(io.Writer, []difference) error{"terminal": printDifferences, "csv": differencesCSV}[o.Format]
	if !ok {
		return human.Misusef("compare: --format is %q, expected %s", o.Format, strings.Join(DifferenceFormats, " or "))
	}
	rows, err := store.FindMetrics(folders...)
	if err != nil {
		return err
	}
	rows, dropped := comparable(rows)
	found, err := compareRows(rows, o)
	if err != nil && dropped > 0 {
		err = fmt.Errorf("%w; of the rows, %d were dropped by a search, whose tables show their differences", err, dropped)
	}
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	if err := render(w, found); err != nil || o.Format == "csv" {
		return err
	}
	if dropped > 0 {
		fmt.Fprintln(w, human.Wrap(fmt.Sprintf("left out: rows that a search dropped (%d), which have fewer images; the table shows in which round, and their differences", dropped), human.Columns(w), 2))
	}
	for _, line := range differencesOf(rows) {
		fmt.Fprintln(w, human.Wrap(oneLine(line), human.Columns(w), 2))
	}
	return nil
}

// A difference is a row's score less the baseline's.
type difference struct {
	experiment    string
	row, baseline string      // titles
	score         store.Score // the row's
	value         float64
	interval      eval.Interval
	spread        float64 // standard error of the difference

	of, from *store.Metrics // the rows themselves
}

// verdict says what the interval allows to say.
func (d difference) verdict() string {
	low, high := d.interval.Low, d.interval.High
	switch {
	case low <= 0 && high >= 0:
		return "no difference seen"
	case high < 0 == (d.score.Direction == store.LowerIsBetter):
		return "better"
	}
	return "worse"
}

// compareRows compares every chosen row with the baseline of its experiment: the first
// row of its label (see groupsOf), or the one that is called so.
func compareRows(rows []*store.Metrics, o DifferenceOptions) ([]difference, error) {
	chosen, err := chooseRows(rows, o.Rows)
	if err != nil {
		return nil, err
	}
	var out []difference
	var faults []error
	names := namesApart(rows, settled)
	title := func(m *store.Metrics) string { return titleApart(m, names) }
	for _, own := range byExperiment(rows) {
		named, err := baselineOf(own, o.Baseline, title)
		if err != nil {
			faults = append(faults, err)
			break
		}
		firstOf, group := map[string]*store.Metrics{}, groupsOf(own)
		for i, m := range own {
			if firstOf[group[i]] == nil {
				firstOf[group[i]] = m
			}
			if base := cmp.Or(named, firstOf[group[i]]); base != m && slices.Contains(chosen, m) {
				found, err := differencesFrom(base, m, o.Metrics)
				if err != nil {
					err = fmt.Errorf("%s: rows %q and %q: %w", m.Experiment, title(m), title(base), err)
				}
				for _, d := range found {
					d.experiment, d.row, d.baseline, d.of, d.from = m.Experiment, title(m), title(base), m, base
					out = append(out, d)
				}
				faults = append(faults, err)
			}
		}
	}
	err = errors.Join(faults...)
	if len(out) == 0 && err == nil {
		err = errors.New("no row beside its baseline; there is nothing to compare")
	}
	return out, err
}

// groupsOf are what the rows of an experiment have in common with those that they are
// compared with: the label, or the network that draws where each row has a label of its
// own, as where guidances are compared.
func groupsOf(rows []*store.Metrics) []string {
	labels, checkpoints := make([]string, len(rows)), make([]string, len(rows))
	several := false
	for i, m := range rows {
		several = several || slices.Contains(labels[:i], m.Label)
		labels[i], checkpoints[i] = m.Label, m.Inputs.Checkpoint.SHA256
	}
	if several {
		return labels
	}
	return checkpoints
}

// baselineOf is the one of an experiment's rows that a title or a number names; nil
// where nothing is named.
func baselineOf(own []*store.Metrics, name string, title func(*store.Metrics) string) (*store.Metrics, error) {
	var titles []string
	var found []*store.Metrics
	for _, m := range own {
		titles = append(titles, fmt.Sprintf("%d: %q", m.Row+1, title(m)))
		if (store.Place{Names: []string{title(m)}}).IsCalled(name) {
			return m, nil
		}
		if (store.Place{Names: []string{m.Title()}}).IsCalled(name) || name == strconv.Itoa(m.Row+1) {
			found = append(found, m)
		}
	}
	switch {
	case name == "":
		return nil, nil
	case len(found) == 1:
		return found[0], nil
	}
	what := "no row"
	if len(found) > 1 {
		what = "several rows"
	}
	return nil, fmt.Errorf("%s has %s %q; it has %s", own[0].Experiment, what, name, strings.Join(titles, "; "))
}

// differencesFrom compares a row's scores with the baseline's, draw by draw.
func differencesFrom(base, m *store.Metrics, metrics []string) ([]difference, error) {
	switch {
	case m.Bootstrap == 0 || base.Bootstrap == 0:
		return nil, errors.New("there are no draws; `sagbench run EXPERIMENT.yaml bootstrap=200` makes them, and the images are not drawn again")
	case m.Bootstrap != base.Bootstrap || m.Samples != base.Samples:
		return nil, fmt.Errorf("%d draws of %d images, %d of %d: these are no pairs", m.Bootstrap, m.Samples, base.Bootstrap, base.Samples)
	case m.Evaluation != base.Evaluation:
		return nil, errors.New("they were evaluated in different ways (reference, network, protocol, metrics or versions); run the experiment again")
	}
	own, err := store.ReadReplicates(m.Folder, m.Bootstrap)
	if err != nil {
		return nil, err
	}
	others, err := store.ReadReplicates(base.Folder, base.Bootstrap)
	if err != nil {
		return nil, err
	}
	for _, name := range metrics {
		if own.Values[name] == nil {
			return nil, fmt.Errorf("there is no metric %q; known: %s", name, strings.Join(own.Names, ", "))
		}
	}
	var out []difference
	for _, s := range m.Scores {
		b, ok := base.Score(s.Name)
		mine, theirs := own.Values[s.Name], others.Values[s.Name]
		if !ok || mine == nil || theirs == nil || len(metrics) > 0 && !slices.Contains(metrics, s.Name) {
			continue
		}
		pairs := make([]float64, len(mine))
		for i := range pairs {
			pairs[i] = mine[i] - theirs[i]
		}
		d := difference{score: s, value: s.Value - b.Value}
		d.interval, d.spread = eval.NewInterval(d.value, pairs), search.Spread(mine, theirs)
		out = append(out, d)
	}
	return out, nil
}

// printDifferences draws the table for people at a terminal.
func printDifferences(w io.Writer, all []difference) error {
	var lines [][]string
	for _, d := range all {
		number := func(v float64) string { return telling(v, d.score.Decimals+1) }
		sign := ""
		if d.value > 0 {
			sign = "+"
		}
		lines = append(lines, []string{oneLine(d.row), oneLine(d.baseline), oneLine(d.score.Title) + " " + arrow(d.score.Direction),
			number(d.score.Value), sign + number(d.value), number(d.interval.Low) + " … " + number(d.interval.High), d.verdict()})
	}
	return writeTable(w, human.Table{Fixed: 3, Align: "lllrrrl", Head: []string{"row", "baseline", "metric", "value", "difference", "95 %", ""}, Lines: lines})
}

// differencesCSV writes the table for programs, with every digit.
func differencesCSV(w io.Writer, all []difference) error {
	lines := [][]string{{"experiment", "row", "baseline", "metric", "value", "difference", "low", "high", "verdict"}}
	for _, d := range all {
		lines = append(lines, []string{d.experiment, d.row, d.baseline, d.score.Name,
			exact(d.score.Value), exact(d.value), exact(d.interval.Low), exact(d.interval.High), d.verdict()})
	}
	return writeCSV(w, lines)
}
