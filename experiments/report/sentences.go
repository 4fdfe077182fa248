package report

import (
	"fmt"
	"strconv"
	"strings"

	"sagbench/experiments/human"
)

// alpha is the probability of calling anything a difference where there is none.
const alpha = 0.05

// sentences say what the comparisons show, a line each.
func sentences(all []difference) (lines []string) {
	for _, d := range all {
		lines = append(lines, d.sentence())
	}
	return lines
}

// sentence says what a comparison shows: "B is better than A in FID: 12.3 against 14.1,
// difference −1.8 [−2.4, −1.2], p = 0.004 after Holm over 4 comparisons, paired by file
// name, 5,000 images each".
func (d difference) sentence() string {
	row, baseline, title := oneLine(d.row), oneLine(d.baseline), oneLine(d.score.Title)
	var says string
	switch verdict := d.verdict(); {
	case verdict == "no difference seen":
		says = fmt.Sprintf("no difference between %s and %s is seen in %s", row, baseline, title)
	case d.corrected < alpha:
		says = fmt.Sprintf("%s is %s than %s in %s", row, verdict, baseline, title)
	default:
		says = fmt.Sprintf("%s seems %s than %s in %s by its interval alone, which does not stand the correction", row, verdict, baseline, title)
	}
	number := func(v float64) string { return written(telling(v, d.score.Decimals+1)) }
	sign := ""
	if d.value > 0 {
		sign = "+"
	}
	return fmt.Sprintf("%s: %s against %s, difference %s%s [%s, %s], %s, %s, %s", says, number(d.score.Value), number(d.base),
		sign, number(d.value), number(d.interval.Low), number(d.interval.High), d.chance(), d.pairing(), d.sizes())
}

// chance is the p-value in words.
func (d difference) chance() string {
	text := likely(d.corrected)
	if !strings.HasPrefix(text, "<") {
		text = "= " + text
	}
	if d.comparisons < 2 {
		return "p " + text
	}
	return fmt.Sprintf("p %s after Holm over %s comparisons", text, human.Count(d.comparisons))
}

// pairing says whether images were compared in pairs.
func (d difference) pairing() string {
	if d.pairs == "" {
		return "unpaired"
	}
	return "paired by " + d.pairs
}

// sizes are the numbers of images.
func (d difference) sizes() string {
	if d.images == d.others {
		return human.Count(d.images) + " images each"
	}
	return fmt.Sprintf("%s images against %s", human.Count(d.images), human.Count(d.others))
}

// leastShown is the smallest p-value that people are shown.
const leastShown = 0.0001

// likely writes a p-value.
func likely(p float64) string {
	if p < leastShown {
		return "< " + strconv.FormatFloat(leastShown, 'f', -1, 64)
	}
	return strconv.FormatFloat(p, 'g', 3, 64)
}

// pTitle is the head of the column of p-values.
func pTitle(all []difference) string {
	if len(all) < 2 {
		return "p"
	}
	return "p (Holm)"
}

// extrapolated tells where p-values are smaller than the draws can count.
func extrapolated(all []difference) []string {
	least, draws, any := 1.0, 0, 0
	for _, d := range all {
		if counted := 1 / float64(d.draws+1); d.p < counted {
			any++
			least, draws = min(least, counted), max(draws, d.draws)
		}
	}
	if any == 0 {
		return nil
	}
	tail := "p is the tail of Student's t beyond as many standard errors"
	if len(all) == 1 {
		return []string{fmt.Sprintf("%s draws count no p-value below %s; none of them is beyond the difference, and %s", human.Count(draws), likely(least), tail)}
	}
	return []string{fmt.Sprintf("%s draws count no p-value below %s before the correction; in %s of %s comparisons none of them is beyond the difference, and %s",
		human.Count(draws), likely(least), human.Count(any), human.Count(len(all)), tail)}
}
