package clipbpe

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"strings"
)

// publishedMerges are the merges of the one vocabulary that CLIP was published
// with, and that OpenCLIP and all of Stable Diffusion 1.x and 2.x use.
//
//go:embed published-merges.txt.gz
var publishedMerges []byte

// PublishedSize is the number of tokens of the published vocabulary.
const PublishedSize = 49408

// Published is CLIP's own tokenizer, for checkpoints that come without one: the
// letters of the alphabet in the order of clip/simple_tokenizer.py, the same at
// the end of a word, the merges, the two special tokens. It pads as SD 1.x
// does, with the end token, or as SD 2.x does, with "!".
func Published(padWithExclamation bool) (*Tokenizer, error) {
	z, err := gzip.NewReader(bytes.NewReader(publishedMerges))
	if err != nil {
		return nil, fmt.Errorf("clipbpe: the embedded merges: %w", err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("clipbpe: the embedded merges: %w", err)
	}
	t := &Tokenizer{vocab: map[string]int64{}, merges: map[pair]merge{}, maxLength: 77}
	add := func(text string) int64 {
		id := int64(len(t.vocab))
		t.vocab[text] = id
		return id
	}
	letters := alphabetOrder()
	for _, end := range []string{"", endOfWord} {
		for _, l := range letters {
			add(l + end)
		}
	}
	for line := range strings.Lines(string(data)) {
		left, right, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		t.merges[pair{t.vocab[left], t.vocab[right]}] = merge{rank: len(t.merges), id: add(left + right)}
	}
	t.bos, t.eos = add("<|startoftext|>"), add("<|endoftext|>")
	t.unknown, t.pad = t.eos, t.eos
	begin, end := added{"<|startoftext|>", t.bos}, added{"<|endoftext|>", t.eos}
	t.normalized, t.raw = []added{begin}, []added{end}
	if padWithExclamation {
		t.pad = t.vocab["!"]
		t.normalized, t.raw = []added{begin, end}, []added{{"!", t.pad}}
	}
	return t, nil
}

// alphabetOrder lists the letters as simple_tokenizer.py bytes_to_unicode does:
// bytes that stand for themselves first.
func alphabetOrder() []string {
	var own, others []string
	for b, l := range alphabet {
		if l == string(rune(b)) {
			own = append(own, l)
		} else {
			others = append(others, l)
		}
	}
	return append(own, others...)
}
