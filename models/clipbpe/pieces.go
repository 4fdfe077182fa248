package clipbpe

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

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
