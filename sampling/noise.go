package sampling

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"sagbench/sampling/tensor"
)

var (
	_ Noise   = Keyed{}
	_ Uniform = Keyed{}
	_ Noise   = Recorded{}
)

// Keyed is noise from a counter-based generator (Philox-4x32-10, normals by Box
// and Muller) keyed by seed, image and step: an image's noise is a function of
// (Seed, its number) alone, on every machine, whatever the batch it is in.
type Keyed struct {
	Seed   uint64
	Images []int // the numbers that the batch's images have in the run, from 0
}

// Fill sets dst, [N,…] with N = len(Images), to the noise of a step.
func (k Keyed) Fill(step int, dst tensor.Tensor) error {
	if step < -1 || int64(step) >= uniformStream-stepStream {
		return fmt.Errorf("sampling: noise of step %d, expected -1 (x_T) or a step of the loop", step)
	}
	return k.each(uint32(step+stepStream), dst, (*stream).normals)
}

// Uniform sets dst, [N,…] with N = len(Images), to numbers on [0,1) that are
// independent of all noise.
func (k Keyed) Uniform(step int, dst tensor.Tensor) error {
	if step < 0 || int64(step) >= choiceStream-uniformStream {
		return fmt.Errorf("sampling: random numbers of step %d, expected a step of the schedule", step)
	}
	return k.each(uint32(step)+uniformStream, dst, (*stream).uniforms)
}

// each fills every entry of dst from its image's stream for a purpose.
func (k Keyed) each(purpose uint32, dst tensor.Tensor, fill func(*stream, []float32)) error {
	if len(dst.Shape) == 0 || dst.Rows() != len(k.Images) {
		return fmt.Errorf("sampling: noise of shape %v for %d images, expected one entry an image", dst.Shape, len(k.Images))
	}
	if i := slices.IndexFunc(k.Images, func(n int) bool { return n < 0 }); i >= 0 {
		return fmt.Errorf("sampling: noise for image %d, expected numbers from 0", k.Images[i])
	}
	EachImage(dst.Rows(), func(i int) {
		s := newStream(k.Seed, k.Images[i], purpose)
		fill(&s, dst.Row(i))
	})
	return nil
}

// Label is the class of an image, uniform on 0 … classes-1 and a function of
// its arguments alone. It is 0 where there are no classes to choose from.
func Label(seed uint64, image, classes int) int64 {
	if classes < 2 {
		return 0
	}
	s := newStream(seed, image, labelStream)
	return int64(s.below(uint64(classes)))
}

// Choice is number k of a sequence of independent choices, uniform on 0 … n-1 and a
// function of its arguments alone: what a set is drawn by before there is an image. It
// is independent of noise and labels, and 0 where there is nothing to choose from.
func Choice(seed uint64, k, n int) int {
	if n < 2 {
		return 0
	}
	s := newStream(seed, k, choiceStream)
	return int(s.below(uint64(n)))
}

// below is uniform on 0 … n-1. Method: multiply and reject (Lemire 2019), without the
// bias of a remainder.
func (s *stream) below(n uint64) uint64 {
	for {
		low, high, _, _ := s.next()
		hi, lo := bits.Mul64(uint64(low)|uint64(high)<<32, n)
		if lo >= (math.MaxUint64-n+1)%n {
			return hi
		}
	}
}

// Recorded is noise that was drawn elsewhere, such as a reference case's.
type Recorded struct {
	Start tensor.Tensor // x_T, [N,…]
	Steps tensor.Tensor // [steps,N,…]: row 0 is used in the first step
}

// Fill copies the noise of a step to dst.
func (r Recorded) Fill(step int, dst tensor.Tensor) error {
	if step == -1 {
		if r.Start.IsZero() {
			return errors.New("sampling: no x_T was recorded")
		}
		return fill("x_T", dst, r.Start.Shape, r.Start.Data)
	}
	if r.Steps.IsZero() || step < 0 || step >= r.Steps.Rows() {
		n := 0
		if !r.Steps.IsZero() {
			n = r.Steps.Rows()
		}
		return fmt.Errorf("sampling: noise of step %d, but %d steps were recorded; record a row for every step", step, n)
	}
	return fill(fmt.Sprintf("the noise of step %d", step), dst, r.Steps.Shape[1:], r.Steps.Row(step))
}

func fill(name string, dst tensor.Tensor, shape []int, data []float32) error {
	if !slices.Equal(dst.Shape, shape) || len(dst.Data) != len(data) {
		return fmt.Errorf("sampling: %s was recorded with shape %v, expected %v", name, shape, dst.Shape)
	}
	copy(dst.Data, data)
	return nil
}

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

// The purposes of a stream: x_T, stepStream+k the noise of step k, uniformStream+k
// the random numbers of guidances in step k, the choices of a set, the label.
const (
	startStream   = 0
	stepStream    = 1
	uniformStream = 1 << 31
	choiceStream  = math.MaxUint32 - 1
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
