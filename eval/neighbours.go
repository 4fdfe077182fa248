package eval

import (
	"fmt"
	"math"
	"slices"
)

// radii are, for each k of ks and each row of features [n,d], the squared
// distance of the k-th nearest other row: element k of the sorted distances to
// all rows, the row itself among them (ManifoldEstimator.manifold_radii of
// evaluator.py; get_kth_value of prdc). The order statistic is exact: where a
// float32 product cannot decide, the distance is computed again in float64.
func (s *scan) radii(features []float32, ks []int) ([][]float64, error) {
	n, deepest := len(features)/s.d, slices.Max(ks)
	if deepest >= n || slices.Min(ks) < 1 {
		return nil, fmt.Errorf("%d images: the distance to neighbour k needs 1 ≤ k < %d images, k is %v", n, n, ks)
	}
	found := make([]float64, n*(deepest+1))
	for i := range found {
		found[i] = math.Inf(1)
	}
	for i := range s.blocks(n) {
		for j := i; j < s.blocks(n); j++ {
			u, v := s.block(features, i), s.block(features, j)
			if err := s.nearest(u, v, found, deepest); err != nil {
				return nil, err
			}
		}
	}
	out := make([][]float64, len(ks))
	for a, k := range ks {
		out[a] = make([]float64, n)
		for i := range n {
			out[a][i] = found[i*(deepest+1)+k]
		}
	}
	return out, nil
}

// nearest merges the distances between two blocks into found.
func (s *scan) nearest(u, v *block, found []float64, k int) error {
	forth, err := s.pair(u, v)
	if err != nil {
		return err
	}
	if u == v {
		return s.collect(forth, true, newNearest(forth, found, k), newNearest(forth, found, k))
	}
	back, err := s.pair(v, u)
	if err != nil {
		return err
	}
	if forth.redo == back.redo { // one product serves both ways
		return s.collect(forth, false, newNearest(forth, found, k), newNearest(forth.swapped(), found, k))
	}
	if err := s.collect(forth, false, newNearest(forth, found, k), nil); err != nil {
		return err
	}
	return s.collect(back, false, newNearest(back, found, k), nil)
}

// collect gathers candidates for the rows of u, and for those of v from the
// same products unless columns is nil. For a block with itself rows and
// columns are the same rows, met in tiles on either side of the diagonal.
func (s *scan) collect(p pair, itself bool, rows, columns *nearest) error {
	if itself {
		columns = rows
	}
	err := s.tiles(p, itself, func(t tile) {
		parallel(t.rows, func(from, to int) {
			for i := from; i < to; i++ {
				rows.scanRow(t.i+i, t.j, t.row(i))
			}
		})
		if columns == nil || itself && t.i == t.j {
			return
		}
		parallel(t.cols, func(from, to int) {
			for i := range t.rows {
				columns.scanColumn(t.j+from, t.i+i, t.row(i)[from:to])
			}
		})
	})
	if err != nil {
		return err
	}
	rows.settleAll()
	if columns != nil && !itself {
		columns.settleAll()
	}
	return nil
}

// A nearest keeps, for each row of p.u, the k+1 smallest distances to rows
// seen so far: those that are settled in found, and candidates whose distance
// is only known to lie between bounds.
type nearest struct {
	p         pair
	k, room   int
	found     []float64   // [n,k+1] sorted
	waiting   []candidate // [n,room]
	count     []int
	threshold []float32 // a product below threshold[i] + half[j] is of no interest
	half      []float32 // add[j]/2 of the rows of p.v
	slack     []float64
}

type candidate struct {
	low, high float64
	j         int
}

func newNearest(p pair, found []float64, k int) *nearest {
	n := p.u.n
	r := &nearest{p: p, k: k, room: max(32, 4*(k+1)), found: found[p.u.first*(k+1) : (p.u.first+n)*(k+1)],
		count: make([]int, n), threshold: make([]float32, n), half: make([]float32, p.v.n), slack: make([]float64, n)}
	r.waiting = make([]candidate, n*r.room)
	for i := range n {
		r.slack[i] = p.slack(i)
		r.limit(i, r.top(i)[k])
	}
	for j := range r.half {
		r.half[j] = float32(p.v.add[j] / 2)
	}
	return r
}

func (r *nearest) top(i int) []float64 { return r.found[i*(r.k+1) : (i+1)*(r.k+1)] }

// limit sets the threshold of row i to distances of at most d.
func (r *nearest) limit(i int, d float64) {
	r.threshold[i] = float32((r.p.u.add[i] - d - r.slack[i]) / 2)
}

// scanRow looks at products of row i with rows j, j+1, … of p.v.
func (r *nearest) scanRow(i, j int, products []float32) {
	half, limit, beyond := r.half[j:j+len(products)], r.threshold[i], r.p.beyond
	for x, c := range products {
		if c >= limit+half[x] || c >= beyond {
			r.offer(i, j+x, c)
			limit = r.threshold[i]
		}
	}
}

// scanColumn looks at products of rows i, i+1, … with row j of p.v.
func (r *nearest) scanColumn(i, j int, products []float32) {
	half, limits, beyond := r.half[j], r.threshold[i:i+len(products)], r.p.beyond
	for x, c := range products {
		if c >= limits[x]+half || c >= beyond {
			r.offer(i+x, j, c)
		}
	}
}

// offer considers row j of p.v as a neighbour of row i.
func (r *nearest) offer(i, j int, c float32) {
	low, high := r.p.bounds(i, j, c)
	if low >= r.top(i)[r.k] { // cannot make the k-th distance smaller
		return
	}
	r.waiting[i*r.room+r.count[i]] = candidate{low, high, j}
	r.count[i]++
	if r.count[i] == r.room {
		r.prune(i)
		if r.count[i] > r.room/2 {
			r.settle(i)
		}
	}
}

// prune drops the candidates of row i that others exclude.
func (r *nearest) prune(i int) {
	list := r.waiting[i*r.room : i*r.room+r.count[i]]
	slices.SortFunc(list, func(a, b candidate) int {
		switch {
		case a.high < b.high:
			return -1
		case a.high > b.high:
			return 1
		}
		return a.j - b.j
	})
	bound := min(list[min(r.k, len(list)-1)].high, r.top(i)[r.k])
	if len(list) <= r.k {
		bound = r.top(i)[r.k]
	}
	kept := list[:min(r.k+1, len(list))]
	for _, c := range list[len(kept):] {
		if c.low < bound {
			kept = append(kept, c)
		}
	}
	r.count[i] = len(kept)
	r.limit(i, bound)
}

// settle computes the distances of row i's candidates and keeps the smallest.
func (r *nearest) settle(i int) {
	top := r.top(i)
	for _, c := range r.waiting[i*r.room : i*r.room+r.count[i]] {
		if c.low >= top[r.k] {
			continue
		}
		d := c.low
		if c.low != c.high {
			d = r.p.exact(i, c.j)
		}
		if d < top[r.k] {
			at, _ := slices.BinarySearch(top, d)
			copy(top[at+1:], top[at:r.k])
			top[at] = d
		}
	}
	r.count[i] = 0
	r.limit(i, top[r.k])
}

func (r *nearest) settleAll() {
	parallel(r.p.u.n, func(from, to int) {
		for i := from; i < to; i++ {
			if r.count[i] > 0 {
				r.prune(i)
				r.settle(i)
			}
		}
	})
}
