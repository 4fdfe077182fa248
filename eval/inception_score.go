package eval

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// InceptionScore is exp E_x KL(p(y|x) ‖ p(y)) (Salimans et al., "Improved
// Techniques for Training GANs", §4), the mean over splits of the images, with
// p the softmax of the classifier's logits without bias, all 1008 of them.
//
// The ADM evaluator takes consecutive splits of 5000 in file order, the last
// one short but of equal weight, and no standard deviation (evaluator.py,
// compute_inception_score). torch-fidelity takes 10 splits of a permutation
// seeded with 2020 and the standard deviation over splits (ddof 0,
// metric_isc.py). Computed in float64 from a log-softmax, so that a
// probability that underflows counts as 0 where evaluator.py gets NaN.
type InceptionScore struct {
	SplitSize int  `yaml:"split_size" doc:"images of a split, where splits is 0"`
	Splits    int  `yaml:"splits" doc:"number of splits, instead of split_size; gives a standard deviation"`
	Shuffle   bool `yaml:"shuffle" doc:"split a permutation (seed 2020) instead of the file order"`
}

var _ Metric = (*InceptionScore)(nil)

// Validate implements the check after decoding.
func (m *InceptionScore) Validate() error {
	if m.Splits < 0 || m.SplitSize < 0 || m.Splits == 0 && m.SplitSize == 0 {
		return fmt.Errorf("split_size %d and splits %d; one of them must be positive", m.SplitSize, m.Splits)
	}
	return nil
}

// Column implements Metric.
func (*InceptionScore) Column() Column { return Column{"is", "IS", Higher, 2} }

// Score implements Metric. The reference plays no part.
func (m *InceptionScore) Score(ctx context.Context, _, gen *Features) ([]Score, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	n := gen.N
	if m.Splits > n {
		return nil, fmt.Errorf("%s: %d splits of %d images", gen.name(), m.Splits, n)
	}
	var order []int
	if m.Shuffle {
		order = newRandomState(2020).permutation(n)
	}
	mean, std, err := inceptionScore(ctx, gen, splits(n, m.SplitSize, m.Splits), order)
	if err != nil {
		return nil, err
	}
	s := m.Column().score(mean, fmt.Sprintf("splits of %d in file order", m.SplitSize))
	if m.Splits > 0 {
		s.Std = std
		s.Note = fmt.Sprintf("%d splits", m.Splits)
	}
	if size := m.SplitSize; m.Splits == 0 && n%size != 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: IS is the mean over splits of %d images, but the last one has %d: it is lower than that of whole splits",
			gen.name(), size, n%size))
	}
	return []Score{s}, nil
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
// end at ends, of the images in the given order (nil: as they are).
func inceptionScore(ctx context.Context, gen *Features, ends, order []int) (mean, std float64, err error) {
	if gen.Logits == nil && (gen.Pool == nil || gen.ClassWeight == nil) {
		return 0, 0, fmt.Errorf("%s has no logits: images supply them, statistics do not", gen.name())
	}
	if gen.N < 1 {
		return 0, 0, errors.New("no images")
	}
	var scores []float64
	start := 0
	for _, end := range ends {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		s, err := splitScore(gen, start, end, order)
		if err != nil {
			return 0, 0, err
		}
		scores = append(scores, s)
		start = end
	}
	mean, std = meanStd(scores)
	return mean, std, nil
}

// splitScore is exp(mean Σ p·log p − Σ p̄·log p̄) of one split.
func splitScore(gen *Features, start, end int, order []int) (float64, error) {
	const batch = 256
	var marginal, p []float64
	entropy := 0.0
	for from := start; from < end; from += batch {
		rows := min(batch, end-from)
		logits, k, err := gen.logits(from, rows, order)
		if err != nil {
			return 0, err
		}
		if marginal == nil {
			marginal, p = make([]float64, k), make([]float64, batch*k)
		}
		negative := make([]float64, rows)
		parallel(rows, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				negative[i] = softmax(p[i*k:(i+1)*k], logits[i*k:(i+1)*k])
			}
		})
		for i := range rows {
			entropy += negative[i]
			for c, v := range p[i*k : (i+1)*k] {
				marginal[c] += v
			}
		}
	}
	n := float64(end - start)
	divergence := entropy / n
	for _, sum := range marginal {
		if q := sum / n; q > 0 {
			divergence -= q * math.Log(q)
		}
	}
	return math.Exp(divergence), nil
}

// softmax sets p to the softmax of logits and returns Σ p·log p.
func softmax(p []float64, logits []float32) (negativeEntropy float64) {
	largest := float64(logits[0])
	for _, v := range logits {
		largest = max(largest, float64(v))
	}
	sum := 0.0
	for c, v := range logits {
		p[c] = math.Exp(float64(v) - largest)
		sum += p[c]
	}
	logSum := math.Log(sum)
	for c, v := range logits {
		p[c] /= sum
		negativeEntropy += p[c] * (float64(v) - largest - logSum)
	}
	return negativeEntropy
}

// logits are those of n images from one on, in the given order, and the number
// of classes.
func (f *Features) logits(from, n int, order []int) ([]float32, int, error) {
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
