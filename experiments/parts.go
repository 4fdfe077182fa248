package main

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"sagbench/configs"
	"sagbench/models"
)

// parts are the further checkpoints that the model's flags name.
func (r *row) parts() []inputPath {
	c, ok := r.model.Flags.(models.Composite)
	if !ok {
		return nil
	}
	var paths []inputPath
	for _, b := range c.Parts() {
		paths = append(paths, pathOf(b))
	}
	return paths
}

// findPart is models.Options.Find for experiment files.
func findPart(b configs.Block) (string, error) {
	p := pathOf(b)
	if len(p.Unset) > 0 {
		return "", b.Errorf("%s is not set", strings.Join(p.Unset, ", "))
	}
	return p.Path, nil
}

// network is the hash of all files that a row's network is made of: that of the
// one file, or one of the hashes of several.
func (h hashes) network(r *row) (string, error) {
	files, err := models.Files(r.model.Flags, r.checkpoint.Path, findPart)
	if err != nil {
		return "", err
	}
	if len(files) == 1 {
		return h.of(files[0])
	}
	all := sha256.New()
	for _, path := range files {
		sum, err := h.of(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(all, sum)
	}
	return fmt.Sprintf("%x", all.Sum(nil)), nil
}
