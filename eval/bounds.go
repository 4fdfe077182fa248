package eval

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

	maxNorm, maxSpan, maxErr float64 // maxErr is the largest err/norm
}

func newMeasure(n int) measure {
	return measure{norm: make([]float64, n), err: make([]float64, n), span: make([]float64, n)}
}

// summarise finds the maxima.
func (m *measure) summarise() {
	for i, norm := range m.norm {
		m.maxNorm, m.maxSpan = max(m.maxNorm, norm), max(m.maxSpan, m.span[i])
		if norm > 0 {
			m.maxErr = max(m.maxErr, m.err[i]/norm)
		}
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

// bounds encloses the distance of rows i and j whose computed product is c.
func (p pair) bounds(i, j int, c float32) (low, high float64) {
	u, v := p.measures()
	e := u.err[i]*v.norm[j] + (u.norm[i]+u.err[i])*v.err[j] + u.unit*u.span[i]*v.span[j]
	if p.u.half != nil {
		return p.halve(i, j, float64(c)+e), p.halve(i, j, float64(c)-e)
	}
	d := p.u.add[i] + p.v.add[j] - 2*float64(c)
	reach := u.span[i] + v.span[j]
	e = 2*e + reach*reach/(1<<20)
	return max(d-e, 0), max(d+e, 0)
}

// refined is the bounds of rows i and j without 8 bits: from their product in
// float32.
func (p pair) refined(i, j int) (low, high float64) {
	d := p.u.d
	c := blas32.Dot(blas32.Vector{N: d, Inc: 1, Data: p.u.row(i)}, blas32.Vector{N: d, Inc: 1, Data: p.v.row(j)})
	p.rough = false
	return p.bounds(i, j, c)
}

// A screen tells in float32 which products may matter: those for which
//
//	c + weightᵢ·sizeⱼ ≥ (addᵢ + addⱼ − d − slackᵢ)/2
//
// where d is the largest distance that does, and those from beyond on.
type screen struct {
	pair
	slack  []float64 // of a row of u and any row of v
	weight []float32 // of the rows of u
	size   []float32 // of the rows of v
	// beyond is the product from which doubling it overflows float16, so that
	// the estimate add + add − 2·product says nothing; +Inf where none can be.
	beyond float32
}

func newScreen(p pair) screen {
	u, v := p.measures()
	s := screen{pair: p, slack: make([]float64, p.u.n), weight: make([]float32, p.u.n), size: make([]float32, p.v.n),
		beyond: float32(math.Inf(1))}
	for i := range s.slack {
		s.slack[i] = p.slack(i)
		s.weight[i] = float32(u.err[i] + (u.norm[i]+u.err[i])*v.maxErr)
	}
	for j := range s.size {
		s.size[j] = float32(v.norm[j])
	}
	if largest := p.u.maxNorm * p.v.maxNorm; p.u.half != nil && largest*(1+p.u.unit) >= 32000 {
		s.beyond = float32(32000 - u.unit*u.maxSpan*v.maxSpan)
	}
	return s
}

// screens are those for products in float32 and, where both blocks have them,
// in 8 bits.
type screens struct{ fine, rough screen }

func newScreens(p pair) (s screens) {
	s.fine = newScreen(p)
	if p.u.bytes != nil && p.v.bytes != nil {
		p.rough = true
		s.rough = newScreen(p)
		for i, slack := range s.rough.slack {
			s.fine.slack[i] = max(s.fine.slack[i], slack)
		}
	}
	return s
}

func (s *screens) of(t tile) *screen {
	if t.rough {
		return &s.rough
	}
	return &s.fine
}

// slack bounds, for row i of u and every row of v, what a screen leaves out of
// the error of add+add−2·product in float32.
func (p pair) slack(i int) float64 {
	u, v := p.measures()
	reach := u.span[i] + v.maxSpan
	s := 2*u.unit*u.span[i]*v.maxSpan + reach*reach/(1<<20)
	if p.u.half != nil {
		nu, nv := p.u.norm[i], p.v.maxNorm
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
