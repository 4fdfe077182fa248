package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/search"
	"sagbench/experiments/store"
)

// Needed tells how many images of each row it takes to tell a difference of a metric,
// greater than 0, between each row below the folders and its baseline. The options name
// one metric.
func Needed(w io.Writer, folders []string, o DifferenceOptions, difference float64) error {
	switch {
	case !(difference > 0) || math.IsInf(difference, 0):
		return human.Misusef("compare: --needed is %v, expected a difference greater than 0, in the metric's own unit", difference)
	case len(o.Metrics) != 1:
		return human.Misusef("compare: --needed %v is a difference of one metric: name it with --metric, such as --metric fid", difference)
	case !slices.Contains(DifferenceFormats, o.Format):
		return human.Misusef("compare: --format is %q, expected %s", o.Format, strings.Join(DifferenceFormats, " or "))
	}
	rows, err := store.FindMetrics(folders...)
	if err != nil {
		return err
	}
	rows, _ = comparable(rows)
	found, err := compareRows(rows, o)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	head := []string{"row", "baseline", "metric", "images", "standard_error", "difference", "needed"}
	var lines [][]string
	for _, d := range found {
		if d.spread == 0 {
			return fmt.Errorf("compare: %s: rows %q and %q: the draws of %s do not differ, which tells nothing about more images", d.experiment, d.row, d.baseline, d.score.Title)
		}
		images := search.Needed(d.spread, d.of.Samples, difference)
		if o.Format == "csv" {
			lines = append(lines, []string{d.experiment, d.row, d.baseline, d.score.Name, strconv.Itoa(d.of.Samples), exact(d.spread), exact(difference), exact(images)})
			continue
		}
		needed := "more than 10 million"
		if images <= 1e7 {
			needed = human.Count(int(images))
		}
		lines = append(lines, []string{oneLine(d.row), oneLine(d.baseline), oneLine(d.score.Title), human.Count(d.of.Samples), telling(d.spread, d.score.Decimals+1), exact(difference), needed})
	}
	if o.Format == "csv" {
		return writeCSV(w, append([][]string{append([]string{"experiment"}, head...)}, lines...))
	}
	head[4] = "standard error"
	if err := writeTable(w, human.Table{Fixed: 3, Align: "lllrrrr", Head: head, Lines: lines}); err != nil {
		return err
	}
	fmt.Fprintln(w, human.Wrap("needed: images of each row for which a true difference of that size is told from 0, by an interval of 95 %, in four cases of five; the standard error of the difference falls with the root of their number", human.Columns(w), 2))
	return nil
}
