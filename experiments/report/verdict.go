package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/report/page"
	"sagbench/experiments/store"
)

// verdictOf says in one sentence what a row changes against its baseline, as far as
// the intervals of the differences allow: what they leave open is named as open.
// all are the differences of one row.
func verdictOf(all []difference) string {
	var seen, open []string
	for _, d := range all {
		title := oneLine(d.score.Title)
		if d.mark() == page.Undecided {
			open = append(open, title)
			continue
		}
		seen = append(seen, fmt.Sprintf("%s by %s (%s)", title, d.change(), d.verdict()))
	}
	row := all[0].of
	none := fmt.Sprintf("no difference in %s can be told at %s images", list(open, "or"), human.Count(row.Samples))
	name := settingsTitle(row)
	switch {
	case len(seen) == 0:
		return name + ": " + none + "."
	case len(open) == 0:
		return fmt.Sprintf("%s changes %s.", name, list(seen, "and"))
	}
	return fmt.Sprintf("%s changes %s; %s.", name, list(seen, "and"), none)
}

// settingsTitle is what the sweep chose for a row, "s = 0.5"; its title where there
// was no sweep.
func settingsTitle(m *store.Metrics) string {
	var parts []string
	for i, name := range store.SettingNames(m.Settings) {
		parts = append(parts, name+" = "+written(m.Settings[i].Value))
	}
	if len(parts) == 0 {
		return oneLine(m.Title())
	}
	return oneLine(strings.Join(parts, ", "))
}

// written is a setting's value as people write it: a number below zero has the minus
// of typography.
func written(value string) string {
	if number, err := strconv.ParseFloat(value, 64); err == nil && number < 0 {
		return "−" + strings.TrimPrefix(value, "-")
	}
	return value
}

// change is the difference with its interval, "+0.32 [0.11, 0.54]".
func (d difference) change() string {
	decimals := d.decimals()
	return fmt.Sprintf("%s [%s, %s]", signed(d.value, decimals, true), signed(d.interval.Low, decimals, false), signed(d.interval.High, decimals, false))
}

// decimals are those of the metric, or as many more as it takes to show that the
// ends of a decided interval are not zero.
func (d difference) decimals() int {
	decimals := d.score.Decimals
	if d.mark() == page.Undecided {
		return decimals
	}
	for _, v := range []float64{d.interval.Low, d.interval.High} {
		for decimals < d.score.Decimals+4 && strings.Trim(rounded(math.Abs(v), decimals), "0.") == "" {
			decimals++
		}
	}
	return decimals
}

// signed writes a number with the minus of typography, and with a plus if asked for.
func signed(v float64, decimals int, plus bool) string {
	text := rounded(math.Abs(v), decimals)
	switch {
	case strings.Trim(text, "0.") == "":
		return text
	case v < 0:
		return "−" + text
	case plus:
		return "+" + text
	}
	return text
}

// mark is the verdict as a mark.
func (d difference) mark() page.Mark {
	switch d.verdict() {
	case "better":
		return page.Better
	case "worse":
		return page.Worse
	}
	return page.Undecided
}

// list joins words: a, b and c.
func list(words []string, last string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " " + last + " " + words[n-1]
	}
	return strings.Join(words, "")
}

// verdicts are the page's sentences, a row each; reason says why there are none.
func verdicts(rows []*store.Metrics) (all []page.Verdict, of map[*store.Metrics][]difference, caution string) {
	of = map[*store.Metrics][]difference{}
	if searchOf(rows) != nil {
		all, caution = searchVerdicts(rows)
		return all, of, caution
	}
	found, err := compareRows(rows, DifferenceOptions{})
	if err != nil {
		return nil, of, "Nothing can be said about differences between the rows: " + oneLine(err.Error()) + "."
	}
	decided := 0
	for _, d := range found {
		of[d.of] = append(of[d.of], d)
		if d.mark() != page.Undecided {
			decided++
		}
	}
	for _, m := range rows {
		if ds := of[m]; len(ds) > 0 {
			v := page.Verdict{Group: oneLine(m.Label), Text: verdictOf(ds), Mark: ds[0].mark()}
			if v.Group == settingsTitle(m) { // the sentence begins with it
				v.Group = ""
			}
			all = append(all, v)
		}
	}
	base := map[string]bool{}
	for _, d := range found {
		base[settingsTitle(d.from)] = true
	}
	caution = "Differences are to the first row of each model"
	if len(base) == 1 {
		caution = "Differences are to " + settingsTitle(found[0].from)
	}
	caution += fmt.Sprintf(", with paired intervals of 95 %% from %d draws of the images.", rows[0].Bootstrap)
	if n := len(found); n >= 5 {
		caution += fmt.Sprintf(" Each interval stands alone: of %d comparisons, about %s would be called better or worse by chance if nothing differed; %d were.", n, atMost(float64(n)*0.05), decided)
	}
	return all, of, caution
}

// atMost writes an expected count.
func atMost(v float64) string {
	if v < 1 {
		return rounded(v, 1)
	}
	return rounded(math.Round(v), 0)
}
