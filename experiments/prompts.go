package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// Prompting is what the images of a network that is conditioned on text are
// drawn from.
type Prompting struct {
	Prompts        []string `yaml:"prompts" doc:"list of texts, of a family that is conditioned on text: image i is drawn from text i mod n of the n, counted from 0"`
	PromptsFile    string   `yaml:"prompts_file" doc:"in place of prompts: a file with one text a line; blank lines, and spaces around a text, do not count"`
	NegativePrompt string   `yaml:"negative_prompt" doc:"what stands for ∅ in classifier-free guidance; empty = what the model's flags say, or else the empty prompt"`
}

const (
	// maxPromptsFile bounds a file that is given by mistake, in bytes.
	maxPromptsFile = 64 << 20
	// keptPrompts bounds the memory of embeddings: one of SD 2 takes 0.3 MB.
	keptPrompts = 1000
)

// readPrompts checks the row's texts against its family, and reads their file.
func (r *row) readPrompts(b configs.Block) error {
	list, _ := b.At("prompts")
	file, _ := b.At("prompts_file")
	negative, _ := b.At("negative_prompt")
	if f, ok := r.model.Flags.(models.Captioned); !ok || !f.TakesPrompts() {
		return r.refusePrompts(list, file, negative)
	}
	var errNegative error
	if r.NegativePrompt != "" && r.flagText("negative_prompt") != "" {
		errNegative = negative.Errorf("the model block gives a negative_prompt as well; give one of them")
	}
	r.prompts = r.Prompts
	var err error
	switch {
	case len(r.Prompts) > 0 && r.PromptsFile != "":
		err = file.Errorf("prompts are given as well, at %s; give one of the two (prompts=[] or prompts_file=null takes the other away)", list.Position())
	case r.PromptsFile != "":
		if r.prompts, err = promptsOf(pathOf(file)); err != nil {
			err = file.Errorf("%w", err)
		}
	case len(r.Prompts) == 0:
		err = r.Model.Errorf("family %s is conditioned on text: give prompts: a list of texts, or prompts_file: a file with one a line", r.model.Family)
	}
	return configs.Join(errNegative, err)
}

// refusePrompts is an error if there are texts, for a family that takes none.
func (r *row) refusePrompts(list, file, negative configs.Block) error {
	refuse := func(given bool, at configs.Block) error {
		if !given {
			return nil
		}
		return at.Errorf("family %s is not conditioned on text; remove it", r.model.Family)
	}
	return configs.Join(refuse(len(r.Prompts) > 0, list), refuse(r.PromptsFile != "", file), refuse(r.NegativePrompt != "", negative))
}

// flagText is the value of a flag of the family; "" without one.
func (r *row) flagText(name string) string {
	flags, err := flagsOf(r.model.Flags)
	if err != nil {
		return ""
	}
	at, _ := flags.At(name)
	text, _ := at.Text()
	return text
}

// promptsOf reads a file with one prompt a line.
func promptsOf(p inputPath) ([]string, error) {
	if len(p.Unset) > 0 {
		return nil, fmt.Errorf("%s is not set; name the folder with %[1]s=DIR", p.Unset[0])
	}
	info, err := os.Stat(p.Path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder, expected a file with one prompt a line", p.Path)
	case info.Size() > maxPromptsFile:
		return nil, fmt.Errorf("%s has %s, expected a text of at most %s with one prompt a line", p.Path, byteSize(info.Size()), byteSize(maxPromptsFile))
	}
	data, err := os.ReadFile(p.Path)
	if err != nil {
		return nil, err
	}
	return parsePrompts(p.Path, data)
}

// parsePrompts are the lines of a text in UTF-8 that are not blank.
func parsePrompts(path string, data []byte) ([]string, error) {
	var prompts []string
	line := 0
	for text := range bytes.Lines(bytes.TrimPrefix(data, []byte("\ufeff"))) {
		line++
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("%s:%d: not a text in UTF-8, expected one prompt a line", path, line)
		}
		if prompt := strings.TrimSpace(string(text)); prompt != "" {
			prompts = append(prompts, prompt)
		}
	}
	if len(prompts) == 0 {
		return nil, fmt.Errorf("%s holds no text, expected one prompt a line", path)
	}
	return prompts, nil
}

// prompt gives the predictor the embedded prompts of the images, and of the
// negative prompt where there is one. Rows without prompts are left alone.
func (r *row) prompt(ctx context.Context, p *sampling.Predictor, g models.Generator, at span) error {
	if len(r.prompts) == 0 {
		return nil
	}
	e, ok := g.(models.Prompted)
	if !ok {
		return r.Model.Errorf("family %s encodes no prompts", r.model.Family)
	}
	texts, negative := make([]string, at.len()), make([]string, at.len())
	for i := range texts {
		texts[i], negative[i] = r.prompts[(at.from+i)%len(r.prompts)], r.NegativePrompt
	}
	var err, errNull error
	p.Cond.Context, err = r.encode(ctx, e, texts)
	if r.NegativePrompt != "" {
		p.Null.Context, errNull = r.encode(ctx, e, negative)
	}
	return errors.Join(err, errNull)
}

// encode embeds one text an image, [N,L,D]. Each goes through the encoder
// alone, so that no other text of a batch can change a bit, and once.
func (r *row) encode(ctx context.Context, e models.Prompted, texts []string) (tensor.Tensor, error) {
	if r.encoded == nil {
		r.encoded = map[string]tensor.Tensor{}
	}
	var out tensor.Tensor
	for i, text := range texts {
		one, known := r.encoded[text]
		if !known {
			c, err := e.Encode(ctx, []string{text})
			if err != nil {
				return out, fmt.Errorf("row %q, prompt %q: %w", r.title(), text, err)
			}
			one = c.Context
			if len(r.encoded) < keptPrompts {
				r.encoded[text] = one
			}
		}
		if out.IsZero() {
			out = tensor.New(append([]int{len(texts)}, one.Shape[1:]...)...)
		}
		copy(out.Row(i), one.Data)
	}
	return out, nil
}
