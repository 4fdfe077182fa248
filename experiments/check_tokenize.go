package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"sagbench/models"
	"sagbench/models/ort"
)

// checkTokenize turns the prompts of prompts.json into ids.
func checkTokenize(_ context.Context, c *referenceCase) (map[string]ort.Array, error) {
	spec, err := models.Decode(c.Model)
	if err != nil {
		return nil, err
	}
	family, ok := spec.Flags.(models.Tokenizing)
	if !ok {
		return nil, c.Model.Errorf("family %s has no tokenizer", spec.Family)
	}
	path := filepath.Join(c.dir, "prompts.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	var prompts []string
	if err := json.Unmarshal(data, &prompts); err != nil {
		return nil, fmt.Errorf("check: %s: expected a list of strings: %w", path, err)
	}
	t, err := family.OpenTokenizer(filepath.Join(c.dir, spec.Checkpoint))
	if err != nil {
		return nil, err
	}
	ids, mask, err := t.Tokenize(prompts)
	return map[string]ort.Array{"ids": ids, "attention_mask": mask}, err
}
