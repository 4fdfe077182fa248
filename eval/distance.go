package eval

import (
	"fmt"
	"math"
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
	// tileRows divides a block so that a tile of products stays small.
	tileRows = 1250
)

// A block is a number of consecutive features, ready for products.
type block struct {
	first, n, d int
	raw         []float32 // [n,d] as they are
	work        []float32 // [n,d] rounded to float16, or float32 less the centre
	half        []float64 // |u|² in float16; nil where distances are exact
	add         []float64 // a distance is about add[i] + add[j] − 2·work·work
	norm        []float64 // √Σwork²
	maxNorm     float64
}

// newBlock prepares the rows of raw, of which the first has the index first;
// centre is subtracted in DistanceF32 alone, where it makes the products more
// accurate. work is memory to use, if it is large enough.
func newBlock(kind Distance, raw []float32, d, first int, centre, work []float32) *block {
	n := len(raw) / d
	if cap(work) < n*d {
		work = make([]float32, n*d)
	}
	b := &block{first: first, n: n, d: d, raw: raw, work: work[:n*d], add: make([]float64, n), norm: make([]float64, n)}
	if kind != DistanceF32 {
		b.half = b.add
	}
	parallel(n, func(from, to int) {
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
	for _, v := range b.norm {
		b.maxNorm = max(b.maxNorm, v)
	}
	return b
}

func (b *block) row(i int) []float32 { return b.work[i*b.d : (i+1)*b.d] }

// A pair measures distances from the rows of u to those of v.
type pair struct {
	kind  Distance
	redo  bool // the evaluator's float32 block: exact, then rounded to float32
	u, v  *block
	gamma float64 // error of a float32 product, relative to |u||v|
	// beyond is the product from which doubling it overflows float16, so that
	// the estimate add − 2·product says nothing; +Inf where none can be.
	beyond float32
}

func newPair(kind Distance, redo bool, u, v *block) pair {
	const unit = 1.0 / (1 << 24)
	k := float64(u.d + 2)
	p := pair{kind: kind, redo: redo, u: u, v: v, gamma: k * unit / (1 - k*unit), beyond: float32(math.Inf(1))}
	if largest := u.maxNorm * v.maxNorm; u.half != nil && largest*(1+p.gamma) >= 32000 {
		p.beyond = float32(32000 - largest*p.gamma)
	}
	return p
}

// swapped measures from the rows of v to those of u.
func (p pair) swapped() pair {
	p.u, p.v = p.v, p.u
	return p
}

// slack bounds, for row i of u and every row of v, how far the estimate
// add+add−2·product in float32 lies from the distance.
func (p pair) slack(i int) float64 {
	nu, nv := p.u.norm[i], p.v.maxNorm
	s := 2*p.gamma*nu*nv + (nu+nv)*(nu+nv)/(1<<20)
	if p.u.half != nil {
		s += halfUlp(nu*nv) + halfUlp((nu+nv)*(nu+nv))
	}
	return s
}

// halfUlp is the spacing of float16 values at a little above x: the norms of
// DistanceADM are themselves off by a few percent.
func halfUlp(x float64) float64 {
	_, exponent := math.Frexp(x * 1.25)
	return math.Ldexp(1, max(exponent-1, -14)-10)
}

// bounds encloses the distance of rows i and j whose computed product is c.
func (p pair) bounds(i, j int, c float32) (low, high float64) {
	nu, nv := p.u.norm[i], p.v.norm[j]
	e := p.gamma * nu * nv
	if p.u.half != nil {
		return p.halve(i, j, float64(c)+e), p.halve(i, j, float64(c)-e)
	}
	d := p.u.add[i] + p.v.add[j] - 2*float64(c)
	e = 2*e + (nu+nv)*(nu+nv)/(1<<20)
	return max(d-e, 0), max(d+e, 0)
}

// exact is the distance of rows i and j.
func (p pair) exact(i, j int) float64 {
	if p.u.half != nil {
		return p.halve(i, j, dot(p.u.row(i), p.v.row(j)))
	}
	d := p.u.d
	sum := squaredDistance(p.u.raw[i*d:(i+1)*d], p.v.raw[j*d:(j+1)*d])
	if p.redo {
		return float64(float32(sum))
	}
	return sum
}

// halve is the float16 distance of rows i and j whose product is uv. It never
// grows with uv: every step is monotonic.
func (p pair) halve(i, j int, uv float64) float64 {
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
