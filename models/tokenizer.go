package models

import (
	"fmt"

	"sagbench/models/clipbpe"
	"sagbench/models/ort"
)

// A Tokenizer turns prompts into the ids that a text encoder takes.
type Tokenizer interface {
	// Tokenize gives ids and attention mask, int64 [P,L] each: begin token,
	// prompt, end token, padding; what does not fit is cut off.
	Tokenize(prompts []string) (ids, mask ort.Array, err error)
}

// A Tokenizing family can open the tokenizer of its checkpoints alone.
type Tokenizing interface {
	OpenTokenizer(path string) (Tokenizer, error)
}

// clipTokens is CLIP's tokenizer for prompts of one length.
type clipTokens struct {
	*clipbpe.Tokenizer
	length int
}

// clipLength is the length of a prompt where tokenizer_config.json does not say.
const clipLength = 77

// OpenTokenizer implements Tokenizing: path is a tokenizer/ folder.
func (c *CLIPText) OpenTokenizer(path string) (Tokenizer, error) { return openCLIPTokens(path) }

func openCLIPTokens(path string) (*clipTokens, error) {
	t, err := clipbpe.Load(path)
	if err != nil {
		return nil, err
	}
	length := t.MaxLength()
	if length == 0 {
		length = clipLength
	}
	return &clipTokens{t, length}, nil
}

// Tokenize implements Tokenizer.
func (t *clipTokens) Tokenize(prompts []string) (ids, mask ort.Array, err error) {
	var allIDs, allMask []int64
	for _, p := range prompts {
		i, m, err := t.Encode(p, t.length)
		if err != nil {
			return ids, mask, fmt.Errorf("models: %w", err)
		}
		allIDs, allMask = append(allIDs, i...), append(allMask, m...)
	}
	shape := []int{len(prompts), t.length}
	return ort.Array{Shape: shape, Data: allIDs}, ort.Array{Shape: shape, Data: allMask}, nil
}
