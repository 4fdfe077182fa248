package sampling

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"sagbench/models/tensor"
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
	Images []int // number of the image in the run, one an entry of the batch; ≥ 0
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
	if step < 0 || int64(step) >= labelStream-uniformStream {
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
// Method: multiply and reject (Lemire 2019), without the bias of a remainder.
func Label(seed uint64, image, classes int) int64 {
	if classes < 2 {
		return 0
	}
	s := newStream(seed, image, labelStream)
	n := uint64(classes)
	for {
		low, high, _, _ := s.next()
		hi, lo := bits.Mul64(uint64(low)|uint64(high)<<32, n)
		if lo >= (math.MaxUint64-n+1)%n {
			return int64(hi)
		}
	}
}

// Recorded is noise that somebody else drew, such as a reference case's.
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
