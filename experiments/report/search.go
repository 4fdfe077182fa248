package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/report/page"
	"sagbench/experiments/store"
)

// searchOf is what the rows' search says of itself; nil where there was none.
func searchOf(rows []*store.Metrics) *store.Searched {
	for _, m := range rows {
		if m.Search != nil {
			return m.Search
		}
	}
	return nil
}

// searchColumns is the column of a search, where there was one: the round in which a row
// was dropped, and by how much it was worse than the best then.
func searchColumns(rows []*store.Metrics) []tableColumn {
	if searchOf(rows) == nil {
		return nil
	}
	return []tableColumn{{kind: searchColumn, key: "dropped", title: "dropped"}}
}

// droppedCell is the entry of that column: "1: FID +2.31 [1.02, 3.60]", for machines the
// round alone; empty for a row that is left.
func droppedCell(m *store.Metrics) tableCell {
	if m.Search == nil || !m.Search.Dropped {
		return tableCell{value: math.NaN()}
	}
	cell := textCell(strconv.Itoa(m.Search.Round))
	cell.text += ": " + changesOf(m)
	return cell
}

// changesOf are the differences to the row that another one was compared with, metric by
// metric, with the ends of their intervals.
func changesOf(m *store.Metrics) string {
	var parts []string
	for _, d := range m.Search.Differences {
		title, decimals := d.Metric, 2
		if s, ok := m.Score(d.Metric); ok {
			title, decimals = s.Title, s.Decimals
		}
		most := decimals + 4
		for _, v := range []float64{d.Low, d.High} { // an end that is not 0 does not look like it
			for decimals < most && v != 0 && strings.Trim(rounded(v, decimals), "-0.") == "" {
				decimals++
			}
		}
		parts = append(parts, fmt.Sprintf("%s %s [%s, %s]", title, signed(d.Change, decimals, true), signed(d.Low, decimals, false), signed(d.High, decimals, false)))
	}
	return strings.Join(parts, ", ")
}

// leftOf are the rows that a search has left.
func leftOf(rows []*store.Metrics) (left []*store.Metrics) {
	for _, m := range rows {
		if m.Search != nil && !m.Search.Dropped {
			left = append(left, m)
		}
	}
	return left
}

// bestOf are the rows that the others were compared with in the last round.
func bestOf(left []*store.Metrics) (best []*store.Metrics) {
	for _, m := range left {
		if m.Search.Against == "" {
			best = append(best, m)
		}
	}
	return best
}

// searchLegend says below a table what the search found; none where there was none.
func searchLegend(rows []*store.Metrics) []string {
	s := searchOf(rows)
	if s == nil {
		return nil
	}
	lines := []string{fmt.Sprintf("search by %s: %s; %s of %s images in %d rounds, confidence %g %%",
		strings.Join(metricTitles(rows, s.Rule.Metrics), " and "), foundOf(rows), human.Count(s.Drawn), human.Count(s.Rule.Rows*s.Rule.Samples), s.Rounds, 100*s.Rule.Confidence)}
	if slices.ContainsFunc(rows, func(m *store.Metrics) bool { return m.Search != nil && m.Search.Dropped }) {
		against := "the best row"
		if len(s.Rule.Metrics) > 1 {
			against = "the row that beat it"
		}
		lines = append(lines, fmt.Sprintf("dropped: the round, and the difference to %s of that round at equal numbers of images, with its interval, corrected for all comparisons of the search; scores of rows with other numbers of images do not compare", against))
	}
	return lines
}

// foundOf says which rows a search has found.
func foundOf(rows []*store.Metrics) string {
	left := leftOf(rows)
	var titles []string
	for _, m := range left {
		titles = append(titles, oneLine(m.Title()))
	}
	switch {
	case len(left) == 1:
		return titles[0] + " is the best row"
	case len(left) > 0 && len(left[0].Search.Rule.Metrics) > 1:
		return "no other row is seen to beat these in both: " + some(titles, 12, ", ")
	}
	if best := bestOf(left); len(best) == 1 {
		return fmt.Sprintf("these rows cannot be told apart, %s looks best: %s", oneLine(best[0].Title()), some(titles, 12, ", "))
	}
	return "these rows cannot be told apart: " + some(titles, 12, ", ")
}

// metricTitles are the titles of metrics by their names.
func metricTitles(rows []*store.Metrics, names []string) (titles []string) {
	for _, name := range names {
		title := name
		if s, ok := rows[0].Score(name); ok {
			title = s.Title
		}
		titles = append(titles, title)
	}
	return titles
}

// searchVerdicts are the page's sentences about the rows of a search.
func searchVerdicts(rows []*store.Metrics) (all []page.Verdict, caution string) {
	left := leftOf(rows)
	for _, m := range rows {
		if m.Search == nil {
			continue
		}
		against := ""
		if m.Search.Against != "" {
			against = fmt.Sprintf(" against %s: %s", oneLine(m.Search.Against), changesOf(m))
		}
		v := page.Verdict{Group: oneLine(m.Label), Mark: page.Undecided}
		switch name := settingsTitle(m); {
		case m.Search.Dropped:
			v.Mark, v.Text = page.Worse, fmt.Sprintf("%s: dropped in round %d at %s images%s.", name, m.Search.Round, human.Count(m.Samples), against)
		case len(left) == 1:
			v.Mark, v.Text = page.Better, fmt.Sprintf("%s: the best row, alone after round %d.", name, m.Search.Rounds)
		case against == "":
			v.Text = fmt.Sprintf("%s: left after round %d of %s images, and the best there.", name, m.Search.Round, human.Count(m.Samples))
		default:
			v.Text = fmt.Sprintf("%s: left after round %d of %s images%s.", name, m.Search.Round, human.Count(m.Samples), against)
		}
		all = append(all, v)
	}
	caution = strings.Join(searchLegend(rows)[:1], "")
	return all, strings.ToUpper(caution[:1]) + caution[1:] + "."
}

// comparable are the rows whose scores can be compared: all of them or, of an experiment
// that searched, those that its search has left, which have equal numbers of images.
// dropped counts the others.
func comparable(rows []*store.Metrics) (left []*store.Metrics, dropped int) {
	for _, m := range rows {
		if m.Search != nil && m.Search.Dropped {
			dropped++
			continue
		}
		left = append(left, m)
	}
	return left, dropped
}
