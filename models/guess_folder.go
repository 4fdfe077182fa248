package models

import (
	"os"
	"path/filepath"
	"strings"
)

// A FolderGuesser is a Family that recognizes the folders that its checkpoints
// are. GuessFolder is called on a Family with defaults; ok is false where the
// folder is another's. The flags that it finds are set on the Family.
type FolderGuesser interface {
	Family
	GuessFolder(path string) (g Guess, ok bool)
}

var (
	_ FolderGuesser = (*CLIPText)(nil)
	_ FolderGuesser = (*SD)(nil)
	_ FolderGuesser = (*VAE)(nil)
)

// GuessFolder asks every family whether a folder is one of its checkpoints. A
// guess comes with what is wrong with the folder, and with the files that the
// network is made of.
func GuessFolder(path string) (found []Guess, files []string) {
	for _, name := range Families.Names() {
		family, ok := Families[name]().(FolderGuesser)
		if !ok {
			continue
		}
		g, ok := family.GuessFolder(path)
		if !ok {
			continue
		}
		g.Family = name
		of, err := Files(family, path, nil)
		if err == nil {
			files = append(files, of...)
			var m Model
			if m, err = family.Open(path, Options{}); err == nil {
				m.Close()
			}
		}
		g.Mismatches = faultLines(err)
		found = append(found, g)
	}
	return found, files
}

// faultLines are the first lines of an error.
func faultLines(err error) []string {
	if err == nil {
		return nil
	}
	lines := strings.Split(err.Error(), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimSpace(l), "models: ")
	}
	return firstFew(lines)
}

// GuessFolder implements FolderGuesser.
func (c *SD) GuessFolder(path string) (Guess, bool) {
	if partClass(path) == (&sdUNetConfig{}).class() {
		c.Component = "unet"
		return Guess{Evidence: "config.json of a UNet2DConditionModel", Flags: []Flag{flag("component", "unet")}}, true
	}
	_, errIndex := os.Stat(filepath.Join(path, "model_index.json"))
	_, errUNet := os.Stat(filepath.Join(path, "unet"))
	switch {
	case errIndex == nil:
		return Guess{Evidence: "model_index.json of a pipeline of diffusers"}, true
	case errUNet == nil:
		return Guess{Evidence: "a folder unet"}, true
	}
	return Guess{}, false
}

// GuessFolder implements FolderGuesser.
func (c *VAE) GuessFolder(path string) (Guess, bool) {
	return Guess{Evidence: "config.json of an AutoencoderKL"}, partClass(path) == (&vaeConfig{}).class()
}

// GuessFolder implements FolderGuesser.
func (c *CLIPText) GuessFolder(path string) (Guess, bool) {
	class := partClass(path)
	return Guess{Evidence: "config.json of a " + class}, strings.HasPrefix(class, "CLIPTextModel")
}

// partClass is the class of the part of a diffusers folder whose own folder
// path is, "" where it is none.
func partClass(path string) string {
	b, err := readJSON(filepath.Join(path, "config.json"))
	if err != nil {
		return ""
	}
	if at, ok := b.At("_class_name"); ok {
		name, _ := at.Text()
		return name
	}
	if at, ok := b.At("architectures"); ok && len(at.Items()) > 0 { // of transformers
		name, _ := at.Items()[0].Text()
		return name
	}
	return ""
}
