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

// Whatever is in a file of prompts, it is a list of texts or refused, and what is drawn
// from it are its texts.
func FuzzPrompts(f *testing.F) {
	f.Add([]byte("a\n\n b \r\nc"), ".txt", uint64(0))
	f.Add([]byte("\xef\xbb\xbfa\x00"), ".txt", uint64(1))
	f.Add([]byte("{\"prompt\": \"a\", \"negative_prompt\": \"b\", \"file_name\": \"c.jpg\", \"x\": [1]}\n{\"prompt\": \"\\ud800\"}"), ".jsonl", uint64(2))
	f.Add([]byte(`{"images": [{"id": 2, "file_name": "b.jpg"}, {"id": 1, "file_name": "a.jpg"}], "annotations": [{"id": 1, "image_id": 2, "caption": "a "}, {"id": 2, "image_id": 2, "caption": ""}]}`), ".json", uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, kind string, seed uint64) {
		if kind != ".json" && kind != ".jsonl" {
			kind = ".txt"
		}
		path := filepath.Join(t.TempDir(), "prompts"+kind)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		read, err := readPromptsFile(sampling.File{Path: path})
		if err != nil {
			if len(err.Error()) > 1900+len(path) {
				t.Errorf("a message of %d bytes: %.2000s", len(err.Error()), err)
			}
			return
		}
		n := len(read.lines.texts) + len(read.captioned)
		drawn, err := read.draw(PromptsDraw{Number: (n + 1) / 2, Seed: seed})
		if err != nil || n == 0 || len(drawn.texts) != (n+1)/2 {
			t.Errorf("%d of %d prompts are drawn: %v", len(drawn.texts), n, err)
		}
		for _, p := range append(drawn.texts, read.lines.texts...) {
			if p == "" || strings.TrimSpace(p) != p || kind == ".txt" && strings.Contains(p, "\n") {
				t.Errorf("prompt %q", p)
			}
		}
		for _, l := range []promptLines{drawn, read.lines} {
			if l.names != nil && len(l.names) != len(l.texts) || l.negative != nil && len(l.negative) != len(l.texts) {
				t.Errorf("%d texts, %d negative ones, %d names", len(l.texts), len(l.negative), len(l.names))
			}
		}
	})
}
