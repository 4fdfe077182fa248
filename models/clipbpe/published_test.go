package clipbpe

import (
	"slices"
	"testing"
)

// TestPublished compares with ids that are widely printed for CLIP, among them
// those of its README's example.
func TestPublished(t *testing.T) {
	sd1, err := Published(false)
	if err != nil {
		t.Fatal(err)
	}
	sd2, err := Published(true)
	if err != nil {
		t.Fatal(err)
	}
	if sd1.Size() != PublishedSize || len(sd1.vocab) != PublishedSize || sd1.bos != 49406 || sd1.EOS() != 49407 || sd2.pad != 0 {
		t.Fatalf("%d tokens, begin %d, end %d, padding of SD 2.x %d", sd1.Size(), sd1.bos, sd1.EOS(), sd2.pad)
	}
	for p, want := range map[string][]int64{
		"a diagram": {320, 22697}, "a dog": {320, 1929}, "a cat": {320, 2368}, "A Photo of a CAT": {320, 1125, 539, 320, 2368}, "": nil,
		"<|endoftext|>": {49407}, "<|STARTOFTEXT|>": {49406},
	} {
		if got := sd1.Tokens(p); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", p, got, want)
		}
		if got := sd2.Tokens(p); !slices.Equal(got, want) {
			t.Errorf("%q padded with !: %v, want %v", p, got, want)
		}
	}
	if got := sd1.Tokens("!"); !slices.Equal(got, []int64{256}) {
		t.Errorf("! is %v, want 256, the end of a word", got)
	}
	if got := sd2.Tokens("cat!"); !slices.Equal(got, []int64{2368, 0}) {
		t.Errorf("cat! of SD 2.x is %v, want 2368 and the padding token", got)
	}
	ids, mask, err := sd2.Encode("a cat", 5)
	if err != nil || !slices.Equal(ids, []int64{49406, 320, 2368, 49407, 0}) || !slices.Equal(mask, []int64{1, 1, 1, 1, 0}) {
		t.Errorf("%v, %v, %v", ids, mask, err)
	}
}

// TestAlphabetOrder: the vocabularies of the cases begin with it.
func TestAlphabetOrder(t *testing.T) {
	tok := load(t, cases+"tokenize/model/tokenizer")
	for i, l := range alphabetOrder() {
		if tok.vocab[l] != int64(i) || tok.vocab[l+endOfWord] != int64(256+i) {
			t.Fatalf("letter %d is %q, of id %d", i, l, tok.vocab[l])
		}
	}
}

// Cut is what does not fit, as the tokens spell it.
func TestCut(t *testing.T) {
	p, err := Published(false)
	if err != nil {
		t.Fatal(err)
	}
	for prompt, want := range map[string]string{
		"":                                   "",
		"Ein Foto":                           "",
		"one two three four five":            "",
		"one two three four five SIX, Größe": "six , größe",
	} {
		if got := p.Cut(prompt, 7); got != want {
			t.Errorf("%q: cut %q, want %q", prompt, got, want)
		}
	}
}
