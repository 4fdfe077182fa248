package npz

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"sagbench/internal/fuzzing"
)

// FuzzArray feeds bytes as an .npy file: whatever they are, reading ends
// without a panic and never yields more values than there are bytes.
func FuzzArray(f *testing.F) {
	f.Add(append(encodeHeader(Uint8, []int{2, 3}), 1, 2, 3, 4, 5, 6))
	f.Add(append(encodeHeader(Float64, []int{1}), 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add([]byte("\x93NUMPY\x02\x00\xf0\xff\xff\xff{}"))
	f.Add([]byte("\x93NUMPY\x03\x00\x3a\x00\x00\x00{'descr':'>i2','fortran_order':True,'shape':(2,1),}       \n\x01\x02\x03\x04"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzing.Bounded(t, len(data), 32, func() {
			a, err := newArray("fuzz", io.NopCloser(bytes.NewReader(data)), int64(len(data)), int64(len(data)))
			if err != nil {
				return
			}
			drain(t, a, len(data))
		})
	})
}

// FuzzArchive feeds bytes as an .npz file.
func FuzzArchive(f *testing.F) {
	for _, pattern := range []string{"sample_labels.npz", "pytorch_fid.npz", "broken/*.npz"} {
		files, err := filepath.Glob(cases + pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			if len(data) < 8<<10 {
				f.Add(data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var entries map[string]*zip.File
		var names []string
		var err error
		fuzzing.Bounded(t, len(data), 64, func() { entries, names, err = directory(bytes.NewReader(data), int64(len(data))) })
		if err != nil {
			return
		}
		file := &File{path: "fuzz", entries: entries, names: names}
		for _, name := range names {
			a, err := file.Array(name)
			if err != nil {
				continue
			}
			whole := drain(t, a, 1<<20) // deflate may grow a thousandfold
			if err := a.Close(); err != nil && whole {
				t.Error(err)
			}
		}
	})
}

func drain(t *testing.T, a *Array, limit int) (whole bool) {
	values, err := ReadAll[float64](a, limit)
	if err != nil {
		return false
	}
	if want := a.Rows() * a.RowLen(); len(values) != want {
		t.Errorf("%d values of shape %v", len(values), a.Shape)
	}
	return true
}
