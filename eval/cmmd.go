package eval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"

	"sagbench/eval/linalg"
)

// CMMD is the squared maximum mean discrepancy of CLIP's embeddings of images, each
// divided by its length, under a Gaussian kernel (Jayasumana et al., "Rethinking FID:
// Towards a Better Evaluation Metric for Image Generation", arXiv 2401.09603;
// google-research cmmd/distance.py):
//
//	k(a,b) = exp(−|a−b|²/(2·10²))
//	CMMD = 1000·(Σᵢⱼ k(xᵢ,xⱼ)/n² + Σᵢⱼ k(yᵢ,yⱼ)/m² − 2/(nm) Σᵢⱼ k(xᵢ,yⱼ))
//
// with the pairs of an image with itself: the biased estimate, which is never
// negative. All k lie in [0.98, 1], and the official sums in float32 leave three
// digits; here k−1 is summed in float64, in which the ones cancel exactly.
//
// Values of the authors are of ViT-L/14 at 336 pixels (OpenAI). Their script drops the
// images of the last batch of 32 that is not full, in both folders. That is no part of the
// definition, and which images go depends on their order, so the default keeps
// them; drop_remainder does as the script does.
type CMMD struct {
	rowsOfPool
	Pixels        string `yaml:"resize" doc:"how images come to the network's size: cmmd (the authors'), clip, openai or another one of the network's resizes; empty = that of the network's block"`
	DropRemainder bool   `yaml:"drop_remainder" doc:"leave out the last images of a set that fill no batch of 32, as the authors' script does"`
}

// cmmdBatch is the batch of the authors' script, cmmdScale what the discrepancy is
// multiplied by, and cmmdSigma the kernel's width.
const (
	cmmdBatch = 32
	cmmdScale = 1000
	cmmdSigma = 10
)

var (
	_ Resampler = (*CMMD)(nil)
	_ OnNetwork = (*CMMD)(nil)
	_ Resized   = (*CMMD)(nil)
	_ Published = (*CMMD)(nil)
)

// Validate implements the check after decoding.
func (m *CMMD) Validate() error { return checkResize(m.Pixels) }

// Column implements Metric.
func (*CMMD) Column() Column { return Column{"cmmd", "CMMD", Lower, 3} }

// Network implements OnNetwork.
func (*CMMD) Network() string { return "clip" }

// Resize implements Resized.
func (m *CMMD) Resize() string { return m.Pixels }

// PublishedOn implements Published.
func (*CMMD) PublishedOn() string { return "ViT-L/14@336px" }

// MinImages implements Metric: one batch, where others are dropped.
func (m *CMMD) MinImages() int {
	if m.DropRemainder {
		return cmmdBatch
	}
	return 2
}

// Bounds implements Bounded: it is a squared distance.
func (*CMMD) Bounds() (low, high float64) { return 0, math.Inf(1) }

// used is how many of n images count.
func (m *CMMD) used(n int) int {
	if m.DropRemainder {
		return n / cmmdBatch * cmmdBatch
	}
	return n
}

// Score implements Metric.
func (m *CMMD) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	if err := m.check(ref, gen); err != nil {
		return nil, err
	}
	n, r, p := m.used(gen.N), m.used(ref.N), products(gen, ref)
	xx, err := kernelSum(ctx, p, gaussianKernel, gen, gen, nil, nil, n, n, true)
	if err != nil {
		return nil, err
	}
	yy, err := m.referenceSum(ctx, p, ref)
	if err != nil {
		return nil, err
	}
	xy, err := kernelSum(ctx, p, gaussianKernel, gen, ref, nil, nil, n, r, false)
	if err != nil {
		return nil, err
	}
	s := m.Column().score(cmmd(xx, yy, xy, float64(n), float64(r)), "")
	if n < gen.N || r < ref.N {
		s.Note = fmt.Sprintf("without the last %d samples and %d of the reference, which fill no batch of %d", gen.N-n, ref.N-r, cmmdBatch)
	}
	s.Numerics = "sums of k−1 in float64"
	return []Score{s}, nil
}

// cmmd is the estimate from the sums of k−1.
func cmmd(xx, yy, xy, n, m float64) float64 {
	return max(cmmdScale*(xx/n/n+yy/m/m-2*xy/n/m), 0) // rounding alone is below 0
}

// referenceSum is the sum over pairs of the reference, computed once.
func (m *CMMD) referenceSum(ctx context.Context, p linalg.Products, ref *Features) (float64, error) {
	r := m.used(ref.N)
	return remember(ref, fmt.Sprintf("gaussian sum %d", r), func() (float64, error) {
		return kernelSum(ctx, p, gaussianKernel, ref, ref, nil, nil, r, r, true)
	})
}

// check is an error where the sets cannot be compared.
func (m *CMMD) check(ref, gen *Features) error {
	err := cmp.Or(requirePools(ref, gen), m.Validate(), ref.requireDirections(ref.Pool, "the embedding of"), gen.requireDirections(gen.Pool, "the embedding of"))
	if least := m.MinImages(); err == nil && min(ref.N, gen.N) < least {
		err = fmt.Errorf("%d and %d images: CMMD needs at least %d of each", gen.N, ref.N, least)
	}
	return err
}

// gaussianKernel is CMMD's kernel less 1, of rows over their length.
var gaussianKernel = kernel{unitRows, gaussianLessOne}

// unitRows are rows as wideRows gives them, each over its length.
func unitRows(f *Features, list []int, from, n int) []float64 {
	rows := wideRows(f, list, from, n)
	for i := range n {
		row, sum := rows[i*f.D:(i+1)*f.D], 0.0
		for _, v := range row {
			sum += v * v
		}
		length := math.Sqrt(sum)
		for j, v := range row {
			row[j] = v / length
		}
	}
	return rows
}

// gaussianLessOne replaces cosines by exp(−|a−b|²/(2σ²)) − 1, where |a−b|² = 2 − 2·cos.
func gaussianLessOne(k []float64, n, m, _ int, offDiagonal bool) []float64 {
	linalg.Parallel(n, func(from, to int) {
		for i := from; i < to; i++ {
			for j, v := range k[i*m : (i+1)*m] {
				k[i*m+j] = math.Expm1(min(v-1, 0) / (cmmdSigma * cmmdSigma))
			}
			if offDiagonal {
				k[i*m+i] = 0
			}
		}
	})
	return k
}

// ErrNoDirection is what is wrong with an embedding of zeros, of which the official code
// makes NaN.
var ErrNoDirection = errors.New("has no direction")

// requireDirections is an error where a row of embeddings is all zeros: it has no
// direction.
func (f *Features) requireDirections(rows []float32, what string) error {
	if f.N < 1 {
		return nil
	}
	d := len(rows) / f.N
	for i := range f.N {
		zero := true
		for _, v := range rows[i*d : (i+1)*d] {
			zero = zero && v == 0
		}
		if zero {
			return fmt.Errorf("%s: %s image %d is all zeros and %w; check the network and the image", f.name(), what, i, ErrNoDirection)
		}
	}
	return nil
}

// checkResize is an error unless a metric's resize is empty or one word.
func checkResize(name string) error {
	for _, r := range name {
		if r < 'a' || r > 'z' {
			if r < '0' || r > '9' {
				return fmt.Errorf("resize is %q, expected the name of one", name)
			}
		}
	}
	return nil
}

// Replicates implements Resampler. A draw holds image i wᵢ times; an image has k = 1
// with itself, as often as it is there:
//
//	Σᵢⱼ wᵢwⱼ k(xᵢ,xⱼ)/n² + Σᵢⱼ k(yᵢ,yⱼ)/m² − 2/(nm) Σᵢⱼ wᵢ k(xᵢ,yⱼ)
//
// All samples are drawn from, those of drop_remainder included.
func (m *CMMD) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	if err := m.check(ref, gen); err != nil {
		return nil, err
	}
	p, counts := products(gen, ref), d.counts()
	yy, err := m.referenceSum(ctx, p, ref)
	if err != nil {
		return nil, err
	}
	xx, err := weightedKernelSums(ctx, p, gaussianKernel, gen, gen, counts, d.Len())
	if err != nil {
		return nil, err
	}
	used := &Features{N: m.used(ref.N), D: ref.D, Pool: ref.Pool}
	xy, err := weightedKernelSums(ctx, p, gaussianKernel, gen, used, counts, d.Len())
	if err != nil {
		return nil, err
	}
	out := make([]float64, d.Len())
	for b := range out {
		out[b] = cmmd(xx[b], yy, xy[b], float64(gen.N), float64(used.N))
	}
	return out, nil
}
