package images

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sagbench/eval/npz"
)

// told is what a set says of its images: "name class|caption|caption".
func told(s *Set) (lines []string, err error) {
	for a, err := range s.Abouts() {
		if err != nil {
			return lines, err
		}
		lines = append(lines, strings.Join(append([]string{a.Name + " " + a.Class}, a.Captions...), "|"))
	}
	return lines, nil
}

// Labels and captions lie beside an image, or are the folder that it lies in.
func TestAbouts(t *testing.T) {
	files := map[string][]byte{
		"a/1.png": greyLevel(1), "a/1.txt": []byte("\ufeff a coat \n"), "a/1.caption": []byte("a second"),
		"b/2.png": greyLevel(2), "b/2.json": []byte(`{"caption": ["one", "two", "one"], "text": "three", "cls": 7, "size": {"w": 1}}`),
		"b/3.png": greyLevel(3), "b/3.cls": []byte("5\n"), "4.png": greyLevel(4), "notes.txt": nil,
	}
	want := []string{"4.png ", "a/1.png a|a coat|a second", "b/2.png 7|one|two|three", "b/3.png 5"}
	for _, path := range []string{folderOf(t, files), zipOf(t, files, "4.png", "a/1.png", "a/1.txt", "a/1.caption", "b/2.png", "b/2.json", "b/3.png", "b/3.cls", "notes.txt")} {
		s, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got, err := told(s); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q %v, want %q", path, got, err, want)
		}
		if n, err := s.Told(t.Context()); err != nil || n != (Told{4, 3, 2}) {
			t.Errorf("%s: %+v %v", path, n, err)
		}
		if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "files that are not read: 1 .txt") {
			t.Errorf("%s: %q", path, s.Warnings)
		}
	}
	one := map[string][]byte{"x/a/1.png": greyLevel(1), "x/b/2.png": greyLevel(2), "x/b/c/3.png": greyLevel(2)}
	s, err := Open(t.Context(), folderOf(t, one), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := told(s); err != nil || !slices.Equal(got, []string{"x/a/1.png a", "x/b/2.png b", "x/b/c/3.png b"}) {
		t.Errorf("%q %v", got, err)
	}
}

// What cannot be read beside an image is an error that names the file.
func TestBrokenAbouts(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"a.txt":  {"a \xff coat", "a.txt: byte 2 is not UTF-8"},
		"a.cls":  {strings.Repeat("x", 300), "a.cls: a label of 300 letters"},
		"a.json": {`{"caption": "a`, "a.json: is no JSON object"},
		"A.json": {`[1]`, "is no JSON object"},
		"b.json": {`{"caption": 5}`, "caption is 5, expected a text or a list"},
		"c.json": {`{"label": 5.5}`, "label: is 5.5, expected a text or a whole number"},
		"d.json": {`{"label": 5, "cls": 6}`, `cls: the label "6", where "5"`},
		"e.txt":  {strings.Repeat("x", maxBeside+1), "e.txt: has 1048577 bytes"},
	} {
		image := strings.Split(name, ".")[0] + ".png"
		s, err := Open(t.Context(), folderOf(t, map[string][]byte{image: greyLevel(1), name: []byte(c.data)}), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := told(s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Labels of an array are whole numbers, one an image.
func TestArrayLabels(t *testing.T) {
	path := npzOf(t, npz.Uint8, make([]uint8, 6), 2, 1, 1, 3)
	open := func(name string) func() (*npz.Array, error) {
		f, err := npz.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return func() (*npz.Array, error) { return f.Array(name) }
	}
	s, err := OfArray(path, open("arr_0"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := told(s); err != nil || !slices.Equal(got, []string{"image 0 ", "image 1 "}) {
		t.Errorf("%q %v", got, err)
	}
	path = npzOf(t, npz.Int64, []int64{3, -1}, 2, 1)
	s.LabelledBy(open("arr_0"))
	if got, err := told(s); err != nil || !slices.Equal(got, []string{"image 0 3", "image 1 -1"}) {
		t.Errorf("%q %v", got, err)
	}
	for _, write := range []func() string{
		func() string { return npzOf(t, npz.Int64, []int64{3, 1, 2}, 3) },
		func() string { return npzOf(t, npz.Float32, []float32{3, 1}, 2) },
	} {
		path = write()
		s.LabelledBy(open("arr_0"))
		if _, err := told(s); err == nil || !strings.Contains(err.Error(), "expected labels of the 2 images") {
			t.Error(errors.Join(err, errors.New("was accepted")))
		}
	}
}
