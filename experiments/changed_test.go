package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sagbench/internal/tiny"
)

// A file that is replaced while a run uses it stops the run: what would be drawn or
// scored with the new one would stand under the hash of the old. What was drawn
// before stays, and is what an undisturbed run draws.
func TestInputChangesDuringRun(t *testing.T) {
	folder, results := t.TempDir(), t.TempDir()
	pretrained := filepath.Join(tiny.Root(), "models/pretrained")
	inputs := map[string][]byte{}
	for name, from := range map[string]string{"adm.pt": filepath.Join(pretrained, "adm-cond.pt"), "inception.pt": filepath.Join(pretrained, "inception.pt"), "reference.npz": tiny.Reference()} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		inputs[name] = data
		tiny.Write(t, filepath.Join(folder, name), string(data))
	}
	file := tiny.Experiment(t, folder, "MODELS/adm-cond.pt", filepath.Join(folder, "adm.pt"), "MODELS/inception.pt", filepath.Join(folder, "inception.pt"), "REFERENCE", filepath.Join(folder, "reference.npz"))
	for name, data := range inputs {
		path := filepath.Join(folder, name)
		for _, rename := range []bool{true, false} {
			have := len(shards(results))
			p := program("run", file, "--results", results, "samples=1000")
			p.start(t)
			for deadline := time.Now().Add(time.Minute); len(shards(results)) <= have; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					p.Process.Kill()
					t.Fatalf("nothing is drawn\n%s", &p.stderr)
				}
			}
			other := path + ".other"
			if !rename {
				other = path
			}
			changed := append([]byte(nil), data...)
			changed[len(changed)/2] ^= 1
			tiny.Write(t, other, string(changed))
			if rename {
				if err := os.Rename(other, path); err != nil {
					t.Fatal(err)
				}
			}
			if status := p.status(t); status != 1 || !strings.Contains(p.stderr.String(), path+": changed since") {
				t.Errorf("%s, by rename: %v: exit status %d\n%s", name, rename, status, &p.stderr)
			}
			tiny.Write(t, path, string(data))
		}
	}
	drawn := shards(results)
	if len(drawn) < 6 {
		t.Errorf("%d shards are left", len(drawn))
	}
}
