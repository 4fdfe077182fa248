package sampling

import "math"

// philox4x32 is one block of Philox-4x32-10, the counter-based generator of
// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
func philox4x32(c [4]uint32, k [2]uint32) [4]uint32 {
	const m0, m1 = 0xD2511F53, 0xCD9E8D57
	const w0, w1 = 0x9E3779B9, 0xBB67AE85
	c0, c1, c2, c3 := c[0], c[1], c[2], c[3]
	k0, k1 := k[0], k[1]
	for range 10 {
		p, q := uint64(c0)*m0, uint64(c2)*m1
		c0, c1, c2, c3 = uint32(q>>32)^c1^k0, uint32(q), uint32(p>>32)^c3^k1, uint32(p)
		k0 += w0
		k1 += w1
	}
	return [4]uint32{c0, c1, c2, c3}
}

// A stream is an endless sequence of blocks of random bits, a function of
// (seed, image, purpose) alone.
type stream struct {
	key     [2]uint32
	counter [4]uint32 // block, purpose, image
}

// The purposes of a stream: x_T, the noise of step k = stepStream+k, the label.
const (
	startStream = 0
	stepStream  = 1
	labelStream = math.MaxUint32
)

func newStream(seed uint64, image int, purpose uint32) stream {
	return stream{
		key:     [2]uint32{uint32(seed), uint32(seed >> 32)},
		counter: [4]uint32{0, purpose, uint32(image), uint32(uint64(image) >> 32)},
	}
}

func (s *stream) next() [4]uint32 {
	block := philox4x32(s.counter, s.key)
	s.counter[0]++
	return block
}

// normals fills dst with standard normals, four a block, by Box and Muller's
// method: √(−2 ln u)·(cos 2πv, sin 2πv). With 32-bit u the largest is 6.8.
func (s *stream) normals(dst []float32) {
	for len(dst) >= 4 {
		a, b, c, d := boxMuller(s.next())
		dst[0], dst[1], dst[2], dst[3] = a, b, c, d
		dst = dst[4:]
	}
	if len(dst) > 0 {
		a, b, c, d := boxMuller(s.next())
		copy(dst, []float32{a, b, c, d})
	}
}

func boxMuller(r [4]uint32) (a, b, c, d float32) {
	radius := math.Sqrt(float64(-2 * logUniform(r[0])))
	cos, sin := turn(r[1])
	a, b = float32(float64(radius*cos)), float32(float64(radius*sin))
	radius = math.Sqrt(float64(-2 * logUniform(r[2])))
	cos, sin = turn(r[3])
	return a, b, float32(float64(radius * cos)), float32(float64(radius * sin))
}
