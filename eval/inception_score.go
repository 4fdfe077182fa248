package eval

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sagbench/eval/linalg"
)

// InceptionScore is exp E_x KL(p(y|x) ‖ p(y)) (Salimans et al., "Improved
// Techniques for Training GANs", §4), the mean over splits of the images, with
// p the softmax of the classifier's logits without bias, all 1008 of them.
//
// The ADM evaluator takes consecutive splits of 5000 in file order, the last
// one short but of equal weight, and no standard deviation (evaluator.py,
// compute_inception_score). torch-fidelity takes 10 splits of a permutation
// seeded with 2020 and the standard deviation over splits (ddof 0,
// metric_isc.py). It is computed in float64 from a log-softmax: a
// probability that underflows counts as 0, where evaluator.py gets NaN.
type InceptionScore struct {
	SplitSize int  `yaml:"split_size" min:"0" max:"10000000" doc:"images of a split, where splits is 0"`
	Splits    int  `yaml:"splits" min:"0" max:"1000000" doc:"number of splits, instead of split_size; gives a standard deviation"`
	Shuffle   bool `yaml:"shuffle" doc:"split a permutation (seed 2020) instead of the file order"`
}

var _ Resampler = (*InceptionScore)(nil)

// Validate implements the check after decoding.
func (m *InceptionScore) Validate() error {
	if m.Splits < 0 || m.SplitSize < 0 || m.Splits == 0 && m.SplitSize == 0 {
		return fmt.Errorf("split_size %d and splits %d; one of them must be positive", m.SplitSize, m.Splits)
	}
	return nil
}

// Column implements Metric.
func (*InceptionScore) Column() Column { return Column{"is", "IS", Higher, 2} }

// Needs implements Metric: nothing of the reference.
func (*InceptionScore) Needs() Needs { return Needs{Generated: Parts{Pool: true, Logits: true}} }

// MinImages implements Metric.
func (*InceptionScore) MinImages() int { return 2 }

// Bounds implements Bounded.
func (*InceptionScore) Bounds() (low, high float64) { return 1, math.Inf(1) }

// Score implements Metric. The reference plays no part. Where images are
// sorted by class, a split holds few of the classes: then a second score, over
// splits of a permutation, follows the first.
func (m *InceptionScore) Score(ctx context.Context, _, gen *Features) ([]Score, error) {
	order, ends, err := m.plan(gen)
	if err != nil {
		return nil, err
	}
	mean, std, best, err := inceptionScore(ctx, gen, ends, order)
	if err != nil {
		return nil, err
	}
	s := m.Column().score(mean, m.note())
	if m.Splits > 0 {
		s.Std = std
	}
	if size := m.SplitSize; m.Splits == 0 && gen.N%size != 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: IS is the mean over splits of %d images, but the last one has %d: it is lower than that of whole splits",
			gen.name(), size, gen.N%size))
	}
	z := classOrder(best)
	if order != nil || len(ends) < 2 || z < sortedFrom {
		return []Score{s}, nil
	}
	shuffled, _, _, err := inceptionScore(ctx, gen, ends, newRandomState(shuffleSeed).permutation(gen.N))
	if err != nil {
		return nil, err
	}
	s.Warnings = append(s.Warnings, fmt.Sprintf("%s: neighbours have the same class far more often than by chance (%.0f standard deviations): the images seem to be sorted, and a split holds few of the classes; over splits of a permutation IS is %.4g",
		gen.name(), z, shuffled))
	return []Score{s, Column{"is_permuted", "IS, permuted", Higher, 2}.score(shuffled, fmt.Sprintf("the same splits of a permutation (seed %d)", shuffleSeed))}, nil
}

// shuffleSeed is torch-fidelity's.
const shuffleSeed = 2020

// plan is the order of the images (nil: as they are) and where splits end.
func (m *InceptionScore) plan(gen *Features) (order, ends []int, err error) {
	if err := errors.Join(m.Validate(), gen.requireLogits()); err != nil {
		return nil, nil, err
	}
	if m.Splits > gen.N {
		return nil, nil, fmt.Errorf("%s: %d splits of %d images", gen.name(), m.Splits, gen.N)
	}
	if m.Shuffle {
		order = newRandomState(shuffleSeed).permutation(gen.N)
	}
	return order, splits(gen.N, m.SplitSize, m.Splits), nil
}

func (m *InceptionScore) note() string {
	order := "file order"
	if m.Shuffle {
		order = fmt.Sprintf("a permutation (seed %d)", shuffleSeed)
	}
	if m.Splits > 0 {
		return fmt.Sprintf("%d splits in %s", m.Splits, order)
	}
	return fmt.Sprintf("splits of %d in %s", m.SplitSize, order)
}

// splits are the ends of consecutive parts of [0,n): parts of them if that is
// positive, else parts of a size.
func splits(n, size, parts int) (ends []int) {
	if parts > 0 {
		for i := range parts {
			ends = append(ends, (i+1)*n/parts)
		}
		return ends
	}
	for end := size; end < n; end += size {
		ends = append(ends, end)
	}
	return append(ends, n)
}

// inceptionScore is the mean and the standard deviation over the splits that
// end at ends, of the images in the given order (nil: as they are), and the
// likeliest class of each image in that order.
func inceptionScore(ctx context.Context, gen *Features, ends, order []int) (mean, std float64, best []int, err error) {
	if gen.N < 1 {
		return 0, 0, nil, errors.New("no images")
	}
	var scores []float64
	start := 0
	for _, end := range ends {
		if err := ctx.Err(); err != nil {
			return 0, 0, nil, err
		}
		s, classes, err := splitScore(gen, start, end, order)
		if err != nil {
			return 0, 0, nil, err
		}
		scores, best = append(scores, s), append(best, classes...)
		start = end
	}
	mean, std = meanStd(scores)
	return mean, std, best, nil
}

// splitScore is exp(mean Σ p·log p − Σ p̄·log p̄) of one split, and the likeliest
// class of each of its images.
func splitScore(gen *Features, start, end int, order []int) (score float64, best []int, err error) {
	var marginal []float64
	entropy := 0.0
	for from := start; from < end; from += classBatch {
		rows := min(classBatch, end-from)
		p, negative, classes, err := gen.classify(from, rows, order)
		if err != nil {
			return 0, nil, err
		}
		best = append(best, classes...)
		k := len(p) / rows
		if marginal == nil {
			marginal = make([]float64, k)
		}
		for i := range rows {
			entropy += negative[i]
			for c, v := range p[i*k : (i+1)*k] {
				marginal[c] += v
			}
		}
	}
	return expDivergence(entropy, marginal, float64(end-start)), best, nil
}

// expDivergence is exp(Σ p·log p/n − Σ p̄·log p̄) with p̄ = marginal/n.
func expDivergence(entropy float64, marginal []float64, n float64) float64 {
	divergence := entropy / n
	for _, sum := range marginal {
		if q := sum / n; q > 0 {
			divergence -= q * math.Log(q)
		}
	}
	return math.Exp(divergence)
}

// classBatch is how many images are classified at a time.
const classBatch = 256

// classify gives, of n images from one on in the given order, the probabilities
// of the classes p [n,K], Σ p·log p of each image and its likeliest class.
func (f *Features) classify(from, n int, order []int) (p, negative []float64, best []int, err error) {
	logits, k, err := f.logits(from, n, order)
	if err != nil {
		return nil, nil, nil, err
	}
	p, negative, best = make([]float64, n*k), make([]float64, n), make([]int, n)
	linalg.Parallel(n, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			row := logits[i*k : (i+1)*k]
			negative[i], best[i] = softmax(p[i*k:(i+1)*k], row), largest(row)
		}
	})
	if i := slices.IndexFunc(negative, math.IsNaN); i >= 0 {
		image := from + i
		if order != nil {
			image = order[image]
		}
		return nil, nil, nil, fmt.Errorf("%s: no probabilities follow from the class logits of image %d (counted from 0), the largest of which is %v; the network or the image is damaged",
			f.name(), image, logits[i*k+best[i]])
	}
	return p, negative, best, nil
}

// softmax sets p to the softmax of logits and returns Σ p·log p, where 0·log 0 is
// 0; NaN where a logit is NaN or +∞, or all are −∞.
func softmax(p []float64, logits []float32) (negativeEntropy float64) {
	most := float64(logits[largest(logits)])
	sum := 0.0
	for c, v := range logits {
		p[c] = math.Exp(float64(v) - most)
		sum += p[c]
	}
	logSum := math.Log(sum)
	for c, v := range logits {
		p[c] /= sum
		if p[c] != 0 {
			negativeEntropy += p[c] * (float64(v) - most - logSum)
		}
	}
	return negativeEntropy
}

// largest is the index of the first largest value.
func largest(values []float32) int {
	at := 0
	for i, v := range values {
		if v > values[at] {
			at = i
		}
	}
	return at
}

// requireLogits reports that there are no logits.
func (f *Features) requireLogits() error {
	if f.Logits == nil && (f.Pool == nil || f.ClassWeight == nil) {
		return fmt.Errorf("%s has no logits: images supply them, statistics do not", f.name())
	}
	return nil
}

// logits are those of n images from one on, in the given order, and the number
// of classes.
func (f *Features) logits(from, n int, order []int) ([]float32, int, error) {
	if err := f.requireLogits(); err != nil {
		return nil, 0, err
	}
	source, width := f.Logits, f.D
	if source != nil {
		width = len(source) / f.N
	} else {
		source = f.Pool
	}
	rows := source[from*width : (from+n)*width]
	if order != nil {
		rows = make([]float32, 0, n*width)
		for _, i := range order[from : from+n] {
			rows = append(rows, source[i*width:(i+1)*width]...)
		}
	}
	defer f.Touched(n * width)
	if f.Logits != nil {
		return rows, width, nil
	}
	classes := len(f.ClassWeight) / f.D
	out := make([]float32, n*classes)
	return out, classes, products(f).Mul32(out, rows, f.ClassWeight, n, classes, f.D)
}

// meanStd is the mean and the standard deviation with ddof 0.
func meanStd(x []float64) (mean, std float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		std += (v - mean) * (v - mean) / float64(len(x))
	}
	return mean, math.Sqrt(std)
}

// Replicates implements Resampler. Images are drawn from the whole set, and
// each keeps its split; from w, the number of times that a draw holds each of
// them, follow the split's mean entropy Σ w·Σp·log p / Σw and its marginal
// Σ w·p / Σw.
func (m *InceptionScore) Replicates(ctx context.Context, _, gen *Features, d *Draws) ([]float64, error) {
	order, ends, err := m.plan(gen)
	if err != nil {
		return nil, err
	}
	counts, out, start := d.counts(), make([]float64, d.Len()), 0
	for _, end := range ends {
		scores, err := splitReplicates(ctx, gen, start, end, order, counts, d.Len())
		if err != nil {
			return nil, err
		}
		for b, v := range scores {
			out[b] += v / float64(len(ends))
		}
		start = end
	}
	return out, nil
}

// splitReplicates is splitScore for each of the draws, counts [B,N].
func splitReplicates(ctx context.Context, gen *Features, start, end int, order []int, counts []float64, draws int) ([]float64, error) {
	var marginal, sum []float64 // [B,K]
	total, entropy := make([]float64, draws), make([]float64, draws)
	classes := 0
	for from := start; from < end; from += classBatch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rows := min(classBatch, end-from)
		p, negative, _, err := gen.classify(from, rows, order)
		if err != nil {
			return nil, err
		}
		k := len(p) / rows
		if marginal == nil {
			classes, marginal, sum = k, make([]float64, draws*k), make([]float64, draws*k)
		}
		w := make([]float64, draws*rows)
		for b := range draws {
			for i := range rows {
				at := from + i
				if order != nil {
					at = order[at]
				}
				v := counts[b*gen.N+at]
				w[b*rows+i] = v
				total[b] += v
				entropy[b] += v * negative[i]
			}
		}
		if err := products(gen).Mul64(sum, w, linalg.Transposed(p, rows, k), draws, k, rows); err != nil {
			return nil, err
		}
		for i, v := range sum {
			marginal[i] += v
		}
	}
	out := make([]float64, draws)
	for b := range out {
		if total[b] == 0 {
			return nil, fmt.Errorf("a draw holds none of images %d to %d: splits of %d images are too small for an interval", start, end-1, end-start)
		}
		out[b] = expDivergence(entropy[b], marginal[b*classes:(b+1)*classes], total[b])
	}
	return out, nil
}

// sortedFrom is the classOrder from which images count as sorted by class;
// chance reaches it about once in three million sets.
const sortedFrom = 5

// classOrder says by how many standard deviations the number of neighbours of
// equal class exceeds that of a random order: the multi-category runs test
// (Wald and Wolfowitz; Mood, "The Distribution Theory of Runs", 1940). With
// n_c images of class c, N in all, the pairs of equal neighbours have under
// permutation
//
//	mean Σn_c(n_c−1)/N
//	variance (Σn_c²·(Σn_c² + N(N+1)) − 2N·Σn_c³ − N³) / (N²(N−1))
//
// It is 0 where the order cannot matter.
func classOrder(classes []int) float64 {
	counts := map[int]float64{}
	equal := 0.0
	for i, c := range classes {
		counts[c]++
		if i > 0 && c == classes[i-1] {
			equal++
		}
	}
	var squares, cubes float64
	for _, n := range counts {
		squares += n * n
		cubes += n * n * n
	}
	n := float64(len(classes))
	variance := (squares*(squares+n*(n+1)) - 2*n*cubes - n*n*n) / (n * n * (n - 1))
	if n < 2 || !(variance > 1e-9) {
		return 0
	}
	return (equal - (squares-n)/n) / math.Sqrt(variance)
}
