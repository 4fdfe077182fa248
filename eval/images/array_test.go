package images

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval/npz"
	"sagbench/internal/fuzzing"
)

func npzOf[T npz.Number](t testing.TB, dtype npz.Dtype, values []T, shape ...int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "images.npz")
	w, err := npz.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.Array("arr_0", dtype, shape...)
	if err == nil {
		err = errors.Join(npz.WriteRows(a, values), w.Commit())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// arrayOf opens an array and reads it to its end.
func arrayOf(path string) (all []Image, warnings []string, err error) {
	f, err := npz.Open(path)
	if err != nil {
		return nil, nil, err
	}
	s, err := OfArray(path, func() (*npz.Array, error) { return f.Array("arr_0") }, f, nil)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	defer s.Close()
	for p, err := range s.Images() {
		if err != nil {
			return nil, nil, err
		}
		im, err := p.Decode()
		if err != nil {
			return nil, nil, err
		}
		all = append(all, im)
	}
	if len(all) != s.N {
		err = errors.New("another number of images than was announced")
	}
	return all, s.Warnings, err
}

// Both orders of the axes give the same images.
func TestArrayLayouts(t *testing.T) {
	last := make([]uint8, 2*4*5*3)
	first := make([]uint8, len(last))
	for i := range last {
		last[i] = uint8(7 * i)
		n, pixel, c := i/60, i%60/3, i%3
		first[n*60+c*20+pixel] = last[i]
	}
	want, _, err := arrayOf(npzOf(t, npz.Uint8, last, 2, 4, 5, 3))
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := arrayOf(npzOf(t, npz.Uint8, first, 2, 3, 4, 5))
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	for i := range got {
		if !slices.Equal(got[i].Pixels, want[i].Pixels) || got[i].Height != 4 || got[i].Width != 5 || !slices.Equal(want[i].Pixels, last[60*i:60*i+60]) {
			t.Errorf("image %d: %v, want %v", i, got[i], want[i])
		}
	}
}

func TestArrayShapes(t *testing.T) {
	for want, shape := range map[string][]int{
		"has no images":          {0, 4, 4, 3},
		"expected images [N,H,W": {2, 4, 3},
		"without pixels":         {1, 0, 4, 3},
		"4 channels":             {1, 2, 2, 4},
		"with 1 channel":         {1, 2, 2, 1},
	} {
		n := 1
		for _, d := range shape {
			n *= d
		}
		if _, _, err := arrayOf(npzOf(t, npz.Uint8, make([]uint8, n), shape...)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", shape, err, want)
		}
	}
}

// Images that are not uint8 have to hold whole numbers of 0 to 255 all the same.
func TestFloatImages(t *testing.T) {
	for name, c := range map[string]struct {
		pixels []float32
		want   string
	}{
		"whole":    {[]float32{0, 1, 255}, ""},
		"negative": {[]float32{0, -1, 255}, "image 0 (counted from 0) holds -1"},
		"bright":   {[]float32{0, 256, 255}, "holds 256"},
		"nan":      {[]float32{0, float32(math.NaN()), 255}, "holds NaN"},
		"fraction": {[]float32{0, 1.5, 255}, "holds 1.5, which is no whole number"},
		"unit":     {[]float32{0, 0.5, 1}, "multiply by 255"},
	} {
		got, _, err := arrayOf(npzOf(t, npz.Float32, c.pixels, 1, 1, 1, 3))
		if c.want == "" {
			if err != nil || !slices.Equal(got[0].Pixels, []uint8{0, 1, 255}) {
				t.Errorf("%s: %v %v", name, got, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, warnings, err := arrayOf(npzOf(t, npz.Float32, []float32{0, 1, 1}, 1, 1, 1, 3)); err != nil || len(warnings) != 1 {
		t.Errorf("zeros and ones: %v %v, want a warning", warnings, err)
	}
}

func FuzzArray(f *testing.F) {
	f.Add([]byte("\x93NUMPY\x01\x00\x47\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1, 3), }     \n\x01\x02\x03"))
	f.Add([]byte("\x93NUMPY\x01\x00\x47\x00{'descr': '<f4', 'fortran_order': True, 'shape': (1, 3, 1, 1), }      \n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "a.npy")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		fuzzing.Bounded(t, len(data), 64, func() {
			s, err := Open(t.Context(), path, Options{})
			if err != nil {
				return
			}
			for p, err := range s.Images() {
				if err != nil {
					return
				}
				if im, err := p.Decode(); err == nil && len(im.Pixels) != im.Height*im.Width*3 {
					t.Errorf("%d×%d pixels in %d bytes", im.Height, im.Width, len(im.Pixels))
				}
			}
		})
	})
}
