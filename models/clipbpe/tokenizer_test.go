package clipbpe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/fuzzing"
	"sagbench/models/checkpoint"
)

const cases = "../../experiments/refcase/testdata/cases/"

func load(t testing.TB, folder string) *Tokenizer {
	t.Helper()
	tok, err := Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestCases compares with the ids that transformers' tokenizer gave.
func TestCases(t *testing.T) {
	for _, name := range []string{"tokenize", "tokenize-sd2pad"} {
		tok := load(t, cases+name+"/model/tokenizer")
		data, err := os.ReadFile(cases + name + "/prompts.json")
		if err != nil {
			t.Fatal(err)
		}
		var prompts []string
		if err := json.Unmarshal(data, &prompts); err != nil {
			t.Fatal(err)
		}
		f, err := checkpoint.Open(cases + name + "/io.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		wantIDs, err := f.Tensors["out.ids"].Int64()
		if err != nil {
			t.Fatal(err)
		}
		wantMask, err := f.Tensors["out.attention_mask"].Int64()
		if err != nil {
			t.Fatal(err)
		}
		if len(wantIDs) != 77*len(prompts) {
			t.Fatalf("%s: %d ids for %d prompts", name, len(wantIDs), len(prompts))
		}
		for i, p := range prompts {
			ids, mask, err := tok.Encode(p, 77)
			if want := wantIDs[77*i : 77*(i+1)]; err != nil || !slices.Equal(ids, want) {
				t.Errorf("%s: %q: got %v, want %v, %v", name, p, ids, want, err)
			}
			if want := wantMask[77*i : 77*(i+1)]; !slices.Equal(mask, want) {
				t.Errorf("%s: %q: mask %v, want %v", name, p, mask, want)
			}
		}
	}
}

// TestJSONOnly: tokenizer.json alone gives the same tokenizer.
func TestJSONOnly(t *testing.T) {
	whole := load(t, fashion)
	folder := spoiled(t, fashion, func(file func(string) string) {
		must(t, os.Remove(file(vocabJSON)))
		must(t, os.Remove(file(mergesTXT)))
	})
	alone := load(t, folder)
	for _, p := range []string{"a photo of an ankle boot", "A Dark SNEAKER!", "bag<|endoftext|>xx", "", "東京"} {
		if a, b := whole.Tokens(p), alone.Tokens(p); !slices.Equal(a, b) {
			t.Errorf("%q: %v and, from tokenizer.json, %v", p, a, b)
		}
	}
	if whole.Size() != 611 || alone.Size() != 611 || whole.MaxLength() != 77 || whole.EOS() != 610 {
		t.Errorf("sizes %d and %d, length %d, end token %d; want 611, 611, 77, 610", whole.Size(), alone.Size(), whole.MaxLength(), whole.EOS())
	}
}

const fashion = "../pretrained/sd/tokenizer"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// spoiled is a copy of a tokenizer's folder after spoil, which is given a func
// from a file's name to its path.
func spoiled(t testing.TB, folder string, spoil func(func(string) string)) string {
	t.Helper()
	to := t.TempDir()
	must(t, os.CopyFS(to, os.DirFS(folder)))
	spoil(func(name string) string { return filepath.Join(to, name) })
	return to
}

func replaceIn(t testing.TB, path, old, by string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	if !strings.Contains(string(data), old) {
		t.Fatalf("%s does not hold %q", path, old)
	}
	must(t, os.WriteFile(path, []byte(strings.Replace(string(data), old, by, 1)), 0o644))
}

func TestFaults(t *testing.T) {
	write := func(name, text string) func(func(string) string) {
		return func(file func(string) string) { must(t, os.WriteFile(file(name), []byte(text), 0o644)) }
	}
	replace := func(name, old, by string) func(func(string) string) {
		return func(file func(string) string) { replaceIn(t, file(name), old, by) }
	}
	remove := func(names ...string) func(func(string) string) {
		return func(file func(string) string) {
			for _, n := range names {
				must(t, os.Remove(file(n)))
			}
		}
	}
	for _, c := range []struct {
		folder, want string
		spoil        func(func(string) string)
	}{
		{cases + "tokenize/model/tokenizer", "the folder lacks merges.txt, tokenizer.json", remove(mergesTXT)},
		{fashion, "the folder lacks vocab.json, merges.txt, tokenizer.json", remove(vocabJSON, mergesTXT, tokenizerJSON)},
		{fashion, "vocab.json: is empty", write(vocabJSON, "")},
		{fashion, "vocab.json: byte 9: the file is truncated", write(vocabJSON, `{"a</w>":`)},
		{fashion, `expected an object of tokens and ids: found [`, write(vocabJSON, "[]")},
		{fashion, `token "!" is there twice`, replace(vocabJSON, `"\"": 1`, `"!": 1`)},
		{cases + "tokenize/model/tokenizer", `id 0 is given to "!" and to "\""`, replace(vocabJSON, `"\"": 1`, `"\"": 0`)},
		{fashion, `token "!" has id 0.5, expected a whole number`, replace(vocabJSON, `"!": 0`, `"!": 0.5`)},
		{cases + "tokenize/model/tokenizer", `token "!" has id -1; expected 0 to`, replace(vocabJSON, `"!": 0`, `"!": -1`)},
		{fashion, "something follows", func(file func(string) string) {
			data, err := os.ReadFile(file(vocabJSON))
			must(t, err)
			must(t, os.WriteFile(file(vocabJSON), append(data, "{}"...), 0o644))
		}},
		{fashion, `disagrees with vocab.json: token "!" (and 0 others) is missing there or has another id`, replace(vocabJSON, `"!": 0`, `"!": 9999`)},
		{fashion, `tokenizer.json: disagrees with merges.txt: 97 merges here, 97 there`, replace(mergesTXT, "r e\n", "e r\n")},
		{cases + "tokenize/model/tokenizer", `merges.txt: line 2: the vocabulary has no token "tq"; do the two files belong together?`, replace(mergesTXT, "t h\n", "t q\n")},
		{cases + "tokenize/model/tokenizer", `merges.txt: line 2: "th": expected two tokens with a space between`, replace(mergesTXT, "t h\n", "th\n")},
		{cases + "tokenize/model/tokenizer", `vocab.json: holds no letter with </w>`, write(vocabJSON, `{"a": 0}`)},
		{cases + "tokenize/model/tokenizer", `tokenizer_class "GPT2Tokenizer" is not supported; supported: CLIPTokenizer`, replace(configJSON, "CLIPTokenizer", "GPT2Tokenizer")},
		{cases + "tokenize/model/tokenizer", `do_lower_case false is not supported`, replace(configJSON, `"do_lower_case": true`, `"do_lower_case": false`)},
		{cases + "tokenize/model/tokenizer", `add_prefix_space true is not supported`, replace(configJSON, `"add_prefix_space": false`, `"add_prefix_space": true`)},
		{cases + "tokenize/model/tokenizer", `single_word, lstrip and rstrip are not supported`, replace(specialJSON, `"lstrip": false`, `"lstrip": true`)},
		{cases + "tokenize/model/tokenizer", `token "<pad>" is not in the vocabulary`, replace(specialJSON, `"pad_token": "<|endoftext|>"`, `"pad_token": "<pad>"`)},
		{cases + "tokenize/model/tokenizer", `token "<x>" has id 5, which is taken (by "&")`, write(addedJSON, `{"<x>": 5}`)},
		{cases + "tokenize/model/tokenizer", `token "!" has id 7 here and 0 in the vocabulary`, write(addedJSON, `{"!": 7}`)},
		{fashion, `model is "WordPiece"`, replace(tokenizerJSON, `"type": "BPE"`, `"type": "WordPiece"`)},
		{fashion, `added_tokens_decoder: "x" is no id`, replace(configJSON, `"model_max_length": 77`, `"added_tokens_decoder": {"x": {"content": "!"}}`)},
	} {
		_, err := Load(spoiled(t, c.folder, c.spoil))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	if _, err := Load(t.TempDir() + "/none"); err == nil || !strings.Contains(err.Error(), "no such folder") {
		t.Errorf("a folder that is not there: %v", err)
	}
	if _, _, err := load(t, fashion).Encode("a", 1); err == nil {
		t.Error("a length of 1 was accepted")
	}
}

// TestAddedTokens: tokens of added_tokens.json (textual inversion) are found in
// the normalized prompt, the longest first, and count as one.
func TestAddedTokens(t *testing.T) {
	tok := load(t, spoiled(t, fashion, func(file func(string) string) {
		must(t, os.WriteFile(file(addedJSON), []byte(`{"<cat>": 611, "<cat>2": 612}`), 0o644))
	}))
	boot := tok.Tokens("boot")
	for p, want := range map[string][]int64{
		"<cat>":         {611},
		"<CAT>boot":     append([]int64{611}, boot...),
		"<cat>2<cat>":   {612, 611},
		"boot <cat>2":   append(slices.Clone(boot), 612),
		"<|endoftext|>": {610},
	} {
		if got := tok.Tokens(p); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", p, got, want)
		}
	}
	if tok.Size() != 613 {
		t.Errorf("size %d, want 613", tok.Size())
	}
}

// TestMergeOrder: the earliest merge goes first, and of equal ones the leftmost.
func TestMergeOrder(t *testing.T) {
	tok := &Tokenizer{vocab: map[string]int64{"a": 0, "b": 1, "a</w>": 2, "aa": 3, "ab": 4, "ba": 5, "aa</w>": 6, "b</w>": 7}, unknown: 9}
	rank := func(merges ...string) {
		tok.merges = map[pair]merge{}
		for i, m := range merges {
			left, right, _ := strings.Cut(m, " ")
			tok.merges[pair{tok.vocab[left], tok.vocab[right]}] = merge{i, tok.vocab[left+right]}
		}
	}
	for _, c := range []struct {
		merges []string
		text   string
		want   []int64
	}{
		{nil, "aab", []int64{0, 0, 7}},
		{nil, "axb", []int64{0, 9, 7}},
		{[]string{"a a"}, "aaaab", []int64{3, 3, 7}},
		{[]string{"a a"}, "aaab", []int64{3, 0, 7}},
		{[]string{"b a", "a b"}, "ababa", []int64{0, 5, 1, 2}},
		{[]string{"a b", "b a"}, "ababa", []int64{4, 4, 2}},
		{[]string{"a a</w>", "a a"}, "aaa", []int64{0, 6}},
	} {
		rank(c.merges...)
		if got := tok.merged(nil, strings.Split(c.text, "")); !slices.Equal(got, c.want) {
			t.Errorf("%v of %s: %v, want %v", c.merges, c.text, got, c.want)
		}
	}
}

// TestAlphabet: 256 different letters, none of them white space.
func TestAlphabet(t *testing.T) {
	seen := map[string]bool{}
	for b, l := range alphabet {
		if seen[l] || strings.TrimSpace(l) == "" || len([]rune(l)) != 1 {
			t.Errorf("byte %d is %q", b, l)
		}
		seen[l] = true
	}
	if alphabet['A'] != "A" || alphabet[' '] != "Ġ" || alphabet['\n'] != "Ċ" {
		t.Errorf("A, space and newline are %q, %q, %q", alphabet['A'], alphabet[' '], alphabet['\n'])
	}
}

// FuzzEncode: any prompt gives ids of the vocabulary between begin and end.
func FuzzEncode(f *testing.F) {
	tok := load(f, fashion)
	for _, seed := range []string{"", "a photo of a bag", "<|endoftext|>", "'S 'LL", "\xff\xfe", "İ\u0307\u200b", strings.Repeat("ab", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, prompt string) {
		ids, mask, err := tok.Encode(prompt, 77)
		if err != nil || len(ids) != 77 || len(mask) != 77 || ids[0] != tok.bos {
			t.Fatalf("%v %v %v", ids, mask, err)
		}
		n := 0
		for i, id := range ids {
			if id < 0 || id >= int64(tok.Size()) {
				t.Fatalf("id %d", id)
			}
			if mask[i] == 1 {
				n++
			}
		}
		if ids[n-1] != tok.eos {
			t.Fatalf("%v ends without the end token", ids[:n])
		}
	})
}

// FuzzLoad: files of any content give a tokenizer or an error.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"a</w>": 0, "a": 1, "aa</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}`), []byte("#version\na a</w>\n"), []byte(`{"pad_token": "a"}`))
	f.Add([]byte(`{"a</w>": 0}`), []byte("a"), []byte(`{"added_tokens_decoder": {"0": {"content": "x"}}, "bos_token": {"content": 1}}`))
	f.Fuzz(func(t *testing.T, vocab, merges, config []byte) {
		folder := t.TempDir()
		for name, data := range map[string][]byte{vocabJSON: vocab, mergesTXT: merges, configJSON: config} {
			must(t, os.WriteFile(filepath.Join(folder, name), data, 0o644))
		}
		var tok *Tokenizer
		var err error
		fuzzing.Bounded(t, len(vocab)+len(merges)+len(config), 512, func() { tok, err = Load(folder) })
		if err != nil {
			return
		}
		if _, _, err := tok.Encode("a aa <|startoftext|> x", 8); err != nil {
			t.Fatal(err)
		}
	})
}
