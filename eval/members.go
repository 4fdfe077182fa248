package eval

import "context"

// members says what each generated image contributes to the shares of images
// in balls: what resampling the images needs, without a distance measured
// twice.
type members struct {
	pairs []int32 // [M] reference balls that hold image j: precision, density
	holds only    // image that a reference ball holds: coverage
	in    only    // image whose ball holds a reference image: recall
}

// only is, for each reference image, the one generated image that brings it
// into a share; none or several where it is not one.
type only []int32

const (
	none    = -1
	several = -2
)

func newOnly(n int) only {
	o := make(only, n)
	for i := range o {
		o[i] = none
	}
	return o
}

func (o only) add(i, j int) {
	switch o[i] {
	case none:
		o[i] = int32(j)
	case int32(j):
	default:
		o[i] = several
	}
}

// members looks at all pairs of rows, as manifolds does.
func (s *scan) members(ref, gen []float32, refRadii, genRadii []float64, strict bool) (*members, error) {
	n, m := len(ref)/s.d, len(gen)/s.d
	out := &members{pairs: make([]int32, m), holds: newOnly(n), in: newOnly(n)}
	for i := range s.blocks(n) {
		for j := range s.blocks(m) {
			p, err := s.pair(s.block(ref, i), s.block(gen, j))
			if err != nil {
				return nil, err
			}
			c := s.newContains(p, [][]float64{refRadii}, [][]float64{genRadii}, strict)
			if err := c.scan(s, out.inRef, out.inGen); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// inRef counts a pair if the generated row lies in the reference row's ball.
func (m *members) inRef(n neighbour) {
	if n.within(n.ref[0][n.i]) {
		m.pairs[n.v.first+n.j]++
		m.holds.add(n.u.first+n.i, n.v.first+n.j)
	}
}

// inGen counts a pair if the reference row lies in the generated row's ball.
func (m *members) inGen(n neighbour) {
	if n.within(n.gen[0][n.j]) {
		m.in.add(n.u.first+n.i, n.v.first+n.j)
	}
}

// replicates are draws of a share of reference images that some generated image
// brings in. An image's part in it is what the share loses without the image,
// the reference images that it alone brings in; a draw that holds it w times
// counts that part w times:
//
//	share + Σⱼ (wⱼ−1)·partⱼ/N
//
// The spread is the jackknife's, which on the average is no smaller than the
// true one (Efron and Stein, "The Jackknife Estimate of Variance", 1981), and
// there is no bias from the images that a draw leaves out.
func (o only) replicates(d *Draws) []float64 {
	parts, share := make([]float64, d.N), 0.0
	for _, j := range o {
		if j != none {
			share++
		}
		if j >= 0 {
			parts[j]++
		}
	}
	sum := 0.0
	for _, p := range parts {
		sum += p
	}
	out := make([]float64, d.Len())
	for b, list := range d.index {
		drawn := 0.0
		for _, j := range list {
			drawn += parts[j]
		}
		out[b] = (share + drawn - sum) / float64(len(o))
	}
	return out
}

// means are, for each draw, the mean of a function of the number of reference
// balls around an image.
func (m *members) means(d *Draws, f func(pairs int32) float64) []float64 {
	out := make([]float64, d.Len())
	for b, list := range d.index {
		for _, j := range list {
			out[b] += f(m.pairs[j])
		}
		out[b] /= float64(d.N)
	}
	return out
}

// inAny counts an image that lies in a ball.
func inAny(pairs int32) float64 {
	if pairs > 0 {
		return 1
	}
	return 0
}

// manifoldMembers are the members for one way of comparing two sets.
func manifoldMembers(ctx context.Context, ref, gen *Features, key manifoldKey) (*members, error) {
	if err := pools(ref, gen); err != nil {
		return nil, err
	}
	if err := validBalls(key.k, key.distance); err != nil {
		return nil, err
	}
	type memberKey struct {
		ref *Features
		manifoldKey
	}
	return remember(gen, memberKey{ref, key}, func() (*members, error) {
		s := newScan(ctx, key.distance, products(gen, ref), ref.Pool, ref.D)
		r, err := ref.radii(s, key.k)
		if err != nil {
			return nil, err
		}
		g, err := gen.radii(s, key.k)
		if err != nil {
			return nil, err
		}
		return s.members(ref.Pool, gen.Pool, r, g, key.strict)
	})
}
