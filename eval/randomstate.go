package eval

// A randomState is NumPy's legacy generator numpy.random.RandomState: MT19937
// (Matsumoto and Nishimura, 1998). torch-fidelity draws its permutations and
// subsets from RandomState(2020), so the same numbers give the same scores.
type randomState struct {
	state [624]uint32
	at    int
}

func newRandomState(seed uint32) *randomState {
	r := &randomState{at: 624}
	for i := range r.state {
		r.state[i] = seed
		seed = 1812433253*(seed^seed>>30) + uint32(i) + 1
	}
	return r
}

func (r *randomState) uint32() uint32 {
	const n, m = 624, 397
	if r.at == n {
		for i := range r.state {
			y := r.state[i]&0x80000000 | r.state[(i+1)%n]&0x7fffffff
			next := r.state[(i+m)%n] ^ y>>1
			if y&1 == 1 {
				next ^= 0x9908b0df
			}
			r.state[i] = next
		}
		r.at = 0
	}
	y := r.state[r.at]
	r.at++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// interval is a uniform integer of [0,limit]: bits are masked to the next
// power of two and drawn again where they exceed the limit.
func (r *randomState) interval(limit uint32) uint32 {
	mask := limit
	for shift := 1; shift < 32; shift *= 2 {
		mask |= mask >> shift
	}
	for {
		if v := r.uint32() & mask; v <= limit {
			return v
		}
	}
}

// permutation is RandomState.permutation(n); its first m elements are
// RandomState.choice(n, m, replace=False).
func (r *randomState) permutation(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	for i := n - 1; i > 0; i-- {
		j := r.interval(uint32(i))
		p[i], p[j] = p[j], p[i]
	}
	return p
}
