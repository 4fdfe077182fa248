package neighbours

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"sagbench/eval/linalg"
)

// Radii are, for each row of features [n,d], the squared distance of the k-th
// nearest other row: element k of the sorted distances to all rows, the row itself
// among them (ManifoldEstimator.manifold_radii of evaluator.py; get_kth_value of
// prdc). They are exact: where a float32 product cannot decide which row is the
// k-th, the distance is computed again in float64.
func (s *Scan) Radii(features []float32, k int) ([]float64, error) {
	n := len(features) / s.d
	if k >= n || k < 1 {
		return nil, fmt.Errorf("%d images: the distance to neighbour k needs 1 ≤ k < %d images, k is [%d]", n, n, k)
	}
	found := make([]float64, n*(k+1))
	for i := range found {
		found[i] = math.Inf(1)
	}
	for i := range s.blocks(n) {
		for j := i; j < s.blocks(n); j++ {
			u, v := s.block(features, i), s.block(features, j)
			if err := s.nearest(u, v, found, k); err != nil {
				return nil, err
			}
		}
	}
	out := make([]float64, n)
	for i := range n {
		out[i] = found[i*(k+1)+k]
	}
	return out, nil
}

// nearest merges the distances between two blocks into found.
func (s *Scan) nearest(u, v *block, found []float64, k int) error {
	forth, err := s.pair(u, v)
	if err != nil {
		return err
	}
	if u == v {
		return s.collect(forth, true, s.newNearest(forth, found, k, 0), nil)
	}
	back, err := s.pair(v, u)
	if err != nil {
		return err
	}
	if forth.redo == back.redo { // one product serves both ways
		return s.collect(forth, false, s.newNearest(forth, found, k, 0), s.newNearest(forth.swapped(), found, k, 1))
	}
	if err := s.collect(forth, false, s.newNearest(forth, found, k, 0), nil); err != nil {
		return err
	}
	return s.collect(back, false, s.newNearest(back, found, k, 0), nil)
}

// collect gathers candidates for the rows of u, and for those of v from the
// same products unless columns is nil. For a block with itself rows and
// columns are the same rows, met in tiles on either side of the diagonal.
func (s *Scan) collect(p pair, itself bool, rows, columns *nearest) error {
	nobody := newReach(p.v)
	for j := range nobody.limit {
		nobody.limit[j] = float32(math.Inf(1))
	}
	if itself {
		columns = rows
	}
	err := s.tiles(p, itself, func(t tile) {
		screen := rows.of(t)
		toRow := func(i, j int, c float32) { rows.offer(screen, i, j, c) }
		others, toColumn := nobody, func(i, j int, c float32) {}
		if columns != nil && !(itself && t.i == t.j) {
			back := columns.of(t)
			others, toColumn = columns.reach, func(i, j int, c float32) { columns.offer(back, j, i, c) }
		}
		t.patches(func(p patch) { screen.pass(t, p, rows.reach, others, toRow, toColumn) })
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
	pair
	screens
	k, room int
	found   []float64 // [n,k+1] sorted
	upper   []float64 // [n,k+1] sorted: the smallest bounds from above of found and waiting
	waiting []candidate
	count   []int // [n] of waiting [n,room]
	reach   reach
	refined *atomic.Int64
}

// room is the least number of candidates that a row can keep: enough for what
// 8 bits leave undecided in usual features, so that few distances are computed
// that turn out not to matter.
const room = 128

type candidate struct {
	low, high float32
	j         int32
	rough     bool
}

// newNearest looks for neighbours of the rows of p.u. Two can be at work on the
// same products: side, 0 or 1, says whose memory is whose.
func (s *Scan) newNearest(p pair, found []float64, k, side int) *nearest {
	n := p.u.n
	r := &nearest{pair: p, screens: newScreens(p), k: k, room: max(room, 4*(k+1)), found: found[p.u.offset*(k+1) : (p.u.offset+n)*(k+1)],
		count: make([]int, n), reach: newReach(p.u), refined: &s.refined}
	s.waiting[side] = resized(s.waiting[side], n*r.room)
	r.waiting = s.waiting[side]
	r.upper = slices.Clone(r.found)
	for i := range n {
		r.narrow(i)
	}
	return r
}

func (r *nearest) top(i int) []float64   { return r.found[i*(r.k+1) : (i+1)*(r.k+1)] }
func (r *nearest) bound(i int) []float64 { return r.upper[i*(r.k+1) : (i+1)*(r.k+1)] }

// narrow sets the reach of row i to distances that can be among the k+1 smallest.
func (r *nearest) narrow(i int) {
	r.reach.limit[i] = r.threshold(i, r.bound(i)[r.k])
}

// offer considers row j of p.v as a neighbour of row i; c is their product.
func (r *nearest) offer(s *screen, i, j int, c float32) {
	low, high := s.enclose(i, j, c)
	bound := r.bound(i)
	if low >= bound[r.k] { // cannot make the k-th distance smaller
		return
	}
	if high < bound[r.k] {
		insert(bound, high)
		r.narrow(i)
	}
	r.waiting[i*r.room+r.count[i]] = candidate{below(low), above(high), int32(j), s.rough}
	r.count[i]++
	if r.count[i] == r.room {
		r.settle(i, r.room*3/4)
	}
}

// insert puts d into the sorted list in place of its largest value.
func insert(list []float64, d float64) {
	at, _ := slices.BinarySearch(list, d)
	copy(list[at+1:], list[at:])
	list[at] = d
}

// settle looks closer at candidates of row i until no more than keep of them
// are left that may be among the nearest.
func (r *nearest) settle(i, keep int) {
	top, bound, list := r.top(i), r.bound(i), r.waiting[i*r.room:i*r.room+r.count[i]]
	// Leave out what the bounds exclude; an equal one may be the bound itself.
	list = slices.DeleteFunc(list, func(c candidate) bool { return float64(c.low) > bound[r.k] })
	if len(list) > keep {
		slices.SortFunc(list, func(a, b candidate) int { return cmp.Compare(a.high, b.high) })
		list = r.decide(i, list, keep)
		copy(bound, top)
		for _, c := range list {
			if high := float64(c.high); high < bound[r.k] {
				insert(bound, high)
			}
		}
		r.narrow(i)
	}
	r.count[i] = copy(r.waiting[i*r.room:], list)
}

// decide computes the distances of the first candidates of row i and returns
// the others that may be among the nearest, at most keep.
func (r *nearest) decide(i int, list []candidate, keep int) []candidate {
	top, refined := r.top(i), int64(0)
	for len(list) > keep {
		c := list[0]
		list = list[1:]
		d, high := float64(c.low), float64(c.high)
		if c.rough && d < high && d < top[r.k] {
			d, high = r.pair.refined(i, int(c.j))
			refined++
		}
		if d < high && d < top[r.k] {
			d = r.exact(i, int(c.j))
		}
		if d < top[r.k] {
			insert(top, d)
			list = slices.DeleteFunc(list, func(c candidate) bool { return float64(c.low) >= top[r.k] })
		}
	}
	r.refined.Add(refined)
	return list
}

func (r *nearest) settleAll() {
	linalg.Parallel(r.u.n, func(from, to int) {
		for i := from; i < to; i++ {
			r.settle(i, 0)
		}
	})
}

// below is the largest float32 that is no larger than x, above the smallest
// that is no smaller.
func below(x float64) float32 {
	f := float32(x)
	if float64(f) > x {
		f = math.Nextafter32(f, float32(math.Inf(-1)))
	}
	return f
}

func above(x float64) float32 { return -below(-x) }
