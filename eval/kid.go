package eval

import (
	"context"
	"fmt"
)

// KID is the squared maximum mean discrepancy under a polynomial kernel
// (Bińkowski et al., "Demystifying MMD GANs", §3), unbiased:
//
//	k(x,y) = (x·y/D + 1)³
//	KID = Σ_{i≠j} k(xᵢ,xⱼ)/(n(n−1)) + Σ_{i≠j} k(yᵢ,yⱼ)/(m(m−1)) − 2/(nm) Σᵢⱼ k(xᵢ,yⱼ)
//
// As usual the mean over random subsets, drawn without replacement as
// torch-fidelity draws them (metric_kid.py: RandomState(seed), the generated
// set first, standard deviation ddof 0); or, with subsets 0, over all images
// at once. Computed in float64.
type KID struct {
	Subsets    int    `yaml:"subsets" doc:"number of random subsets; 0 takes all images at once"`
	SubsetSize int    `yaml:"subset_size" doc:"images of a subset"`
	Seed       uint32 `yaml:"seed" doc:"seed of the subsets (numpy.random.RandomState)"`
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

// Score implements Metric.
func (m *KID) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	if err := pools(ref, gen); err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	p := products(gen, ref)
	if m.Subsets == 0 {
		value, err := kernelDistance(ctx, p, gen, ref, nil, nil)
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
		g = append(g, random.permutation(gen.N)[:size])
		r = append(r, random.permutation(ref.N)[:size])
	}
	mean, std, err := kernelSubsets(ctx, p, gen, ref, g, r)
	if err != nil {
		return nil, err
	}
	s := m.Column().score(mean, fmt.Sprintf("%d subsets of %d", m.Subsets, size))
	s.Std = std
	return []Score{s}, nil
}

// kernelSubsets is the mean and the standard deviation over subsets given as
// indices of images of x and y.
func kernelSubsets(ctx context.Context, p Products, x, y *Features, xs, ys [][]int) (mean, std float64, err error) {
	values := make([]float64, len(xs))
	for i := range xs {
		if values[i], err = kernelDistance(ctx, p, x, y, xs[i], ys[i]); err != nil {
			return 0, 0, err
		}
	}
	mean, std = meanStd(values)
	return mean, std, nil
}

// kernelDistance is the estimate from the images of x and y that are listed;
// nil lists stand for all images.
func kernelDistance(ctx context.Context, p Products, x, y *Features, xs, ys []int) (float64, error) {
	n, m := x.N, y.N
	if xs != nil {
		n, m = len(xs), len(ys)
	}
	if n < 2 || m < 2 {
		return 0, fmt.Errorf("%d and %d images: KID needs at least 2 of each", n, m)
	}
	xx, err := kernelSum(ctx, p, x, x, xs, xs, n, n, true)
	if err != nil {
		return 0, err
	}
	yy, err := kernelSum(ctx, p, y, y, ys, ys, m, m, true)
	if err != nil {
		return 0, err
	}
	xy, err := kernelSum(ctx, p, x, y, xs, ys, n, m, false)
	return xx/float64(n)/float64(n-1) + yy/float64(m)/float64(m-1) - 2*xy/float64(n)/float64(m), err
}

// kernelSum is Σ k(xᵢ,yⱼ) over n rows of x and m rows of y; for a set with
// itself the diagonal is left out, and each pair is computed once.
func kernelSum(ctx context.Context, p Products, x, y *Features, xs, ys []int, n, m int, itself bool) (float64, error) {
	const rows = 1000
	sum := 0.0
	for i := 0; i < n; i += rows {
		a := wideRows(x, xs, i, min(rows, n-i))
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
				b = wideRows(y, ys, j, min(rows, m-j))
			}
			na, nb := len(a)/x.D, len(b)/x.D
			k := make([]float64, na*nb)
			if err := p.Mul64(k, a, b, na, nb, x.D); err != nil {
				return 0, err
			}
			switch {
			case !itself:
				sum += cubes(k, na, nb, x.D, false)
			case i == j:
				sum += cubes(k, na, nb, x.D, true)
			default:
				sum += 2 * cubes(k, na, nb, x.D, false)
			}
		}
	}
	return sum, nil
}

// cubes is Σ (k/d+1)³ over products k [n,m], without the diagonal if so asked.
func cubes(k []float64, n, m, d int, offDiagonal bool) float64 {
	sums := make([]float64, n)
	parallel(n, func(from, to int) {
		for i := from; i < to; i++ {
			for j, v := range k[i*m : (i+1)*m] {
				if offDiagonal && i == j {
					continue
				}
				v = v/float64(d) + 1
				sums[i] += v * v * v
			}
		}
	})
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total
}

// wideRows are n rows of features as float64, from a position of a list of
// indices on (nil: of the rows themselves).
func wideRows(f *Features, list []int, from, n int) []float64 {
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
