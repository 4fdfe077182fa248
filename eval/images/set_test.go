package images

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/fuzzing"
)

// folderOf writes files below a new folder.
func folderOf(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// zipOf writes files to a new archive, every second one deflated.
func zipOf(t testing.TB, files map[string][]byte, names ...string) string {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for i, name := range names {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: []uint16{zip.Store, zip.Deflate}[i%2]})
		if err == nil {
			_, err = w.Write(files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "images.zip")
	if err := errors.Join(z.Close(), os.WriteFile(path, out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

// greyLevel is a PNG file of one grey pixel.
func greyLevel(v byte) []byte { return pngFile(1, 1, 8, 0, deflated([]byte{0, v})) }

// levels loads a set and returns the first byte of each image.
func levels(path string, opt Options) ([]uint8, Report, error) {
	s, err := Open(context.Background(), path, opt)
	if err != nil {
		return nil, Report{}, err
	}
	defer s.Close()
	var got []uint8
	load := Loader[uint8]{Workers: 3, Ahead: 2, SkipBroken: opt.SkipBroken, Prepare: func(im Image) (uint8, error) { return im.Pixels[0], nil }}
	report, err := load.Run(context.Background(), s.Images(), func(v uint8) error {
		got = append(got, v)
		return nil
	})
	return got, report, WithPath(err, path)
}

// Folders and archives are read in the byte order of the paths.
func TestOrder(t *testing.T) {
	names := []string{"10.png", "2.PNG", "a/1.png", "a/b/1.png", "a0.png", "b.png"}
	files := map[string][]byte{"notes.txt": nil, ".hidden.png": nil, "a/.DS_Store": nil, "__MACOSX/._b.png": nil,
		".ipynb_checkpoints/c.png": nil, "a/@eaDir/1.png/preview.jpg": nil, "__MACOSX/b.png": nil}
	var hidden []string
	for name := range files {
		if name != "notes.txt" {
			hidden = append(hidden, name)
		}
	}
	var want []uint8
	for i, name := range names {
		files[name] = greyLevel(byte(i))
		want = append(want, byte(i))
	}
	backwards := slices.Clone(names)
	slices.Reverse(backwards)
	for _, path := range []string{folderOf(t, files), zipOf(t, files, append(slices.Concat(backwards, hidden), "notes.txt", "a/")...)} {
		got, report, err := levels(path, Options{})
		if err != nil || !slices.Equal(got, want) || report.Converted[Grey] != len(names) {
			t.Errorf("%s: %v %v %v, want %v", path, got, report, err, want)
		}
		s, err := Open(t.Context(), path, Options{})
		if err != nil || s.N != len(names) || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "1 .txt") {
			t.Errorf("%s: %+v %v", path, s, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A flat set leaves out what lies in subfolders, and says so; its hash is that of
// everything, and where nothing is left the error tells what to do.
func TestFlat(t *testing.T) {
	files := map[string][]byte{"a.png": greyLevel(1), "b.png": greyLevel(2), "below/c.png": greyLevel(3), "below/.d.png": nil, "below/e.txt": nil}
	for _, path := range []string{folderOf(t, files), zipOf(t, files, "a.png", "b.png", "below/c.png", "below/.d.png", "below/e.txt")} {
		if got, _, err := levels(path, Options{Flat: true}); err != nil || !slices.Equal(got, []uint8{1, 2}) {
			t.Errorf("%s: %v %v", path, got, err)
		}
		s, err := Open(t.Context(), path, Options{Flat: true})
		if err != nil || s.Below != 1 || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "1 image in subfolders left out") {
			t.Fatalf("%s: %+v %v", path, s, err)
		}
		s.Close()
	}
	for _, path := range []string{folderOf(t, map[string][]byte{"x/c.png": greyLevel(3)}), zipOf(t, map[string][]byte{"x/c.png": greyLevel(3)}, "x/c.png")} {
		if _, err := Open(t.Context(), path, Options{Flat: true}); err == nil || !strings.Contains(err.Error(), "choose the protocol adm or clean-fid") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Mixed looks at the sizes of the chosen images alone, broken ones left out.
func TestMixed(t *testing.T) {
	wide := pngFile(2, 1, 8, 0, deflated([]byte{0, 1, 2}))
	path := folderOf(t, map[string][]byte{"a.png": []byte("broken"), "b.png": greyLevel(1), "c.png": greyLevel(2), "d.png": wide})
	s, err := Open(t.Context(), path, Options{SkipBroken: true})
	if err != nil {
		t.Fatal(err)
	}
	for want, chosen := range map[string][]int{"": {0, 1}, "b.png has 1×1 pixels, d.png has 1×2": {0, 1, 2}} {
		found, err := s.Mixed(t.Context(), func(n int) []int {
			if n != 3 {
				t.Errorf("%d images with headers, want 3", n)
			}
			return chosen
		})
		if err != nil || found != want {
			t.Errorf("%v: %q, %v, want %q", chosen, found, err, want)
		}
	}
}

// One message lists every broken image, whether its header shows it or not; or
// all of them are left out and listed.
func TestBrokenList(t *testing.T) {
	cut := greyLevel(3)
	cut = cut[:len(cut)-20]
	for name, files := range map[string]map[string][]byte{
		"header":  {"a.png": greyLevel(1), "b.png": nil, "c.png": cut, "d.jpg": []byte("no image"), "e.png": greyLevel(5)},
		"content": {"a.png": greyLevel(1), "b.png": cut, "c.png": cut, "d.jpg": cut, "e.png": greyLevel(5)},
	} {
		path := folderOf(t, files)
		_, _, err := levels(path, Options{})
		broken := (*BrokenError)(nil)
		if !errors.As(err, &broken) || broken.Path != path || broken.N != 5 || len(broken.Broken) != 3 {
			t.Fatalf("%s: %v", name, err)
		}
		for i, want := range []string{"b.png", "c.png", "d.jpg"} {
			if broken.Broken[i].Name != want || !strings.Contains(err.Error(), "\n  "+want+": ") {
				t.Errorf("%s: %v", name, err)
			}
		}
		got, report, err := levels(path, Options{SkipBroken: true})
		if err != nil || !slices.Equal(got, []uint8{1, 5}) || len(report.Broken) != 3 || report.Decoded != 2 {
			t.Errorf("%s: %v %+v %v", name, got, report, err)
		}
		if notes := strings.Join(report.Notes(), "\n"); !strings.Contains(notes, "in 2 images grey is repeated") || !strings.Contains(notes, "3 images left out as broken: b.png") {
			t.Errorf("%s: %s", name, notes)
		}
	}
	if _, _, err := levels(folderOf(t, map[string][]byte{"a.png": cut}), Options{SkipBroken: true}); err == nil || !strings.Contains(err.Error(), "every image is broken") {
		t.Errorf("a set without a whole image: %v", err)
	}
}

func TestUnusableSets(t *testing.T) {
	loop := folderOf(t, map[string][]byte{"a/b.png": greyLevel(1)})
	if err := os.Symlink(loop, filepath.Join(loop, "a", "up")); err != nil {
		t.Skip(err)
	}
	one := folderOf(t, map[string][]byte{"a.png": greyLevel(1), "ref.pkl": {0x80, 4}, "b.zip": []byte("PK no zip"), "c.npy": []byte("text"), "d.npz": nil})
	twice := map[string][]byte{"a.png": greyLevel(1)}
	for path, want := range map[string]string{
		t.TempDir(): "is empty",
		folderOf(t, map[string][]byte{"a.txt": nil, "b.avif": nil, "c.avif": nil, "d": nil}): "holds no images: 1 without a suffix, 2 .avif, 1 .txt",
		zipOf(t, map[string][]byte{"a.zip": nil}, "a.zip"):                                   "holds no images: 1 .zip",
		zipOf(t, twice, "a.png", "a.png"):                                                    `two entries are named "a.png"`,
		loop:                                                                                 "is a link to a folder that it lies in",
		filepath.Join(one, "a.png"):                                                          "is one image",
		filepath.Join(one, "ref.pkl"):                                                        "is a pickle",
		filepath.Join(one, "b.zip"):                                                          "is no zip archive",
		filepath.Join(one, "c.npy"):                                                          "npy header is cut off",
		filepath.Join(one, "d.npz"):                                                          "is an .npz archive, expected",
		filepath.Join(one, "none"):                                                           "no such file",
	} {
		if _, _, err := levels(path, Options{}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// Names in an archive are names: nothing is written, whatever they lead to. A
// link to an image is the image, one that leads nowhere is broken.
func TestNames(t *testing.T) {
	files := map[string][]byte{"../../up.png": greyLevel(1), "/root.png": greyLevel(2)}
	if got, _, err := levels(zipOf(t, files, "/root.png", "../../up.png"), Options{}); err != nil || !slices.Equal(got, []uint8{1, 2}) {
		t.Errorf("%v %v", got, err)
	}
	dir := folderOf(t, map[string][]byte{"a.png": greyLevel(1)})
	if err := errors.Join(os.Symlink("a.png", filepath.Join(dir, "b.png")), os.Symlink("none.png", filepath.Join(dir, "c.png"))); err != nil {
		t.Skip(err)
	}
	got, report, err := levels(dir, Options{SkipBroken: true})
	if err != nil || !slices.Equal(got, []uint8{1, 1}) || len(report.Broken) != 1 || report.Broken[0].Name != "c.png" {
		t.Errorf("%v %+v %v", got, report, err)
	}
	if _, err := Hash(dir); err != nil {
		t.Error(err)
	}
}

// The hash of a folder follows names and content of its images, and nothing
// else.
func TestHash(t *testing.T) {
	hash := func(files map[string][]byte) string {
		sum, err := Hash(folderOf(t, files))
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	a, b := greyLevel(1), greyLevel(2)
	base := hash(map[string][]byte{"a.png": a, "x/b.png": b})
	if got := hash(map[string][]byte{"x/b.png": b, "a.png": a, "notes.txt": []byte("new")}); got != base {
		t.Error("a file that is no image changed the hash")
	}
	for name, files := range map[string]map[string][]byte{
		"content": {"a.png": b, "x/b.png": b},
		"name":    {"a.png": a, "x/c.png": b},
		"swapped": {"a.png": b, "x/b.png": a},
		"fewer":   {"a.png": a},
	} {
		if hash(files) == base {
			t.Errorf("%s: the hash is that of another folder", name)
		}
	}
	if _, err := Hash(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("nothing has a hash")
	}
}

// A visitor's error and a cancelled context end the loading.
func TestLoaderStops(t *testing.T) {
	many := func(yield func(Pending, error) bool) {
		for i := 0; ; i++ {
			if !yield(Pending{Name: fmt.Sprint(i), Decode: func() (Image, error) { return Image{Height: i}, nil }}, nil) {
				return
			}
		}
	}
	load := Loader[int]{Ahead: 4, Prepare: func(im Image) (int, error) { return im.Height, nil }}
	enough := errors.New("enough")
	next := 0
	_, err := load.Run(t.Context(), many, func(i int) error {
		if i != next {
			t.Errorf("image %d came as number %d", i, next)
		}
		if next++; next == 100 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("%v, want the visitor's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = load.Run(ctx, many, func(i int) error {
		if i == 10 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
}

// An entry that unpacks to far more than an image of its size is not unpacked.
func TestSwollenEntry(t *testing.T) {
	bomb := append(greyLevel(1), make([]byte, 20<<20)...)
	path := zipOf(t, map[string][]byte{"a.png": greyLevel(1), "b.png": bomb}, "a.png", "b.png")
	_, err := Open(t.Context(), path, Options{})
	if err == nil || !strings.Contains(err.Error(), "b.png: claims 20971") || !strings.Contains(err.Error(), "which no image needs") {
		t.Errorf("got %v", err)
	}
}

// A decoder that panics has met a broken image.
func TestLoaderRecovers(t *testing.T) {
	one := func(yield func(Pending, error) bool) {
		yield(Pending{Name: "a", Decode: func() (Image, error) { panic("index out of range") }}, nil)
	}
	load := Loader[int]{Prepare: func(Image) (int, error) { return 0, nil }}
	_, err := load.Run(t.Context(), one, func(int) error { return nil })
	if broken := (*BrokenError)(nil); !errors.As(err, &broken) || !strings.Contains(err.Error(), "a: cannot be decoded") {
		t.Error(err)
	}
}

func FuzzZip(f *testing.F) {
	files := map[string][]byte{"a.png": greyLevel(1), "b/c.bmp": readFile(f, "testdata/pillow/bmp1.bmp"), "d.txt": nil}
	f.Add(readFile(f, zipOf(f, files, "a.png", "b/c.bmp", "d.txt")))
	f.Add(readFile(f, zipOf(f, files, "a.png", "a.png")))
	f.Fuzz(func(t *testing.T, data []byte) {
		var l *listing
		fuzzing.Bounded(t, len(data), 64, func() {
			z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
			if err == nil || errors.Is(err, zip.ErrInsecurePath) {
				l, err = listZip(z, false)
			}
			if err != nil {
				l = &listing{}
			}
		})
		for _, one := range l.files {
			one.header(1 << 16)
			one.decode(1 << 16)
		}
	})
}
