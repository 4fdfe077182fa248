package score

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models/features"
)

// captions are the texts of a set's images, one an image.
type captions struct {
	name    string   // of the file or the set, for results
	texts   []string // in the order of the images, broken ones included
	images  []string // names of the images; nil where none can be broken
	several int      // images with further captions, which are not looked at
	from    string   // as store.CaptionsRead has it
}

// Where captions come from.
const (
	fromFile    = "file"
	fromSet     = "set"
	fromPrompts = "prompts"
)

// promptsOf are the prompts that a run's images are drawn from.
func promptsOf(r *plan.Run) *captions {
	if len(r.Prompts) == 0 {
		return nil
	}
	c := &captions{name: cmp.Or(filepath.Base(r.PromptsFile), "prompts"), from: fromPrompts}
	if r.PromptsFile == "" {
		c.name = "prompts"
	}
	for i := range r.Samples {
		c.texts = append(c.texts, r.PromptOf(i))
	}
	return c
}

// readCaptions are the captions of the images at set: those in file or, where that is "",
// those that the set's container tells. An image without one is an error.
func readCaptions(ctx context.Context, set string, opt images.Options, file string) (*captions, error) {
	ref, err := eval.ReadReference(ctx, set, opt)
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	if ref.Images == nil {
		return nil, fmt.Errorf("%s: holds no images that captions could be compared with", set)
	}
	c := &captions{name: filepath.Base(cmp.Or(file, set)), from: fromFile}
	if file == "" {
		c.from = fromSet
	}
	var found [][]string
	for about, err := range ref.Images.Abouts() {
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return nil, images.WithPath(err, set)
		}
		c.images, found = append(c.images, about.Name), append(found, about.Captions)
	}
	if file != "" {
		f, err := parseCaptions(file)
		if err != nil {
			return nil, err
		}
		if found, err = f.of(c.images); err != nil {
			if f.byName == nil && opt.Subset != nil {
				err = fmt.Errorf("%w that is chosen, in their order (%s); JSON by names of images may hold all", err, opt.Subset)
			}
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	lacking := 0
	for i, texts := range found {
		if len(texts) == 0 {
			lacking++
			texts = []string{""}
		}
		if len(texts) > 1 {
			c.several++
		}
		if texts[0] == "" && lacking == 1 {
			err = fmt.Errorf("%s: %s has no caption", cmp.Or(file, set), c.images[i])
		}
		c.texts = append(c.texts, texts[0])
	}
	switch {
	case lacking == len(found) && file == "":
		return nil, fmt.Errorf("%s: tells no captions of its images; give --captions FILE with one a line, or lay KEY.txt beside each image KEY.png", set)
	case lacking > 1:
		return nil, fmt.Errorf("%w, and %d more have none", err, lacking-1)
	}
	return c, err
}

// whole are the captions of the images that are not broken, of which there are n.
func (c *captions) whole(read images.Report, n int) ([]string, error) {
	broken := map[string]bool{}
	for _, b := range read.Broken {
		broken[b.Name] = true
	}
	texts := c.texts
	if len(broken) > 0 {
		texts = nil
		for i, t := range c.texts {
			if i >= len(c.images) || !broken[c.images[i]] {
				texts = append(texts, t)
			}
		}
	}
	if len(texts) != n {
		return nil, fmt.Errorf("%s: %d captions for %d images", c.name, len(texts), n)
	}
	return texts, nil
}

// maxCaptions bounds a file of captions, in bytes: COCO's of its training images has
// 90 million.
const maxCaptions = 256 << 20

// A captionFile is a file of captions, decoded: in the order of images, or by their names.
type captionFile struct {
	lines  []string            // one an image
	byName map[string][]string // by the name of an image, as the file has it
	byBase map[string]string   // the name with a last part, or that without its suffix; "" where there are several
}

// parseCaptions reads a file of captions: a text in UTF-8 with one a line; JSON Lines; or JSON, a list of
// texts, an object of names and texts (or lists of texts), or COCO's
// (captions_val2014.json: images with id and file_name, annotations with image_id
// and caption).
func parseCaptions(file string) (*captionFile, error) {
	info, err := os.Stat(file) // before it is opened, which would wait on a pipe
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxCaptions) {
		err = fmt.Errorf("%s: expected a file of at most %d MB with captions", file, maxCaptions>>20)
	}
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f, err := decodeCaptions(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return f, nil
}

func decodeCaptions(data []byte) (*captionFile, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	start := bytes.TrimLeft(data, " \t\r\n")
	switch {
	case len(start) == 0:
	case (start[0] == '{' || start[0] == '[') && json.Valid(data):
		return captionsOfJSON(data, start[0] == '[')
	case start[0] == '{':
		return captionsOfLines(data)
	case jsonList.Match(start):
		err := json.Unmarshal(data, new(any))
		return nil, fmt.Errorf("begins like a list in JSON and is none (%w); a text with one caption a line does not begin so", err)
	}
	f := &captionFile{}
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("line %d is not a text in UTF-8, expected one caption a line", line)
		}
		f.lines = append(f.lines, strings.TrimSpace(string(text)))
	}
	for len(f.lines) > 0 && f.lines[len(f.lines)-1] == "" {
		f.lines = f.lines[:len(f.lines)-1]
	}
	if len(f.lines) == 0 {
		return nil, errors.New("holds no caption, expected one a line")
	}
	return f, nil
}

// jsonList is how a list of texts begins.
var jsonList = regexp.MustCompile(`^\[\s*"`)

// captionsOfLines reads JSON Lines, as hubs have them in metadata.jsonl and a run in
// prompts.jsonl: an object a line with the caption and, in all or in none, the image's
// name; without names the lines are in the order of the images.
func captionsOfLines(data []byte) (*captionFile, error) {
	f := &captionFile{}
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		var one struct {
			File    string  `json:"file_name"`
			Caption *string `json:"caption"`
			Text    *string `json:"text"`
			Prompt  *string `json:"prompt"`
		}
		if err := json.Unmarshal(text, &one); err != nil {
			return nil, fmt.Errorf("line %d is no object in JSON (%w); a file that begins with { is one object, or one a line with file_name and caption, text or prompt", line, err)
		}
		caption := cmp.Or(one.Caption, one.Text, one.Prompt)
		if caption == nil {
			return nil, fmt.Errorf("line %d has none of caption, text and prompt", line)
		}
		if first := f.lines == nil && f.byName == nil; first && one.File != "" {
			f.byName = map[string][]string{}
		}
		switch named := one.File != ""; {
		case named != (f.byName != nil):
			return nil, fmt.Errorf("line %d: some lines have a file_name and some have none", line)
		case !named:
			f.lines = append(f.lines, *caption)
		case f.byName[one.File] != nil:
			return nil, fmt.Errorf("line %d: a second caption of %q; give an image one", line, one.File)
		default:
			f.byName[one.File] = []string{strings.TrimSpace(*caption)}
		}
	}
	if f.byName != nil {
		return f.indexed(), nil
	}
	return f, nil
}

// texts is a text or a list of texts.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = texts{strings.TrimSpace(one)}
		return nil
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return errors.New("expected a text or a list of texts")
	}
	for _, text := range list {
		*t = append(*t, strings.TrimSpace(text))
	}
	return nil
}

func captionsOfJSON(data []byte, list bool) (*captionFile, error) {
	f := &captionFile{byName: map[string][]string{}}
	if list {
		if err := json.Unmarshal(data, &f.lines); err != nil {
			return nil, fmt.Errorf("expected a list of texts: %w", err)
		}
		f.byName = nil
		return f, nil
	}
	var coco struct {
		Images []struct {
			ID   int64  `json:"id"`
			File string `json:"file_name"`
		} `json:"images"`
		Annotations []struct {
			Image   int64   `json:"image_id"`
			Caption *string `json:"caption"`
		} `json:"annotations"`
	}
	if json.Unmarshal(data, &coco) == nil && len(coco.Images) > 0 && len(coco.Annotations) > 0 {
		names := map[int64]string{}
		for _, im := range coco.Images {
			if other, twice := names[im.ID]; twice || im.File == "" {
				return nil, fmt.Errorf("image %d has the file names %q and %q, expected one", im.ID, other, im.File)
			}
			names[im.ID] = im.File
		}
		for i, a := range coco.Annotations {
			name, known := names[a.Image]
			if !known || a.Caption == nil {
				return nil, fmt.Errorf("annotation %d has no caption, or one of an image that is not listed", i)
			}
			f.byName[name] = append(f.byName[name], strings.TrimSpace(*a.Caption))
		}
		return f.indexed(), nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil { // the brace
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var t texts
		if err := d.Decode(&t); err != nil {
			return nil, fmt.Errorf("%q: expected an object of image names and texts, or COCO's images and annotations: %w", name, err)
		}
		if _, twice := f.byName[name.(string)]; twice {
			return nil, fmt.Errorf("two texts are named %q; which one is meant cannot be known", name)
		}
		f.byName[name.(string)] = t
	}
	return f.indexed(), nil
}

// indexed adds the last parts of names.
func (f *captionFile) indexed() *captionFile {
	f.byBase = map[string]string{}
	for name := range f.byName {
		base := path.Base(name)
		for _, key := range []string{base, strings.TrimSuffix(base, path.Ext(base))} {
			if other, taken := f.byBase[key]; taken && other != name {
				f.byBase[key] = ""
			} else {
				f.byBase[key] = name
			}
		}
	}
	return f
}

// of are the captions of images. By names, an image is looked for as the set calls it,
// then by the last part of its name, then by that without the suffix: samples for
// COCO's .jpg are often .png.
func (f *captionFile) of(names []string) ([][]string, error) {
	out := make([][]string, len(names))
	if f.byName == nil {
		if len(f.lines) != len(names) {
			return nil, fmt.Errorf("%d captions for %d images, expected one for each", len(f.lines), len(names))
		}
		for i, l := range f.lines {
			if l = strings.TrimSpace(l); l != "" {
				out[i] = []string{l}
			}
		}
		return out, nil
	}
	for i, name := range names {
		if t, ok := f.byName[name]; ok {
			out[i] = t
			continue
		}
		base := path.Base(name)
		for _, key := range []string{base, strings.TrimSuffix(base, path.Ext(base))} {
			if to, ok := f.byBase[key]; ok {
				if to == "" {
					return nil, fmt.Errorf("%s: several names end in %s; which one is meant cannot be known", name, key)
				}
				out[i] = f.byName[to]
				break
			}
		}
	}
	for i, t := range out {
		if len(t) > 0 && t[0] == "" {
			out[i] = nil
		}
	}
	return out, nil
}

// sum is a hash of captions: each with a zero byte behind it.
func sum(texts []string) string {
	h := sha256.New()
	for _, t := range texts {
		h.Write(append([]byte(t), 0))
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// embed puts the embeddings of the images' captions beside their features, and tells the
// outcome of which captions they are. A caption that several images have is
// computed once; all of them go to the user's cache folder.
func (e *Engine) embed(ctx context.Context, x *Extractor, form string, c *captions, gen *eval.Features, read images.Report, out *outcome) error {
	net, ok := x.Net.(features.Texting)
	if !ok || c == nil {
		return errors.New("there are no captions to compare the images with")
	}
	all, err := c.whole(read, gen.N)
	if err != nil {
		return err
	}
	row, distinct := map[string]int{}, []string(nil)
	for _, t := range all {
		if _, known := row[t]; !known {
			row[t] = len(distinct)
			distinct = append(distinct, t)
		}
	}
	embedded, err := x.texts(ctx, e, net, form, distinct)
	if err != nil {
		return err
	}
	_, cut, err := net.TextIDs(distinct, features.TextForms[form])
	if err != nil {
		return err
	}
	gen.Texts = make([]float32, 0, len(all)*gen.D)
	for _, t := range all {
		gen.Texts = append(gen.Texts, embedded[row[t]*gen.D:(row[t]+1)*gen.D]...)
	}
	out.captions = &store.Captions{
		InputFile:    store.InputFile{Name: c.name, SHA256: sum(all)},
		CaptionsRead: store.CaptionsRead{From: c.from, Distinct: len(distinct), Cut: cut, Several: c.several},
	}
	for _, n := range captionNotes(form, c, distinct, cut) {
		e.say(out, n)
	}
	return nil
}

// captionNotes tell what a score of captions has to say of them.
func captionNotes(form string, c *captions, distinct []string, cut int) (notes []string) {
	if c.several > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d images have several captions, of which the first is taken", c.name, c.several))
	}
	if cut > 0 {
		what := "they are cut"
		if !features.TextForms[form].KeepEnd {
			what = "as torchmetrics does, they are cut without an end token, and their embedding is that of every such text, whatever it says"
		}
		notes = append(notes, fmt.Sprintf("%s: %d of %d captions are longer than the network reads; %s", c.name, cut, len(distinct), what))
	}
	foreign := 0
	for _, t := range distinct {
		if strings.IndexFunc(t, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 {
			foreign++
		}
	}
	if features.TextForms[form].Unescape && foreign > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d of %d captions hold letters beyond ASCII, which openai/CLIP hands through ftfy first; here they are taken as they are", c.name, foreign, len(distinct)))
	}
	return notes
}

// texts are the embeddings [N,Width] of texts, from the cache if they are there.
func (x *Extractor) texts(ctx context.Context, e *Engine, net features.Texting, form string, all []string) ([]float32, error) {
	key, err := x.featuresKey(fmt.Sprintf("texts %s as %s", sum(all), form))
	if err != nil {
		return nil, err
	}
	want := eval.Parts{Pool: true}
	if f, _, ok := cachedFeatures(key, want, "captions", images.Options{}, e.progress); ok {
		rows := slices.Clone(f.Pool) // which may lie in a file
		if err := f.Close(); err != nil {
			return nil, err
		}
		if len(rows) == len(all)*x.Net.Width() {
			return rows, nil
		}
	}
	e.progress.Stage("captions", "texts", 0, len(all))
	defer e.progress.End()
	embedded, err := net.Texts(ctx, all, features.TextForms[form], e.progress.Add)
	if err != nil {
		return nil, err
	}
	if x.unchanged != nil {
		if err := x.unchanged(); err != nil {
			return nil, err
		}
	}
	f := &eval.Features{N: len(all), D: x.Net.Width(), Pool: embedded.Data}
	if err := keepFeatures(key, want, f, images.Report{}); err != nil {
		e.progress.Note(fmt.Sprintf("the embeddings of captions are not kept for the next time: %v", err))
	}
	return f.Pool, nil
}
