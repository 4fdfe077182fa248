package clipbpe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The files of a tokenizer folder.
const (
	vocabJSON     = "vocab.json"
	mergesTXT     = "merges.txt"
	tokenizerJSON = "tokenizer.json"
	configJSON    = "tokenizer_config.json"
	specialJSON   = "special_tokens_map.json"
	addedJSON     = "added_tokens.json"
)

// Files lists the files of a folder that Load reads.
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

// A fastFile is what we read of tokenizer.json.
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
