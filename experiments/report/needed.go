package report

import (
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/search"
	"sagbench/experiments/store"
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

// Told tells which differences the rows of an experiment will tell with the images that are
// wanted, by the folders of their runs, from the draws of images that are there: of a
// pilot with fewer. It prints nothing where there are no draws.
func Told(w io.Writer, folder string, wanted map[string]int) error {
	if !store.Exists(folder) || len(wanted) == 0 {
		return nil
	}
	all, err := store.FindMetrics(folder)
	if err != nil {
		return nil // no pilot; a file that is damaged is the affair of those who need it
	}
	rows := slices.DeleteFunc(all, func(m *store.Metrics) bool { return wanted[filepath.Base(m.Folder)] == 0 || m.Bootstrap == 0 })
	if len(rows) < 2 {
		return nil
	}
	found, _ := compareRows(rows, DifferenceOptions{}) // those pairs that there are
	var titles []string
	most, decimals := map[string]float64{}, map[string]int{}
	images, least, draws := map[int]bool{}, math.MaxInt, 0
	for _, d := range found {
		n := min(wanted[filepath.Base(d.of.Folder)], wanted[filepath.Base(d.from.Folder)])
		title := oneLine(d.score.Title)
		if _, known := most[title]; !known {
			titles = append(titles, title)
		}
		most[title], decimals[title] = max(most[title], search.Told(d.spread, d.images, n)), d.score.Decimals
		images[d.images], least, draws = true, min(least, n), d.draws
	}
	if len(found) == 0 {
		return nil
	}
	var parts, sizes []string
	for _, title := range titles {
		parts = append(parts, fmt.Sprintf("%s in %s", telling(most[title], decimals[title]+1), title))
	}
	for _, n := range slices.Sorted(maps.Keys(images)) {
		sizes = append(sizes, human.Count(n))
	}
	_, err = fmt.Fprintln(w, human.Wrap(fmt.Sprintf("tell:  with %s images a row, differences from %s on, by an interval of 95 %% in four cases of five; from %s draws of the %s images that are scored, the largest over %s",
		human.Count(least), list(parts, "and"), human.Count(draws), strings.Join(sizes, " and "), pairsOf(found)), human.Columns(w), 7))
	return err
}

// pairsOf counts the pairs of rows that are compared.
func pairsOf(found []difference) string {
	pairs := map[[2]string]bool{}
	for _, d := range found {
		pairs[[2]string{d.row, d.baseline}] = true
	}
	if len(pairs) == 1 {
		return "one pair of rows"
	}
	return human.Count(len(pairs)) + " pairs of rows"
}
