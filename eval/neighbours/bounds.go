package neighbours

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"
)

// A measure bounds the errors of products that are computed from rows in some
// form: for rows i of u and j of v
//
//	|c − u·v| ≤ errᵢ·normⱼ + (normᵢ+errᵢ)·errⱼ + unit·spanᵢ·spanⱼ
//
// The first terms are Cauchy and Schwarz's inequality for what the form leaves
// out of a row, the last is rounding.
type measure struct {
	norm []float64 // |row|, or a little more
	err  []float64 // |row − its form|, or a little more
	span []float64 // what rounding errors are relative to, at least norm
	unit float64

	maxNorm, maxSpan float64
}

func newMeasure(n int) measure {
	return measure{norm: make([]float64, n), err: make([]float64, n), span: make([]float64, n)}
}

// summarise finds the maxima.
func (m *measure) summarise() {
	for i, norm := range m.norm {
		m.maxNorm, m.maxSpan = max(m.maxNorm, norm), max(m.maxSpan, m.span[i])
	}
}

// gamma32 bounds the relative error of a sum of d products in float32.
func gamma32(d int) float64 {
	const unit = 1.0 / (1 << 24)
	k := float64(d + 2)
	return k * unit / (1 - k*unit)
}

func (p pair) measures() (u, v *measure) {
	if p.rough {
		return &p.u.bytes.measure, &p.v.bytes.measure
	}
	return &p.u.measure, &p.v.measure
}

// omitted bounds the part of a product that the forms of its rows leave out.
func omitted(u, v *measure, i, j int) float64 {
	return u.err[i]*v.norm[j] + (u.norm[i]+u.err[i])*v.err[j]
}

// bounds encloses the distance of rows i and j whose computed product is c.
func (p pair) bounds(i, j int, c float32) (low, high float64) {
	u, v := p.measures()
	e := omitted(u, v, i, j)
	if p.u.half != nil {
		e += u.unit * u.span[i] * v.span[j]
		return p.distanceHalf(i, j, float64(c)+e), p.distanceHalf(i, j, float64(c)-e)
	}
	d := p.u.add[i] + p.v.add[j] - 2*float64(c)
	e = 2*e + rounding(u.unit, u.span[i], v.span[j])
	return max(d-e, 0), max(d+e, 0)
}

// refined are the bounds of rows i and j from their product in float32 instead
// of 8 bits.
func (p pair) refined(i, j int) (low, high float64) {
	d := p.u.d
	c := blas32.Dot(blas32.Vector{N: d, Inc: 1, Data: p.u.row(i)}, blas32.Vector{N: d, Inc: 1, Data: p.v.row(j)})
	p.rough = false
	return p.bounds(i, j, c)
}

// A screen tells in float32 which products may matter: those for which
//
//	c + errᵢ·normⱼ + (normᵢ+errᵢ)·errⱼ ≥ (addᵢ + addⱼ − d − slack(i,d))/2
//
// where d is the largest distance that does, and those from beyond on.
type screen struct {
	pair
	rows, columns   *measure  // of the forms of u and v
	errors, lengths []float32 // err and norm + err of the rows of u
	size, err       []float32 // norm and err of the rows of v
	// beyond is the product from which doubling it overflows float16, so that
	// the estimate add + add − 2·product says nothing; +Inf where none can be.
	beyond float32
}

func newScreen(p pair) screen {
	u, v := p.measures()
	s := screen{pair: p, rows: u, columns: v, errors: make([]float32, p.u.n), lengths: make([]float32, p.u.n),
		size: make([]float32, p.v.n), err: make([]float32, p.v.n), beyond: float32(math.Inf(1))}
	for i := range s.errors {
		s.errors[i], s.lengths[i] = float32(u.err[i]), float32(u.norm[i]+u.err[i])
	}
	for j := range s.size {
		s.size[j], s.err[j] = float32(v.norm[j]), float32(v.err[j])
	}
	if largest := p.u.maxNorm * p.v.maxNorm; p.u.half != nil && largest*(1+p.u.unit) >= 32000 {
		s.beyond = float32(32000 - u.unit*u.maxSpan*v.maxSpan)
	}
	return s
}

// enclose bounds the distance of rows i and j whose product in the screen's form
// is c. For products from 8 bits it does not follow each rounding to float16:
// that would take more time than it saves.
func (s *screen) enclose(i, j int, c float32) (low, high float64) {
	if !s.rough {
		return s.bounds(i, j, c)
	}
	u, v := s.rows, s.columns
	e := omitted(u, v, i, j)
	if float64(c)+e >= float64(s.beyond) {
		return 0, math.Inf(1)
	}
	d, slack := s.u.add[i]+s.v.add[j]-2*float64(c), 2*e+rounding(u.unit, u.span[i], v.span[j])
	if s.u.half != nil {
		slack += roundingHalf(math.Abs(float64(c))+e, max(d, 0)+slack, s.v.add[j])
	}
	return max(d-slack, 0), max(d+slack, 0)
}

// screens are those for products in float32 and, where both blocks have them,
// in 8 bits.
type screens struct{ fine, rough screen }

func newScreens(p pair) (s screens) {
	s.fine = newScreen(p)
	if p.u.bytes != nil && p.v.bytes != nil {
		p.rough = true
		s.rough = newScreen(p)
	}
	return s
}

func (s *screens) of(t tile) *screen {
	if t.rough {
		return &s.rough
	}
	return &s.fine
}

// threshold bounds the products of row i of u, less half add of the row of v,
// that can give a distance of at most d, or whose estimate says nothing.
func (s *screens) threshold(i int, d float64) float32 {
	slack, beyond := s.fine.slack(i, d), float64(s.fine.beyond)
	if s.rough.u != nil {
		slack, beyond = max(slack, s.rough.slack(i, d)), min(beyond, float64(s.rough.beyond))
	}
	return float32(min((s.fine.u.add[i]-d-slack)/2, beyond-s.fine.v.maxAdd/2))
}

// A reach says which products matter to the rows of a block: that of row i with
// row j of the other block where it is at least limit[i] + half[j] of the other.
type reach struct{ limit, half []float32 }

func newReach(b *block) reach {
	r := reach{limit: make([]float32, b.n), half: make([]float32, b.n)}
	for i, add := range b.add {
		r.half[i] = float32(add / 2)
	}
	return r
}

// pass finds the pairs of a patch whose product c may matter to row i of u, and
// calls toU, or to row j of v, and calls toV. toU may move the limit of its row.
func (s *screen) pass(t tile, p patch, u, v reach, toU, toV func(i, j int, c float32)) {
	first, n := t.j+p.j0, p.j1-p.j0
	size, err, limit, half := s.size[first:][:n], s.err[first:][:n], v.limit[first:][:n], v.half[first:][:n]
	buffer := make([]float32, n)
	for i := t.i + p.i0; i < t.i+p.i1; i++ {
		errI, length, limitI, halfI := s.errors[i], s.lengths[i], u.limit[i], u.half[i]
		for x, c := range t.row(i, first, first+n, buffer)[:n] {
			most := c + errI*size[x] + length*err[x]
			if most >= limitI+half[x] {
				toU(i, first+x, c)
				limitI = u.limit[i]
			}
			if most >= limit[x]+halfI {
				toV(i, first+x, c)
			}
		}
	}
}

// slack bounds, for row i of u and every row of v, what a screen leaves out of
// the error of add + add − 2·product in float32 as an estimate of a distance of
// at most d.
func (p pair) slack(i int, d float64) float64 {
	u, v := p.measures()
	s := rounding(u.unit, u.span[i], v.maxSpan)
	if p.u.half != nil {
		s += roundingHalf(p.u.norm[i]*p.v.maxNorm, d, p.v.maxAdd)
	}
	return s
}

// rounding bounds the errors of float32 arithmetic.
func rounding(unit, u, v float64) float64 {
	reach := u + v
	return 2*unit*u*v + reach*reach/(1<<20)
}

// roundingHalf bounds how far the roundings to float16 move a distance from that of
// exact arithmetic on the same |u|² and |v|²: by half a unit in the last place
// of 2uv, of |u|²−2uv, which is no larger than the distance or |v|², and of the
// distance. The part of 1.01 covers that d may be short by the result.
func roundingHalf(uv, d, square float64) float64 {
	return 1.01*((uv+d)/(1<<10)+square/(1<<11)) + 1.0/(1<<20)
}
