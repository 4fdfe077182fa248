package eval

import (
	"context"
	"fmt"
	"math"
)

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
	const batch = 256
	var marginal, sum []float64 // [B,K]
	total, entropy := make([]float64, draws), make([]float64, draws)
	classes := 0
	for from := start; from < end; from += batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rows := min(batch, end-from)
		logits, k, err := gen.logits(from, rows, order)
		if err != nil {
			return nil, err
		}
		if marginal == nil {
			classes, marginal, sum = k, make([]float64, draws*k), make([]float64, draws*k)
		}
		p, negative := make([]float64, rows*k), make([]float64, rows)
		parallel(rows, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				negative[i] = softmax(p[i*k:(i+1)*k], logits[i*k:(i+1)*k])
			}
		})
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
		if err := products(gen).Mul64(sum, w, transposed(p, rows, k), draws, k, rows); err != nil {
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
		divergence := entropy[b] / total[b]
		for _, s := range marginal[b*classes : (b+1)*classes] {
			if q := s / total[b]; q > 0 {
				divergence -= q * math.Log(q)
			}
		}
		out[b] = math.Exp(divergence)
	}
	return out, nil
}
