package plan

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"sagbench/experiments/human"
	"sagbench/sampling"
)

// What a file of prompts may hold at most: a file of another kind that is given by
// mistake is refused before it is read.
const (
	maxPromptsFile  = 64 << 20  // bytes of lines
	maxCaptionsFile = 128 << 20 // bytes of COCO's captions: those of train2014 are 67 MB
	maxPrompt       = 64 << 10  // bytes of a text
	maxImageName    = 1024      // bytes of a file_name
	maxObjects      = 1_000_000 // lines of objects
	maxCaptioned    = 500_000   // images of COCO: train2014 has 82,783
	maxCaptions     = 2_500_000 // captions of all
)

// A promptFile is what was read from a file of prompts: lines, or images with captions.
type promptFile struct {
	name, sha256 string
	lines        promptLines
	captioned    []captionedImage // of COCO, by ascending id; then there are no lines
	notes        []string         // what was ignored
}

// promptLines are texts with what belongs to each.
type promptLines struct {
	texts    []string
	negative []*string // nil where no line has one
	names    []string  // of files; nil where no line has one
	of       Drawn
}

// A captionedImage is an image of COCO with its captions, by ascending id.
type captionedImage struct {
	id       int64
	name     string
	captions []string
}

// readPromptsFile reads a file of prompts in UTF-8: COCO's captions, an object a line,
// or a text a line, as the end of its name says.
func readPromptsFile(f sampling.File) (*promptFile, error) {
	p := &promptFile{name: filepath.Base(f.Path)}
	kind := strings.ToLower(filepath.Ext(f.Path))
	most := int64(maxPromptsFile)
	if kind == ".json" {
		most = maxCaptionsFile
	}
	data, err := readText(f, most)
	if err != nil {
		return nil, err
	}
	p.sha256 = fmt.Sprintf("%x", sha256.Sum256(data))
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	switch kind {
	case ".json":
		err = p.readCaptions(data)
	case ".jsonl":
		err = p.readObjects(data)
	default:
		p.lines.texts, err = linesOf(data, false)
		if err == nil && looksLikeObjects(p.lines.texts) {
			err = errors.New("holds JSON objects, a line each; call it FILE.jsonl")
		}
	}
	if err == nil && len(p.lines.texts)+len(p.captioned) == 0 {
		err = errors.New("holds no text, expected one prompt a line")
	}
	if err != nil {
		return nil, atPath(f.Path, err)
	}
	return p, nil
}

// readNegativesFile reads a text in UTF-8 with one negative prompt a line; blank lines
// count.
func readNegativesFile(f sampling.File) ([]string, error) {
	data, err := readText(f, maxPromptsFile)
	if err != nil {
		return nil, err
	}
	texts, err := linesOf(bytes.TrimPrefix(data, []byte("\ufeff")), true)
	if err != nil {
		return nil, atPath(f.Path, err)
	}
	return texts, nil
}

// A placed is an error at a line of a file.
type placed struct {
	line int
	err  error
}

func (p *placed) Error() string { return fmt.Sprintf("%d: %v", p.line, p.err) }

func (p *placed) Unwrap() error { return p.err }

// atPath is an error with the path of the file, and the line where it has one.
func atPath(path string, err error) error {
	if p := (*placed)(nil); errors.As(err, &p) {
		return fmt.Errorf("%s:%d: %w", path, p.line, p.err)
	}
	return fmt.Errorf("%s %w", path, err)
}

// readText reads a regular file of at most so many bytes.
func readText(f sampling.File, most int64) ([]byte, error) {
	if hint := unset(f); hint != "" {
		return nil, errors.New(hint)
	}
	info, err := os.Stat(f.Path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder, expected a file with one prompt a line", f.Path)
	case !info.Mode().IsRegular(): // reading would wait on a pipe
		return nil, fmt.Errorf("%s is not a regular file; write the prompts to one", f.Path)
	case info.Size() > most:
		return nil, fmt.Errorf("%s has %s, expected a text of at most %s with one prompt a line", f.Path, human.Bytes(info.Size()), human.Bytes(most))
	}
	return os.ReadFile(f.Path)
}

// linesOf are the texts of lines without the spaces around them, blank ones only where
// they count.
func linesOf(data []byte, blank bool) (texts []string, err error) {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			return nil, &placed{line, errors.New("not a text in UTF-8, expected one prompt a line")}
		}
		if prompt := strings.TrimSpace(string(text)); prompt != "" || blank {
			texts = append(texts, prompt)
		}
	}
	return texts, nil
}

// looksLikeObjects reports whether texts are objects with prompts, which are no
// prompts themselves.
func looksLikeObjects(texts []string) bool {
	if len(texts) == 0 || !strings.HasPrefix(texts[0], "{") {
		return false
	}
	fields, err := objectOf([]byte(texts[0]))
	return err == nil && fields["prompt"] != nil
}

// readObjects reads an object a line.
func (p *promptFile) readObjects(data []byte) error {
	l := &p.lines
	line, first := 0, 0
	ignored, named := map[string]int{}, map[string]int{} // lines with a key, the line with a name
	anyNegative := false
	for text := range bytes.Lines(data) {
		line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if len(l.texts) == maxObjects {
			return &placed{line, fmt.Errorf("there are more than %s objects, expected at most so many", human.Count(maxObjects))}
		}
		one, err := promptOf(text, ignored)
		if err != nil {
			return &placed{line, err}
		}
		switch {
		case first == 0:
			first = line
		case (one.name == nil) != (l.names == nil):
			with, without := line, first
			if one.name == nil {
				with, without = first, line
			}
			return &placed{line, fmt.Errorf("line %d has a file_name and line %d has none; give it in all lines or in none", with, without)}
		}
		if one.name != nil {
			if before, twice := named[*one.name]; twice {
				return &placed{line, fmt.Errorf("file_name is %q, as in line %d: a name is of one image", *one.name, before)}
			}
			named[*one.name] = line
			l.names = append(l.names, *one.name)
		}
		l.texts, l.negative = append(l.texts, one.text), append(l.negative, one.negative)
		anyNegative = anyNegative || one.negative != nil
	}
	if !anyNegative {
		l.negative = nil
	}
	for _, key := range slices.Sorted(maps.Keys(ignored)) {
		if len(p.notes) == 8 {
			p.notes = append(p.notes, fmt.Sprintf("%s: %d more keys are not read", p.name, len(ignored)-8))
			break
		}
		p.notes = append(p.notes, fmt.Sprintf("%s: the key %.60q of %d lines is not read; those that are: prompt, negative_prompt, file_name", p.name, key, ignored[key]))
	}
	return nil
}

// A promptLine is an object of a line.
type promptLine struct {
	text           string
	negative, name *string
}

// promptOf reads an object, and counts the keys that are none of its own.
func promptOf(text []byte, ignored map[string]int) (one promptLine, err error) {
	fields, err := objectOf(text)
	if err != nil {
		return one, err
	}
	prompt, err := textField(fields, "prompt")
	switch {
	case err != nil:
		return one, err
	case prompt == nil:
		return one, fmt.Errorf("there is no prompt, expected an object with it: {\"prompt\": …}; its keys: %s", shortList(slices.Sorted(maps.Keys(fields))))
	case *prompt == "":
		return one, errors.New("prompt is an empty text")
	}
	one.text = *prompt
	if one.negative, err = textField(fields, "negative_prompt"); err != nil {
		return one, err
	}
	if one.name, err = textField(fields, "file_name"); err != nil {
		return one, err
	}
	if one.name != nil {
		if err := checkImageName(*one.name); err != nil {
			return one, err
		}
	}
	for key := range fields {
		if key != "prompt" && key != "negative_prompt" && key != "file_name" && (ignored[key] > 0 || len(ignored) < 1000) {
			ignored[key]++
		}
	}
	return one, nil
}

// shortList joins a few words, and counts the others.
func shortList(words []string) string {
	const most = 8
	var quoted []string
	for _, w := range words[:min(most, len(words))] {
		quoted = append(quoted, fmt.Sprintf("%.60q", w))
	}
	if more := len(words) - most; more > 0 {
		quoted = append(quoted, fmt.Sprintf("and %d more", more))
	}
	return cmp.Or(strings.Join(quoted, ", "), "none")
}

// checkImageName is an error where a name is none that a file can have.
func checkImageName(name string) error {
	base := name[strings.LastIndexAny(name, `/\`)+1:]
	switch {
	case len(name) > maxImageName:
		return fmt.Errorf("file_name has %d bytes, expected at most %d", len(name), maxImageName)
	case base == "" || base[0] == '.' || len(base) > 200:
		return fmt.Errorf("file_name is %.80q, expected that of an image, such as COCO_val2014_000000000042.jpg, of at most 200 bytes", name)
	case strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return fmt.Errorf("file_name is %.80q, expected one without control characters", name)
	}
	return nil
}

// objectOf are the fields of one JSON object, each there once.
func objectOf(text []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not a text in UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("expected an object, {\"prompt\": …}, found %.40q", text)
	}
	fields := map[string]json.RawMessage{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		name, _ := key.(string)
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("the key %.60q is there twice", name)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, notJSON(err)
		}
		fields[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the object, expected one object a line")
	}
	return fields, nil
}

// notJSON explains an error of the decoder.
func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not JSON: it ends too early")
	}
	return fmt.Errorf("not JSON: %w", err)
}

// textField is a field of an object that is a text, without spaces around it; nil where
// there is none, or null.
func textField(fields map[string]json.RawMessage, name string) (*string, error) {
	raw, there := fields[name]
	if !there || string(raw) == "null" {
		return nil, nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, fmt.Errorf("%s is %.40s, expected a text", name, raw)
	}
	text = strings.TrimSpace(text)
	switch {
	case len(text) > maxPrompt:
		return nil, fmt.Errorf("%s has %d bytes, expected at most %d", name, len(text), maxPrompt)
	case strings.ContainsRune(text, 0):
		return nil, fmt.Errorf("%s holds the character 0", name)
	case halfSurrogate(text, raw):
		return nil, fmt.Errorf("%s holds half of a surrogate pair (\\ud800 to \\udfff), which is no character", name)
	}
	return &text, nil
}

// halfSurrogate reports whether a text was made of escapes that are no characters, for
// which the decoder puts U+FFFD.
func halfSurrogate(text string, raw []byte) bool {
	return strings.Count(text, "\ufffd") > bytes.Count(raw, []byte("\ufffd"))+bytes.Count(bytes.ToLower(raw), []byte(`\ufffd`))
}
