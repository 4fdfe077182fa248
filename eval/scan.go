package eval

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
)

// A scan walks over all pairs of rows of two sets of features, block by block
// and tile by tile; the whole matrix of distances never exists.
type scan struct {
	ctx      context.Context
	kind     Distance
	products Products
	d        int
	rows     int // of a block
	side     int // of a tile
	centre   []float32
	tile     []float32
	ready    []*block // prepared last, at most two
}

func newScan(ctx context.Context, kind Distance, products Products, features []float32, d int) *scan {
	if products == nil {
		products = Gonum{}
	}
	s := &scan{ctx: ctx, kind: kind, products: products, d: d, rows: evaluatorRows, side: tileRows, centre: make([]float32, d)}
	n := min(len(features)/d, s.rows)
	parallel(d, func(from, to int) {
		sum := make([]float64, to-from)
		for i := range n {
			for j, v := range features[i*d+from : i*d+to] {
				sum[j] += float64(v)
			}
		}
		for j, v := range sum {
			s.centre[from+j] = float32(v / float64(n))
		}
	})
	return s
}

// blocks is the number of blocks of n rows.
func (s *scan) blocks(n int) int { return (n + s.rows - 1) / s.rows }

// block prepares block i of features [n,d], unless it is one of the last two
// asked for; the memory of one that was asked for earlier is used again.
func (s *scan) block(features []float32, i int) *block {
	first := i * s.rows
	raw := features[first*s.d : min((first+s.rows)*s.d, len(features))]
	for at, b := range s.ready {
		if &b.raw[0] == &raw[0] && len(b.raw) == len(raw) {
			s.ready = append(slices.Delete(s.ready, at, at+1), b)
			return b
		}
	}
	var work []float32
	if len(s.ready) == 2 {
		work = s.ready[0].work
		s.ready = slices.Delete(s.ready, 0, 1)
	}
	b := newBlock(s.kind, raw, s.d, first, s.centre, work)
	s.ready = append(s.ready, b)
	return b
}

// pair decides in which arithmetic the blocks u and v are measured.
func (s *scan) pair(u, v *block) (pair, error) {
	p := newPair(s.kind, false, u, v)
	if s.kind == DistanceF32 {
		return p, nil
	}
	over, err := s.overflows(p)
	if err != nil || !over {
		return p, err
	}
	x := s.redone(u)
	y := x
	if u != v {
		y = s.redone(v)
	}
	return newPair(DistanceF32, true, x, y), nil
}

// redone prepares the float32 features of a float16 block.
func (s *scan) redone(b *block) *block {
	return newBlock(DistanceF32, b.raw, s.d, b.first, s.centre, nil)
}

// overflows reports whether a float16 distance of the pair is not finite.
func (s *scan) overflows(p pair) (bool, error) {
	const largest = 65520 // from here on float16 is infinite
	for _, b := range []*block{p.u, p.v} {
		for _, h := range b.half {
			if math.IsInf(h, 0) || math.IsNaN(h) {
				return true, nil
			}
		}
	}
	if reach := p.u.maxNorm + p.v.maxNorm; reach*reach < 60000 {
		return false, nil
	}
	var found atomic.Bool
	err := s.tiles(p, false, func(t tile) {
		parallel(t.rows, func(from, to int) {
			for i := from; i < to && !found.Load(); i++ {
				limit := largest - p.slack(t.i+i)
				for j, c := range t.row(i) {
					if p.u.add[t.i+i]+p.v.add[t.j+j]-2*float64(c) < limit {
						continue
					}
					if low, high := p.bounds(t.i+i, t.j+j, c); math.IsInf(low, 1) ||
						math.IsInf(high, 1) && math.IsInf(p.exact(t.i+i, t.j+j), 1) {
						found.Store(true)
					}
				}
			}
		})
	})
	return found.Load(), err
}

// A tile holds the products of rows i… of u with rows j… of v.
type tile struct {
	i, j, rows, cols int
	c                []float32 // [rows,cols]
}

func (t tile) row(i int) []float32 { return t.c[i*t.cols : (i+1)*t.cols] }

// tiles computes the products of a pair tile by tile; symmetric leaves out the
// tiles below the diagonal.
func (s *scan) tiles(p pair, symmetric bool, visit func(tile)) error {
	rows, cols := min(s.side, p.u.n), min(s.side, p.v.n)
	if len(s.tile) < rows*cols {
		s.tile = make([]float32, rows*cols)
	}
	for i := 0; i < p.u.n; i += s.side {
		start := 0
		if symmetric {
			start = i
		}
		for j := start; j < p.v.n; j += s.side {
			if err := s.ctx.Err(); err != nil {
				return err
			}
			t := tile{i: i, j: j, rows: min(s.side, p.u.n-i), cols: min(s.side, p.v.n-j)}
			t.c = s.tile[:t.rows*t.cols]
			err := s.products.Mul32(t.c, p.u.work[i*s.d:(i+t.rows)*s.d], p.v.work[j*s.d:(j+t.cols)*s.d], t.rows, t.cols, s.d)
			if err != nil {
				return err
			}
			visit(t)
		}
	}
	return nil
}
