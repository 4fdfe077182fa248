package eval

import (
	"errors"
	"fmt"
	"io"
	"math"

	"sagbench/eval/npz"
)

// Images are the images of an .npz file, arr_0 [N,H,W,3] with values of 0 to
// 255, read as a stream in file order.
type Images struct {
	N, H, W  int
	Bytes    bool     // stored as uint8; other types are read as float32 alone
	Warnings []string // what is suspicious about the file

	file  *npz.File
	array *npz.Array
}

// openImages opens the images of an .npz file: samples, or a reference batch.
// Images that are not stored as uint8 are looked through first, since values
// outside 0 to 255, or all within 0 to 1, would give features of other images.
func openImages(f *npz.File) (*Images, error) {
	a, err := f.Array("arr_0")
	if err != nil {
		return nil, err
	}
	m := &Images{file: f, array: a, Bytes: a.Dtype == npz.Uint8}
	if err := m.checkShape(f.Path(), a.Shape); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	if !m.Bytes {
		if err := m.checkRange(f); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	return m, nil
}

func (m *Images) checkShape(path string, shape []int) error {
	switch {
	case len(shape) > 0 && shape[0] == 0:
		return fmt.Errorf("%s: arr_0 has no images: shape %v", path, shape)
	case len(shape) != 4:
		return fmt.Errorf("%s: arr_0 has shape %v, expected images [N,H,W,3]", path, shape)
	case shape[3] != 3:
		return fmt.Errorf("%s: arr_0 has shape %v with %d channels, expected [N,H,W,3]: RGB, channels last", path, shape, shape[3])
	case shape[1] < 1 || shape[2] < 1:
		return fmt.Errorf("%s: arr_0 has images without pixels: shape %v", path, shape)
	}
	m.N, m.H, m.W = shape[0], shape[1], shape[2]
	return nil
}

// checkRange looks through images that are not uint8.
func (m *Images) checkRange(f *npz.File) error {
	a, err := f.Array("arr_0")
	if err != nil {
		return err
	}
	pixels := m.H * m.W * 3
	batch := make([]float32, min(m.N, max(1, (1<<20)/pixels))*pixels)
	largest := float32(0)
	for first := 0; ; {
		n, err := npz.ReadRows(a, batch)
		if err == io.EOF {
			break
		}
		if err != nil {
			return errors.Join(err, a.Close())
		}
		for i, v := range batch[:n*pixels] {
			if !(v >= 0 && v <= 255) {
				return errors.Join(fmt.Errorf("%s: arr_0: image %d (counted from 0) holds %v, expected 0 to 255",
					f.Path(), first+i/pixels, v), a.Close())
			}
			largest = float32(math.Max(float64(largest), float64(v)))
		}
		first += n
	}
	if largest <= 1 {
		m.Warnings = append(m.Warnings, fmt.Sprintf("%s: arr_0 is %s with values of 0 to %v: it is read as 0 to 255, as evaluator.py does, so the images are nearly black; multiply by 255 and save as uint8",
			f.Path(), a.Dtype, largest))
	}
	return a.Close()
}

// Pixels is the number of values of an image, H·W·3.
func (m *Images) Pixels() int { return m.H * m.W * 3 }

// Read fills dst with the next images [n,H,W,3], values of 0 to 255, and
// returns n; after the last, 0 and io.EOF. dst holds at least one image.
func (m *Images) Read(dst []float32) (int, error) { return npz.ReadRows(m.array, dst) }

// ReadBytes is Read for images that are stored as uint8.
func (m *Images) ReadBytes(dst []uint8) (int, error) { return npz.ReadRows(m.array, dst) }

// Close closes the file.
func (m *Images) Close() error { return errors.Join(m.array.Close(), m.file.Close()) }
