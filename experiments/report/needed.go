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
)

// Needed tells how many images of each row, or set, it takes to tell a difference of a
// metric, greater than 0, between each of those at the paths (see Differences) and its
// baseline: of images in pairs, and of images that are none. The options name one metric.
func Needed(w io.Writer, paths []string, o DifferenceOptions, difference float64) error {
	switch {
	case !(difference > 0) || math.IsInf(difference, 0):
		return human.Misusef("compare: --needed is %v, expected a difference greater than 0, in the metric's own unit", difference)
	case len(o.Metrics) != 1:
		return human.Misusef("compare: --needed %v is a difference of one metric: name it with --metric, such as --metric fid", difference)
	case !slices.Contains(DifferenceFormats, o.Format):
		return human.Misusef("compare: --format is %q, expected %s", o.Format, strings.Join(DifferenceFormats, " or "))
	}
	found, _, err := findDifferences(paths, o)
	if err != nil {
		return err
	}
	head := []string{"row", "baseline", "metric", "images", "standard_error", "difference", "needed", "needed_unpaired"}
	var lines [][]string
	for _, d := range found {
		if d.spread == 0 {
			return fmt.Errorf("compare: %s: rows %q and %q: the draws of %s do not differ, which tells nothing about more images", d.experiment, d.row, d.baseline, d.score.Title)
		}
		paired, unpaired := d.needed(difference)
		if o.Format == "csv" {
			lines = append(lines, []string{d.experiment, d.row, d.baseline, d.score.Name, strconv.Itoa(d.images), exact(d.spread), exact(difference), exact(paired), exact(unpaired)})
			continue
		}
		inPairs := "–"
		if d.pairs != "" {
			inPairs = countOf(paired)
		}
		lines = append(lines, []string{oneLine(d.row), oneLine(d.baseline), oneLine(d.score.Title), human.Count(d.images), telling(d.spread, d.score.Decimals+1), exact(difference), inPairs, countOf(unpaired)})
	}
	if o.Format == "csv" {
		return writeCSV(w, append([][]string{append([]string{"experiment"}, head...)}, lines...))
	}
	head[4], head[6], head[7] = "standard error", "needed in pairs", "needed unpaired"
	if err := writeTable(w, human.Table{Fixed: 3, Align: "lllrrrrr", Head: head, Lines: lines}); err != nil {
		return err
	}
	fmt.Fprintln(w, human.Wrap("needed: images of each row for which a true difference of that size is told from 0, by an interval of 95 %, in four cases of five; the standard error of the difference falls with the root of their number. In pairs: images of the same noise or file names, of which what both have in common is not in the error", human.Columns(w), 2))
	return nil
}

// needed are the images of each row that it takes to tell a difference: where they are in
// pairs as these are, which is the same as unpaired where they are not, and where they are
// no pairs.
func (d difference) needed(difference float64) (paired, unpaired float64) {
	one := math.Hypot(d.own*math.Sqrt(float64(d.images)), d.theirs*math.Sqrt(float64(d.others))) // standard error with one image of each
	unpaired = search.Needed(one, 1, difference)
	if d.pairs == "" {
		return unpaired, unpaired
	}
	return search.Needed(d.spread, d.images, difference), unpaired
}

// countOf writes how many images are needed.
func countOf(images float64) string {
	if images > 1e7 {
		return "more than 10 million"
	}
	return human.Count(int(images))
}
