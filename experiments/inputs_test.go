package main

import (
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval/npz"
	"sagbench/internal/tiny"
)

// pngFolder writes the images of an .npz file to a folder, in their order.
func pngFolder(t *testing.T, path string) string {
	t.Helper()
	f, err := npz.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := f.Array("arr_0")
	if err != nil {
		t.Fatal(err)
	}
	folder, pixels := t.TempDir(), make([]uint8, a.RowLen())
	for i := 0; ; i++ {
		if _, err := npz.ReadRows(a, pixels); err == io.EOF {
			return folder
		} else if err != nil {
			t.Fatal(err)
		}
		p := image.NewNRGBA(image.Rect(0, 0, a.Shape[2], a.Shape[1]))
		for at := range len(pixels) / 3 {
			copy(p.Pix[4*at:4*at+3], pixels[3*at:])
			p.Pix[4*at+3] = uint8(at % 256) // dropped
		}
		w, err := os.Create(filepath.Join(folder, fmt.Sprintf("%04d.png", i)))
		if err == nil {
			err = errors.Join(png.Encode(w, p), w.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A folder has the scores of the array of its images, says what became of their
// transparency, also when features come from the cache, and is refused with the
// list of its broken images unless these are left out.
func TestEvalFolder(t *testing.T) {
	samples := filepath.Join(t.TempDir(), "samples.npz")
	if err := tiny.WriteReference(samples, 20); err != nil {
		t.Fatal(err)
	}
	folder := pngFolder(t, samples)
	want := scoresOf(t, tiny.Reference(), samples, "--metrics", "fid,sfid,is")
	if got := scoresOf(t, tiny.Reference(), folder, "--metrics", "fid,sfid,is"); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("the folder's scores are %v, the array's %v", got, want)
	}
	job := slices.Concat([]string{"eval", tiny.Reference(), folder, "--metrics", "fid"}, embeddedInception)
	for range 2 {
		if text := succeed(t, job...).stderr.String(); !strings.Contains(text, "in 20 images transparency is dropped") {
			t.Error(text)
		}
	}
	for _, name := range []string{"a.png", "z.jpg"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("no image"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text := fail(t, job...); !strings.Contains(text, "2 of 22 images broken") || !strings.Contains(text, "a.png: is no") || !strings.Contains(text, "z.jpg: is no") {
		t.Error(text)
	}
	if got := scoresOf(t, tiny.Reference(), folder, "--metrics", "fid,sfid,is", "--skip-broken"); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("without its broken images the folder's scores are %v, the array's %v", got, want)
	}
}

// Features as clean-fid keeps them are a reference under its protocol alone.
func TestEvalFeatures(t *testing.T) {
	folder := t.TempDir()
	write := func(name string, d int) string {
		path, values := filepath.Join(folder, name), make([]float32, 60*d)
		for i := range values {
			values[i] = float32(i*i%101) / 100
		}
		w, err := npz.Create(path)
		if err == nil {
			err = errors.Join(npz.WriteArray(w, "feats", values, 60, d), w.Commit())
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	feats := write("kid.npz", 256)
	scores := scoresOf(t, feats, feats, "--protocol", "clean-fid", "--metrics", "fid,kid")
	if len(scores) != 2 || !strings.HasPrefix(scores[0][0], "fid") {
		t.Errorf("%v", scores)
	}
	for want, path := range map[string]string{"Take the protocol clean-fid": feats, "300 dimensions": write("wide.npz", 300)} {
		text := fail(t, slices.Concat([]string{"eval", path, path, "--metrics", "kid"}, embeddedInception)...)
		if !strings.Contains(text, want) {
			t.Errorf("%s, want %q", text, want)
		}
	}
}
