package images

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"sagbench/eval/npz"
)

// OfArray makes a set of an array of images [N,H,W,3], or [N,3,H,W] where that
// is the only way to read its shape, with values of 0 to 255. The array is
// opened anew for each reading; closer, if not nil, is closed with the set. An
// array that is not uint8 is read through first: its values have to be whole
// numbers all the same. subset, if not nil, chooses some of the images.
func OfArray(path string, open func() (*npz.Array, error), closer io.Closer, subset Chooser) (*Set, error) {
	a, err := open()
	if err != nil {
		return nil, err
	}
	l, err := layoutOf(a)
	s := &Set{Path: path, N: l.n, count: l.n, size: [2]int{l.height, l.width}, closer: closer}
	if err == nil && a.Dtype != npz.Uint8 {
		err = s.checkValues(a, l)
	}
	if err := errors.Join(err, a.Close()); err != nil {
		return nil, fmt.Errorf("%s: %s %w", path, a.Name, err)
	}
	s.pending = l.images(open)
	s.about = func(yield func(About, error) bool) {
		for i := range l.n {
			if !yield(About{Name: arrayName(i)}, nil) {
				return
			}
		}
	}
	return s, s.choose(subset)
}

// A layout is the shape of an array of images.
type layout struct {
	n, height, width int
	channelsFirst    bool
}

func layoutOf(a *npz.Array) (layout, error) {
	shape := a.Shape
	switch {
	case len(shape) > 0 && shape[0] == 0:
		return layout{}, fmt.Errorf("has no images: shape %v", shape)
	case len(shape) != 4:
		return layout{}, fmt.Errorf("has shape %v, expected images [N,H,W,3]", shape)
	case min(shape[1], shape[2], shape[3]) < 1:
		return layout{}, fmt.Errorf("has images without pixels: shape %v", shape)
	}
	l := layout{shape[0], shape[1], shape[2], false}
	switch {
	case shape[3] == 3:
	case shape[1] == 3:
		l = layout{shape[0], shape[2], shape[3], true}
	case shape[3] == 1 || shape[1] == 1:
		return l, fmt.Errorf("has shape %v with 1 channel, expected [N,H,W,3]; repeat the channel three times to evaluate grey images", shape)
	default:
		return l, fmt.Errorf("has shape %v with %d channels, expected [N,H,W,3]: RGB, channels last", shape, shape[3])
	}
	if l.height > DefaultMaxPixels/l.width {
		return l, fmt.Errorf("has images of %d×%d pixels, more than the %d that are read", l.height, l.width, DefaultMaxPixels)
	}
	return l, nil
}

func (l layout) values() int { return l.height * l.width * 3 }

// checkValues looks through images that are not uint8.
func (s *Set) checkValues(a *npz.Array, l layout) error {
	const advice = "save the images as uint8 with values of 0 to 255"
	row := make([]float32, l.values())
	largest, fraction, fractional := float32(0), float32(0), -1 // the first fraction, and its image
	for i := 0; ; i++ {
		_, err := npz.ReadRows(a, row)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("cannot be read: %w", err)
		}
		for _, v := range row {
			if !(v >= 0 && v <= 255) {
				return fmt.Errorf("is %s and image %d (counted from 0) holds %v, expected 0 to 255; %s", a.Dtype, i, v, advice)
			}
			if fractional < 0 && v != float32(uint8(v)) {
				fraction, fractional = v, i
			}
			largest = max(largest, v)
		}
	}
	switch {
	case fractional >= 0 && largest <= 1:
		return fmt.Errorf("is %s with values of 0 to %v, which evaluator.py takes for nearly black images; multiply by 255 and save as uint8", a.Dtype, largest)
	case fractional >= 0:
		return fmt.Errorf("is %s and image %d (counted from 0) holds %v, which is no whole number; %s", a.Dtype, fractional, fraction, advice)
	case largest <= 1:
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %s is %s with values of 0 and %v alone: it is read as 0 to 255, so the images are nearly black", s.Path, a.Name, a.Dtype, largest))
	}
	return nil
}

// images reads the array from its first image to its last.
func (l layout) images(open func() (*npz.Array, error)) iter.Seq2[Pending, error] {
	return func(yield func(Pending, error) bool) {
		a, err := open()
		if err != nil {
			yield(Pending{}, err)
			return
		}
		defer a.Close()
		for i := 0; ; i++ {
			pixels, err := l.read(a)
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Pending{}, err)
				return
			}
			decode := func() (Image, error) { return l.image(pixels), nil }
			sum := func() (sum, error) { return l.image(pixels).sum(), nil }
			if !yield(Pending{arrayName(i), decode, sum}, nil) {
				return
			}
		}
	}
}

// read reads the next image in the order of the array.
func (l layout) read(a *npz.Array) ([]uint8, error) {
	pixels := make([]uint8, l.values())
	if a.Dtype == npz.Uint8 {
		_, err := npz.ReadRows(a, pixels)
		return pixels, err
	}
	row := make([]float32, l.values())
	_, err := npz.ReadRows(a, row)
	for i, v := range row {
		pixels[i] = uint8(v)
	}
	return pixels, err
}

func (l layout) image(pixels []uint8) Image {
	im := Image{Height: l.height, Width: l.width, Pixels: pixels}
	if l.channelsFirst {
		im.Pixels = make([]uint8, len(pixels))
		plane := l.height * l.width
		for c := range 3 {
			for i, v := range pixels[c*plane:][:plane] {
				im.Pixels[3*i+c] = v
			}
		}
	}
	return im
}
