package plan

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// loadTiny reads the tiny experiment with replacements.
func loadTiny(t *testing.T, replacements ...string) *Experiment {
	t.Helper()
	e, err := Load(tiny.Experiment(t, t.TempDir(), replacements...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Run ids are written into folders and into papers: they may change only with
// SamplingVersion.
func TestRunID(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	id := func(replacements ...string) string {
		t.Helper()
		got, err := loadTiny(t, append(replacements, "sweep:", "#")...).Rows[0].RunID(sum)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	golden := "8879a88fa2"
	if got := id(); got != golden {
		t.Errorf("run id %s, want %s", got, golden)
	}
	for _, same := range [][]string{
		{"samples: 8", "samples: 80"}, {"batch: 2", "batch: 3"}, {"name: tiny", "name: other"},
		{"recall]", "coverage]"}, {"input_size: 107", "input_size: 299"}, {"REFERENCE", "other.npz"},
		{"MODELS/adm-cond.pt", "other.pt"}, {"image_size: 32", "image_size: 32, timestep_respacing: 2"},
		{"scale: 0.5,", "scale: 0.50, heads: 0,"}, {"image_size: 32", "image_size: 32, use_fp16: false, dropout: 0.1"},
		{"image_size: 32", "image_size: 32, precision: float32"}, {"image_size: 32", "image_size: 32, use_fp16: true, precision: float32"},
	} {
		if got := id(same...); got != golden {
			t.Errorf("%v changes the run id to %s", same, got)
		}
	}
	seen := map[string]bool{golden: true}
	for _, other := range [][]string{
		{"seed: 3", "seed: 4"}, {"num_channels: 64", "num_channels: 32"}, {"steps: 2", "steps: 3"},
		{"{ddpm: {steps: 2}}", "{ddim: {steps: 2}}"}, {"{ddpm: {steps: 2}}", "{ddim: {steps: 2, eta: 1}}"},
		{"scale: 0.5", "scale: 0.6"}, {"scale: 0.5", "scale: 0"}, {"guidance:", "#"},
		{"scale: 0.5,", "scale: 0.5, clip: false,"}, {"scale: 0.5,", "scale: 0.5, start: 0,"}, // other than absent
		{"{ddpm: {steps: 2}}", "{ddim: {steps: 2, set_alpha_to_one: false}}"}, {"{ddpm: {steps: 2}}", "{pndm: {steps: 2}}"},
		{"image_size: 32", `image_size: 32, timestep_respacing: "1,1"`}, {"image_size: 32", "image_size: 32, use_fp16: true"}, {"image_size: 32", "image_size: 32, precision: bfloat16"},
	} {
		got := id(other...)
		if seen[got] {
			t.Errorf("%v has a run id that was there before, %s", other, got)
		}
		seen[got] = true
	}
	if flag, said := id("image_size: 32", "image_size: 32, use_fp16: true"), id("image_size: 32", "image_size: 32, precision: float16"); flag != said {
		t.Errorf("use_fp16: true has the run id %s, precision: float16 %s", flag, said)
	}
	r := loadTiny(t).Rows[0]
	if got, err := r.RunID(strings.Repeat("cd", 32)); err != nil || got == golden {
		t.Errorf("another checkpoint has the run id %s, %v", got, err)
	}
}

func TestFolderNames(t *testing.T) {
	r := &Row{Label: "ImageNet 256×256 (uncond.)", Swept: []store.Setting{
		{Path: "guidance.sag.scale", Value: "0.5"}, {Path: "sampler.ddim.steps", Value: "25"}, {Path: "a.b.steps", Value: "x/y"}}}
	if got, want := r.folderOf("0123456789"), "ImageNet-256-256-uncond.-s=0.5-ddim.steps=25-b.steps=x-y-0123456789"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := (&Row{}).folderOf("0123456789"), "run-0123456789"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestPublished(t *testing.T) {
	e := loadTiny(t, "metrics:", "published: {fid: [26.21, 20.31], is: [null, 45.3]}\nmetrics:")
	want := []map[string]float64{{"fid": 26.21}, {"fid": 20.31, "is": 45.3}}
	for i, r := range e.Rows {
		if fmt.Sprint(r.Published) != fmt.Sprint(want[i]) {
			t.Errorf("row %d: %v, want %v", i, r.Published, want[i])
		}
	}
	file := tiny.Experiment(t, t.TempDir(), "metrics:", "published: {fid: [26.21, 20.31]}\nmetrics:")
	e, err := Load(file, []string{"guidance.sag.scale=0.3"}) // not the authors' row
	if err != nil || len(e.Rows) != 1 || len(e.Rows[0].Published) != 0 {
		t.Errorf("%v, %v", e, err)
	}
}

func TestInputPaths(t *testing.T) {
	folder := t.TempDir()
	tiny.Write(t, filepath.Join(folder, "beside.pt"), "")
	t.Setenv("SAGBENCH_TEST_FOLDER", "/data")
	b, err := configs.Parse(filepath.Join(folder, "x.yaml"), []byte(
		`{beside: beside.pt, elsewhere: none.pt, absolute: /a.pt, set: "${SAGBENCH_TEST_FOLDER}/a.pt", unset: "${SAGBENCH_TEST_NOT_SET}/a.pt"}`))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"beside": filepath.Join(folder, "beside.pt"), "elsewhere": "none.pt", "absolute": "/a.pt", "set": "/data/a.pt",
		"unset": "${SAGBENCH_TEST_NOT_SET}/a.pt", "nowhere": "",
	} {
		got := fileAt(b, key)
		if got.Path != want || (key == "unset") != (len(got.Unset) == 1) {
			t.Errorf("%s: %+v, want %s", key, got, want)
		}
	}
}

// run.yaml is an experiment file: read again it is the same run.
func TestRunDocument(t *testing.T) {
	for _, sampler := range []string{"{ddpm: {steps: 2}}", "{ddim: {steps: 2, eta: 0.00001}}"} {
		r := loadTiny(t, "{ddpm: {steps: 2}}", sampler, "metrics:", "published: {fid: [1, 2]}\nmetrics:").Rows[1]
		data, err := r.Document()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "run.yaml")
		tiny.Write(t, path, string(data))
		again, err := Load(path, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		id1, err1 := r.RunID("")
		id2, err2 := again.Rows[0].RunID("")
		if err1 != nil || err2 != nil || id1 != id2 {
			t.Errorf("run ids %s and %s, %v, %v\n%s", id1, id2, err1, err2, data)
		}
		if got := again.Rows[0]; got.Samples != 8 || got.Published["fid"] != 2 || len(got.Metrics) != 5 {
			t.Errorf("read again: %+v", got)
		}
	}
}

// The reference of all settings explains every key.
func TestDocs(t *testing.T) {
	var out bytes.Buffer
	if err := WriteDocs(&out); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(tiny.Root(), "docs/configuration.md"))
	if err != nil || !bytes.Equal(page, out.Bytes()) {
		t.Errorf("docs/configuration.md is not what `make docs` writes: %v", err)
	}
	for _, section := range []string{"## Experiment", "## model, family: adm", "## sampler: ddim", "## guidance: sag", "## metrics: fid"} {
		if !strings.Contains(out.String(), section+"\n") {
			t.Errorf("no section %q", section)
		}
	}
	for line := range strings.SplitSeq(out.String(), "\n") {
		if cells := strings.Split(line, " | "); len(cells) == 4 && strings.TrimSuffix(cells[3], " |") == "" {
			t.Errorf("a key without a meaning: %s", line)
		}
	}
}
