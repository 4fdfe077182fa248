package plan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/internal/tiny"
	"sagbench/sampling"
)

// Whatever an experiment says, it is planned or refused in few words. Nothing that
// it asks for is built.
func FuzzExperiment(f *testing.F) {
	text, err := os.ReadFile(tiny.Experiment(f, f.TempDir()))
	if err != nil {
		f.Fatal(err)
	}
	for _, change := range []string{"", "num_res_blocks: 1", "samples: ", "{ddpm: {steps: 2}}", "image_size: 32"} {
		f.Add([]byte(strings.Replace(string(text), change, change+"0000", 1)), "batch=1")
	}
	f.Add(text, "sweep.guidance.sag.scale=[0, 1e9]")
	f.Fuzz(func(t *testing.T, data []byte, override string) {
		path := filepath.Join(t.TempDir(), "fuzz.yaml")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := Load(path, []string{override})
		if err != nil {
			if len(err.Error()) > 2400 {
				t.Errorf("a message of %d bytes: %.3000s", len(err.Error()), err)
			}
			return
		}
		for _, r := range e.Rows {
			if r.Samples < 1 || r.Samples > 10_000_000 || r.Batch < 1 || r.Batch > 4096 {
				t.Errorf("%d samples in batches of %d", r.Samples, r.Batch)
			}
		}
	})
}

// Whatever is in a file of prompts, it is a list of texts or refused.
func FuzzPrompts(f *testing.F) {
	f.Add([]byte("a\n\n b \r\nc"))
	f.Add([]byte("\xef\xbb\xbfa\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "prompts.txt")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		prompts, err := readPromptsFile(sampling.File{Path: path})
		if (err == nil) == (len(prompts) == 0) {
			t.Errorf("%d prompts with error %v", len(prompts), err)
		}
		for _, p := range prompts {
			if p == "" || strings.TrimSpace(p) != p || strings.Contains(p, "\n") {
				t.Errorf("prompt %q", p)
			}
		}
	})
}
