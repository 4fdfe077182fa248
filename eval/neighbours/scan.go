// Package neighbours finds, exactly, which rows of two sets of features are near
// each other.
//
// In go rows [N,D] of float32 features and the arithmetic of their distance; out
// come the distance from each row to its k-th nearest neighbour, and which rows
// of one set lie within such distances of rows of the other. Squared distances
// are estimated by products of whole tiles, in 8 bits or in float32; where the
// bounds of an estimate do not decide, the distance is computed in float64.
package neighbours

import (
	"context"
	"math"
	"runtime"
	"slices"
	"sync/atomic"

	"sagbench/eval/linalg"
)

// A Scan walks over all pairs of rows of two sets of features, block by block
// and tile by tile; the whole matrix of distances never exists. It remembers
// the blocks that it looked at last: rows must not change meanwhile.
type Scan struct {
	Touched  func(values int) // called for rows that were read; may be nil
	ctx      context.Context
	kind     Distance
	products linalg.Products
	d        int
	rows     int // of a block
	side     int // of a tile
	centre   []float32
	middle   float32  // of the elements of a row, see middleOf
	ready    []*block // prepared last, at most two

	bytes   linalg.ByteProducts // nil where the products have none, or they decide too little
	crowded float64             // share of pairs that 8 bits cannot decide from which float32 is faster
	tile    []float32           // the products of a tile in float32
	sums    []int32             // those of a tile in bytes
	waiting [2][]candidate      // of the rows and of the columns of a pair
	pairs   int64               // of rows in tiles of bytes
	refined atomic.Int64        // of these, how many 8 bits could not decide
}

// NewScan prepares for features of d dimensions; the mean of those given makes
// the products more accurate. Nil products are Gonum.
func NewScan(ctx context.Context, kind Distance, products linalg.Products, features []float32, d int) *Scan {
	if products == nil {
		products = linalg.Gonum{}
	}
	s := &Scan{ctx: ctx, kind: kind, products: products, d: d, rows: evaluatorRows, side: tileRows, crowded: 1.0 / 16, centre: make([]float32, d)}
	if b, ok := products.(linalg.ByteProducts); ok && d <= maxByteDims && b.Bytes() {
		s.bytes = b
	}
	n := min(len(features)/d, s.rows)
	linalg.Parallel(d, func(from, to int) {
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
	s.middle = middleOf(features[:min(n, middleRows)*d], s.centre)
	return s
}

// blocks is the number of blocks of n rows.
func (s *Scan) blocks(n int) int { return (n + s.rows - 1) / s.rows }

// block prepares block i of features [n,d], unless it is one of the last two
// asked for. The memory of earlier ones is used again.
func (s *Scan) block(features []float32, i int) *block {
	offset := i * s.rows
	raw := features[offset*s.d : min((offset+s.rows)*s.d, len(features))]
	for at, b := range s.ready {
		if &b.raw[0] == &raw[0] && len(b.raw) == len(raw) {
			s.ready = append(slices.Delete(s.ready, at, at+1), b)
			return b
		}
	}
	var used *block
	if len(s.ready) == 2 {
		used = s.ready[0]
		s.ready = slices.Delete(s.ready, 0, 1)
	}
	b := s.prepare(s.kind, raw, offset, used)
	if s.Touched != nil {
		s.Touched(len(raw))
	}
	s.ready = append(s.ready, b)
	return b
}

func (s *Scan) prepare(kind Distance, raw []float32, offset int, used *block) *block {
	b := newBlock(kind, raw, s.d, offset, s.centre, used)
	switch {
	case s.bytes == nil:
		b.bytes = nil
	case kind == DistanceF32:
		b.quantise(nil, s.middle, s.side)
	default:
		b.quantise(s.centre, s.middle, s.side)
	}
	return b
}

// pair decides in which arithmetic the blocks u and v are measured.
func (s *Scan) pair(u, v *block) (pair, error) {
	p := pair{kind: s.kind, u: u, v: v}
	if s.kind == DistanceF32 {
		return p, nil
	}
	infinite, err := s.overflows(p)
	if err != nil || !infinite {
		return p, err
	}
	x := s.prepare(DistanceF32, u.raw, u.offset, nil)
	y := x
	if u != v {
		y = s.prepare(DistanceF32, v.raw, v.offset, nil)
	}
	return pair{kind: DistanceF32, redo: true, u: x, v: y}, nil
}

// overflows reports whether a float16 distance of the pair is not finite.
func (s *Scan) overflows(p pair) (bool, error) {
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
	screens := newScreens(p)
	var found atomic.Bool
	err := s.tiles(p, false, func(t tile) {
		screen := screens.of(t)
		linalg.Parallel(t.rows, func(from, to int) {
			buffer := make([]float32, t.cols)
			for i := t.i + from; i < t.i+to && !found.Load(); i++ {
				limit := largest - max(screens.fine.slack(i, largest), screen.slack(i, largest))
				for x, c := range t.row(i, t.j, t.j+t.cols, buffer) {
					j := t.j + x
					least := float64(c) - omitted(screen.rows, screen.columns, i, j)
					if p.u.add[i]+p.v.add[j]-2*least < limit {
						continue
					}
					low, high := screen.bounds(i, j, c)
					if t.rough && math.IsInf(low, 1) != math.IsInf(high, 1) {
						s.refined.Add(1)
						low, high = p.refined(i, j)
					}
					if math.IsInf(low, 1) || math.IsInf(high, 1) && math.IsInf(p.exact(i, j), 1) {
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
	pair
	i, j, rows, cols int
	c                []float32 // [rows,cols]; nil where they are rough
	sums             []int32   // [rows,cols] of bytes, where they are
}

// row is the products of row i of u with rows from…to of v; buffer has room for
// them.
func (t tile) row(i, from, to int, buffer []float32) []float32 {
	first, last := (i-t.i)*t.cols+from-t.j, (i-t.i)*t.cols+to-t.j
	if !t.rough {
		return t.c[first:last]
	}
	t.estimate(buffer, t.sums[first:last], i, from)
	return buffer[:last-first]
}

// A patch is rows i0…i1 and columns j0…j1 of a tile.
type patch struct{ i0, i1, j0, j1 int }

// patches calls work for parts that make up the tile, one a core at a time; no
// two at the same time share rows or columns.
func (t tile) patches(work func(patch)) {
	const least = 32 // rows; with fewer, taking turns costs more than the work
	parts := max(1, min(runtime.GOMAXPROCS(0), t.rows/least, t.cols/least))
	for turn := range parts {
		linalg.Parallel(parts, func(from, to int) {
			for a := from; a < to; a++ {
				b := (a + turn) % parts
				work(patch{a * t.rows / parts, (a + 1) * t.rows / parts, b * t.cols / parts, (b + 1) * t.cols / parts})
			}
		})
	}
}

// tiles computes the products of a pair tile by tile, in 8 bits while these
// decide most; symmetric leaves out the tiles below the diagonal.
func (s *Scan) tiles(p pair, symmetric bool, visit func(tile)) error {
	for i := 0; i < p.u.n; i += s.side {
		start := 0
		if symmetric {
			start = i
		}
		for j := start; j < p.v.n; j += s.side {
			if err := s.ctx.Err(); err != nil {
				return err
			}
			p.rough = s.bytes != nil && p.u.bytes != nil && p.v.bytes != nil
			t := tile{pair: p, i: i, j: j, rows: min(s.side, p.u.n-i), cols: min(s.side, p.v.n-j)}
			if err := s.multiply(&t); err != nil {
				return err
			}
			visit(t)
			if t.rough {
				s.pairs += int64(t.rows * t.cols)
				if float64(s.refined.Load()) > s.crowded*float64(s.pairs+int64(s.side*s.rows)) {
					s.bytes = nil
				}
			}
		}
	}
	return nil
}

// multiply computes the products of a tile.
func (s *Scan) multiply(t *tile) error {
	n := t.rows * t.cols
	u, v := [2]int{t.i * s.d, (t.i + t.rows) * s.d}, [2]int{t.j * s.d, (t.j + t.cols) * s.d}
	if t.rough {
		s.sums = resized(s.sums, n)
		t.sums = s.sums
		return s.bytes.Mul8(t.sums, t.u.bytes.unsigned[u[0]:u[1]], t.v.bytes.columns[v[0]:v[1]], t.rows, t.cols, s.d)
	}
	s.tile = resized(s.tile, n)
	t.c = s.tile
	return s.products.Mul32(t.c, t.u.work[u[0]:u[1]], t.v.work[v[0]:v[1]], t.rows, t.cols, s.d)
}
