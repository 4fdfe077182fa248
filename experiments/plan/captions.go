package plan

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"sagbench/experiments/human"
	"sagbench/sampling"
)

// readCaptions reads captions in the format of COCO's captions_val2014.json
// (cocodataset.org, "Data format", 5. Image Captioning): images with id and file_name,
// annotations with id, image_id and caption. Other keys are COCO's own and not needed.
func (p *promptFile) readCaptions(data []byte) error {
	if !utf8.Valid(data) {
		return fmt.Errorf("is not a text in UTF-8 (byte %d)", validPrefix(data))
	}
	c := cocoReader{d: json.NewDecoder(bytes.NewReader(data))}
	if err := c.read(); err != nil {
		return err
	}
	images, empty, err := c.captioned()
	if err != nil {
		return err
	}
	if empty > 0 {
		p.notes = append(p.notes, fmt.Sprintf("%s: %d captions are empty and are not drawn", p.name, empty))
	}
	if without := len(c.images) - len(images); without > 0 {
		p.notes = append(p.notes, fmt.Sprintf("%s: %d images have no caption and are not drawn", p.name, without))
	}
	if len(images) == 0 {
		return errors.New("holds no captions, expected COCO's annotations, with id, image_id and caption")
	}
	p.captioned = images
	return nil
}

// validPrefix is how many bytes of a text are UTF-8.
func validPrefix(data []byte) int {
	n := 0
	for n < len(data) {
		r, size := utf8.DecodeRune(data[n:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		n += size
	}
	return n
}

// A cocoReader reads COCO's captions.
type cocoReader struct {
	d           *json.Decoder
	images      []cocoImage
	annotations []cocoCaption
}

type cocoImage struct {
	ID   *int64  `json:"id"`
	Name *string `json:"file_name"`
}

type cocoCaption struct {
	ID      *int64           `json:"id"`
	Image   *int64           `json:"image_id"`
	Caption *json.RawMessage `json:"caption"`

	text string // of Caption
}

const cocoExpected = "expected COCO's captions, such as captions_val2014.json: {\"images\": [{\"id\", \"file_name\"}], \"annotations\": [{\"id\", \"image_id\", \"caption\"}]}"

// read reads the lists, in any order.
func (c *cocoReader) read() error {
	if t, err := c.d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("holds no object, " + cocoExpected)
	}
	seen := map[string]bool{}
	for c.d.More() {
		key, err := c.d.Token()
		if err != nil {
			return c.broken(err)
		}
		name, _ := key.(string)
		if seen[name] && (name == "images" || name == "annotations") {
			return fmt.Errorf("has the list %s twice (byte %d)", name, c.d.InputOffset())
		}
		seen[name] = true
		switch name {
		case "images":
			err = listOf(c, name, maxCaptioned, &c.images)
		case "annotations":
			err = listOf(c, name, maxCaptions, &c.annotations)
		default:
			var other json.RawMessage
			if err = c.d.Decode(&other); err != nil {
				err = c.broken(err)
			}
		}
		if err != nil {
			return err
		}
	}
	if _, err := c.d.Token(); err != nil {
		return c.broken(err)
	}
	if _, err := c.d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("has more behind the object (byte %d), which is all that is expected; of lines with an object each the name ends in .jsonl", c.d.InputOffset())
	}
	for _, name := range []string{"images", "annotations"} {
		if !seen[name] {
			return fmt.Errorf("has no list %s, %s", name, cocoExpected)
		}
	}
	return nil
}

// broken is an error of the decoder with its place.
func (c *cocoReader) broken(err error) error {
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) && !strings.Contains(err.Error(), "unexpected end") {
		return fmt.Errorf("is not JSON: %w (byte %d)", err, c.d.InputOffset())
	}
	return fmt.Errorf("is not JSON: it ends too early (byte %d)", c.d.InputOffset())
}

// listOf reads a list of at most so many objects.
func listOf[T any](c *cocoReader, name string, most int, into *[]T) error {
	if t, err := c.d.Token(); err != nil || t != json.Delim('[') {
		return fmt.Errorf("has no list %s, %s", name, cocoExpected)
	}
	for c.d.More() {
		if len(*into) == most {
			return fmt.Errorf("has more than %s %s, expected at most so many", human.Count(most), name)
		}
		var one T
		if err := c.d.Decode(&one); err != nil {
			if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
				return fmt.Errorf("%s[%d]: %s is a %s, expected %s (byte %d)", name, len(*into), cmp.Or(wrong.Field, "it"), wrong.Value, kindOfJSON(wrong), c.d.InputOffset())
			}
			return c.broken(err)
		}
		*into = append(*into, one)
	}
	if _, err := c.d.Token(); err != nil {
		return c.broken(err)
	}
	return nil
}

// kindOfJSON is what was expected in place of a value of another kind.
func kindOfJSON(wrong *json.UnmarshalTypeError) string {
	switch wrong.Type.Kind().String() {
	case "int64":
		return "a whole number"
	case "string":
		return "a text"
	}
	return "an object"
}

// captioned are the images that have captions, by their ids, each with its captions by
// theirs: what is drawn from them does not depend on the order in the file. empty
// counts captions without a text, which are left out.
func (c *cocoReader) captioned() (images []captionedImage, empty int, err error) {
	at, names := make(map[int64]int, len(c.images)), make(map[string]int, len(c.images))
	for i, im := range c.images {
		switch {
		case im.ID == nil:
			return nil, 0, fmt.Errorf("images[%d]: has no id", i)
		case im.Name == nil:
			return nil, 0, fmt.Errorf("images[%d]: has no file_name", i)
		}
		if err := checkImageName(*im.Name); err != nil {
			return nil, 0, fmt.Errorf("images[%d]: %w", i, err)
		}
		if first, twice := at[*im.ID]; twice {
			return nil, 0, fmt.Errorf("images[%d]: id %d is that of images[%d] as well", i, *im.ID, first)
		}
		if first, twice := names[*im.Name]; twice {
			return nil, 0, fmt.Errorf("images[%d]: file_name %q is that of images[%d] as well", i, *im.Name, first)
		}
		at[*im.ID], names[*im.Name] = i, i
	}
	order := make([]int, len(c.annotations)) // by id
	for i := range c.annotations {
		order[i] = i
		if err := c.checkCaption(i, at); err != nil {
			return nil, 0, err
		}
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(*c.annotations[i].ID, *c.annotations[j].ID) })
	all := make([]captionedImage, len(c.images))
	for i, im := range c.images {
		all[i] = captionedImage{id: *im.ID, name: *im.Name}
	}
	for k, i := range order {
		a := &c.annotations[i]
		if k > 0 && *c.annotations[order[k-1]].ID == *a.ID {
			first := order[k-1]
			return nil, 0, fmt.Errorf("annotations[%d]: id %d is that of annotations[%d] as well", max(i, first), *a.ID, min(i, first))
		}
		if a.text == "" {
			empty++
			continue
		}
		im := &all[at[*a.Image]]
		im.captions = append(im.captions, a.text)
	}
	all = slices.DeleteFunc(all, func(im captionedImage) bool { return len(im.captions) == 0 })
	slices.SortFunc(all, func(a, b captionedImage) int { return cmp.Compare(a.id, b.id) })
	return all, empty, nil
}

// checkCaption reads the text of annotation i and checks what it names.
func (c *cocoReader) checkCaption(i int, images map[int64]int) error {
	a := &c.annotations[i]
	for _, field := range []struct {
		missing bool
		name    string
	}{{a.ID == nil, "id"}, {a.Image == nil, "image_id"}, {a.Caption == nil, "caption"}} {
		if field.missing {
			return fmt.Errorf("annotations[%d]: has no %s", i, field.name)
		}
	}
	if _, known := images[*a.Image]; !known {
		return fmt.Errorf("annotations[%d]: image_id is %d, and no image has that id", i, *a.Image)
	}
	text, err := textField(map[string]json.RawMessage{"caption": *a.Caption}, "caption")
	if err != nil {
		return fmt.Errorf("annotations[%d]: %w", i, err)
	}
	if text != nil {
		a.text = *text
	}
	a.Caption = nil
	return nil
}

// draw are the prompts that a draw takes: all lines in their order where it asks for
// none. Without replacement: choice k takes one of those that are left (Fisher and
// Yates), so that the first of more prompts are those of fewer.
func (p *promptFile) draw(d PromptsDraw) (promptLines, error) {
	n, what := len(p.lines.texts), "lines"
	if p.captioned != nil {
		n, what, d.Number = len(p.captioned), "images", cmp.Or(d.Number, cocoDraw)
	}
	switch {
	case d.Number == 0 && d.Seed != 0:
		return promptLines{}, errors.New("has a seed and no number: how many prompts to draw")
	case d.Number == 0:
		return p.lines, nil
	case d.Number > n:
		return promptLines{}, fmt.Errorf("draws %s of the %s %s with a text in %s; give number: at most so many", human.Count(d.Number), human.Count(n), what, p.name)
	}
	out := promptLines{of: Drawn{File: p.name, SHA256: p.sha256, From: fmt.Sprintf("%s %s", human.Count(n), what), Seed: d.Seed}}
	if p.captioned != nil {
		out.of.From += ", of each one caption,"
	}
	left := make([]int, n)
	for i := range left {
		left[i] = i
	}
	for k := range d.Number {
		j := k + sampling.Choice(d.Seed, 2*k, n-k)
		left[k], left[j] = left[j], left[k]
		if p.captioned != nil {
			im := p.captioned[left[k]]
			out.texts = append(out.texts, im.captions[sampling.Choice(d.Seed, 2*k+1, len(im.captions))])
			out.names = append(out.names, im.name)
			continue
		}
		out.texts = append(out.texts, p.lines.texts[left[k]])
		if p.lines.negative != nil {
			out.negative = append(out.negative, p.lines.negative[left[k]])
		}
		if p.lines.names != nil {
			out.names = append(out.names, p.lines.names[left[k]])
		}
	}
	return out, nil
}
