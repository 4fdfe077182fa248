package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRuntimeMissing: that ONNX Runtime is not there is said once, whoever needs it.
func TestRuntimeMissing(t *testing.T) {
	t.Setenv("SAGBENCH_ONNXRUNTIME", "/nowhere.so")
	pretrained := "../models/pretrained/"
	for _, args := range [][]string{
		{"eval", pretrained + "reference.npz", pretrained + "reference.npz", "--inception", pretrained + "inception.pt", "--input-size", "107"},
		{"plan", "../configs/table1-fashion.yaml", "--results", t.TempDir()},
	} {
		if got := fail(t, args...); strings.Count(got, "/nowhere.so") != 1 {
			t.Errorf("%s: %s", args[0], got)
		}
	}
}

// TestSingleFileExperiment plans and draws from one file in CompVis' layout with
// its YAML file and a tokenizer: parts that are no checkpoints.
func TestSingleFileExperiment(t *testing.T) {
	cases, err := filepath.Abs("refcase/testdata/cases")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "single.yaml")
	write := func(tokenizer, config string) {
		text := strings.NewReplacer("CASES", cases, "TOKENIZER", tokenizer, "CONFIG", config).Replace(`{name: single, samples: 2, batch: 2, metrics: [], prompts: [a coat, a bag],
  sampler: {ddim: {steps: 2}},
  model: {family: sd, checkpoint: CASES/sample-sd-singlefile/model.ckpt, original_config: CONFIG, tokenizer: TOKENIZER, text_encoder: {num_attention_heads: 4}}}`)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tokenizer, config := cases+"/sample-sd-cfg/model/tokenizer", cases+"/sample-sd-singlefile/v1-inference.yaml"
	write(tokenizer, config)
	results := filepath.Join(dir, "results")
	if got := succeed(t, "plan", file, "--results", results).stdout.String(); !strings.Contains(got, "disk:  12.3 kB at most") { // 2·2·32·32·3 bytes
		t.Errorf("plan: %s", got)
	}
	succeed(t, "run", file, "--results", results)
	if pixels := drawnPixels(t, filepath.Join(results, "single"), ""); len(pixels) != 2*32*32*3 {
		t.Errorf("%d bytes of pixels", len(pixels))
	}
	write(cases, tokenizer+"/merges.txt")
	got := fail(t, "run", file)
	for _, want := range []string{"merges.txt  original_config", "expected keys and values (key: value), found", "cases  tokenizer", "needed by: run"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	write(tokenizer, config)
	p := program("plan", file, "model={family: sd, checkpoint: nowhere}", "--results", results)
	p.start(t)
	if p.status(t) != 1 || !strings.Contains(p.stdout.String(), "without the images, whose size is not known before the checkpoint is there") {
		t.Errorf("plan without a checkpoint: %s", &p.stdout)
	}
}

// TestPipelineFolders plans and draws from the folders of DDPMPipeline, DDIMPipeline
// and DiTPipeline, as inspect tells to.
func TestPipelineFolders(t *testing.T) {
	for name, want := range map[string]string{"unet2d-heads-tiny": "family: unet2d", "sample-ddim-pipeline": "family: unet2d", "dit2d-tiny": "family: dit2d"} {
		folder, err := filepath.Abs("refcase/testdata/cases/" + name + "/model")
		if err != nil {
			t.Fatal(err)
		}
		file := pasted(t, folder, "sampler: {ddim: {steps: 2}}")
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %s", name, text)
		}
		results := t.TempDir()
		succeed(t, "run", file, "--results", results)
		if pixels := drawnPixels(t, filepath.Join(results, "pasted"), ""); len(pixels)%3 != 0 || len(pixels) < 8*8*3 {
			t.Errorf("%s: %d bytes of pixels", name, len(pixels))
		}
	}
}
