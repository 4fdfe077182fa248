package clipbpe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Load reads a tokenizer/ folder: vocab.json and merges.txt, or tokenizer.json
// where those are missing, and the special tokens of tokenizer_config.json and
// special_tokens_map.json, where these exist. All faults are reported at once,
// also that files contradict each other.
func Load(folder string) (*Tokenizer, error) {
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("clipbpe: %s: no such folder; expected one with vocab.json and merges.txt", folder)
	}
	l := &loader{folder: folder}
	t := l.load()
	if err := errors.Join(l.errs...); err != nil {
		return nil, err
	}
	return t, nil
}

// A loader reads the files of a folder and collects what is wrong with them.
type loader struct {
	folder string
	errs   []error
}

func (l *loader) errorf(file, format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf("clipbpe: %s: %w", filepath.Join(l.folder, file), fmt.Errorf(format, args...)))
}

// maxFile bounds a tokenizer's files, in bytes: CLIP's have a million.
const maxFile = 64 << 20

// read is a file's content; nil, and no fault, where it is not there.
func (l *loader) read(file string) []byte {
	path := filepath.Join(l.folder, file)
	if info, err := os.Stat(path); err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile) {
		l.errorf(file, "expected a file of at most %d bytes", maxFile)
		return nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(data) == 0 {
		err = errors.New("is empty")
	}
	if err != nil {
		l.errorf(file, "%w", err)
	}
	return data
}

func (l *loader) load() *Tokenizer {
	vocabFile, mergesFile := vocabJSON, mergesTXT
	vocab, merges := l.vocab(l.read(vocabJSON)), l.mergeLines(l.read(mergesTXT))
	fast := l.fast(l.read(tokenizerJSON))
	if vocab == nil && merges == nil && fast != nil {
		vocab, merges, vocabFile, mergesFile = fast.vocab, fast.merges, tokenizerJSON, tokenizerJSON
	} else if fast != nil {
		l.compare(vocab, merges, fast)
	}
	if len(l.errs) > 0 {
		return nil
	}
	if vocab == nil || merges == nil {
		l.errorf("", "%s and %s are needed, or %s; the folder lacks %s", vocabJSON, mergesTXT, tokenizerJSON, strings.Join(l.lacking(), ", "))
		return nil
	}
	t := &Tokenizer{vocab: vocab, merges: map[pair]merge{}}
	l.checkVocab(vocabFile, vocab)
	l.rank(mergesFile, t, merges)
	l.special(t, fast)
	return t
}

func (l *loader) lacking() []string {
	var names []string
	for _, n := range []string{vocabJSON, mergesTXT, tokenizerJSON} {
		if _, err := os.Stat(filepath.Join(l.folder, n)); err != nil {
			names = append(names, n)
		}
	}
	return names
}

// checkVocab notes ids that are there twice or out of range, and a vocabulary
// without letters at the end of words, which other byte-pair encodings do not mark.
func (l *loader) checkVocab(file string, vocab map[string]int64) {
	byID := map[int64]string{}
	for _, text := range slices.Sorted(maps.Keys(vocab)) {
		id := vocab[text]
		if other, twice := byID[id]; twice {
			l.errorf(file, "id %d is given to %q and to %q", id, other, text)
		}
		if id < 0 || id > maxID {
			l.errorf(file, "token %q has id %d; expected 0 to %d", text, id, maxID)
		}
		byID[id] = text
		if len(l.errs) > maxFaults {
			return
		}
	}
	if !slices.ContainsFunc(alphabet[:], func(letter string) bool { _, ok := vocab[letter+endOfWord]; return ok }) {
		l.errorf(file, "holds no letter with %s; is it the vocabulary of a CLIP tokenizer?", endOfWord)
	}
}

// maxID bounds the ids; the largest published vocabulary ends at 49,407.
const maxID = 1<<24 - 1

// maxFaults keeps the message about a thoroughly broken file readable.
const maxFaults = 10

// rank sets the tokenizer's merges, by ids, to those of the lines. Both parts and
// the result of each must be in the vocabulary. Of a pair that is listed twice the
// later line counts.
func (l *loader) rank(file string, t *Tokenizer, lines []mergeLine) {
	faults := 0
	for rank, m := range lines {
		for _, text := range []string{m.left, m.right, m.left + m.right} {
			if _, ok := t.vocab[text]; ok {
				continue
			}
			if faults++; faults <= maxFaults {
				l.errorf(file, "%s: the vocabulary has no token %q; do the two files belong together?", m.where, text)
			}
		}
		t.merges[pair{t.vocab[m.left], t.vocab[m.right]}] = merge{rank, t.vocab[m.left+m.right]}
	}
	if faults > maxFaults {
		l.errorf(file, "… and %d more tokens that the vocabulary lacks", faults-maxFaults)
	}
}

// compare holds tokenizer.json against the other two files.
func (l *loader) compare(vocab map[string]int64, merges []mergeLine, fast *fastFile) {
	if vocab != nil {
		var differ []string
		for text, id := range fast.vocab {
			if other, ok := vocab[text]; !ok || other != id {
				differ = append(differ, text)
			}
		}
		slices.Sort(differ)
		if len(differ) > 0 {
			l.errorf(tokenizerJSON, "disagrees with %s: token %q (and %d others) is missing there or has another id; take all files of one tokenizer", vocabJSON, differ[0], len(differ)-1)
		} else if len(vocab) != len(fast.vocab) {
			l.errorf(tokenizerJSON, "disagrees with %s: %d tokens here, %d there; take all files of one tokenizer", vocabJSON, len(fast.vocab), len(vocab))
		}
	}
	if merges != nil && !slices.EqualFunc(merges, fast.merges, func(a, b mergeLine) bool { return a.left == b.left && a.right == b.right }) {
		l.errorf(tokenizerJSON, "disagrees with %s: %d merges here, %d there, not the same ones; take all files of one tokenizer", mergesTXT, len(fast.merges), len(merges))
	}
}

// The files of a tokenizer folder.
const (
	vocabJSON     = "vocab.json"
	mergesTXT     = "merges.txt"
	tokenizerJSON = "tokenizer.json"
	configJSON    = "tokenizer_config.json"
	specialJSON   = "special_tokens_map.json"
	addedJSON     = "added_tokens.json"
)

// Files lists the files of a folder that Load reads, those that exist.
func Files(folder string) []string {
	var files []string
	for _, name := range []string{vocabJSON, mergesTXT, tokenizerJSON, configJSON, specialJSON, addedJSON} {
		path := filepath.Join(folder, name)
		if _, err := os.Stat(path); err == nil {
			files = append(files, path)
		}
	}
	return files
}

// A mergeLine is a line of merges.txt.
type mergeLine struct {
	left, right string
	where       string // "line 7"
}

// vocab reads token → id. The JSON is read by token: encoding/json alone hides
// a token that is there twice.
func (l *loader) vocab(data []byte) map[string]int64 {
	if data == nil {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	vocab, err := readVocab(d)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows after the object")
		}
	}
	if err != nil {
		l.errorf(vocabJSON, "byte %d: %w", d.InputOffset(), err)
	}
	return vocab
}

func readVocab(d *json.Decoder) (map[string]int64, error) {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("expected an object of tokens and ids: %w", unexpected(t, err))
	}
	vocab := map[string]int64{}
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return nil, unexpected(k, err)
		}
		text, _ := k.(string) // keys are strings: the decoder sees to that
		v, err := d.Token()
		if err != nil {
			return nil, unexpected(v, err)
		}
		number, _ := v.(json.Number)
		id, err := number.Int64()
		if err != nil {
			return nil, fmt.Errorf("token %q has id %v, expected a whole number", text, v)
		}
		if _, twice := vocab[text]; twice {
			return nil, fmt.Errorf("token %q is there twice", text)
		}
		vocab[text] = id
	}
	t, err := d.Token()
	if err != nil {
		return nil, unexpected(t, err)
	}
	return vocab, nil
}

func unexpected(t json.Token, err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the file is truncated")
	case err != nil:
		return err
	}
	return fmt.Errorf("found %v", t)
}

// mergeLines reads merges.txt: two tokens a line, the first line may say
// "#version".
func (l *loader) mergeLines(data []byte) []mergeLine {
	if data == nil {
		return nil
	}
	lines, faults := []mergeLine{}, 0
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || i == 0 && strings.HasPrefix(line, "#version") {
			continue
		}
		left, right, ok := strings.Cut(line, " ")
		if !ok || left == "" || right == "" || strings.Contains(right, " ") {
			if faults++; faults <= maxFaults {
				l.errorf(mergesTXT, "line %d: %.80q: expected two tokens with a space between", i+1, line)
			}
			continue
		}
		lines = append(lines, mergeLine{left, right, fmt.Sprintf("line %d", i+1)})
	}
	return lines
}

// A fastFile is the part of tokenizer.json that is read.
type fastFile struct {
	vocab  map[string]int64
	merges []mergeLine
	added  []addedToken
}

func (l *loader) fast(data []byte) *fastFile {
	if data == nil {
		return nil
	}
	var f struct {
		Model struct {
			Type   string            `json:"type"`
			Suffix string            `json:"end_of_word_suffix"`
			Vocab  map[string]int64  `json:"vocab"`
			Merges []json.RawMessage `json:"merges"`
		} `json:"model"`
		Added []addedToken `json:"added_tokens"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		l.errorf(tokenizerJSON, "%w", err)
		return nil
	}
	if f.Model.Type != "BPE" || f.Model.Suffix != endOfWord {
		l.errorf(tokenizerJSON, "model is %q with end_of_word_suffix %q; supported: BPE with %q, as CLIP has it", f.Model.Type, f.Model.Suffix, endOfWord)
		return nil
	}
	fast := &fastFile{vocab: f.Model.Vocab, added: f.Added}
	for i, raw := range f.Model.Merges {
		m := mergeLine{where: fmt.Sprintf("merge %d", i)}
		var two []string
		var one string
		if json.Unmarshal(raw, &two) == nil && len(two) == 2 { // since tokenizers 0.20
			m.left, m.right = two[0], two[1]
		} else if json.Unmarshal(raw, &one) == nil {
			m.left, m.right, _ = strings.Cut(one, " ")
		}
		if m.left == "" || m.right == "" {
			l.errorf(tokenizerJSON, "merge %d is %.80s; expected two tokens", i, raw)
			return nil
		}
		fast.merges = append(fast.merges, m)
	}
	return fast
}
