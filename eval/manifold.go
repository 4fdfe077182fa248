package eval

import (
	"math"
	"sync/atomic"
)

// A manifoldCount says which rows of two sets lie in balls around rows of the
// other set, for one k.
type manifoldCount struct {
	refHolds int // reference balls that hold at least one generated row: coverage
	genIn    int // generated rows in at least one reference ball: precision
	refIn    int // reference rows in at least one generated ball: recall
	pairs    int // (reference ball, generated row inside it): density
}

// manifolds counts, for each k, the rows inside balls of the given squared
// radii. strict takes distance < radius (prdc), else ≤ (Kynkäänniemi et al.).
func (s *scan) manifolds(ref, gen []float32, refRadii, genRadii [][]float64, strict bool) ([]manifoldCount, error) {
	n, m, ks := len(ref)/s.d, len(gen)/s.d, len(refRadii)
	total := newHits(ks, n, m)
	for i := range s.blocks(n) {
		for j := range s.blocks(m) {
			u, v := s.block(ref, i), s.block(gen, j)
			p, err := s.pair(u, v)
			if err != nil {
				return nil, err
			}
			if err := s.newContains(p, refRadii, genRadii, strict).scan(s, total.inRef, total.inGen); err != nil {
				return nil, err
			}
		}
	}
	out := make([]manifoldCount, ks)
	for k := range out {
		out[k] = manifoldCount{genIn: count(total.genIn[k]), refIn: count(total.refIn[k])}
		for _, held := range total.held[k] {
			out[k].refHolds += min(held, 1)
			out[k].pairs += held
		}
	}
	return out, nil
}

func count(flags []bool) (n int) {
	for _, f := range flags {
		if f {
			n++
		}
	}
	return n
}

// hits are the findings on all pairs, for each k and row.
type hits struct {
	held         [][]int // generated rows in the ball of a reference row
	genIn, refIn [][]bool
}

func newHits(ks, n, m int) *hits {
	h := &hits{}
	for range ks {
		h.held = append(h.held, make([]int, n))
		h.genIn = append(h.genIn, make([]bool, m))
		h.refIn = append(h.refIn, make([]bool, n))
	}
	return h
}

// inRef counts a pair if the generated row lies in the reference row's ball.
func (h *hits) inRef(n neighbour) {
	for k := range h.held {
		if n.within(n.ref[k][n.i]) {
			h.held[k][n.u.first+n.i]++
			h.genIn[k][n.v.first+n.j] = true
		}
	}
}

// inGen counts a pair if the reference row lies in the generated row's ball.
func (h *hits) inGen(n neighbour) {
	for k := range h.refIn {
		if in := &h.refIn[k][n.u.first+n.i]; !*in {
			*in = n.within(n.gen[k][n.j])
		}
	}
}

// contains tests pairs of rows of a reference block u and a generated block v.
type contains struct {
	pair
	screens
	ref, gen           [][]float64 // radii, for each k, of the rows of the blocks
	strict             bool
	refReach, genReach reach // the products outside these are outside every ball
	refined            *atomic.Int64
}

func (s *scan) newContains(p pair, ref, gen [][]float64, strict bool) *contains {
	c := &contains{pair: p, screens: newScreens(p), strict: strict, refined: &s.refined}
	back := newScreens(p.swapped())
	c.ref, c.refReach = c.limits(ref)
	c.gen, c.genReach = back.limits(gen)
	return c
}

// limits cuts the radii of u out and bounds the products that can lie inside.
func (s *screens) limits(radii [][]float64) (cut [][]float64, r reach) {
	u := s.fine.u
	for _, k := range radii {
		cut = append(cut, k[u.first:u.first+u.n])
	}
	r = newReach(u)
	for i := range u.n {
		largest := math.Inf(-1)
		for k := range cut {
			largest = max(largest, cut[k][i])
		}
		r.limit[i] = s.threshold(i, largest)
	}
	return cut, r
}

// scan calls inRef for the pairs whose generated row may lie in the ball of the
// reference row, inGen for those the other way round; never at the same time
// for pairs that have a row in common.
func (c *contains) scan(s *scan, inRef, inGen func(neighbour)) error {
	return s.tiles(c.pair, false, func(t tile) {
		screen := c.of(t)
		enclosed := func(visit func(neighbour)) func(i, j int, product float32) {
			return func(i, j int, product float32) {
				n := neighbour{contains: c, i: i, j: j, rough: t.rough}
				n.low, n.high = screen.enclose(i, j, product)
				visit(n)
			}
		}
		toRef, toGen := enclosed(inRef), enclosed(inGen)
		t.patches(func(p patch) { screen.pass(t, p, c.refReach, c.genReach, toRef, toGen) })
	})
}

// A neighbour is a pair of rows that may lie in each other's balls: row i of
// the reference block, row j of the generated one, their distance in bounds.
type neighbour struct {
	*contains
	i, j      int
	low, high float64
	rough     bool
}

// within compares the distance with a radius, in float64 where its bounds do
// not decide.
func (n *neighbour) within(radius float64) bool {
	decided := func() bool { return n.less(n.low, radius) == n.less(n.high, radius) }
	if n.rough && !decided() {
		n.low, n.high = n.pair.refined(n.i, n.j)
		n.rough = false
		n.contains.refined.Add(1)
	}
	if !decided() {
		n.low = n.exact(n.i, n.j)
		n.high = n.low
	}
	return n.less(n.low, radius)
}

func (c *contains) less(distance, radius float64) bool {
	if c.strict {
		return distance < radius
	}
	return distance <= radius
}
