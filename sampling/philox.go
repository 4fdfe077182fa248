package sampling

import "math"

// philox4x32 is one block of Philox-4x32-10, the counter-based generator of
// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
func philox4x32(c0, c1, c2, c3, k0, k1 uint32) (uint32, uint32, uint32, uint32) {
	const w0, w1 = 0x9E3779B9, 0xBB67AE85
	for range 5 {
		c0, c1, c2, c3 = philoxRound(c0, c1, c2, c3, k0, k1)
		c0, c1, c2, c3 = philoxRound(c0, c1, c2, c3, k0+w0, k1+w1)
		k0 += 2 * w0 & math.MaxUint32
		k1 += 2 * w1 & math.MaxUint32
	}
	return c0, c1, c2, c3
}

func philoxRound(c0, c1, c2, c3, k0, k1 uint32) (uint32, uint32, uint32, uint32) {
	p, q := uint64(c0)*0xD2511F53, uint64(c2)*0xCD9E8D57
	return uint32(q>>32) ^ c1 ^ k0, uint32(q), uint32(p>>32) ^ c3 ^ k1, uint32(p)
}

// A stream is an endless sequence of blocks of random bits, a function of
// (seed, image, purpose) alone.
type stream struct {
	key     [2]uint32
	counter [4]uint32 // block, purpose, image
}

// The purposes of a stream: x_T, the noise of step k = stepStream+k, what
// guidances draw in step k = uniformStream+k, the label.
const (
	startStream   = 0
	stepStream    = 1
	uniformStream = 1 << 31
	labelStream   = math.MaxUint32
)

func newStream(seed uint64, image int, purpose uint32) stream {
	return stream{
		key:     [2]uint32{uint32(seed), uint32(seed >> 32)},
		counter: [4]uint32{0, purpose, uint32(image), uint32(uint64(image) >> 32)},
	}
}

func (s *stream) next() (a, b, c, d uint32) {
	a, b, c, d = philox4x32(s.counter[0], s.counter[1], s.counter[2], s.counter[3], s.key[0], s.key[1])
	s.counter[0]++
	return a, b, c, d
}

// normals fills dst with standard normals, four a block.
func (s *stream) normals(dst []float32) {
	for len(dst) >= 4 {
		a, b, c, d := s.next()
		dst[0], dst[1] = boxMuller(a, b)
		dst[2], dst[3] = boxMuller(c, d)
		dst = dst[4:]
	}
	if len(dst) > 0 {
		var last [4]float32
		s.normals(last[:])
		copy(dst, last[:])
	}
}

// uniforms fills dst with multiples of 2⁻²⁴ in [0,1), four a block.
func (s *stream) uniforms(dst []float32) {
	for len(dst) > 0 {
		a, b, c, d := s.next()
		n := copy(dst, []float32{unit(a), unit(b), unit(c), unit(d)})
		dst = dst[n:]
	}
}

func unit(r uint32) float32 { return float32(r>>8) / (1 << 24) }

// boxMuller is √(−2 ln u)·(cos 2πv, sin 2πv), two independent standard normals
// of two uniform variables (Box and Muller 1958). The largest is 6.8.
func boxMuller(u, v uint32) (float32, float32) {
	radius := math.Sqrt(float64(-2 * logUniform(u)))
	cos, sin := turn(v)
	return float32(float64(radius * cos)), float32(float64(radius * sin))
}
