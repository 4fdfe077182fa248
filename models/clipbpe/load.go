package clipbpe

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Load reads a tokenizer/ folder: vocab.json and merges.txt, or tokenizer.json
// where those are missing, and the special tokens of tokenizer_config.json and
// special_tokens_map.json, where they are there. All faults are reported at
// once; files that contradict each other are one of them.
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

// read is a file's content; nil, and no fault, where it is not there.
func (l *loader) read(file string) []byte {
	data, err := os.ReadFile(filepath.Join(l.folder, file))
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

// checkVocab: every id once, and letters at the end of words, which other
// byte-pair encodings do not mark.
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

// rank turns the merges into ids. Both parts and the result of each must be in
// the vocabulary. Of a pair that is listed twice the later line counts.
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
