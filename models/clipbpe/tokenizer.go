// Package clipbpe is CLIP's tokenizer: a folder with vocab.json and merges.txt
// (or tokenizer.json alone) and prompts go in, token ids come out, the same as
// transformers' CLIPTokenizer gives with padding to a length and truncation.
//
// A prompt is brought to Unicode's form NFC, every run of white space becomes
// one space, letters become lower case; it is cut into words, runs of
// punctuation and single digits; the UTF-8 bytes of each piece become letters
// of an alphabet of 256, the last one marked </w>; and pairs of neighbours are
// merged in the order in which training found them (byte-pair encoding,
// Sennrich et al., arXiv 1508.07909).
package clipbpe

import (
	"errors"
	"strings"
)

// A Tokenizer turns prompts into ids. It may be used by several goroutines.
type Tokenizer struct {
	vocab         map[string]int64
	merges        map[pair]merge
	unknown       int64
	bos, eos, pad int64
	// added are whole tokens that are cut out of a prompt before anything else;
	// those of raw as the prompt is written, those of normalized afterwards.
	raw, normalized []added
	maxLength       int
}

// An added token stands for itself wherever its text occurs in a prompt.
type added struct {
	text string
	id   int64
}

// Size is one more than the largest id.
func (t *Tokenizer) Size() int {
	largest := int64(-1)
	for _, id := range t.vocab {
		largest = max(largest, id)
	}
	for _, a := range append(t.raw, t.normalized...) {
		largest = max(largest, a.id)
	}
	return int(largest) + 1
}

// MaxLength is model_max_length of tokenizer_config.json, 0 where it does not
// say or says that there is no limit.
func (t *Tokenizer) MaxLength() int { return t.maxLength }

// EOS is the id of the token that ends a prompt.
func (t *Tokenizer) EOS() int64 { return t.eos }

// Encode is a prompt as length ids and its attention mask: the begin token, at
// most length−2 tokens of the prompt, the end token, padding. Bytes that are no
// UTF-8 count as U+FFFD each.
func (t *Tokenizer) Encode(prompt string, length int) (ids, mask []int64, err error) {
	if length < 2 {
		return nil, nil, errors.New("clipbpe: a length below 2 leaves no room for the begin and end tokens")
	}
	tokens := t.Tokens(prompt)
	if len(tokens) > length-2 {
		tokens = tokens[:length-2]
	}
	ids = append(append([]int64{t.bos}, tokens...), t.eos)
	mask = make([]int64, length)
	for i := range ids {
		mask[i] = 1
	}
	for len(ids) < length {
		ids = append(ids, t.pad)
	}
	return ids, mask, nil
}

// Tokens are the ids of a prompt alone, without begin, end and padding.
func (t *Tokenizer) Tokens(prompt string) []int64 {
	var ids []int64
	for _, part := range cut(strings.ToValidUTF8(prompt, "\uFFFD"), t.raw) {
		if part.isToken {
			ids = append(ids, part.id)
			continue
		}
		for _, part := range cut(normalize(part.text), t.normalized) {
			if part.isToken {
				ids = append(ids, part.id)
				continue
			}
			for _, piece := range split(part.text) {
				ids = t.merged(ids, byteLetters(piece))
			}
		}
	}
	return ids
}

// A part is a stretch of a prompt: an added token, or text between such.
type part struct {
	text    string
	id      int64
	isToken bool
}

// cut finds added tokens from left to right, at each place the longest.
func cut(text string, tokens []added) []part {
	var parts []part
	from := 0
	for at := 0; at < len(text); {
		var found added
		for _, a := range tokens {
			if len(a.text) > len(found.text) && strings.HasPrefix(text[at:], a.text) {
				found = a
			}
		}
		if found.text == "" {
			at++
			continue
		}
		if from < at {
			parts = append(parts, part{text: text[from:at]})
		}
		parts = append(parts, part{id: found.id, isToken: true})
		at += len(found.text)
		from = at
	}
	if from < len(text) {
		parts = append(parts, part{text: text[from:]})
	}
	return parts
}
