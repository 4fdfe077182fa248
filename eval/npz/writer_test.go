package npz

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWriteThenRead(t *testing.T) {
	dir := t.TempDir()
	images := make([]uint8, 5*4*4*3)
	for i := range images {
		images[i] = uint8(7 * i)
	}
	labels := []int64{-3, 1, 4, 1 << 40, 5}
	var files [2][]byte
	for i := range files {
		path := filepath.Join(dir, "samples.npz")
		writeSamples(t, path, images, labels, 2+i) // another batch size, the same bytes
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = b
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("the same content gave other bytes")
	}
	f, err := Open(filepath.Join(dir, "samples.npz"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := f.Array("arr_0")
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{5, 4, 4, 3}; !slices.Equal(a.Shape, want) || a.Dtype != Uint8 {
		t.Errorf("arr_0 is %v %s, want %v |u1", a.Shape, a.Dtype, want)
	}
	if got, err := ReadAll[uint8](a, 1000); err != nil || !slices.Equal(got, images) {
		t.Errorf("images differ: %v", err)
	}
	if a, err = f.Array("arr_1"); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadAll[int64](a, 1000); err != nil || !slices.Equal(got, labels) {
		t.Errorf("labels %v, %v, want %v", got, err, labels)
	}
	if n, err := ReadRows(a, make([]int64, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	leftovers(t, dir, 1)
}

func writeSamples(t *testing.T, path string, images []uint8, labels []int64, batch int) {
	t.Helper()
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.Array("arr_0", Uint8, len(labels), 4, 4, 3)
	if err != nil {
		t.Fatal(err)
	}
	for part := range slices.Chunk(images, batch*48) {
		if err := WriteRows(a, part); err != nil {
			t.Fatal(err)
		}
	}
	if a, err = w.Array("arr_1", Int64, len(labels)); err != nil {
		t.Fatal(err)
	}
	if err := WriteRows(a, labels); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func leftovers(t *testing.T, dir string, want int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != want {
		t.Errorf("the folder holds %v, want %d files: %v", entries, want, err)
	}
}

func TestUnfinishedFileDoesNotAppear(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.npz")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.Array("arr_0", Float32, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteRows(a, []float32{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Array("arr_1", Int64, 2); err == nil || !strings.Contains(err.Error(), "1 values are missing") {
		t.Errorf("the next array began over an unfinished one: %v", err)
	}
	if err := w.Commit(); err == nil {
		t.Error("an unfinished file was put in place")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("the older file is %q, %v", got, err)
	}
	leftovers(t, dir, 1)
	if err := WriteRows(a, []float32{4}); err == nil {
		t.Error("a closed writer took values")
	}
}

func TestWriterRefuses(t *testing.T) {
	w, err := Create(filepath.Join(t.TempDir(), "a.npz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := w.Array("a", Dtype{Kind: 'f', Size: 2}, 1); err == nil {
		t.Error("float16 was accepted")
	}
	if _, err := w.Array("a", Uint8, -1); err == nil {
		t.Error("a negative length was accepted")
	}
	a, err := w.Array("a", Uint8, 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteRows(a, []uint8{1}); err == nil {
		t.Error("more values than the shape holds were accepted")
	}
	if err := WriteRows(a, []float32{}); err == nil {
		t.Error("another type was accepted")
	}
	if _, err := w.Array("a", Uint8, 1); err == nil {
		t.Error("a second array of the same name was accepted")
	}
	if _, err := Create(filepath.Join(t.TempDir(), "no", "a.npz")); err == nil {
		t.Error("a file in a folder that does not exist was created")
	}
}
