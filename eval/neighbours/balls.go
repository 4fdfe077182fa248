package neighbours

import (
	"slices"
	"sync/atomic"
)

// Members says which rows of two sets, a reference [N,D] and a generated one
// [M,D], lie in balls around rows of the other set.
type Members struct {
	Balls  []int32 // [M] number of reference balls that hold a generated row: precision, density
	Holds  []int32 // [N] generated row that a reference ball holds: coverage
	HeldBy []int32 // [N] generated row whose ball holds a reference row: recall
}

// Holds and HeldBy have the index of the row where there is one, and these where
// there is none or more than one.
const (
	None    = -1
	Several = -2
)

// Members looks at all pairs of rows. Radii are squared distances; strict takes
// distance < radius (prdc), else ≤ (Kynkäänniemi et al.).
func (s *Scan) Members(ref, gen []float32, refRadii, genRadii []float64, strict bool) (*Members, error) {
	n, m := len(ref)/s.d, len(gen)/s.d
	out := &Members{Balls: make([]int32, m), Holds: slices.Repeat([]int32{None}, n), HeldBy: slices.Repeat([]int32{None}, n)}
	for i := range s.blocks(n) {
		for j := range s.blocks(m) {
			p, err := s.pair(s.block(ref, i), s.block(gen, j))
			if err != nil {
				return nil, err
			}
			if err := s.newContains(p, refRadii, genRadii, strict).scan(s, out.inRef, out.inGen); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// inRef counts a pair if the generated row lies in the reference row's ball.
func (m *Members) inRef(n neighbour) {
	if n.within(n.ref[n.i]) {
		m.Balls[n.v.offset+n.j]++
		addRow(&m.Holds[n.u.offset+n.i], n.v.offset+n.j)
	}
}

// inGen counts a pair if the reference row lies in the generated row's ball.
func (m *Members) inGen(n neighbour) {
	if by := &m.HeldBy[n.u.offset+n.i]; *by != Several && n.within(n.gen[n.j]) {
		addRow(by, n.v.offset+n.j)
	}
}

// addRow adds row j to those that at stands for.
func addRow(at *int32, j int) {
	if *at == None {
		*at = int32(j)
	} else {
		*at = Several
	}
}

// contains tests pairs of rows of a reference block u and a generated block v.
type contains struct {
	pair
	screens
	ref, gen           []float64 // radii of the rows of the blocks
	strict             bool
	refReach, genReach reach // the products outside these are outside every ball
	refined            *atomic.Int64
}

func (s *Scan) newContains(p pair, ref, gen []float64, strict bool) *contains {
	c := &contains{pair: p, screens: newScreens(p), strict: strict, refined: &s.refined}
	back := newScreens(p.swapped())
	c.ref, c.refReach = c.limits(ref)
	c.gen, c.genReach = back.limits(gen)
	return c
}

// limits are the radii of the rows of u, and bounds of the products that can lie
// inside.
func (s *screens) limits(radii []float64) (cut []float64, r reach) {
	u := s.fine.u
	cut, r = radii[u.offset:u.offset+u.n], newReach(u)
	for i, radius := range cut {
		r.limit[i] = s.threshold(i, radius)
	}
	return cut, r
}

// scan calls inRef for the pairs whose generated row may lie in the ball of the
// reference row, inGen for those the other way round; never at the same time
// for pairs that have a row in common.
func (c *contains) scan(s *Scan, inRef, inGen func(neighbour)) error {
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
