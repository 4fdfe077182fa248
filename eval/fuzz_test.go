package eval

import (
	"os"
	"path/filepath"
	"testing"

	"sagbench/eval/images"
)

// Whatever is in the file, its statistics are finite and its images can be asked
// for, or it is refused.
func FuzzReadReference(f *testing.F) {
	files, err := filepath.Glob("testdata/stats-npz/*.npz")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		if data, err := os.ReadFile(path); err == nil && len(data) < 1<<16 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "fuzz.npz")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := ReadReference(t.Context(), path, images.Options{MaxPixels: 1 << 16})
		if err != nil {
			return
		}
		defer r.Close()
		if s := r.Pool; s != nil && (s.D() < 1 || len(s.Cov) != s.D()*s.D()) {
			t.Errorf("a mean of %d with a covariance of %d", s.D(), len(s.Cov))
		}
		if r.Images == nil || r.Images.N > 1000 {
			return
		}
		for p, err := range r.Images.Images() {
			if err != nil {
				return
			}
			if im, err := p.Decode(); err == nil && len(im.Pixels) != 3*im.Height*im.Width {
				t.Errorf("%d bytes of %d×%d pixels", len(im.Pixels), im.Height, im.Width)
			}
		}
	})
}
