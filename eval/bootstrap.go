package eval

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"sagbench/eval/neighbours"
)

// A Resampler is a metric that can be computed for generated images drawn
// again with replacement: what its bootstrap interval is made of.
type Resampler interface {
	Metric
	// Replicates are the values for each of the draws; the reference stays.
	Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error)
}

// Draws are B draws of N images out of N with replacement (Efron, "Bootstrap
// Methods: Another Look at the Jackknife", 1979). Draw b is a function of
// (seed, N) alone: two sets whose images i were made from the same noise are
// drawn in pairs, so that the difference of their replicates has the spread of
// the difference.
type Draws struct {
	N        int
	Progress func(done int) // called after each draw by metrics that take long; may be nil
	index    [][]int32      // [B][N], in the order drawn
}

// MinReplicates is the least number of draws that has a 2.5 % quantile.
const MinReplicates = 40

// NewDraws draws n images count times (numpy.random.RandomState(seed)).
func NewDraws(n, count int, seed uint32) (*Draws, error) {
	if n < 2 || n > math.MaxInt32 || count < MinReplicates {
		return nil, fmt.Errorf("eval: %d bootstrap draws of %d images; an interval of 95 %% needs at least %d of 2", count, n, MinReplicates)
	}
	d := &Draws{N: n, index: make([][]int32, count)}
	random := newRandomState(seed)
	for b := range d.index {
		d.index[b] = make([]int32, n)
		for i := range d.index[b] {
			d.index[b][i] = int32(random.interval(uint32(n - 1)))
		}
	}
	return d, nil
}

// Len is the number of draws.
func (d *Draws) Len() int { return len(d.index) }

func (d *Draws) progress(done int) {
	if d.Progress != nil {
		d.Progress(done)
	}
}

// counts [B,N] says how often each draw holds each image.
func (d *Draws) counts() []float64 {
	out := make([]float64, d.Len()*d.N)
	for b, list := range d.index {
		row := out[b*d.N : (b+1)*d.N]
		for _, i := range list {
			row[i]++
		}
	}
	return out
}

// check reports draws of another number of images.
func (d *Draws) check(f *Features) error {
	if d.N != f.N {
		return fmt.Errorf("%s: draws of %d images for a set of %d", f.name(), d.N, f.N)
	}
	return nil
}

// CheckDraws is an error where count draws are too few for an interval, or a metric
// cannot be computed for them; none are fine.
func CheckDraws(count int, metrics ...Metric) error {
	if count == 0 {
		return nil
	}
	if count < MinReplicates {
		return fmt.Errorf("bootstrap is %d, expected 0 or at least %d", count, MinReplicates)
	}
	var names []string
	for _, m := range metrics {
		if _, ok := m.(Resampler); !ok {
			names = append(names, m.Column().Name)
		}
	}
	if names != nil {
		return fmt.Errorf("bootstrap is %d, and there is no bootstrap interval of %s; leave it out of the metrics, or take bootstrap 0", count, strings.Join(names, ", "))
	}
	return nil
}

// Replicates computes a metric for each of the draws.
func Replicates(ctx context.Context, m Metric, ref, gen *Features, d *Draws) ([]float64, error) {
	r, ok := m.(Resampler)
	if !ok {
		return nil, fmt.Errorf("eval: %s has no bootstrap interval", m.Column().Name)
	}
	err := d.check(gen)
	var values []float64
	if err == nil {
		values, err = r.Replicates(ctx, ref, gen, d)
	}
	if err == nil && slices.ContainsFunc(values, func(v float64) bool { return v-v != 0 }) {
		err = errors.New("a replicate is not finite")
	}
	if err != nil {
		return nil, fmt.Errorf("eval: bootstrap of %s: %w", m.Column().Name, err)
	}
	return values, nil
}

// An Interval holds, with a confidence of 95 %, what the metric gives on the
// average of sets of as many images as were seen.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Half is half the interval's width: the number behind ±.
func (i Interval) Half() float64 { return (i.High - i.Low) / 2 }

// NewInterval is the interval about a value from its replicates t*:
//
//	value − (q(97.5 %) − t̄*) … value − (q(2.5 %) − t̄*)
//
// the basic bootstrap interval (Davison and Hinkley, "Bootstrap Methods and
// their Application", eq. 5.6) with the replicates centred by their mean
// rather than by the value. A draw holds fewer distinct images than the set
// (63 % of them), so that replicates of a metric that is biased for few images
// (FID above all) lie to one side of the value; their spread about
// their own mean is that of the value about the mean of sets of N images, and
// this mean is what the interval holds. The bias at N itself stays: see
// FIDInfinity. Quantiles are at rank (B+1)·p.
//
// For the difference of two sets that were drawn in pairs, value is the
// difference and replicates are the differences draw by draw; the bias, which
// is the same in both, is gone from it.
func NewInterval(value float64, replicates []float64) Interval {
	sorted := slices.Sorted(slices.Values(replicates))
	mean := sorted[0] // exact where all are equal
	for _, v := range sorted {
		mean += (v - sorted[0]) / float64(len(sorted))
	}
	return Interval{value - (quantile(sorted, 0.975) - mean), value - (quantile(sorted, 0.025) - mean)}
}

// A Bounded is a metric whose values cannot lie outside of some bounds.
type Bounded interface {
	Bounds() (low, high float64)
}

// IntervalOf is NewInterval for a metric's value, cut off at what the metric can be:
// a recall near 0 would else reach below 0.
func IntervalOf(m Metric, value float64, replicates []float64) Interval {
	i := NewInterval(value, replicates)
	if b, ok := m.(Bounded); ok {
		low, high := b.Bounds()
		i.Low, i.High = max(i.Low, low), min(i.High, high)
	}
	return i
}

// quantile interpolates sorted values at rank (B+1)·p, counted from 1.
func quantile(sorted []float64, p float64) float64 {
	rank := min(max(float64(len(sorted)+1)*p, 1), float64(len(sorted)))
	low := int(rank)
	if low == len(sorted) {
		return sorted[low-1]
	}
	return sorted[low-1] + (rank-float64(low))*(sorted[low]-sorted[low-1])
}

// requireOwn reports statistics that are not of the set's own images: read from
// a file, they would stay the same whichever images are drawn.
func (f *Features) requireOwn(s *Stats) error {
	if s != nil && s.N != f.N {
		return fmt.Errorf("%s holds statistics that its %d images do not explain: an interval takes all images, without mu and sigma", f.name(), f.N)
	}
	return nil
}

// shareReplicates are replicates of the share of reference images that count
// because of a generated image. because names, for each reference image, the one
// generated image, None or Several (see neighbours.Members). A generated image's
// part is the number of reference images that count because of it alone: what the
// share loses without it. A draw that holds it w times counts its part w times:
//
//	share + Σⱼ (wⱼ−1)·partⱼ/N
//
// The spread is the jackknife's, which on the average is no smaller than the
// true one (Efron and Stein, "The Jackknife Estimate of Variance", 1981), and
// there is no bias from the images that a draw leaves out.
func shareReplicates(because []int32, d *Draws) []float64 {
	parts, share := make([]float64, d.N), 0.0
	for _, j := range because {
		if j != neighbours.None {
			share++
		}
		if j >= 0 {
			parts[j]++
		}
	}
	sum := 0.0
	for _, p := range parts {
		sum += p
	}
	out := make([]float64, d.Len())
	for b, list := range d.index {
		sumDrawn := 0.0
		for _, j := range list {
			sumDrawn += parts[j]
		}
		out[b] = (share + sumDrawn - sum) / float64(len(because))
	}
	return out
}

// meanReplicates are, for each draw, the mean over its images of a function of
// the value that an image has.
func meanReplicates(values []int32, d *Draws, f func(int32) float64) []float64 {
	out := make([]float64, d.Len())
	for b, list := range d.index {
		for _, j := range list {
			out[b] += f(values[j])
		}
		out[b] /= float64(d.N)
	}
	return out
}
