package eval

import (
	"math"
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
			c := newContains(p, refRadii, genRadii, strict)
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
	p                  pair
	ref, gen           [][]float64 // radii, for each k, of the rows of the blocks
	strict             bool
	refLimit, genLimit []float32 // a product below refLimit[i]+genHalf[j] is outside every ball of i
	refHalf, genHalf   []float32
}

func newContains(p pair, ref, gen [][]float64, strict bool) *contains {
	c := &contains{p: p, strict: strict}
	c.ref, c.refLimit, c.refHalf = limits(p, ref)
	c.gen, c.genLimit, c.genHalf = limits(p.swapped(), gen)
	return c
}

// limits cuts the radii of p.u out and bounds the products that can lie inside.
func limits(p pair, radii [][]float64) (cut [][]float64, limit, half []float32) {
	u := p.u
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
		limit[i] = float32((u.add[i] - largest - p.slack(i)) / 2)
		half[i] = float32(u.add[i] / 2)
	}
	return cut, limit, half
}

// scan tests all pairs of rows and joins the findings to total.
func (c *contains) scan(s *scan, total *hits) error {
	ks := len(c.ref)
	workers := make(chan *hits, 1<<10) // idle ones
	err := s.tiles(c.p, false, func(t tile) {
		parallel(t.rows, func(from, to int) {
			var w *hits
			select {
			case w = <-workers:
			default:
				w = newHits(ks, c.p.u.n, c.p.v.n)
			}
			for i := from; i < to; i++ {
				c.scanRow(w, t.i+i, t.j, t.row(i))
			}
			workers <- w
		})
	})
	close(workers)
	for w := range workers {
		total.join(w, c.p.u, c.p.v)
	}
	return err
}

// scanRow tests reference row i against generated rows j, j+1, …
func (c *contains) scanRow(w *hits, i, j int, products []float32) {
	genHalf, genLimit := c.genHalf[j:j+len(products)], c.genLimit[j:j+len(products)]
	refHalf, refLimit, beyond := c.refHalf[i], c.refLimit[i], c.p.beyond
	for x, v := range products {
		if v >= refLimit+genHalf[x] || v >= genLimit[x]+refHalf || v >= beyond {
			c.test(w, i, j+x, v)
		}
	}
}

// test decides for one pair of rows, in float64 where the bounds cannot.
func (c *contains) test(w *hits, i, j int, product float32) {
	low, high := c.p.bounds(i, j, product)
	inside := func(radius float64) bool {
		if c.less(low, radius) != c.less(high, radius) {
			low = c.p.exact(i, j)
			high = low
		}
		return c.less(low, radius)
	}
	for k := range c.ref {
		if inside(c.ref[k][i]) {
			w.pairs[k]++
			w.refHolds[k][i] = true
			w.genIn[k][j] = true
		}
		if !w.refIn[k][i] && inside(c.gen[k][j]) {
			w.refIn[k][i] = true
		}
	}
}

func (c *contains) less(distance, radius float64) bool {
	if c.strict {
		return distance < radius
	}
	return distance <= radius
}
