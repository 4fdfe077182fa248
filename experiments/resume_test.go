package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// undisturbed is the tree of a run that nobody disturbs.
func undisturbed(t *testing.T, args ...string) map[string]string {
	t.Helper()
	results := t.TempDir()
	succeed(t, append(args, "--results", results)...)
	return tiny.Tree(t, results)
}

// Whatever moment a run is killed at, running it again gives the files of an
// undisturbed run, and no batch that was written is computed again.
func TestKilledAtAnyMoment(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	start := time.Now()
	want := undisturbed(t, "run", file)
	whole := time.Since(start)

	results := t.TempDir()
	dice := rand.New(rand.NewPCG(1, 2))
	kills := 0
	for kills < 10 {
		before := shards(results)
		p := program("run", file, "--results", results)
		p.start(t)
		time.Sleep(time.Duration(dice.Float64() * 0.3 * float64(whole)))
		p.Process.Kill()
		if p.status(t) == 0 {
			break
		}
		kills++
		for path, at := range shards(results) {
			if old, ok := before[path]; ok && !old.Equal(at) {
				t.Errorf("kill %d: %s was computed again", kills, path)
			}
		}
	}
	succeed(t, "run", file, "--results", results)
	tiny.Same(t, tiny.Tree(t, results), want)
	if kills < 2 {
		t.Errorf("%d kills, too few to say anything", kills)
	}
}

// Kills while shards are being merged, removed, and while metrics are written
// are rare in time; here the trees that they leave are made by hand.
func TestLeftBehindByAKill(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	results := t.TempDir()
	succeed(t, "run", file, "--results", results)
	want := tiny.Tree(t, results)

	early := t.TempDir()
	interrupted(t, os.Kill, early, 2, "run", file).status(t)
	pieces := slices.Sorted(maps.Keys(shards(early)))
	for _, piece := range pieces { // as if killed between merge and removal
		name, err := filepath.Rel(early, piece)
		if err != nil {
			t.Fatal(err)
		}
		copyFile(t, piece, filepath.Join(results, name))
	}
	runs, err := filepath.Glob(filepath.Join(results, "tiny", "*-*"))
	if err != nil || len(runs) != 2 {
		t.Fatal(runs, err)
	}
	for i, run := range runs { // as if killed while writing
		tiny.Write(t, filepath.Join(run, "samples", fmt.Sprintf(".000004-000005.npz%d", 17+i)), "PK")
		tiny.Write(t, filepath.Join(run, ".metrics.json42"), "{")
	}
	remove(t, filepath.Join(runs[0], "metrics.json"))
	tiny.Write(t, filepath.Join(runs[1], "metrics.json"), "{}")
	tiny.Write(t, filepath.Join(results, "tiny", ".lock"), "123456789\n")
	tiny.Write(t, filepath.Join(results, "tiny", ".table.md7"), "|")

	succeed(t, "run", file, "--results", results)
	tiny.Same(t, tiny.Tree(t, results), want)
}

func TestInterrupt(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	results := t.TempDir()
	p := interrupted(t, os.Interrupt, results, 1, "run", file, "samples=256")
	if status := p.status(t); status != 130 {
		t.Errorf("exit status %d, want 130", status)
	}
	message := p.stderr.String()
	if want := "to go on: sagbench run " + file + " samples=256 --results " + results; !strings.Contains(message, want) {
		t.Errorf("no %q in\n%s", want, message)
	}
	left := tiny.Tree(t, results)
	for name := range left {
		if strings.HasPrefix(filepath.Base(name), ".") || strings.Contains(name, "/claims/") || strings.Contains(name, "/workers/") {
			t.Errorf("%s is left", name)
		}
	}
	if left["tiny/.work/plan.json"] == "" {
		t.Errorf("no plan.json in %v", left)
	}
	q := interrupted(t, syscall.SIGTERM, results, 2, "run", file, "samples=256")
	if status := q.status(t); status != statusAgain { // what schedulers start again
		t.Errorf("exit status %d, want 75", status)
	}
	if status := (&stopped{signal: syscall.SIGTERM}).status(); status != 143 { // of what would begin anew
		t.Errorf("exit status %d, want 143", status)
	}
}

// A second run with the same settings helps the first; one with others is refused as
// long as somebody is at work, and told in what they differ.
func TestTwoAtOnce(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	results := t.TempDir()
	first := program("run", file, "samples=4096", "--results", results)
	first.start(t)
	defer first.Process.Kill()
	for len(shards(results)) == 0 {
		time.Sleep(time.Millisecond)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for setting, want := range map[string]string{
		"samples=4095":                      "samples: 4096 there, 4095 here",
		"batch=3":                           "batch: 2 there, 3 here",
		"guidance.sag.blur_sigma=2":         "guidance.sag.blur_sigma: 1.5 there, 2 here",
		"sweep.guidance.sag.scale=[0, 0.7]": "row 2/2 s=0.7: guidance.sag.scale: 0.5 there, 0.7 here",
		"sweep.guidance.sag.scale=[0]":      "rows: 2 there, 1 here",
	} {
		message, status := failed(t, "run", file, "samples=4096", setting, "--results", results)
		if status != statusMisuse {
			t.Errorf("%s: exit status %d, want 2", setting, status)
		}
		for _, w := range []string{want, fmt.Sprintf("process %d on %s", first.Process.Pid, host)} {
			if !strings.Contains(message, w) {
				t.Errorf("%s: no %q in %s", setting, w, message)
			}
		}
	}
	second := program("run", file, "samples=4096", "--results", results)
	second.start(t)
	defer second.Process.Kill()
	for len(must(filepath.Glob(filepath.Join(results, "tiny/.work/claims/*")))) < 2 {
		time.Sleep(time.Millisecond)
	}
	first.Process.Kill()
	second.Process.Kill()
	first.status(t)
	second.status(t)
	succeed(t, "run", file, "--results", results) // both have ended
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// Damaged shards are told of and computed again when a row is finished; shards of
// another batch size are used. There are enough images that a row is far from done when it is killed.
func TestDamagedShards(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "sweep:", "#")
	want := undisturbed(t, "run", file, "samples=32")
	results := t.TempDir()
	interrupted(t, os.Kill, results, 4, "run", file, "samples=32").status(t)
	pieces := slices.Sorted(maps.Keys(shards(results)))
	truncate(t, pieces[0])
	flip(t, pieces[1])
	tiny.Write(t, pieces[2], "<html>404</html>")
	kept := shards(results)[pieces[3]]

	p := interrupted(t, os.Kill, results, len(pieces)+3, "run", file, "samples=32", "batch=3")
	p.status(t)
	if !shards(results)[pieces[3]].Equal(kept) {
		t.Errorf("%s was whole and is computed again", pieces[3])
	}
	p = succeed(t, "run", file, "samples=32", "--results", results)
	for _, piece := range pieces[:3] {
		if name := filepath.Base(piece); !strings.Contains(p.stderr.String(), name) {
			t.Errorf("no word about %s in\n%s", name, &p.stderr)
		}
	}
	tiny.Same(t, tiny.Tree(t, results), want)
}

// A finished run whose merged file is damaged draws its images again.
func TestDamagedSamples(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	results := t.TempDir()
	succeed(t, "run", file, "--results", results)
	want := tiny.Tree(t, results)
	merged, err := filepath.Glob(filepath.Join(results, "tiny", "*", "samples", "samples_8x32x32x3.npz"))
	if err != nil || len(merged) != 2 {
		t.Fatal(merged, err)
	}
	truncate(t, merged[0])
	flip(t, merged[1])
	for _, m := range merged { // without its metrics the images are looked at again
		remove(t, filepath.Join(filepath.Dir(filepath.Dir(m)), "metrics.json"))
	}
	p := succeed(t, "run", file, "--results", results)
	tiny.Same(t, tiny.Tree(t, results), want)
	if n := strings.Count(p.stderr.String(), "8 images are computed again"); n != 2 {
		t.Errorf("%d files told of, want 2\n%s", n, &p.stderr)
	}
}

// More images later are those of a run that asked for them at once.
func TestMoreSamples(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "sweep:", "#")
	want := undisturbed(t, "run", file, "samples=12")
	results := t.TempDir()
	succeed(t, "run", file, "--results", results)
	succeed(t, "run", file, "samples=12", "--results", results)
	tiny.Same(t, tiny.Tree(t, results), want)

	succeed(t, "run", file, "--results", results) // fewer: the images stay
	if n, _ := filepath.Glob(filepath.Join(results, "tiny", "*", "samples", "*")); len(n) != 1 || filepath.Base(n[0]) != "samples_12x32x32x3.npz" {
		t.Errorf("%v, want one file of 12 images", n)
	}
	rows, err := store.FindMetrics(results)
	if err != nil || len(rows) != 1 || rows[0].Samples != 8 {
		t.Errorf("metrics of %v, %v; want 8 images", rows, err)
	}
}

// The batch changes no pixel.
func TestBatchChangesNothing(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "sweep:", "#", "samples: 8", "samples: 7")
	var want map[string]string
	for _, batch := range []string{"2", "1", "7"} {
		results := t.TempDir()
		succeed(t, "sample", file, "batch="+batch, "--results", results)
		got := tiny.Tree(t, results)
		maps.DeleteFunc(got, func(name, _ string) bool { return !strings.HasSuffix(name, ".npz") })
		if want == nil {
			want = got
		}
		tiny.Same(t, got, want)
	}
	if len(want) != 1 {
		t.Errorf("%d files, want 1", len(want))
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	tiny.Write(t, to, string(data))
}

// truncate cuts a file in half.
func truncate(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes a bit in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	tiny.Write(t, path, string(data))
}
