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
	"container/heap"
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
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

// MaxLength is the number of ids that a prompt may have, with begin and end:
// model_max_length of tokenizer_config.json; 0 where there is none or no limit.
func (t *Tokenizer) MaxLength() int { return t.maxLength }

// BOS is the id of the token that begins a prompt.
func (t *Tokenizer) BOS() int64 { return t.bos }

// EOS is the id of the token that ends a prompt.
func (t *Tokenizer) EOS() int64 { return t.eos }

// Pad is the id of the token that fills a prompt up.
func (t *Tokenizer) Pad() int64 { return t.pad }

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

// Cut is the text that Encode of a prompt leaves out, as its tokens spell it; "" where
// all of it fits.
func (t *Tokenizer) Cut(prompt string, length int) string {
	tokens := t.Tokens(prompt)
	if len(tokens) <= length-2 {
		return ""
	}
	spelled := map[int64]string{}
	for text, id := range t.vocab {
		spelled[id] = text
	}
	for _, a := range slices.Concat(t.raw, t.normalized) {
		spelled[a.id] = a.text + endOfWord
	}
	bytes := map[string]byte{}
	for b, letter := range alphabet {
		bytes[letter] = byte(b)
	}
	var text []byte
	for _, id := range tokens[max(0, length-2):] {
		letters, ends := strings.CutSuffix(spelled[id], endOfWord)
		for _, l := range letters {
			text = append(text, bytes[string(l)])
		}
		if ends {
			text = append(text, ' ')
		}
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(text), "\uFFFD"))
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

// space matches what Unicode calls white space; regexp's \s knows ASCII only.
var space = regexp.MustCompile(`[\t-\r \x{85}\p{Z}]+`)

// normalize is the tokenizer's normalizer: NFC, runs of white space to one
// space, lower case.
func normalize(text string) string {
	text = space.ReplaceAllString(norm.NFC.String(text), " ")
	var b strings.Builder
	for _, r := range text {
		if r == 'İ' { // the one letter whose lower case is two characters
			b.WriteString("i\u0307")
			continue
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// words is the tokenizer's own pattern, bytePairs that of the byte-level step
// after it (GPT-2's), which cuts the pieces of the first once more. After
// normalize, a space is the only white space.
var (
	words     = regexp.MustCompile(`<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^ \p{L}\p{N}]+`)
	byteWords = regexp.MustCompile(`'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}+|[^ \p{L}\p{N}]+`)
)

// split cuts normalized text into the pieces that are encoded one by one.
func split(text string) []string {
	var pieces []string
	for _, w := range words.FindAllString(text, -1) {
		pieces = append(pieces, byteWords.FindAllString(w, -1)...)
	}
	return pieces
}

// byteLetters are the UTF-8 bytes of a piece, each as a letter of the alphabet.
func byteLetters(piece string) []string {
	letters := make([]string, len(piece))
	for i := range len(piece) {
		letters[i] = alphabet[piece[i]]
	}
	return letters
}

// alphabet gives each byte a visible character: printable Latin-1 characters
// stand for themselves, the other bytes follow from U+0100 on, in order.
var alphabet = func() (letters [256]string) {
	next := rune(256)
	for b := range rune(256) {
		if '!' <= b && b <= '~' || '¡' <= b && b <= '¬' || '®' <= b && b <= 'ÿ' {
			letters[b] = string(b)
			continue
		}
		letters[b] = string(next)
		next++
	}
	return letters
}()

// endOfWord marks the last letter of a piece.
const endOfWord = "</w>"

// A pair is two neighbouring tokens, by id.
type pair struct{ left, right int64 }

// A merge is what a pair becomes, and how early training found it.
type merge struct {
	rank int
	id   int64
}

// A symbol is a token of a piece under construction, in a linked list; dead
// ones were merged into their left neighbour.
type symbol struct {
	id         int64
	prev, next int // -1 at the ends
	dead       bool
}

// A candidate is a merge of the symbol at a place with the next one that was
// possible when it was noted.
type candidate struct {
	merge
	at int
}

// candidates is a heap: the earliest merge first, of equal ones the leftmost.
type candidates []candidate

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, j int) bool {
	return c[i].rank < c[j].rank || c[i].rank == c[j].rank && c[i].at < c[j].at
}
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }

// Push implements heap.Interface.
func (c *candidates) Push(x any) { *c = append(*c, x.(candidate)) }

// Pop implements heap.Interface.
func (c *candidates) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// merged appends the tokens of one piece, a letter a byte, to ids. A letter that
// the vocabulary lacks is the unknown token.
func (t *Tokenizer) merged(ids []int64, letters []string) []int64 {
	symbols := make([]symbol, len(letters))
	for i, l := range letters {
		if i == len(letters)-1 {
			l += endOfWord
		}
		id, ok := t.vocab[l]
		if !ok {
			id = t.unknown
		}
		symbols[i] = symbol{id: id, prev: i - 1, next: i + 1}
	}
	symbols[len(symbols)-1].next = -1

	var queue candidates
	note := func(at int) { // puts the merge at a place, if there is one, into the queue
		if at < 0 || symbols[at].next < 0 {
			return
		}
		if m, ok := t.merges[pair{symbols[at].id, symbols[symbols[at].next].id}]; ok {
			heap.Push(&queue, candidate{m, at})
		}
	}
	for i := range symbols {
		note(i)
	}
	for len(queue) > 0 {
		c := heap.Pop(&queue).(candidate)
		left := &symbols[c.at]
		if left.dead || left.next < 0 {
			continue
		}
		right := &symbols[left.next]
		if m, ok := t.merges[pair{left.id, right.id}]; !ok || m.id != c.id {
			continue // one of the two has been merged since
		}
		right.dead = true
		left.id, left.next = c.id, right.next
		if right.next >= 0 {
			symbols[right.next].prev = c.at
		}
		note(left.prev)
		note(c.at)
	}
	for at := 0; at >= 0; at = symbols[at].next {
		ids = append(ids, symbols[at].id)
	}
	return ids
}
