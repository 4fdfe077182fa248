package clipbpe

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// An addedToken is a token as the JSON files describe it, a text or an object
// with flags. As in the tokenizers library, one that is a plain text is matched
// in the prompt as it is written; those of added_tokens.json are not.
type addedToken struct {
	Content    string `json:"content"`
	ID         *int64 `json:"id"`
	Normalized bool   `json:"normalized"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *addedToken) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &a.Content) == nil {
		return nil
	}
	type plain addedToken
	return json.Unmarshal(data, (*plain)(a))
}

// A specialFile is tokenizer_config.json or special_tokens_map.json.
type specialFile struct {
	BOS  *addedToken  `json:"bos_token"`
	EOS  *addedToken  `json:"eos_token"`
	UNK  *addedToken  `json:"unk_token"`
	Pad  *addedToken  `json:"pad_token"`
	More []addedToken `json:"additional_special_tokens"`

	Class          string                `json:"tokenizer_class"`
	Decoder        map[string]addedToken `json:"added_tokens_decoder"`
	ModelMaxLength json.Number           `json:"model_max_length"`
	DoLowerCase    *bool                 `json:"do_lower_case"`
	AddPrefixSpace bool                  `json:"add_prefix_space"`
}

func (l *loader) specialFile(file string) specialFile {
	var f specialFile
	if data := l.read(file); data != nil {
		if err := json.Unmarshal(data, &f); err != nil {
			l.errorf(file, "%w", err)
		}
	}
	return f
}

// special finds the begin, end, unknown and padding tokens and everything that
// is matched whole. special_tokens_map.json overrides tokenizer_config.json.
func (l *loader) special(t *Tokenizer, fast *fastFile) {
	config, m := l.specialFile(configJSON), l.specialFile(specialJSON)
	l.checkConfig(config)
	if n, err := config.ModelMaxLength.Int64(); err == nil && n < 1<<20 {
		t.maxLength = int(n)
	}
	begin, end := &addedToken{Content: "<|startoftext|>"}, &addedToken{Content: "<|endoftext|>"}
	roles := []struct {
		token *addedToken
		id    *int64
	}{
		{cmp.Or(m.BOS, config.BOS, begin), &t.bos},
		{cmp.Or(m.EOS, config.EOS, end), &t.eos},
		{cmp.Or(m.UNK, config.UNK, end), &t.unknown},
		{cmp.Or(m.Pad, config.Pad, end), &t.pad},
	}
	a := addition{l: l, t: t, tokens: map[string]addedToken{}}
	for _, r := range roles { // of several mentions of one text the last counts
		a.set("", *r.token, nil)
	}
	for _, more := range slices.Concat(config.More, m.More) {
		a.set("", more, nil)
	}
	if fast != nil {
		for _, token := range fast.added {
			a.set(tokenizerJSON, token, token.ID)
		}
	}
	for key, token := range config.Decoder {
		id, err := strconv.ParseInt(key, 10, 64)
		if err != nil {
			l.errorf(configJSON, "added_tokens_decoder: %q is no id", key)
		}
		a.set(configJSON, token, &id)
	}
	a.file(l.read(addedJSON))
	a.finish()
	for _, r := range roles {
		*r.id = a.ids[r.token.Content]
	}
}

// checkConfig refuses settings that would lead to other ids than ours.
func (l *loader) checkConfig(c specialFile) {
	if !slices.Contains([]string{"", "CLIPTokenizer", "CLIPTokenizerFast"}, c.Class) {
		l.errorf(configJSON, "tokenizer_class %q is not supported; supported: CLIPTokenizer", c.Class)
	}
	if c.DoLowerCase != nil && !*c.DoLowerCase {
		l.errorf(configJSON, "do_lower_case false is not supported; CLIP's tokenizer lower-cases")
	}
	if c.AddPrefixSpace {
		l.errorf(configJSON, "add_prefix_space true is not supported; CLIP's tokenizer adds none")
	}
}

// An addition collects the added tokens of all files.
type addition struct {
	l      *loader
	t      *Tokenizer
	tokens map[string]addedToken
	ids    map[string]int64
}

// set notes a token of a file; an id that the file has must be the vocabulary's.
func (a *addition) set(file string, token addedToken, id *int64) {
	if id != nil {
		token.ID = id
		if known, ok := a.t.vocab[token.Content]; ok && known != *id {
			a.l.errorf(file, "token %q has id %d here and %d in the vocabulary", token.Content, *id, known)
		}
	}
	if token.SingleWord || token.LStrip || token.RStrip {
		a.l.errorf(cmp.Or(file, configJSON), "token %q: single_word, lstrip and rstrip are not supported; supported: false", token.Content)
	}
	if token.ID == nil {
		token.ID = a.tokens[token.Content].ID
	}
	a.tokens[token.Content] = token
}

// file reads added_tokens.json, text → id; its tokens are matched in the
// normalized prompt unless another file says otherwise.
func (a *addition) file(data []byte) {
	if data == nil {
		return
	}
	extra := map[string]int64{}
	if err := json.Unmarshal(data, &extra); err != nil {
		a.l.errorf(addedJSON, "%w", err)
	}
	for text, id := range extra {
		token, ok := a.tokens[text]
		if !ok {
			token = addedToken{Content: text, Normalized: true}
		}
		a.set(addedJSON, token, &id)
	}
}

// finish gives every token its id and sorts out where it is matched.
func (a *addition) finish() {
	a.ids = map[string]int64{}
	texts := map[int64]string{}
	for text, id := range a.t.vocab {
		texts[id] = text
	}
	for _, text := range slices.Sorted(maps.Keys(a.tokens)) {
		token := a.tokens[text]
		id, ok := a.t.vocab[text]
		if !ok && token.ID != nil {
			id, ok = *token.ID, true
		}
		if !ok || text == "" {
			a.l.errorf(configJSON, "token %q is not in the vocabulary", text)
			continue
		}
		if other, taken := texts[id]; taken && other != text || id < 0 || id > maxID {
			a.l.errorf(configJSON, "token %q has id %d, which is taken (by %q) or out of range", text, id, other)
		}
		a.ids[text], texts[id] = id, text
		if token.Normalized {
			a.t.normalized = append(a.t.normalized, added{normalize(text), id})
		} else {
			a.t.raw = append(a.t.raw, added{text, id})
		}
	}
}
