package eval

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"sagbench/eval/linalg"
)

// KID is the squared maximum mean discrepancy under a polynomial kernel
// (Bińkowski et al., "Demystifying MMD GANs", §3), unbiased:
//
//	k(x,y) = (x·y/D + 1)³
//	KID = Σ_{i≠j} k(xᵢ,xⱼ)/(n(n−1)) + Σ_{i≠j} k(yᵢ,yⱼ)/(m(m−1)) − 2/(nm) Σᵢⱼ k(xᵢ,yⱼ)
//
// As usual, the mean over random subsets, drawn without replacement as
// torch-fidelity draws them (metric_kid.py: RandomState(seed), the generated
// set first, standard deviation ddof 0); or, with subsets 0, over all images
// at once. Computed in float64.
type KID struct {
	rowsOfPool
	Subsets    int    `yaml:"subsets" min:"0" max:"100000" doc:"number of random subsets; 0 takes all images at once"`
	SubsetSize int    `yaml:"subset_size" min:"0" max:"100000" doc:"images of a subset"`
	Seed       uint32 `yaml:"seed" min:"0" max:"4294967295" doc:"seed of the subsets (numpy.random.RandomState)"`
	Shrink     bool   `yaml:"shrink" doc:"take all images of a set that has fewer than a subset (clean-fid) instead of refusing it (torch-fidelity)"`
}

var _ Resampler = (*KID)(nil)

// Validate implements the check after decoding.
func (m *KID) Validate() error {
	if m.Subsets < 0 || m.Subsets > 0 && m.SubsetSize < 2 {
		return fmt.Errorf("%d subsets of %d images; a subset needs at least 2", m.Subsets, m.SubsetSize)
	}
	return nil
}

// Column implements Metric.
func (*KID) Column() Column { return Column{"kid", "KID", Lower, 5} }

// MinImages implements Metric: those of a subset, unless subsets shrink.
func (m *KID) MinImages() int {
	if m.Subsets > 0 && !m.Shrink {
		return max(m.SubsetSize, 2)
	}
	return 2
}

// Score implements Metric.
func (m *KID) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	if err := cmp.Or(requirePools(ref, gen), m.Validate()); err != nil {
		return nil, err
	}
	if m.Subsets == 0 {
		value, err := kernelDistance(ctx, products(gen, ref), gen, ref, nil, nil)
		if err != nil {
			return nil, err
		}
		return []Score{m.Column().score(value, "unbiased, all images")}, nil
	}
	size := m.SubsetSize
	if n := min(ref.N, gen.N); n < size {
		if !m.Shrink {
			return nil, fmt.Errorf("subsets of %d images, but a set has %d; set subset_size to at most that", size, n)
		}
		size = n
	}
	random := newRandomState(m.Seed)
	var g, r [][]int
	for range m.Subsets {
		g = append(g, slices.Clone(random.permutation(gen.N)[:size]))
		r = append(r, slices.Clone(random.permutation(ref.N)[:size]))
	}
	mean, std, err := KIDOfSubsets(ctx, ref, gen, r, g)
	if err != nil {
		return nil, err
	}
	s := m.Column().score(mean, fmt.Sprintf("%d subsets of %d", m.Subsets, size))
	s.Std = std
	return []Score{s}, nil
}

// KIDOfSubsets is the mean and the standard deviation (ddof 0) over subsets given
// as indices of reference and of generated images.
func KIDOfSubsets(ctx context.Context, ref, gen *Features, refSubsets, genSubsets [][]int) (mean, std float64, err error) {
	values := make([]float64, len(genSubsets))
	for i := range values {
		if values[i], err = kernelDistance(ctx, products(gen, ref), gen, ref, genSubsets[i], refSubsets[i]); err != nil {
			return 0, 0, err
		}
	}
	mean, std = meanStd(values)
	return mean, std, nil
}

// kernelDistance is the estimate from the images of x and y that are listed;
// nil lists stand for all images.
func kernelDistance(ctx context.Context, p linalg.Products, x, y *Features, xs, ys []int) (float64, error) {
	n, m := x.N, y.N
	if xs != nil {
		n, m = len(xs), len(ys)
	}
	if n < 2 || m < 2 {
		return 0, fmt.Errorf("%d and %d images: KID needs at least 2 of each", n, m)
	}
	xx, err := kernelSum(ctx, p, cubic, x, x, xs, xs, n, n, true)
	if err != nil {
		return 0, err
	}
	yy, err := kernelSum(ctx, p, cubic, y, y, ys, ys, m, m, true)
	if err != nil {
		return 0, err
	}
	xy, err := kernelSum(ctx, p, cubic, x, y, xs, ys, n, m, false)
	return xx/float64(n)/float64(n-1) + yy/float64(m)/float64(m-1) - 2*xy/float64(n)/float64(m), err
}

// A kernel is computed from products of rows.
type kernel struct {
	// rows are n rows of features in float64, from a position of a list of indices on
	// (nil: of the rows themselves).
	rows func(f *Features, list []int, from, n int) []float64
	// values replaces products k [n,m] of rows of d features by those of the kernel;
	// those on the diagonal by 0 if so asked.
	values func(k []float64, n, m, d int, offDiagonal bool) []float64
}

// cubic is KID's.
var cubic = kernel{wideRows, cubed}

// kernelSum is Σ k(xᵢ,yⱼ) over n rows of x and m rows of y; for a set with
// itself the diagonal is left out, and each pair is computed once.
func kernelSum(ctx context.Context, p linalg.Products, kern kernel, x, y *Features, xs, ys []int, n, m int, itself bool) (float64, error) {
	const rows = 1000
	sum := 0.0
	for i := 0; i < n; i += rows {
		a := kern.rows(x, xs, i, min(rows, n-i))
		start := 0
		if itself {
			start = i
		}
		for j := start; j < m; j += rows {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			b := a
			if !itself || j > i {
				b = kern.rows(y, ys, j, min(rows, m-j))
			}
			na, nb := len(a)/x.D, len(b)/x.D
			k := make([]float64, na*nb)
			if err := p.Mul64(k, a, b, na, nb, x.D); err != nil {
				return 0, err
			}
			part := total(kern.values(k, na, nb, x.D, itself && i == j), nb)
			if itself && i != j {
				part *= 2
			}
			sum += part
		}
	}
	return sum, nil
}

// cubed replaces products k [n,m] by kernel values (k/d+1)³; those on the
// diagonal by 0 if so asked.
func cubed(k []float64, n, m, d int, offDiagonal bool) []float64 {
	linalg.Parallel(n, func(from, to int) {
		for i := from; i < to; i++ {
			for j, v := range k[i*m : (i+1)*m] {
				v = v/float64(d) + 1
				k[i*m+j] = v * v * v
			}
			if offDiagonal {
				k[i*m+i] = 0
			}
		}
	})
	return k
}

// total is the sum of k [n,m], row by row.
func total(k []float64, m int) float64 {
	all := 0.0
	for row := range slices.Chunk(k, m) {
		sum := 0.0
		for _, v := range row {
			sum += v
		}
		all += sum
	}
	return all
}

// wideRows are n rows of features as float64, from a position of a list of
// indices on (nil: of the rows themselves).
func wideRows(f *Features, list []int, from, n int) []float64 {
	defer f.Touched(n * f.D)
	out := make([]float64, n*f.D)
	for r := range n {
		i := from + r
		if list != nil {
			i = list[from+r]
		}
		for j, v := range f.Pool[i*f.D : (i+1)*f.D] {
			out[r*f.D+j] = float64(v)
		}
	}
	return out
}

// Replicates implements Resampler. With w the number of times that a draw
// holds each image of x and y the reference, both sums of the estimate over
// all images are taken with weights, an image being no pair with itself:
//
//	Σ_{i≠j} wᵢwⱼ k(xᵢ,xⱼ)/(n²−Σwᵢ²) + Σ_{i≠j} k(yᵢ,yⱼ)/(m(m−1)) − 2/(nm) Σᵢⱼ wᵢ k(xᵢ,yⱼ)
//
// so that each kernel value is computed once for all draws. The mean over
// subsets has the spread of this estimate and, on top, the little that the
// choice of the subsets adds.
func (m *KID) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	if err := cmp.Or(requirePools(ref, gen), m.Validate()); err != nil {
		return nil, err
	}
	p := products(gen, ref)
	yy, err := remember(ref, "kernel sum", func() (float64, error) {
		return kernelSum(ctx, p, cubic, ref, ref, nil, nil, ref.N, ref.N, true)
	})
	if err != nil {
		return nil, err
	}
	counts := d.counts()
	xx, err := weightedKernelSums(ctx, p, cubic, gen, gen, counts, d.Len())
	if err != nil {
		return nil, err
	}
	xy, err := weightedKernelSums(ctx, p, cubic, gen, ref, counts, d.Len())
	if err != nil {
		return nil, err
	}
	n, r := float64(gen.N), float64(ref.N)
	out := make([]float64, d.Len())
	for b := range out {
		pairs := n * n
		for _, w := range counts[b*gen.N : (b+1)*gen.N] {
			pairs -= w * w
		}
		out[b] = xx[b]/pairs + yy/r/(r-1) - 2*xy[b]/n/r
	}
	return out, nil
}

// weightedKernelSums are, for each of the draws, Σᵢⱼ wᵢwⱼ k(xᵢ,xⱼ) over i ≠ j
// where y is x, and Σᵢⱼ wᵢ k(xᵢ,yⱼ) where it is another set; counts [B,N] are
// the weights of x.
func weightedKernelSums(ctx context.Context, p linalg.Products, kern kernel, x, y *Features, counts []float64, draws int) ([]float64, error) {
	const rows = 1000
	out := make([]float64, draws)
	for i := 0; i < x.N; i += rows {
		a := kern.rows(x, nil, i, min(rows, x.N-i))
		na := len(a) / x.D
		right := make([]float64, na*draws) // Σⱼ k(xᵢ,yⱼ)·wⱼ, for each draw
		for j := 0; j < y.N; j += rows {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			b := kern.rows(y, nil, j, min(rows, y.N-j))
			nb := len(b) / x.D
			k := make([]float64, na*nb)
			if err := p.Mul64(k, a, b, na, nb, x.D); err != nil {
				return nil, err
			}
			if err := addWeighted(p, right, kern.values(k, na, nb, x.D, x == y && i == j), na, nb, weightsAt(x == y, counts, draws, j, nb)); err != nil {
				return nil, err
			}
		}
		for b := range out {
			for r, w := range counts[b*x.N+i : b*x.N+i+na] {
				out[b] += w * right[r*draws+b]
			}
		}
	}
	return out, nil
}

// weightsAt are the weights [B,n] of n rows from one on, all 1 unless weighted.
func weightsAt(weighted bool, counts []float64, draws, from, n int) []float64 {
	out := make([]float64, draws*n)
	width := len(counts) / draws
	for b := range draws {
		row := out[b*n : (b+1)*n]
		if weighted {
			copy(row, counts[b*width+from:])
			continue
		}
		for i := range row {
			row[i] = 1
		}
	}
	return out
}

// addWeighted adds k [n,m] · weights [B,m]ᵀ to dst [n,B].
func addWeighted(p linalg.Products, dst, k []float64, n, m int, weights []float64) error {
	draws := len(weights) / m
	tmp := make([]float64, n*draws)
	err := p.Mul64(tmp, k, weights, n, draws, m)
	for i, v := range tmp {
		dst[i] += v
	}
	return err
}
