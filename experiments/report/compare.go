package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
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

// Differences compares the rows of the runs below the folders, or the sets in files of
// eval's JSON, and prints to w how they differ from a baseline, with intervals of 95 % and
// p-values, and in a sentence each. It is an error where rows have no draws or were
// evaluated in different ways.
func Differences(w io.Writer, paths []string, o DifferenceOptions) error {
	render, ok := map[string]func(io.Writer, []difference) error{"terminal": printDifferences, "csv": differencesCSV}[o.Format]
	if !ok {
		return human.Misusef("compare: --format is %q, expected %s", o.Format, strings.Join(DifferenceFormats, " or "))
	}
	found, notes, err := findDifferences(paths, o)
	if err != nil {
		return err
	}
	if err := render(w, found); err != nil || o.Format == "csv" {
		return err
	}
	fmt.Fprintln(w)
	for _, line := range slices.Concat(sentences(found), notes) {
		fmt.Fprintln(w, human.Wrap(oneLine(line), human.Columns(w), 2))
	}
	return nil
}

// findDifferences compares what lies at the paths, and tells what to say of it.
func findDifferences(paths []string, o DifferenceOptions) (found []difference, notes []string, err error) {
	files := 0
	for _, path := range paths {
		if store.IsEvaluation(path) {
			files++
		}
	}
	switch files {
	case 0:
		found, notes, err = runDifferences(paths, o)
	case len(paths):
		found, notes, err = setDifferences(paths, o)
	default:
		return nil, nil, human.Misusef("compare: some of these are folders of results, and some files of `eval --json`; compare one kind at a time")
	}
	if err != nil {
		return nil, nil, err
	}
	return found, append(notes, extrapolated(found)...), nil
}

// runDifferences compares the rows of the runs below the folders.
func runDifferences(folders []string, o DifferenceOptions) (found []difference, notes []string, err error) {
	rows, err := store.FindMetrics(folders...)
	if err != nil {
		return nil, nil, err
	}
	rows, dropped := comparable(rows)
	found, err = compareRows(rows, o)
	if err != nil && dropped > 0 {
		err = fmt.Errorf("%w; of the rows, %d were dropped by a search, whose tables show their differences", err, dropped)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("compare: %w", err)
	}
	if dropped > 0 {
		notes = append(notes, fmt.Sprintf("left out: rows that a search dropped (%d), which have fewer images; the table shows in which round, and their differences", dropped))
	}
	return found, append(notes, differencesOf(rows)...), nil
}

// A difference is a row's score less the baseline's.
type difference struct {
	experiment    string
	row, baseline string      // titles
	score         store.Score // the row's
	base          float64     // the baseline's
	value         float64
	interval      eval.Interval
	spread        float64 // standard error of the difference

	p, corrected float64 // see eval.PValue; the corrected one is eval.Holm's, over so many comparisons
	comparisons  int
	draws        int

	pairs          string  // what makes pairs of the images: byNoise, byName, byContent; "": they are none
	images, others int     // of the row and of the baseline
	own, theirs    float64 // standard errors of the two scores

	of, from *store.Metrics // the rows themselves; nil where sets are compared
}

// What makes pairs of images.
const (
	byNoise   = "noise"
	byName    = "file name"
	byContent = "content"
)

// newDifference compares two scores by their values for each draw. Those of images that
// are no pairs are independent of each other: a draw of one is subtracted from the next
// draw of the other.
func newDifference(s, base store.Score, mine, theirs []float64, pairs string) difference {
	n := min(len(mine), len(theirs))
	d := difference{score: s, base: base.Value, value: s.Value - base.Value, pairs: pairs, draws: n}
	mine, others := mine[:n], slices.Clone(theirs[:n])
	if pairs == "" {
		others = append(others[1:], others[0])
	}
	replicates := make([]float64, n)
	for i := range replicates {
		replicates[i] = mine[i] - others[i]
	}
	d.interval, d.p = eval.NewInterval(d.value, replicates), eval.PValue(d.value, replicates)
	zeros := make([]float64, n)
	d.own, d.theirs = search.Spread(mine, zeros), search.Spread(others, zeros)
	if d.spread = search.Spread(mine, others); pairs == "" {
		d.spread = math.Hypot(d.own, d.theirs)
	}
	return d
}

// correct corrects the p-values of all comparisons that are made at once.
func correct(all []difference) {
	p := make([]float64, len(all))
	for i, d := range all {
		p[i] = d.p
	}
	for i, corrected := range eval.Holm(p) {
		all[i].corrected, all[i].comparisons = corrected, len(all)
	}
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
	correct(out)
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
	pairs := ""
	if seedOf(m) == seedOf(base) {
		pairs = byNoise
	}
	var out []difference
	for _, s := range m.Scores {
		b, ok := base.Score(s.Name)
		mine, theirs := own.Values[s.Name], others.Values[s.Name]
		if !ok || mine == nil || theirs == nil || len(metrics) > 0 && !slices.Contains(metrics, s.Name) {
			continue
		}
		d := newDifference(s, b, mine, theirs, pairs)
		d.images, d.others = m.Samples, base.Samples
		out = append(out, d)
	}
	return out, nil
}

// seedOf is the seed of a row's noise, as its config has it.
func seedOf(m *store.Metrics) string {
	var config struct {
		Seed json.RawMessage `json:"seed"`
	}
	if json.Unmarshal(m.Config, &config) != nil {
		return ""
	}
	return string(config.Seed)
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
			number(d.score.Value), sign + number(d.value), number(d.interval.Low) + " … " + number(d.interval.High), d.verdict(), likely(d.corrected)})
	}
	return writeTable(w, human.Table{Fixed: 3, Align: "lllrrrlr", Head: []string{"row", "baseline", "metric", "value", "difference", "95 %", "", pTitle(all)}, Lines: lines})
}

// differencesCSV writes the table for programs, with every digit.
func differencesCSV(w io.Writer, all []difference) error {
	lines := [][]string{{"experiment", "row", "baseline", "metric", "value", "difference", "low", "high", "verdict", "p", "p_holm", "comparisons", "pairs", "images", "baseline_images"}}
	for _, d := range all {
		lines = append(lines, []string{d.experiment, d.row, d.baseline, d.score.Name,
			exact(d.score.Value), exact(d.value), exact(d.interval.Low), exact(d.interval.High), d.verdict(),
			exact(d.p), exact(d.corrected), strconv.Itoa(d.comparisons), d.pairs, strconv.Itoa(d.images), strconv.Itoa(d.others)})
	}
	return writeCSV(w, lines)
}
