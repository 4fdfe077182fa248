package models

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sagbench/configs"
	"sagbench/models/clipbpe"
)

// A Lister is a Family that knows which files a network is made of.
type Lister interface {
	Family
	// Files lists the files that the output of the network at path depends on,
	// in an order that is always the same; find is as in Options.
	Files(path string, find func(configs.Block) (string, error)) ([]string, error)
}

// Files lists the files that a family's network at path is made of: those that
// a Lister names, or the file itself, or all files of a folder.
func Files(f Family, path string, find func(configs.Block) (string, error)) ([]string, error) {
	if l, ok := f.(Lister); ok {
		return l.Files(path, find)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(name) // links are followed, as in a cache of a hub
		if err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	return files, nil
}

var (
	_ Lister = (*CLIPText)(nil)
	_ Lister = (*DiT)(nil)
	_ Lister = (*SD)(nil)
	_ Lister = (*VAE)(nil)
)

// Files implements Lister: config.json and the weights that it is opened with.
func (c *VAE) Files(path string, _ func(configs.Block) (string, error)) ([]string, error) {
	return componentFiles(path, diffusersStems, c.Variant)
}

// Files implements Lister: config.json and the weights that it is opened with.
func (c *CLIPText) Files(path string, _ func(configs.Block) (string, error)) ([]string, error) {
	return componentFiles(path, transformersStems, c.Variant)
}

// componentFiles are the files of a part of a diffusers folder.
func componentFiles(folder string, stem stems, variant string) ([]string, error) {
	w, err := folderWeights(folder, stem, variant)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	files := []string{filepath.Join(folder, "config.json")}
	for _, f := range w.files {
		files = append(files, f.Path)
	}
	return files, nil
}

// Files implements Lister: of a folder the files of the parts that are used, of
// a single file that and what the flags name.
func (c *SD) Files(path string, find func(configs.Block) (string, error)) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	if !info.IsDir() {
		return c.singleFiles(path, find)
	}
	if c.Component == "" {
		if err := checkPipeline(path); err != nil {
			return nil, err
		}
	}
	var files []string
	for _, part := range []struct {
		name string
		stem stems
	}{{"unet", diffusersStems}, {"vae", diffusersStems}, {"text_encoder", transformersStems}} {
		if c.Component != "" && c.Component != part.name {
			continue
		}
		folder := filepath.Join(path, part.name)
		if c.Component != "" {
			folder = partFolder(path, part.name)
		}
		of, err := componentFiles(folder, part.stem, c.Variant)
		if err != nil {
			return nil, err
		}
		files = append(files, of...)
	}
	if c.Component == "" {
		files = append(files, clipbpe.Files(filepath.Join(path, "tokenizer"))...)
		files = append(files, filepath.Join(path, "scheduler", "scheduler_config.json"))
	}
	return files, nil
}

func (c *SD) singleFiles(path string, lookUp func(configs.Block) (string, error)) ([]string, error) {
	files := []string{path}
	if !c.OriginalConfig.IsNull() {
		config, err := find(lookUp, c.OriginalConfig)
		if err != nil {
			return nil, err
		}
		files = append(files, config)
	}
	if !c.Tokenizer.IsNull() {
		folder, err := find(lookUp, c.Tokenizer)
		if err != nil {
			return nil, err
		}
		files = append(files, clipbpe.Files(folder)...)
	}
	return files, nil
}

// Files implements Lister: the checkpoint, and the autoencoder's files.
func (c *DiT) Files(path string, find func(configs.Block) (string, error)) ([]string, error) {
	files := []string{path}
	if c.VAE.IsNull() {
		return files, nil
	}
	s, err := c.vaeSpec()
	if err != nil {
		return nil, err
	}
	vae, err := c.vaePath(s, find)
	if err != nil {
		return nil, err
	}
	parts, err := Files(s.Flags, vae, find)
	return append(files, parts...), err
}
