package store

import (
	"bytes"
	"encoding/json"
	"path/filepath"
)

// PromptsFile is what a run's prompts are called in its folder: an object a line, of
// image i that of line i mod n of the n, in the form that prompts_file of an experiment
// takes. It is there where run.yaml does not name the texts themselves.
const PromptsFile = "prompts.jsonl"

// A Prompt is what images are drawn from.
type Prompt struct {
	Text     string  `json:"prompt"`
	Negative *string `json:"negative_prompt,omitempty"` // "" for what the model has; nil where no image of the run has one
	FileName string  `json:"file_name,omitempty"`       // of the image of a data set that the text is a caption of
}

// WritePrompts writes the prompts of a run into its folder.
func WritePrompts(folder string, prompts []Prompt) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	for _, p := range prompts {
		if err := e.Encode(p); err != nil {
			return err
		}
	}
	return WriteFile(filepath.Join(folder, PromptsFile), out.Bytes())
}
