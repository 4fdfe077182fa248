// Package search decides which rows of a sweep go on: scores of equal numbers of images
// and their bootstrap draws go in, rows to drop come out, and how many images the rows
// that are left get next. It is successive halving (Jamieson and Talwalkar,
// "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016; Li et
// al., "Hyperband", 2018) in which no fixed share of the rows goes, but those that a
// paired interval shows to be worse. It reads nothing and draws nothing.
package search

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// A Rule says how a search goes.
type Rule struct {
	Rows       int     // of the sweep, at least 2
	Lower      []bool  // for each metric, whether lower is better; one or two, at least one
	Confidence float64 // that the best row is not dropped, between 0 and 1
	First, Eta int     // images of each row in round 1; what each round multiplies them by, at least 2
	Most       int     // images of a row at most
	Budget     int     // images of all rows together
}

// Check is an error where a rule has no first round.
func (r Rule) Check() error {
	var faults []error
	if r.Rows < 2 {
		faults = append(faults, fmt.Errorf("%d row: a search compares at least 2", r.Rows))
	}
	if r.First > r.Most {
		faults = append(faults, fmt.Errorf("first is %d, and samples, the most that a row may get, is %d", r.First, r.Most))
	}
	if need := r.Rows * r.First; r.Budget < need && r.Rows >= 2 {
		faults = append(faults, fmt.Errorf("budget is %d, less than one round: %d rows of %d images are %d; give at least that, fewer rows, or a smaller first", r.Budget, r.Rows, r.First, need))
	}
	return errors.Join(faults...)
}

// smallStep is the part of its images by which a row has to grow in a round that the
// budget cuts short: less would tell nothing that is not known.
const smallStep = 10

// Next is how many images each of the rows that are left has in the next round: at are
// those of the round before, 0 where there was none, drawn those of all rows so far. It
// is 0 where the search is over: one row is left, each has Most, or the budget ends.
func (r Rule) Next(at, drawn, left int) int {
	if at == 0 {
		return r.First
	}
	if left < 2 || !r.whole(at) {
		return 0
	}
	next := min(at*r.Eta, r.Most, at+(r.Budget-drawn)/left)
	if (next-at)*smallStep < at || next == at {
		return 0
	}
	return next
}

// whole reports whether a round of so many images was cut short by nothing.
func (r Rule) whole(images int) bool {
	n := r.First
	for n < images {
		n *= r.Eta
	}
	return n == images
}

// Rounds are the images that each row has in each round while so many rows are left
// from round 2 on. With 2 there are as many rounds as a search can have.
func (r Rule) Rounds(left int) (images []int) {
	drawn := r.Rows * r.First
	for at := r.Next(0, 0, r.Rows); at > 0; {
		images = append(images, at)
		next := r.Next(at, drawn, left)
		drawn += left * (next - at)
		at = next
	}
	return images
}

// Level is the probability of error, to one side, that each comparison is made with:
// 1 − Confidence over all that can be made in a whole search (Bonferroni). With one
// metric a row is compared with the best, whichever that is, in each round: the best
// row is dropped only if one of Rows−1 comparisons with it errs in one of the rounds.
// With several metrics each row is compared with each other, and no row that is better
// than each other one in some metric is dropped.
func (r Rule) Level() float64 {
	comparisons := r.Rows - 1
	if len(r.Lower) > 1 {
		comparisons *= r.Rows
	}
	return (1 - r.Confidence) / float64(comparisons*len(r.Rounds(2)))
}

// A Row is what is known of a row in a round.
type Row struct {
	Values []float64   // a score for each metric
	Draws  [][]float64 // for each metric, its values for the draws of the images, in the same order for all rows
}

// A Difference is a row's score less another's, with the ends of the interval that
// holds it with the level's probability to either side.
type Difference struct{ Value, Low, High float64 }

// An Outcome is what a round says of a row.
type Outcome struct {
	Against     int          // the row that it was compared with; -1: it is the best
	Differences []Difference // to that, for each metric
	Dropped     bool         // it is worse than that in every metric, each interval says
}

// Decide compares the rows of a round. With one metric each is compared with the best;
// with several, with the one that comes closest to being better in all of them. Of
// equal rows the first is the best. Rows without differing draws are not dropped: what
// does not spread tells nothing about chance.
func (r Rule) Decide(rows []Row) ([]Outcome, error) {
	for i, row := range rows {
		for m := range r.Lower {
			if len(row.Draws[m]) != len(rows[0].Draws[0]) || len(row.Draws[m]) < 2 {
				return nil, fmt.Errorf("search: %d draws of row %d, %d of row 0: these are no pairs", len(row.Draws[m]), i, len(rows[0].Draws[0]))
			}
		}
	}
	out, quantile := make([]Outcome, len(rows)), r.quantile(len(rows[0].Draws[0]))
	best := 0
	for i := range rows {
		if r.sign(0)*rows[i].Values[0] < r.sign(0)*rows[best].Values[0] {
			best = i
		}
	}
	for i := range rows {
		out[i] = Outcome{Against: -1}
		closest := math.Inf(-1)
		for j := range rows {
			if j == i || len(r.Lower) == 1 && (j != best || i == best) {
				continue
			}
			if o, least := r.compare(rows[i], rows[j], j, quantile); least > closest {
				out[i], closest = o, least
			}
		}
	}
	return out, nil
}

// sign is 1 where more of a metric is worse, or else -1.
func (r Rule) sign(metric int) float64 {
	if r.Lower[metric] {
		return 1
	}
	return -1
}

// compare compares a row with another, that of the index, by intervals of so many
// standard errors to either side. least is by how many of these the row is worse, in the
// metric in which it is worse by the fewest.
func (r Rule) compare(row, other Row, index int, quantile float64) (o Outcome, least float64) {
	o, least = Outcome{Against: index, Dropped: true}, math.Inf(1)
	for m := range r.Lower {
		value, spread := row.Values[m]-other.Values[m], Spread(row.Draws[m], other.Draws[m])
		half := quantile * spread
		o.Differences = append(o.Differences, Difference{value, value - half, value + half})
		worse := r.sign(m) * value
		o.Dropped = o.Dropped && spread > 0 && worse > half
		if spread > 0 {
			worse /= spread
		} else {
			worse = 0
		}
		least = min(least, worse)
	}
	return o, least
}

// quantile is how many standard errors the level is away. The error itself comes from
// so many draws, which is what Student's t allows for.
func (r Rule) quantile(draws int) float64 {
	return distuv.StudentsT{Sigma: 1, Nu: float64(draws - 1)}.Quantile(1 - r.Level())
}

// Spread is the standard error of a difference: the standard deviation of the
// differences of two rows' values, draw by draw.
func Spread(a, b []float64) float64 {
	mean, squares := a[0]-b[0], 0.0 // exact where all are equal
	for i := range a {
		mean += (a[i] - b[i] - (a[0] - b[0])) / float64(len(a))
	}
	for i := range a {
		d := a[i] - b[i] - mean
		squares += d * d
	}
	return math.Sqrt(squares / float64(len(a)-1))
}

// quantiles are how many standard errors a true difference is to be away from 0, for an
// interval of 95 % to leave 0 out in four cases of five: 97.5 % and 80 % of a normal
// distribution.
const quantiles = 1.959963984540054 + 0.8416212335729143

// Needed is how many images it takes to tell a true difference of two rows from 0 with
// an interval of 95 % in four cases of five: the standard error, which so many images
// have, falls with the square root of their number.
func Needed(spread float64, images int, difference float64) float64 {
	return math.Ceil(float64(images) * math.Pow(quantiles*spread/difference, 2))
}

// Told is the smallest true difference that wanted images of each row tell, as Needed has
// it, where so many images have the standard error spread.
func Told(spread float64, images, wanted int) float64 {
	return quantiles * spread * math.Sqrt(float64(images)/float64(wanted))
}
