package images

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"sagbench/eval/npz"
)

// An About is what the container of a set tells of an image beside its pixels.
type About struct {
	Name     string   // of the image, as its Pending has it
	Class    string   // its label or the folder that it lies in; "" where the container tells none
	Captions []string // in the container's order; none where it tells none
}

// Abouts are what the set's container tells of its images, one About for each image that
// Images gives and in that order, those that turn out to be broken included. No pixels
// are read: labels are the array arr_1 [N] of an .npz, the file KEY.cls or the field
// label, cls or class of KEY.json beside an image, or the outermost of the folders
// in which images lie where there are at least two of these; captions are KEY.txt, KEY.caption or
// the field caption, text or prompt of KEY.json. An error ends them; it names the entry
// that cannot be read.
func (s *Set) Abouts() iter.Seq2[About, error] { return pick(s.about, s.chosen) }

// A Told says of how many images of a set the container tells what.
type Told struct {
	Images, Classed, Captioned int
}

// Told reads all that the set's container tells of its images, and counts.
func (s *Set) Told(ctx context.Context) (Told, error) {
	var t Told
	for a, err := range s.Abouts() {
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return t, err
		}
		t.Images++
		if a.Class != "" {
			t.Classed++
		}
		if len(a.Captions) > 0 {
			t.Captioned++
		}
	}
	return t, nil
}

// Bounds of what lies beside an image: of its file, in bytes, and of a label, in letters.
const (
	maxBeside = 1 << 20
	maxClass  = 256
)

// sideSuffixes are those of files that tell of the image beside which they lie, in the
// order in which they are asked.
var sideSuffixes = []string{".cls", ".txt", ".caption", ".json"}

func isSide(name string) bool {
	return slices.Contains(sideSuffixes, strings.ToLower(path.Ext(name)))
}

// fileKey is what the name of an image in a folder has in common with those of the files
// beside it.
func fileKey(name string) string { return strings.TrimSuffix(name, path.Ext(name)) }

func (l *listing) compareKeys(a, b file) int {
	key := l.key
	if key == nil {
		key = fileKey
	}
	return cmp.Compare(key(a.name), key(b.name))
}

// abouts are what folders and the files beside them tell of the images; of is the path of the set.
func (l *listing) abouts(of string) iter.Seq2[About, error] {
	class := l.folderClass()
	return func(yield func(About, error) bool) {
		for _, f := range l.files {
			a := About{Name: f.name}
			err := l.tell(&a)
			if err != nil {
				err = fmt.Errorf("%s: %w", of, err)
			}
			if a.Class == "" && err == nil {
				a.Class = class(f.name)
			}
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// tell adds what the files beside the image tell of it.
func (l *listing) tell(a *About) error {
	sides, err := l.besidesOf(a.Name)
	if err != nil {
		return err
	}
	for _, suffix := range sideSuffixes {
		for _, f := range sides {
			if strings.ToLower(path.Ext(f.name)) != suffix {
				continue
			}
			if err := a.read(f, suffix); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	return nil
}

// besidesOf are the files beside the image of a name.
func (l *listing) besidesOf(name string) ([]file, error) {
	if l.besides != nil {
		return l.besides(name)
	}
	image := file{name: name}
	at, _ := slices.BinarySearchFunc(l.sides, image, l.compareKeys)
	end := at
	for end < len(l.sides) && l.compareKeys(l.sides[end], image) == 0 {
		end++
	}
	return l.sides[at:end], nil
}

// folderClass gives the outermost folder of an image's name below those that all
// images have in common; "" for all where there are not two such folders.
func (l *listing) folderClass() func(name string) string {
	none := func(string) string { return "" }
	if len(l.files) == 0 {
		return none
	}
	parts := func(name string) []string { return strings.Split(path.Dir(strings.TrimPrefix(name, "./")), "/") }
	common := parts(l.files[0].name)
	for _, f := range l.files[1:] {
		dir := parts(f.name)
		for i, c := range common {
			if i == len(dir) || dir[i] != c {
				common = common[:i]
				break
			}
		}
	}
	class := func(name string) string {
		if dir := parts(name); len(dir) > len(common) && dir[0] != "." {
			return dir[len(common)]
		}
		return ""
	}
	first := ""
	for _, f := range l.files {
		c := class(f.name)
		if first == "" {
			first = c
		}
		if c != "" && c != first {
			return class
		}
	}
	return none
}

// read adds what a file beside the image tells.
func (a *About) read(f file, suffix string) error {
	if f.size > maxBeside {
		return fmt.Errorf("has %d bytes, more than the %d of a label or captions", f.size, maxBeside)
	}
	r, err := f.open()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxBeside+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if len(data) > maxBeside {
		return fmt.Errorf("has more than the %d bytes of a label or captions", maxBeside)
	}
	if suffix == ".json" {
		return a.addJSON(data)
	}
	return a.addText(suffix, data)
}

// addText takes a label or a caption.
func (a *About) addText(suffix string, data []byte) error {
	if i := invalid(data); i >= 0 {
		return fmt.Errorf("byte %d is not UTF-8, expected text; save it as UTF-8", i)
	}
	text := strings.TrimSpace(strings.TrimPrefix(string(data), "\ufeff"))
	if suffix == ".cls" {
		return a.setClass(text)
	}
	a.addCaption(text)
	return nil
}

// addCaption takes a caption that is not empty and not there.
func (a *About) addCaption(text string) {
	if text = strings.TrimSpace(text); text != "" && !slices.Contains(a.Captions, text) {
		a.Captions = append(a.Captions, text)
	}
}

// invalid is the first byte that is not UTF-8; -1 if all is.
func invalid(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

func (a *About) setClass(class string) error {
	switch {
	case utf8.RuneCountInString(class) > maxClass:
		return fmt.Errorf("a label of %d letters, at most %d are read", utf8.RuneCountInString(class), maxClass)
	case a.Class != "" && class != "" && a.Class != class:
		return fmt.Errorf("the label %s, where %s is the image's as well; which one is meant cannot be known", quoted(class), quoted(a.Class))
	case class != "":
		a.Class = class
	}
	return nil
}

// quoted is a text for a message.
func quoted(s string) string { return strconv.Quote(clip(s)) }

// The fields of JSON, and columns of tables, that tell of an image.
var (
	classFields   = []string{"label", "cls", "class"}
	captionFields = []string{"caption", "text", "prompt"}
)

// addJSON takes the label and the captions of an object.
func (a *About) addJSON(data []byte) error {
	if i := invalid(data); i >= 0 {
		return fmt.Errorf("byte %d is not UTF-8, expected JSON", i)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("is no JSON object of an image: %w", err)
	}
	for _, field := range classFields {
		value, ok := all[field]
		if !ok || string(value) == "null" {
			continue
		}
		class, err := scalar(value)
		if err == nil {
			err = a.setClass(class)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
	}
	for _, field := range captionFields {
		value, ok := all[field]
		if !ok || string(value) == "null" {
			continue
		}
		var one string
		var several []string
		if json.Unmarshal(value, &one) == nil {
			several = []string{one}
		} else if err := json.Unmarshal(value, &several); err != nil {
			return fmt.Errorf("%s is %s, expected a text or a list of texts", field, clip(string(value)))
		}
		for _, text := range several {
			a.addCaption(text)
		}
	}
	return nil
}

// scalar is a text or a whole number of JSON as text.
func scalar(value json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return strings.TrimSpace(text), nil
	}
	var n int64
	if json.Unmarshal(value, &n) == nil {
		return strconv.FormatInt(n, 10), nil
	}
	return "", fmt.Errorf("is %s, expected a text or a whole number", clip(string(value)))
}

// LabelledBy has labels of the images of an array: open opens arr_1, whole numbers [N] or
// [N,1], anew for each reading.
func (s *Set) LabelledBy(open func() (*npz.Array, error)) {
	s.about = func(yield func(About, error) bool) {
		labels, err := readLabels(open, s.count)
		if err != nil {
			yield(About{}, fmt.Errorf("%s: %w", s.Path, err))
			return
		}
		for i, v := range labels {
			if !yield(About{Name: arrayName(i), Class: strconv.FormatInt(v, 10)}, nil) {
				return
			}
		}
	}
}

// arrayName is what image i of an array is called.
func arrayName(i int) string { return fmt.Sprintf("image %d", i) }

// readLabels reads n labels.
func readLabels(open func() (*npz.Array, error), n int) ([]int64, error) {
	a, err := open()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	ok := len(a.Shape) == 1 || len(a.Shape) == 2 && a.Shape[1] == 1
	if kind := a.Dtype.Kind; !ok || kind != 'i' && kind != 'u' || a.Shape[0] != n {
		return nil, fmt.Errorf("%s is %s %v, expected labels of the %d images: whole numbers [%d]", a.Name, a.Dtype, a.Shape, n, n)
	}
	return npz.ReadAll[int64](a, n)
}
