package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// Whatever is wrong with the input: one message that names it, status 1, and
// the results are as they were.
func TestBadInput(t *testing.T) {
	folder, results := t.TempDir(), t.TempDir()
	good := tiny.Experiment(t, folder)
	succeed(t, "sample", good, "sampler.ddpm.steps=1", "samples=4", "--results", results)
	before := tiny.Tree(t, results)

	broken := filepath.Join(folder, "broken")
	copyFile(t, "../models/pretrained/adm-cond.pt", broken+".pt")
	truncate(t, broken+".pt")
	tiny.Write(t, broken+".npz", "not an archive")
	if err := tiny.WriteImages(filepath.Join(folder, "float.npz"), make([]uint8, 3), 1, 1, 1); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		replace []string // in the experiment
		args    []string // after the file
		want    []string // in the message
	}{
		"unknown key":         {[]string{"blur_sigma", "blursigma"}, nil, []string{"tiny.yaml:10", `unknown key "blursigma"`, "blur_sigma"}},
		"unknown top key":     {[]string{"seed:", "sede:"}, nil, []string{"tiny.yaml:3", `"sede"`, "seed"}},
		"wrong type":          {[]string{"samples: 8", "samples: many"}, nil, []string{"tiny.yaml:2", "samples", "a whole number", "many"}},
		"no samples":          {[]string{"samples: 8", "samples: 0"}, nil, []string{"tiny.yaml:2", "samples is 0"}},
		"name with a slash":   {[]string{"name: tiny", "name: ../tiny"}, nil, []string{"tiny.yaml:1", "name"}},
		"sweep path":          {[]string{"guidance.sag.scale: [", "guidance.sga.scale: ["}, nil, []string{"tiny.yaml:14", `"sga"`, "sag"}},
		"sweep last key":      {[]string{"guidance.sag.scale: [", "guidance.sag.scal: ["}, nil, []string{"tiny.yaml:14", `"scal"`, "scale"}},
		"unknown sampler":     {[]string{"ddpm:", "ddpn:"}, nil, []string{"tiny.yaml:9", `"ddpn"`, "ddpm"}},
		"unknown metric":      {[]string{"recall]", "recal]"}, nil, []string{"tiny.yaml:13", `"recal"`, "recall"}},
		"unknown family":      {[]string{"family: adm", "family: amd"}, nil, []string{"tiny.yaml:5", `"amd"`}},
		"family of no images": {nil, []string{"model=!replace {family: inception, checkpoint: ../models/pretrained/inception.pt, input_size: 107}"}, []string{"inception", "draws no images"}},
		"respacing":           {[]string{"image_size: 32", "image_size: 32, timestep_respacing: 10"}, nil, []string{"timestep_respacing", "10 steps", "asks for 2"}},
		"stride":              {[]string{"{ddpm: {steps: 2}}", "{ddim: {steps: 999}}"}, nil, []string{"tiny.yaml:9", "999"}},
		"published":           {[]string{"metrics:", "published: {fid: [1, 2, 3]}\nmetrics:"}, nil, []string{"tiny.yaml:13", "3 values for the 2 rows"}},
		"published metric":    {[]string{"metrics:", "published: {fdi: 1}\nmetrics:"}, nil, []string{"tiny.yaml:13", `"fdi"`}},
		"same images twice":   {[]string{"guidance.sag.scale: [0, 0.5]", "batch: [2, 4]"}, nil, []string{"draw the same images"}},
		"no reference":        {[]string{"reference:", "#"}, nil, []string{"reference"}},
		"missing checkpoint":  {[]string{"adm-cond.pt", "nowhere.pt"}, nil, []string{"nowhere.pt", "no such file", "tiny.yaml:5"}},
		"broken checkpoint":   {nil, []string{"model.checkpoint=" + broken + ".pt"}, []string{"broken.pt", "truncated"}},
		"flags that differ":   {[]string{"num_channels: 64", "num_channels: 128"}, nil, []string{"adm-cond.pt", "num_channels: 64"}},
		"no such layer":       {[]string{"output_blocks.1.1", "output_blocks.0.0"}, nil, []string{"output_blocks.0.0", "output_blocks.1.1"}},
		"broken reference":    {nil, []string{"reference=" + broken + ".npz"}, []string{"broken.npz"}},
		"too few images":      {[]string{"samples: 8", "samples: 3"}, nil, []string{"3"}},
		"unknown override":    {nil, []string{"sampler.ddpm.stepz=3"}, []string{`"stepz"`, "steps"}},
		"unknown device":      {nil, []string{"--device", "gpu"}, []string{`"gpu"`, "cuda[:N]"}},
		"no override":         {nil, []string{"steps"}, []string{`"steps"`, "dotted.path=value"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := tiny.Experiment(t, t.TempDir(), append(c.replace, "\x00", "")...)
			scratch := t.TempDir()
			if err := os.CopyFS(scratch, os.DirFS(results)); err != nil {
				t.Fatal(err)
			}
			message := fail(t, append([]string{"run", file, "--results", scratch}, c.args...)...)
			for _, w := range c.want {
				if !strings.Contains(message, w) {
					t.Errorf("no %q in\n%s", w, message)
				}
			}
			after := tiny.Tree(t, scratch)
			for path, sum := range before {
				if after[path] != sum {
					t.Errorf("%s was changed", path)
				}
			}
		})
	}
}

// An interrupted disk: nothing half written is left, and what is there is used.
func TestDiskFull(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "sweep:", "#")
	want := undisturbed(t, "run", file)
	results := t.TempDir()
	// A limit on the size of files is to a program what a full disk is, and
	// needs no rights: 8 blocks of 512 bytes hold run.yaml, and no shard.
	p := program()
	p.Cmd.Path, p.Cmd.Args = shell(t), []string{"sh", "-c", `ulimit -f 8; exec "$0" "$@"`, os.Args[0], "run", file, "--results", results, "--threads", "1"}
	p.start(t)
	if status := p.status(t); status != statusAgain {
		t.Errorf("exit status %d, want 75", status)
	}
	message := p.stderr.String()
	for _, w := range []string{"000000-000001.npz cannot be written", "run the same command again", "nothing half written is left"} {
		if !strings.Contains(message, w) {
			t.Errorf("no %q in\n%s", w, message)
		}
	}
	for name := range tiny.Tree(t, results) {
		if base := filepath.Base(name); base != "run.yaml" && base != "plan.json" && filepath.Ext(base) != ".kind" {
			t.Errorf("%s is left", name)
		}
	}
	succeed(t, "run", file, "--results", results)
	tiny.Same(t, tiny.Tree(t, results), want)
}

func shell(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestResultsThatCannotBeWritten(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	occupied := filepath.Join(t.TempDir(), "results")
	tiny.Write(t, occupied, "a file")
	if message := fail(t, "run", file, "--results", occupied); !strings.Contains(message, occupied) {
		t.Errorf("no %q in %s", occupied, message)
	}
	if os.Geteuid() == 0 {
		occupied = "/proc/results" // nobody can make folders there, not even root
	} else if err := os.Chmod(filepath.Dir(occupied), 0o555); err != nil {
		t.Fatal(err)
	}
	if message := fail(t, "run", file, "--results", occupied+"/deeper"); !strings.Contains(message, "cannot be written") {
		t.Errorf("no reason in %s", message)
	}
}

// A checkpoint of other content is another run: nothing of the first is mixed
// in or lost.
func TestChangedCheckpoint(t *testing.T) {
	folder, results := t.TempDir(), t.TempDir()
	checkpoint := filepath.Join(folder, "model.pt")
	copyFile(t, "../models/pretrained/adm-cond.pt", checkpoint)
	file := tiny.Experiment(t, folder, "MODELS/adm-cond.pt", checkpoint, "sweep:", "#")
	succeed(t, "sample", file, "samples=4", "--results", results)
	before := tiny.Tree(t, results)
	copyFile(t, "../models/pretrained/adm-uncond.pt", checkpoint)
	succeed(t, "sample", file, "samples=4", "model.class_cond=false", "--results", results)
	after := tiny.Tree(t, results)
	for path, sum := range before {
		if after[path] != sum {
			t.Errorf("%s was changed", path)
		}
	}
	if len(after) != 2*len(before) {
		t.Errorf("%d files, want %d", len(after), 2*len(before))
	}
}

func TestPlanWritesNothing(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	results := filepath.Join(t.TempDir(), "results")
	p := succeed(t, "plan", file, "--results", results, "--trial")
	for _, w := range []string{"s=0.5", "to do: 16 images in 2 rows: 48 passes", "time:  about"} {
		if !strings.Contains(p.stdout.String(), w) {
			t.Errorf("no %q in\n%s", w, &p.stdout)
		}
	}
	if store.Exists(results) {
		t.Errorf("%s was made", results)
	}
	message := fail(t, "plan", file, "model.checkpoint=${NOWHERE_SET}/model.pt", "--results", results)
	if !strings.Contains(message, "NOWHERE_SET is not set") {
		t.Errorf("no word about the variable in %s", message)
	}
}

// What keeps a network from drawing comes before anything is drawn.
func TestPlanOpensNetworks(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	message := fail(t, "plan", file, "guidance.sag.layer=output_blocks.9.1")
	if !strings.Contains(message, `layer "output_blocks.9.1" is no attention layer of this network; it has input_blocks`) {
		t.Errorf("an attention layer that is not there: %s", message)
	}
	dit := "model=!replace {family: dit, checkpoint: ../models/pretrained/dit.pt, depth: 6, hidden_size: 128, input_size: 16, num_classes: 10, num_heads: 4}"
	for _, command := range []string{"plan", "run"} {
		message = fail(t, command, file, dit, "guidance.sag.layer=blocks.3.attn", "--results", t.TempDir())
		if !strings.Contains(message, "the flags name no vae") {
			t.Errorf("%s: latents without an autoencoder: %s", command, message)
		}
	}
}

// Scores of the command eval are those of run.
func TestEval(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "sweep:", "#")
	results := t.TempDir()
	succeed(t, "run", file, "--results", results)
	rows, err := store.FindMetrics(results)
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	samples, err := filepath.Glob(filepath.Join(results, "*", "*", "samples", "*.npz"))
	if err != nil || len(samples) != 1 {
		t.Fatal(samples, err)
	}
	network := []string{"--inception", "../models/pretrained/inception.pt", "--input-size", "107"}
	output := filepath.Join(results, "scores.json")
	p := succeed(t, append([]string{"eval", tiny.Reference(), samples[0], "--json", output}, network...)...)
	scores, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range rows[0].Scores {
		if line := "│ " + s.Title + " " + map[string]string{store.LowerIsBetter: "↓", store.HigherIsBetter: "↑"}[s.Direction]; !strings.Contains(p.stdout.String(), line) {
			t.Errorf("no %q in\n%s", line, &p.stdout)
		}
		if value := fmt.Sprintf(`"value": %v`, s.Value); !strings.Contains(string(scores), value) {
			t.Errorf("%s: no %s in\n%s", s.Name, value, scores)
		}
	}
	if len(rows[0].Scores) != 5 {
		t.Errorf("%d scores, want 5", len(rows[0].Scores))
	}
	embedded := []string{"eval", "../models/pretrained/reference.npz", samples[0], "--inception", "../models/pretrained/inception.pt", "--metrics", "fid", "--input-size"}
	for _, size := range []string{"299", "108"} { // its statistics are of images of 107×107, of which the file says nothing
		if message := fail(t, append(embedded, size)...); !strings.Contains(message, "reference.npz: its statistics were made with input size 107, these features with "+size) {
			t.Errorf("--input-size %s: %s", size, message)
		}
	}
	if said := succeed(t, append(embedded, "107")...).stderr.String(); strings.Contains(said, "do not say how") {
		t.Errorf("of the embedded reference it is known how it was made: %s", said)
	}
	fresh := t.TempDir()
	for _, c := range []string{"plan", "run"} {
		if message := fail(t, c, file, "reference=../models/pretrained/reference.npz", "inception.input_size=108", "--results", fresh); !strings.Contains(message, "input size 107, these features with 108") {
			t.Errorf("%s: %s", c, message)
		}
	}
	if drawn, _ := filepath.Glob(filepath.Join(fresh, "*", "*")); len(drawn) > 0 {
		t.Errorf("images were drawn for another reference: %q", drawn)
	}
	message := fail(t, append([]string{"eval", tiny.Reference(), "../models/pretrained/inception.pt"}, network...)...)
	if !strings.Contains(message, "inception.pt") {
		t.Errorf("no file named in %s", message)
	}
	if message := fail(t, "eval", tiny.Reference(), samples[0]); !strings.Contains(message, "--inception") {
		t.Errorf("no flag named in %s", message)
	}
}
