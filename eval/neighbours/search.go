package neighbours

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"sagbench/eval/linalg"
)

// A Neighbour is a row of a reference and its Euclidean distance.
type Neighbour struct {
	Index    int
	Distance float64
}

// Nearest are, for each row of gen [M,d], the k nearest rows of ref [N,d] and their
// Euclidean distances in float64, the nearest first; of equal ones that of the smaller
// index. They are exact for the features as they are: float32 products only rule out rows
// that their error bound leaves no doubt about. Nil products are Gonum.
func Nearest(ctx context.Context, products linalg.Products, ref, gen []float32, d, k int) ([][]Neighbour, error) {
	n := len(ref) / d
	if k < 1 || k > n {
		return nil, fmt.Errorf("%d reference images: %d neighbours of each were asked for, expected 1 to %d", n, k, n)
	}
	if products == nil {
		products = linalg.Gonum{}
	}
	centre := meanOf(ref, d)
	u, v := centred(gen, centre), centred(ref, centre)
	uNorms, vNorms := norms(u, d), norms(v, d)
	rows := make([]search, len(gen)/d)
	tile := make([]float32, tileRows*tileRows)
	for i := 0; i < len(rows); i += tileRows {
		ni := min(tileRows, len(rows)-i)
		for j := 0; j < n; j += tileRows {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			nj := min(tileRows, n-j)
			if err := products.Mul32(tile[:ni*nj], u[i*d:(i+ni)*d], v[j*d:(j+nj)*d], ni, nj, d); err != nil {
				return nil, err
			}
			linalg.Parallel(ni, func(from, to int) {
				for a := from; a < to; a++ {
					rows[i+a].offer(tile[a*nj:(a+1)*nj], j, k, d, uNorms[i+a], vNorms[j:j+nj])
				}
			})
		}
	}
	out := make([][]Neighbour, len(rows))
	linalg.Parallel(len(rows), func(from, to int) {
		for i := from; i < to; i++ {
			out[i] = rows[i].settle(ref, gen[i*d:(i+1)*d], k)
		}
	})
	return out, nil
}

// A search holds the rows that may be among the k nearest of one.
type search struct {
	maybe []bounded
	upper []float64 // the k smallest bounds from above, in order
}

// A bounded is a row whose squared distance is at least low.
type bounded struct {
	index int
	low   float64
}

// offer looks at the products with the rows from first on. norm and norms are |x|².
func (s *search) offer(products []float32, first, k, d int, norm float64, norms []float64) {
	// A sum of d products in float32, in whatever order, is off by at most γ·Σ|xᵢyᵢ| ≤
	// γ·|x||y| with γ = d·u/(1−d·u), u = 2⁻²⁴ (Higham, "Accuracy and Stability of
	// Numerical Algorithms", eq. 3.5); so are the centred rows, by 2u each. The rest is
	// room for the arithmetic here.
	gamma := float64(d+8) * 0x1p-24 * 1.01
	for j, product := range products {
		square := norm + norms[j] - 2*float64(product)
		slack := 2*gamma*math.Sqrt(norm*norms[j]) + 8*0x1p-24*(norm+norms[j])
		if len(s.upper) == k && square-slack > s.upper[k-1] {
			continue
		}
		s.maybe = append(s.maybe, bounded{first + j, square - slack})
		if high := square + slack; len(s.upper) < k {
			at, _ := slices.BinarySearch(s.upper, high)
			s.upper = slices.Insert(s.upper, at, high)
		} else if high < s.upper[k-1] {
			insert(s.upper, high)
		}
	}
	s.maybe = slices.DeleteFunc(s.maybe, func(b bounded) bool { return len(s.upper) == k && b.low > s.upper[k-1] })
}

// settle computes the distances from x to the rows that are left.
func (s *search) settle(ref, x []float32, k int) []Neighbour {
	d := len(x)
	all := make([]Neighbour, len(s.maybe))
	for i, b := range s.maybe {
		sum := 0.0
		for j, v := range ref[b.index*d : (b.index+1)*d] {
			difference := float64(v) - float64(x[j])
			sum += difference * difference
		}
		all[i] = Neighbour{b.index, math.Sqrt(sum)}
	}
	slices.SortFunc(all, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(a.Distance, b.Distance), cmp.Compare(a.Index, b.Index))
	})
	return all[:k]
}

// meanOf is the mean of rows, for centring.
func meanOf(rows []float32, d int) []float32 {
	n := len(rows) / d
	mean := make([]float32, d)
	linalg.Parallel(d, func(from, to int) {
		sum := make([]float64, to-from)
		for i := range n {
			for j, v := range rows[i*d+from : i*d+to] {
				sum[j] += float64(v)
			}
		}
		for j, v := range sum {
			mean[from+j] = float32(v / float64(n))
		}
	})
	return mean
}

// centred are the rows less the centre.
func centred(rows, centre []float32) []float32 {
	out := make([]float32, len(rows))
	d := len(centre)
	linalg.Parallel(len(rows)/d, func(from, to int) {
		for at := from * d; at < to*d; at++ {
			out[at] = rows[at] - centre[at%d]
		}
	})
	return out
}

// norms are the squares of the rows' lengths.
func norms(rows []float32, d int) []float64 {
	out := make([]float64, len(rows)/d)
	linalg.Parallel(len(out), func(from, to int) {
		for i := from; i < to; i++ {
			for _, v := range rows[i*d : (i+1)*d] {
				out[i] += float64(v) * float64(v)
			}
		}
	})
	return out
}
