package sd

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/clipbpe"
)

// notes is Noter: the text of prompts that is cut off, and which weights of a
// single file are used.
func (p pipeline) notes(path string, prompts []string, opt models.Options) ([]string, error) {
	averages, tokens, err := p.openTokens(path, opt)
	var notes []string
	if averages {
		used := map[bool]string{false: "raw ones are used; extract_ema: true takes the averages", true: "averages are used (extract_ema)"}[p.ExtractEMA]
		notes = append(notes, fmt.Sprintf("%s: holds the U-Net's weights and their averages; the %s", filepath.Base(path), used))
	}
	for _, t := range tokens {
		if t == nil || err != nil {
			continue
		}
		if note := t.cut(prompts); note != "" && !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	return notes, err
}

// cut says how many of the prompts are longer than the text encoder reads; "" where
// none is.
func (t *clipTokens) cut(prompts []string) string {
	long, rest, seen := 0, []string(nil), map[string]bool{}
	for _, p := range prompts {
		if seen[p] {
			continue
		}
		seen[p] = true
		cut := t.Cut(p, t.length)
		if cut == "" {
			continue
		}
		if long++; long <= 3 {
			rest = append(rest, fmt.Sprintf("%q", shortened(cut)))
		}
	}
	switch {
	case long == 0:
		return ""
	case long > len(rest):
		rest = append(rest, "…")
	}
	return fmt.Sprintf("%d of %d prompts are longer than the %d tokens that the text encoder reads; cut off: %s", long, len(seen), t.length-2, strings.Join(rest, ", "))
}

// openTokens are the tokenizers alone, none where prompts are not taken, nil those
// that are not there, and whether a single file holds averages of the U-Net's
// weights.
func (p pipeline) openTokens(path string, opt models.Options) (averages bool, all []*clipTokens, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return false, nil, err
	case info.IsDir() && p.Component != "":
		return false, nil, nil
	case info.IsDir():
		if path, err = snapshot(path); err != nil {
			return false, nil, err
		}
		for _, part := range p.textParts {
			t, errTokens := openCLIPTokens(filepath.Join(path, part.tokenizer))
			all, err = append(all, t), errors.Join(err, errTokens)
		}
		return false, all, err
	}
	w, err := fileWeights(path, opt.Weights)
	if err != nil {
		return false, nil, err
	}
	defer w.Close()
	averages = begins(w.tensors, ldmEMA)
	s, err := p.split(w)
	if err != nil || p.Component != "" {
		return averages, nil, err
	}
	d, err := p.describe(s)
	if err != nil {
		return averages, nil, err
	}
	all, err = p.singleTokens(s, d)
	return averages, all, err
}

// imageSides is WithImageSide: what the flags say, else what the U-Net was trained
// on.
func (p pipeline) imageSides(path string) (height, width int) {
	d, err := p.described(path)
	if err == nil && d.unet.Validate() == nil && d.vae.Validate() == nil {
		s, f := p.latentSize(d.unet, d.vae), d.vae.factor()
		height, width = s.height*f, s.width*f
	}
	return cmp.Or(p.Height, height), cmp.Or(p.Width, width)
}

// latentSize is the size that was asked for, or that the U-Net was trained on.
func (p pipeline) latentSize(u *sdUNetConfig, v *vaeConfig) size {
	s := u.latentSize()
	return size{cmp.Or(p.Height/v.factor(), s.height), cmp.Or(p.Width/v.factor(), s.width)}
}

// described is what the configurations of a folder tell, or the shapes of a single
// file.
func (p pipeline) described(path string) (d description, err error) {
	if isFile(path) {
		w, err := fileWeights(path, "")
		if err != nil {
			return d, err
		}
		defer w.Close()
		s, err := p.split(w)
		if err != nil {
			return d, err
		}
		return p.describe(s)
	}
	if path, err = snapshot(path); err != nil {
		return d, err
	}
	d = description{unet: newSDUNetConfig(), vae: newVAEConfig()}
	err = errors.Join(readConfig(filepath.Join(path, "unet"), d.unet), readConfig(filepath.Join(path, "vae"), d.vae))
	for _, t := range p.textParts {
		text := newCLIPTextConfig()
		d.texts, err = append(d.texts, text), errors.Join(err, readConfig(filepath.Join(path, t.encoder), text))
	}
	return d, err
}

// files is FileLister: of a folder the files of the parts that are used, of a single
// file that and what the flags name.
func (p pipeline) files(path string) (files []string, err error) {
	if !p.unetFile.IsZero() {
		other, err := p.unetFile.Find()
		if err != nil {
			return nil, err
		}
		files = append(files, other)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	if !info.IsDir() {
		if config := besideConfig(path); config != "" && p.Component == "unet" {
			files = append(files, config)
		}
		return p.singleFiles(append(files, path))
	}
	if path, err = snapshot(path); err != nil {
		return nil, err
	}
	if p.Component == "" {
		if err := p.checkPipeline(path); err != nil {
			return nil, err
		}
	}
	for _, part := range p.parts() {
		if part.stem == (stems{}) || p.Component != "" && p.Component != part.name {
			continue
		}
		folder := filepath.Join(path, part.name)
		if p.Component != "" {
			folder = partFolder(path, part.name)
		}
		if part.name == "unet" && !p.unetFile.IsZero() {
			files = append(files, filepath.Join(folder, "config.json"))
			continue
		}
		of, err := componentFiles(folder, part.stem, p.Variant)
		if err != nil {
			return nil, err
		}
		files = append(files, of...)
	}
	if p.Component == "" {
		for _, t := range p.textParts {
			files = append(files, clipbpe.Files(filepath.Join(path, t.tokenizer))...)
		}
		files = append(files, filepath.Join(path, "scheduler", "scheduler_config.json"))
		if index := filepath.Join(path, "model_index.json"); p.indexed && isFile(index) {
			files = append(files, index)
		}
	}
	return files, nil
}

// singleFiles adds those that the flags of a single file name.
func (p pipeline) singleFiles(files []string) ([]string, error) {
	if !p.OriginalConfig.IsZero() {
		config, err := p.OriginalConfig.Find()
		if err != nil {
			return nil, err
		}
		files = append(files, config)
	}
	for _, t := range p.stated {
		if t.tokenizer.IsZero() {
			continue
		}
		folder, err := t.tokenizer.Find()
		if err != nil {
			return nil, err
		}
		files = append(files, clipbpe.Files(folder)...)
	}
	return files, nil
}

// named is Composite: the further files that the flags name.
func (p pipeline) named() []models.Part {
	all := []models.Part{
		{File: p.OriginalConfig, Kind: "original_config", Check: func(path string) error { _, err := originalDocument(path); return err }},
		{File: p.unetFile, Kind: "U-Net"},
	}
	for _, t := range p.stated {
		all = append(all, models.Part{File: t.tokenizer, Kind: "tokenizer", Check: func(path string) error { _, err := openCLIPTokens(path); return err }})
	}
	return slices.DeleteFunc(all, func(p models.Part) bool { return p.IsZero() })
}
