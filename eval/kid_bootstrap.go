package eval

import "context"

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
	if err := pools(ref, gen); err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	p := products(gen, ref)
	yy, err := remember(ref, "kernel sum", func() (float64, error) {
		return kernelSum(ctx, p, ref, ref, nil, nil, ref.N, ref.N, true)
	})
	if err != nil {
		return nil, err
	}
	counts := d.counts()
	xx, err := weightedKernelSums(ctx, p, gen, gen, counts, d.Len())
	if err != nil {
		return nil, err
	}
	xy, err := weightedKernelSums(ctx, p, gen, ref, counts, d.Len())
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
func weightedKernelSums(ctx context.Context, p Products, x, y *Features, counts []float64, draws int) ([]float64, error) {
	const rows = 1000
	out := make([]float64, draws)
	for i := 0; i < x.N; i += rows {
		a := wideRows(x, nil, i, min(rows, x.N-i))
		na := len(a) / x.D
		right := make([]float64, na*draws) // Σⱼ k(xᵢ,yⱼ)·wⱼ, for each draw
		for j := 0; j < y.N; j += rows {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			b := wideRows(y, nil, j, min(rows, y.N-j))
			nb := len(b) / x.D
			k := make([]float64, na*nb)
			if err := p.Mul64(k, a, b, na, nb, x.D); err != nil {
				return nil, err
			}
			if err := addWeighted(p, right, cubed(k, na, nb, x.D, x == y && i == j), na, nb, weightsAt(x == y, counts, draws, j, nb)); err != nil {
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

// cubed replaces products k [n,m] by kernel values (k/d+1)³; those on the
// diagonal by 0 if so asked.
func cubed(k []float64, n, m, d int, offDiagonal bool) []float64 {
	parallel(n, func(from, to int) {
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

// weightsAt are the weights [B,n] of rows from one on: of the drawn set, or 1.
func weightsAt(drawn bool, counts []float64, draws, from, n int) []float64 {
	out := make([]float64, draws*n)
	width := len(counts) / draws
	for b := range draws {
		row := out[b*n : (b+1)*n]
		if drawn {
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
func addWeighted(p Products, dst, k []float64, n, m int, weights []float64) error {
	draws := len(weights) / m
	tmp := make([]float64, n*draws)
	err := p.Mul64(tmp, k, weights, n, draws, m)
	for i, v := range tmp {
		dst[i] += v
	}
	return err
}
