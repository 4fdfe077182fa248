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
			c := s.newContains(p, refRadii, genRadii, strict)
			if err := c.scan(s, total); err != nil {
				return nil, err
			}
		}
	}
	out := make([]manifoldCount, ks)
	for k := range out {
		out[k] = manifoldCount{refHolds: count(total.refHolds[k]), genIn: count(total.genIn[k]),
			refIn: count(total.refIn[k]), pairs: total.pairs[k]}
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

// hits are the findings of one worker; they are joined by or and by addition.
type hits struct {
	refHolds, genIn, refIn [][]bool // for each k, a flag a row
	pairs                  []int
}

func newHits(ks, n, m int) *hits {
	flags := func(n int) [][]bool {
		f := make([][]bool, ks)
		for k := range f {
			f[k] = make([]bool, n)
		}
		return f
	}
	return &hits{refHolds: flags(n), genIn: flags(m), refIn: flags(n), pairs: make([]int, ks)}
}

// join adds the findings of a worker on rows of a pair.
func (h *hits) join(w *hits, u, v *block) {
	or := func(dst, src [][]bool, first int) {
		for k := range dst {
			for i, f := range src[k] {
				if f {
					dst[k][first+i] = true
				}
			}
		}
	}
	or(h.refHolds, w.refHolds, u.first)
	or(h.refIn, w.refIn, u.first)
	or(h.genIn, w.genIn, v.first)
	for k, n := range w.pairs {
		h.pairs[k] += n
	}
}

// contains tests pairs of rows of a reference block u and a generated block v.
type contains struct {
	pair
	screens
	ref, gen           [][]float64 // radii, for each k, of the rows of the blocks
	strict             bool
	refLimit, genLimit []float32 // a product that cannot reach refLimit[i]+genHalf[j] is outside every ball of i
	refHalf, genHalf   []float32
	refined            *atomic.Int64
}

func (s *scan) newContains(p pair, ref, gen [][]float64, strict bool) *contains {
	c := &contains{pair: p, screens: newScreens(p), strict: strict, refined: &s.refined}
	back := newScreens(p.swapped())
	c.ref, c.refLimit, c.refHalf = c.limits(ref)
	c.gen, c.genLimit, c.genHalf = back.limits(gen)
	return c
}

// limits cuts the radii of u out and bounds the products that can lie inside.
func (s *screens) limits(radii [][]float64) (cut [][]float64, limit, half []float32) {
	u := s.fine.u
	cut = make([][]float64, len(radii))
	for k := range radii {
		cut[k] = radii[k][u.first : u.first+u.n]
	}
	limit, half = make([]float32, u.n), make([]float32, u.n)
	for i := range u.n {
		largest := math.Inf(-1)
		for k := range cut {
			largest = max(largest, cut[k][i])
		}
		limit[i] = s.threshold(i, largest)
		half[i] = float32(u.add[i] / 2)
	}
	return cut, limit, half
}

// scan tests all pairs of rows and joins the findings to total.
func (c *contains) scan(s *scan, total *hits) error {
	ks := len(c.ref)
	workers := make(chan *hits, 1<<10) // idle ones
	err := s.tiles(c.pair, false, func(t tile) {
		parallel(t.rows, func(from, to int) {
			var w *hits
			select {
			case w = <-workers:
			default:
				w = newHits(ks, c.u.n, c.v.n)
			}
			for i := from; i < to; i++ {
				c.near(t, i, func(n neighbour) { w.add(c, n) })
			}
			workers <- w
		})
	})
	close(workers)
	for w := range workers {
		total.join(w, c.u, c.v)
	}
	return err
}

// A neighbour is a pair of rows that may lie in each other's balls: row i of
// the reference block, row j of the generated one, their distance in bounds.
type neighbour struct {
	*contains
	i, j      int
	low, high float64
	rough     bool
}

// near calls visit for what is near row i of a tile.
func (c *contains) near(t tile, i int, visit func(neighbour)) {
	s, row := c.of(t), t.i+i
	genHalf, genLimit, size := c.genHalf[t.j:t.j+t.cols], c.genLimit[t.j:t.j+t.cols], s.size[t.j:t.j+t.cols]
	refHalf, refLimit, weight, beyond := c.refHalf[row], c.refLimit[row], s.weight[row], s.beyond
	for x, v := range t.row(i) {
		if most := v + weight*size[x]; most >= refLimit+genHalf[x] || most >= genLimit[x]+refHalf || most >= beyond {
			n := neighbour{contains: c, i: row, j: t.j + x, rough: s.rough}
			n.low, n.high = s.enclose(n.i, n.j, v)
			visit(n)
		}
	}
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

func (w *hits) add(c *contains, n neighbour) {
	for k := range c.ref {
		if n.within(c.ref[k][n.i]) {
			w.pairs[k]++
			w.refHolds[k][n.i] = true
			w.genIn[k][n.j] = true
		}
		if !w.refIn[k][n.i] && n.within(c.gen[k][n.j]) {
			w.refIn[k][n.i] = true
		}
	}
}

func (c *contains) less(distance, radius float64) bool {
	if c.strict {
		return distance < radius
	}
	return distance <= radius
}
