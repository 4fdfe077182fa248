package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/tiny"
)

// atHome is a home of the test's own, with the installed ONNX Runtime in its cache
// folder, and the environment of a process that lives there.
func atHome(t *testing.T) (home string, environment []string) {
	t.Helper()
	home = t.TempDir()
	own := filepath.Join(home, ".cache", "sagbench")
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	installed, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "sagbench", "onnxruntime-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range installed {
		if err := os.Symlink(folder, filepath.Join(own, filepath.Base(folder))); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range append(os.Environ(), asProgram+"=1") {
		if name, _, _ := strings.Cut(v, "="); name != "HOME" && name != "XDG_CACHE_HOME" && name != "ORT_DISABLE_TELEMETRY" {
			environment = append(environment, v)
		}
	}
	return home, append(environment, "HOME="+home)
}

// in runs the program in an environment, to its end.
func in(t *testing.T, environment []string, args ...string) *process {
	t.Helper()
	p := program(args...)
	p.Env = environment
	p.start(t)
	if status := p.status(t); status != 0 {
		t.Fatalf("%s: exit status %d\n%s", strings.Join(args, " "), status, &p.stderr)
	}
	return p
}

// A run writes to no folder of the home but the cache's, and opens no socket:
// strace tells. Where there is no strace, it has to work without a network.
func TestNothingIsSent(t *testing.T) {
	home, environment := atHome(t)
	work := t.TempDir()
	trace := filepath.Join(work, "trace")
	run := []string{"run", tiny.Experiment(t, work), "--results", filepath.Join(work, "results")}
	tracer := []string{"strace", "-f", "-e", "signal=none", "-e", "trace=socket,connect,sendto,sendmsg,bind", "-o", trace}
	alone := []string{"unshare", "-rn"}
	works := func(prefix []string) bool {
		return exec.Command(prefix[0], append(slices.Clone(prefix[1:]), "true")...).Run() == nil
	}
	missing := ""
	var prefix []string
	switch {
	case works(tracer):
		prefix = tracer
	case works(alone):
		prefix, missing = alone, "strace does not work here: the run had no network, but whether it asked for one was NOT looked at"
	default:
		missing = "neither strace nor unshare works here: whether the run opens a socket was NOT looked at"
	}
	p := program(run...)
	p.Env = environment
	if prefix != nil {
		path, err := exec.LookPath(prefix[0])
		if err != nil {
			t.Fatal(err)
		}
		p.Path, p.Args = path, append(prefix, p.Args...)
	}
	p.start(t)
	if status := p.status(t); status != 0 {
		t.Fatalf("exit status %d\n%s", status, &p.stderr)
	}
	err := filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		name, _ := filepath.Rel(home, path)
		if !regexp.MustCompile(`^(\.|\.cache|\.cache/sagbench(/(graphs|features|onnxruntime-).*)?)$`).MatchString(name) {
			t.Errorf("the run made %s", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if missing != "" {
		t.Skip(missing)
	}
	calls, err := os.ReadFile(trace)
	if err != nil || !bytes.Contains(calls, []byte("exited with 0")) {
		t.Fatalf("the trace is not whole: %v", err)
	}
	for line := range strings.Lines(string(calls)) {
		if strings.Contains(line, "(") {
			t.Errorf("the run called %s", line)
		}
	}
}

// Damaged files in the cache change nothing: they are made anew, which is said.
// `cache` shows them, with what a killed process left, and `cache clear` removes
// them.
func TestCacheCommand(t *testing.T) {
	home, environment := atHome(t)
	work := t.TempDir()
	file := tiny.Experiment(t, work, "reference: REFERENCE", "reference: "+pngFolder(t, tiny.Reference()))
	run := func(name string) (map[string]string, string) {
		results := filepath.Join(work, name)
		p := in(t, environment, "run", file, "--results", results)
		return tiny.Tree(t, results), p.stderr.String()
	}
	want, _ := run("first")
	root := filepath.Join(home, ".cache", "sagbench")
	kept := func() (paths []string) {
		for _, pattern := range []string{"graphs/*.onnx", "features/*.npz"} {
			found, _ := filepath.Glob(filepath.Join(root, pattern))
			paths = append(paths, found...)
		}
		return paths
	}
	before := kept()
	r := rand.New(rand.NewPCG(13, 4))
	for _, path := range before {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			data[r.IntN(len(data))] ^= byte(1 + r.IntN(255))
		}
		clear(data[len(data)/2 : min(len(data), len(data)/2+4096)]) // a page that a power cut left empty
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	again, said := run("again")
	tiny.Same(t, again, want)
	if graphs, features := strings.Count(said, "graph in the user's cache folder was damaged"), strings.Count(said, "features of "); graphs == 0 || features == 0 {
		t.Errorf("%d notes on graphs, %d on features:\n%s", graphs, features, said)
	}
	sameKey := func(a, b string) bool { return filepath.Base(a)[:32] == filepath.Base(b)[:32] } // graphs are not the same bytes each time
	if after := kept(); !slices.EqualFunc(after, before, sameKey) || len(after) < 3 {
		t.Errorf("%v became %v", before, after)
	}
	if _, said := run("third"); strings.Contains(said, "damaged") {
		t.Errorf("the files that were made anew: %s", said)
	}

	left := filepath.Join(root, "features", "new-7", "features.npz")
	if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o755), os.WriteFile(left, make([]byte, 3000), 0o644)); err != nil {
		t.Fatal(err)
	}
	shown := in(t, environment, "cache").stdout.String()
	for _, want := range []string{root, fmt.Sprintf(`graphs +%d files .* at most 4\.3 GB`, len(before)-1), `features +2 files .* at most 17\.2 GB`, `onnxruntime-.*ONNX Runtime`} {
		if !regexp.MustCompile(want).MatchString(shown) {
			t.Errorf("no %s in\n%s", want, shown)
		}
	}
	if got := in(t, environment, "cache", "clear").stdout.String(); !strings.HasPrefix(got, fmt.Sprintf("removed %d files, ", len(before)+1)) {
		t.Errorf("cache clear: %s", got)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "onnxruntime-") {
			t.Errorf("cache clear left %s", e.Name())
		}
	}
}

// Checkpoints behind symbolic links are those that they lead to: a snapshot in
// Hugging Face's cache is a folder of links to files that hashes name.
func TestLinkedCheckpoints(t *testing.T) {
	work := t.TempDir()
	pretrained := filepath.Join(tiny.Root(), "models/pretrained")
	snapshot, blobs := filepath.Join(work, "snapshots", "main"), filepath.Join(work, "blobs")
	if err := os.Mkdir(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := filepath.WalkDir(pretrained, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(pretrained, path)
		if err != nil || d.IsDir() {
			return errors.Join(err, os.MkdirAll(filepath.Join(snapshot, name), 0o755))
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		blob := filepath.Join(blobs, fmt.Sprintf("blob%d", n))
		link := filepath.Join(snapshot, name)
		target, err := filepath.Rel(filepath.Dir(link), blob)
		return errors.Join(err, os.WriteFile(blob, data, 0o644), os.Symlink(target, link))
	})
	if err != nil {
		t.Fatal(err)
	}
	images := func(experiment func(folder, models string) string) {
		t.Helper()
		var trees [2]map[string]string
		for i, models := range []string{pretrained, snapshot} {
			folder := t.TempDir()
			results := filepath.Join(folder, "results")
			_, environment := atHome(t) // whose cache holds no graph with the weights in it
			in(t, environment, "run", experiment(folder, models), "--results", results)
			trees[i] = tiny.Tree(t, results)
			for name := range trees[i] {
				if filepath.Ext(name) != ".npz" {
					delete(trees[i], name)
				}
			}
		}
		if len(trees[0]) == 0 {
			t.Error("no images")
		}
		tiny.Same(t, trees[1], trees[0])
	}
	images(func(folder, models string) string { return tiny.Experiment(t, folder, "MODELS", models) })
	images(func(folder, models string) string {
		path := filepath.Join(folder, "sd.yaml")
		tiny.Write(t, path, "name: sd\nsamples: 1\nmodel: {family: sd, checkpoint: "+filepath.Join(models, "sd")+"}\nprompts: [a photo of a bag]\nsampler: {ddim: {steps: 1}}\n")
		return path
	})
}

// A cache that may not be cleared is a failure, with what to do about it.
func TestClearWithoutPermission(t *testing.T) {
	home, environment := atHome(t)
	folder := filepath.Join(home, ".cache", "sagbench", "graphs")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	tiny.Write(t, filepath.Join(folder, strings.Repeat("0", 32)+"-"+strings.Repeat("0", 64)+".onnx"), "graph")
	if err := os.Chmod(folder, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(folder, 0o755)
	p := program("cache", "clear")
	p.Env = environment
	p.within(t, withoutPrivilege(t)).start(t)
	status, message := p.status(t), p.stderr.String()
	if status != statusFailed || !strings.Contains(message, folder+" cannot be cleared") || !strings.Contains(message, "as the owner of the folder") {
		t.Errorf("exit status %d\n%s", status, message)
	}
}
