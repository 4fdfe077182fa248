package score

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/internal/fuzzing"
	"sagbench/internal/tiny"
)

func TestCaptionsWithoutBroken(t *testing.T) {
	c := &captions{name: "captions.txt", texts: []string{"one", "two", "three"}, images: []string{"a", "b", "c"}}
	got, err := c.whole(images.Report{Broken: []images.Broken{{Name: "b"}}}, 2)
	if err != nil || !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.whole(images.Report{}, 2); err == nil {
		t.Error("three captions are taken for two images")
	}
	if sum([]string{"a", "b"}) == sum([]string{"ab", ""}) {
		t.Error("other captions have the same hash")
	}
}

func TestDecodeCaptions(t *testing.T) {
	names := []string{"x/a.png", "b.png"}
	for text, want := range map[string][]string{
		"one\r\ntwo\r\n\r\n": {"one", "two"}, "\ufeffone\ntwo": {"one", "two"}, `["one", "two"]`: {"one", "two"},
		"[one\ntwo]": {"[one", "two]"}, // no JSON
		`{"a.jpg": "one", "x/b.jpg": ["two", "three"]}`:     {"one", "two"},
		`{"x/a.png": " one ", "y/a.png": "no", "b": "two"}`: {"one", "two"},
		`{"images": [{"id": 1, "file_name": "b.jpg"}, {"id": 2, "file_name": "a.jpg"}], "annotations": [{"image_id": 2, "caption": "one"}, {"image_id": 1, "caption": "two\n"}, {"image_id": 2, "caption": "later"}]}`: {"one", "two"},
		`{"file_name": "b.png", "text": "two"}` + "\n\n" + `{"file_name": "x/a.png", "text": "one"}` + "\n":                                                                                                            {"one", "two"},
		`{"prompt": "one", "negative_prompt": "no"}` + "\n" + `{"prompt": "two"}`:                                                                                                                                      {"one", "two"},
	} {
		f, err := decodeCaptions([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		found, err := f.of(names)
		if err != nil || len(found) != 2 || len(found[0]) == 0 || len(found[1]) == 0 || found[0][0] != want[0] || found[1][0] != want[1] {
			t.Errorf("%s: %q, %v, want %q", text, found, err, want)
		}
	}
	for _, text := range []string{"[\n\"cat\", \"dog\",\n", "{\"a.png\": \"cat\",\n\"b.png\"\n", `{"a.png": "cat", "b.png": "no", "a.png": "dog"}`,
		"{\"file_name\": \"a\", \"text\": \"x\"}\n{\"text\": \"y\"}", "{\"file_name\": \"a\", \"text\": \"x\"}\n{\"file_name\": \"a\", \"text\": \"y\"}", "{\"a\": 1}\n{\"b\": 2}",
		"", "\n\n", "\x00", `{"a": 1}`, `[1]`, `{"images": [{"id": 1, "file_name": ""}], "annotations": [{"image_id": 1, "caption": "a"}]}`, `{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": [{"image_id": 1, "caption": "a"}]}`} {
		if f, err := decodeCaptions([]byte(text)); err == nil {
			t.Errorf("%q is read as %+v", text, f)
		}
	}
}

// FuzzCaptions: any file gives captions of as many images, or an error.
func FuzzCaptions(f *testing.F) {
	for _, text := range []string{"a\nb\n", `["a", "b"]`, `{"x/a.png": "a", "b": ["b", "c"]}`, `{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a"}]}`, "\ufeff{", "[[\"a\"]]"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzing.Bounded(t, len(data), 200, func() {
			c, err := decodeCaptions(data)
			if err != nil {
				return
			}
			names := []string{"x/a.png", "b.png", "c"}
			if found, err := c.of(names); err == nil && len(found) != len(names) {
				t.Errorf("captions of %d images, want %d", len(found), len(names))
			}
		})
	})
}

// Rows of an array and of a table are no names by which images are paired.
func TestNumbered(t *testing.T) {
	for name, want := range map[string]bool{"image 3": true, "a.npz image 12": true, "row 0": true, "b.parquet row 7": true, "a/image 3.png": false, "arrow 3": false} {
		if numbered.MatchString(name) != want {
			t.Errorf("%s: a number is %v, want %v", name, !want, want)
		}
	}
}

// With a part of a set, lines are captions of that part alone, and the error says so.
func TestCaptionsOfPart(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"a.ppm", "b.ppm", "c.ppm"} {
		tiny.Write(t, filepath.Join(folder, name), "P6 1 1 255\nabc")
	}
	file := filepath.Join(t.TempDir(), "captions.txt")
	tiny.Write(t, file, "one\ntwo\nthree\n")
	_, err := readCaptions(t.Context(), folder, images.Options{Subset: eval.Subset{First: 2}}, file)
	if want := "captions.txt: 3 captions for 2 images, expected one for each that is chosen, in their order (the first 2)"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	tiny.Write(t, file, "one\ntwo\n")
	if c, err := readCaptions(t.Context(), folder, images.Options{Subset: eval.Subset{First: 2}}, file); err != nil || !slices.Equal(c.texts, []string{"one", "two"}) {
		t.Errorf("%+v, %v", c, err)
	}
}
