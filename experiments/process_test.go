package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sagbench/eval/npz"
)

// asProgram makes the test binary behave as sagbench.
const asProgram = "SAGBENCH_TEST_AS_PROGRAM"

// tinyReference is a reference batch of a few embedded images, made once.
var tinyReference string

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(execute(os.Args[1:]))
	}
	os.Exit(setUp(m))
}

// setUp gives the tests a cache folder of their own that holds ONNX Runtime.
func setUp(m *testing.M) int {
	scratch, err := os.MkdirTemp("", "sagbench-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(scratch)
	installed, err := os.UserCacheDir()
	if err != nil {
		panic(err)
	}
	own := filepath.Join(scratch, "sagbench")
	if err := os.Mkdir(own, 0o755); err != nil {
		panic(err)
	}
	runtimes, err := filepath.Glob(filepath.Join(installed, "sagbench", "onnxruntime-*"))
	if err != nil {
		panic(err)
	}
	for _, r := range runtimes {
		if err := os.Symlink(r, filepath.Join(own, filepath.Base(r))); err != nil {
			panic(err)
		}
	}
	os.Setenv("XDG_CACHE_HOME", scratch)
	tinyReference = filepath.Join(scratch, "reference.npz")
	if err := makeReference(tinyReference, 48); err != nil {
		panic(err)
	}
	return m.Run()
}

// makeReference writes the first images of the embedded reference batch.
func makeReference(path string, n int) error {
	f, err := npz.Open("../models/pretrained/reference.npz")
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := f.Array("arr_0")
	if err != nil {
		return err
	}
	defer a.Close()
	pixels := make([]uint8, n*a.RowLen())
	if _, err := npz.ReadRows(a, pixels); err != nil {
		return err
	}
	return writeSamples(path, pixels, n, a.Shape[1], a.Shape[2])
}

func writeSamples(path string, pixels []uint8, n, h, w int) error {
	out, err := npz.Create(path)
	if err != nil {
		return err
	}
	defer out.Abort()
	a, err := out.Array("arr_0", npz.Uint8, n, h, w, 3)
	if err != nil {
		return err
	}
	if err := npz.WriteRows(a, pixels); err != nil {
		return err
	}
	return out.Commit()
}

// tinyExperiment is two rows of the embedded conditional model that take a
// second.
const tinyExperiment = `name: tiny
samples: 8
seed: 3
batch: 2
model: {family: adm, checkpoint: MODELS/adm-cond.pt, class_cond: true, num_classes: 10,
  image_size: 32, num_channels: 64, num_res_blocks: 1, channel_mult: "1,1,2",
  attention_resolutions: "16,8", num_heads: 4, num_head_channels: 32,
  use_scale_shift_norm: true, resblock_updown: true, learn_sigma: true}
sampler: {ddpm: {steps: 2}}
guidance: {sag: {scale: 0.5, blur_sigma: 1.5, blur_kernel: 9, layer: output_blocks.1.1}}
reference: REFERENCE
inception: {checkpoint: MODELS/inception.pt, input_size: 107}
metrics: [fid, sfid, is, precision, recall]
sweep: {guidance.sag.scale: [0, 0.5]}
`

// tiny writes the experiment into a folder, with replacements old, new, old, new …
func tiny(t *testing.T, folder string, replacements ...string) string {
	t.Helper()
	models, err := filepath.Abs("../models/pretrained")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(replacements...).Replace(tinyExperiment)
	text = strings.NewReplacer("MODELS", models, "REFERENCE", tinyReference).Replace(text)
	path := filepath.Join(folder, "tiny.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// A process is a run of the program.
type process struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer
}

// program is the program with one thread a network call: tests share the cores.
func program(args ...string) *process {
	p := &process{Cmd: exec.Command(os.Args[0], append(args, "--threads", "1")...)}
	p.Env = append(os.Environ(), asProgram+"=1")
	p.Cmd.Stdout, p.Cmd.Stderr = &p.stdout, &p.stderr
	return p
}

// status waits for the end and returns the exit status, -1 for a kill.
func (p *process) status(t *testing.T) int {
	t.Helper()
	err := p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

func (p *process) start(t *testing.T) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
}

// succeed runs the program to its end.
func succeed(t *testing.T, args ...string) *process {
	t.Helper()
	p := program(args...)
	p.start(t)
	if status := p.status(t); status != 0 {
		t.Fatalf("%s: exit status %d\n%s", strings.Join(args, " "), status, &p.stderr)
	}
	return p
}

// fail runs the program, which must end with status 1 and one message.
func fail(t *testing.T, args ...string) string {
	t.Helper()
	p := program(args...)
	p.start(t)
	status, message := p.status(t), p.stderr.String()
	if status != 1 || strings.Count(message, "sagbench: ") != 1 || strings.Contains(message, "goroutine ") {
		t.Fatalf("%s: exit status %d, expected 1 and one message\n%s", strings.Join(args, " "), status, message)
	}
	return message
}

// tree maps the files below a folder to hashes of their content.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(folder, path)
		files[name] = fmt.Sprintf("%x", sha256.Sum256(data))[:16]
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

// same compares two trees.
func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: content %q, want %q", name, got[name], want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == "" {
			t.Errorf("%s: a file that an undisturbed run does not make", name)
		}
	}
}

// shards lists the shards below a folder with the time of each.
func shards(folder string) map[string]time.Time {
	out := map[string]time.Time{}
	paths, _ := filepath.Glob(filepath.Join(folder, "*", "*", "samples", "??????-??????.npz"))
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil {
			out[p] = info.ModTime()
		}
	}
	return out
}

// interrupted starts a run and signals it when at least n shards are there.
func interrupted(t *testing.T, signal os.Signal, results string, n int, args ...string) *process {
	t.Helper()
	p := program(append(args, "--results", results)...)
	p.start(t)
	deadline := time.Now().Add(time.Minute)
	for len(shards(results)) < n {
		if time.Now().After(deadline) {
			p.Process.Kill()
			t.Fatalf("no %d shards after a minute\n%s", n, &p.stderr)
		}
		time.Sleep(time.Millisecond)
	}
	if err := p.Process.Signal(signal); err != nil {
		t.Fatalf("the run ended before it had %d shards: %v\n%s", n, err, &p.stderr)
	}
	return p
}
