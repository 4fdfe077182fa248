package neighbours

import (
	"fmt"
	"math"
	"slices"

	"sagbench/eval/linalg"
)

// A Distance names the arithmetic in which squared distances are measured.
type Distance string

const (
	// DistanceF32 is the exact squared distance of float32 features.
	DistanceF32 Distance = "f32"
	// DistanceFP16 rounds to float16 where the ADM evaluator does, each sum
	// exact and rounded once: features, squares, |u|², u·v, |u|²−2u·v, +|v|².
	// A block of 10,000 × 10,000 with an element that is not finite is redone
	// from the float32 features.
	DistanceFP16 Distance = "fp16"
	// DistanceADM is DistanceFP16 with the order of additions that TensorFlow's
	// CPU kernels have: evaluator.py itself, to the bit.
	DistanceADM Distance = "adm"
)

// Validate reports an unknown name.
func (d Distance) Validate() error {
	switch d {
	case DistanceF32, DistanceFP16, DistanceADM:
		return nil
	}
	return fmt.Errorf("distance %q; known: %s, %s, %s", string(d), DistanceADM, DistanceFP16, DistanceF32)
}

const (
	// evaluatorRows is the row_batch_size and col_batch_size of the evaluator's
	// ManifoldEstimator: the unit in which a float16 overflow is redone.
	evaluatorRows = 10000
	// tileRows divides a block so that a tile of products stays small; a multiple
	// of 64 suits the products' kernels.
	tileRows = 1280
)

// Distances are those from each of the first n rows of u to each of the first n
// of v, in that order. Whether float16 overflows, so that they are measured in
// float32, is decided by the first 10,000 rows of each, as always.
func (s *Scan) Distances(u, v []float32, n int) ([]float64, error) {
	p, err := s.pair(s.block(u, 0), s.block(v, 0))
	if err != nil {
		return nil, err
	}
	var out []float64
	for i := range min(n, p.u.n) {
		for j := range min(n, p.v.n) {
			out = append(out, p.exact(i, j))
		}
	}
	return out, nil
}

// A block is a number of consecutive features, ready for products.
type block struct {
	n, d    int
	offset  int       // index of the first row in its set
	raw     []float32 // [n,d] as they are
	work    []float32 // [n,d] rounded to float16, or float32 less the centre
	half    []float64 // |u|² in float16; nil where distances are exact
	add     []float64 // a distance is about add[i] + add[j] − 2·work·work
	maxAdd  float64
	measure           // of work
	bytes   *byteRows // work in 8 bits; nil where nothing multiplies those
}

// newBlock prepares the rows of raw, the first of which has the index offset.
// centre is subtracted in DistanceF32 alone, where it makes the products more
// accurate. used is a block that is not needed any more: its memory is taken
// where it is large enough.
func newBlock(kind Distance, raw []float32, d, offset int, centre []float32, used *block) *block {
	n := len(raw) / d
	b := &block{offset: offset, n: n, d: d, raw: raw, add: make([]float64, n), measure: newMeasure(n)}
	if used != nil {
		b.work, b.bytes = used.work, used.bytes
	}
	b.work = resized(b.work, n*d)
	b.unit = gamma32(d)
	if kind != DistanceF32 {
		b.half = b.add
	}
	linalg.Parallel(n, func(from, to int) {
		for i := from; i < to; i++ {
			row, work := b.raw[i*d:(i+1)*d], b.row(i)
			if kind == DistanceF32 {
				for j, v := range row {
					work[j] = v - centre[j]
				}
			} else {
				halfRow(work, row)
			}
			square := dot(work, work)
			b.norm[i] = math.Sqrt(square)
			b.span[i] = b.norm[i]
			switch kind {
			case DistanceF32:
				b.add[i] = square
			case DistanceFP16:
				b.add[i] = normHalf(work)
			default:
				b.add[i] = normHalfEigen(work)
			}
		}
	})
	b.summarise()
	b.maxAdd = slices.Max(b.add)
	return b
}

// resized is memory for n values, that of a if it is large enough.
func resized[T any](a []T, n int) []T {
	if cap(a) < n {
		return make([]T, n)
	}
	return a[:n]
}

func (b *block) row(i int) []float32 { return b.work[i*b.d : (i+1)*b.d] }

// A pair measures distances from the rows of u to those of v.
type pair struct {
	kind  Distance
	redo  bool // the evaluator's float32 block: exact, then rounded to float32
	rough bool // products come from 8 bits
	u, v  *block
}

// swapped measures from the rows of v to those of u.
func (p pair) swapped() pair {
	p.u, p.v = p.v, p.u
	return p
}

// exact is the distance of rows i and j.
func (p pair) exact(i, j int) float64 {
	if p.u.half != nil {
		return p.distanceHalf(i, j, dot(p.u.row(i), p.v.row(j)))
	}
	d := p.u.d
	sum := squaredDistance(p.u.raw[i*d:(i+1)*d], p.v.raw[j*d:(j+1)*d])
	if p.redo {
		return float64(float32(sum))
	}
	return sum
}

// distanceHalf is the float16 distance of rows i and j whose product is uv. It never
// grows with uv: every step is monotonic.
func (p pair) distanceHalf(i, j int, uv float64) float64 {
	uv = roundHalf(uv)
	if p.kind == DistanceADM {
		uv = roundHalf(2*uv) / 2
	}
	return max(roundHalf(roundHalf(p.u.half[i]-2*uv)+p.v.half[j]), 0)
}

// dot is Σuv in float64.
func dot(u, v []float32) float64 {
	var s0, s1, s2, s3 float64
	v = v[:len(u)]
	i := 0
	for ; i+4 <= len(u); i += 4 {
		a, b := u[i:i+4:i+4], v[i:i+4:i+4]
		s0 += float64(a[0]) * float64(b[0])
		s1 += float64(a[1]) * float64(b[1])
		s2 += float64(a[2]) * float64(b[2])
		s3 += float64(a[3]) * float64(b[3])
	}
	for ; i < len(u); i++ {
		s0 += float64(u[i]) * float64(v[i])
	}
	return (s0 + s1) + (s2 + s3)
}

// squaredDistance is Σ(u−v)² in float64; it is the same with u and v swapped.
func squaredDistance(u, v []float32) float64 {
	var s0, s1, s2, s3 float64
	v = v[:len(u)]
	i := 0
	for ; i+4 <= len(u); i += 4 {
		a, b := u[i:i+4:i+4], v[i:i+4:i+4]
		d0, d1 := float64(a[0])-float64(b[0]), float64(a[1])-float64(b[1])
		d2, d3 := float64(a[2])-float64(b[2]), float64(a[3])-float64(b[3])
		s0 += d0 * d0
		s1 += d1 * d1
		s2 += d2 * d2
		s3 += d3 * d3
	}
	for ; i < len(u); i++ {
		d := float64(u[i]) - float64(v[i])
		s0 += d * d
	}
	return (s0 + s1) + (s2 + s3)
}
