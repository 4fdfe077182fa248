package main

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sagbench/eval/npz"
	"sagbench/internal/tiny"
)

// Eight processes on one experiment, killed and frozen at random, some for longer than
// a claim lasts, leave what one undisturbed process leaves, byte for byte.
func TestManyProcesses(t *testing.T) {
	const processes, kills, freezes = 8, 8, 8
	file := tiny.Experiment(t, t.TempDir(), "samples: 8", "samples: 49")
	want := undisturbed(t, "run", file)

	results := t.TempDir()
	start := func(i int) *process {
		p := program("run", file, "--results", results, "--heartbeat", "100ms", "--stale", "1s", "--part", fmt.Sprintf("%d/%d", i, processes))
		p.start(t)
		t.Cleanup(func() { p.Process.Kill() })
		return p
	}
	running := make([]*process, processes)
	for i := range running {
		running[i] = start(i)
	}
	dice := rand.New(rand.NewPCG(15, 0))
	frozen := map[int]time.Time{} // until when
	killed, froze, done := 0, 0, 0
	for done < processes {
		time.Sleep(time.Duration(50+dice.IntN(100)) * time.Millisecond)
		for i, until := range frozen {
			if time.Now().After(until) {
				running[i].Process.Signal(syscall.SIGCONT)
				delete(frozen, i)
			}
		}
		for i, p := range running {
			if p == nil || !hasEnded(p) {
				continue
			}
			if status := p.status(t); status == 0 {
				running[i] = nil
				done++
			} else if status == -1 {
				running[i] = start(i)
			} else {
				t.Fatalf("part %d: exit status %d\n%s", i, status, &p.stderr)
			}
		}
		i := dice.IntN(processes)
		if running[i] == nil || len(shards(results)) == 0 && done == 0 {
			continue
		}
		switch _, is := frozen[i]; {
		case dice.IntN(2) == 0 && killed < kills:
			running[i].Process.Kill()
			delete(frozen, i)
			killed++
		case !is && froze < freezes:
			running[i].Process.Signal(syscall.SIGSTOP)
			frozen[i] = time.Now().Add(time.Duration(dice.IntN(3000)) * time.Millisecond)
			froze++
		}
	}
	t.Logf("%d kills, %d freezes", killed, froze)
	if killed < kills/2 || froze < freezes/2 {
		t.Errorf("%d kills and %d freezes, too few to say anything", killed, froze)
	}
	tiny.Same(t, tiny.Tree(t, results), want)
}

// children are the ids of the processes that a process has started.
func children(p *process) (pids []int) {
	for _, task := range must(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.Process.Pid))) {
		text, _ := os.ReadFile(task) // of a thread that may have ended
		for _, pid := range strings.Fields(string(text)) {
			pids = append(pids, must(strconv.Atoi(pid)))
		}
	}
	return pids
}

// A process a device: one that is killed is started again, the others end with the
// first, the table is printed once, and the results are those of one process.
func TestDevices(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "samples: 8", "samples: 24")
	want := undisturbed(t, "run", file)
	results := t.TempDir()
	p := program("run", file, "--results", results, "--devices", "cpu,cpu")
	p.start(t)
	defer p.Process.Kill()
	for len(shards(results)) < 2 {
		time.Sleep(time.Millisecond)
	}
	syscall.Kill(children(p)[0], syscall.SIGKILL)
	if status := p.status(t); status != 0 || !strings.Contains(p.stderr.String(), "cpu: the process ended with signal: killed; it is started again") {
		t.Errorf("exit status %d\n%s", status, &p.stderr)
	}
	tiny.Same(t, tiny.Tree(t, results), want)
	if n := strings.Count(p.stdout.String(), "Recall ↑"); n != 1 {
		t.Errorf("%d tables\n%s", n, &p.stdout)
	}
}

// However the process that started others ends, they end too, and give back what they
// had claimed.
func TestDevicesEnd(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	results := t.TempDir()
	for signal, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: statusAgain, syscall.SIGKILL: -1} {
		before := len(shards(results))
		p := program("run", file, "--results", results, "--devices", "cpu,cpu", "samples=1000")
		p.start(t)
		for len(shards(results)) < before+2 {
			time.Sleep(time.Millisecond)
		}
		pids := children(p)
		if len(pids) != 2 {
			t.Errorf("%d processes, want 2", len(pids))
		}
		p.Process.Signal(signal)
		// Wait would wait for their ends of the pipes.
		for _, pid := range pids {
			for syscall.Kill(pid, 0) == nil {
				time.Sleep(time.Millisecond)
			}
		}
		if status := p.status(t); status != want {
			t.Errorf("%v: exit status %d, want %d\n%s", signal, status, want, &p.stderr)
		}
		if left := must(filepath.Glob(filepath.Join(results, "tiny/.work/[cw]*/*"))); len(left) > 0 {
			t.Errorf("%v: %v is left", signal, left)
		}
	}
}

// hasEnded reports whether a process has ended and waits for its status to be asked.
func hasEnded(p *process) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// What a version before this one has left is continued: shards that do not tell what
// they were drawn on, its lock, what it was writing.
func TestOldResultsContinue(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	want := undisturbed(t, "run", file)
	results := t.TempDir()
	interrupted(t, os.Kill, results, 3, "run", file).status(t)
	for path := range shards(results) {
		withoutKind(t, path)
	}
	if err := os.RemoveAll(filepath.Join(results, "tiny", ".work")); err != nil {
		t.Fatal(err)
	}
	tiny.Write(t, filepath.Join(results, "tiny", ".lock"), "123456 node17\n")
	succeed(t, "run", file, "--results", results)
	tiny.Same(t, tiny.Tree(t, results), want)
}

// withoutKind makes a shard what version 0.1.0 wrote: images and labels.
func withoutKind(t *testing.T, path string) {
	t.Helper()
	f, err := npz.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !f.Has("drawn_on") {
		t.Fatalf("%s does not say what it was drawn on", path)
	}
	w, err := npz.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	images, err1 := f.Array("arr_0")
	labels, err2 := f.Array("arr_1")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	pixels, err1 := npz.ReadAll[uint8](images, 1<<20)
	classes, err2 := npz.ReadAll[int64](labels, 1<<20)
	err = errors.Join(err1, err2, npz.WriteArray(w, "arr_0", pixels, images.Shape...), npz.WriteArray(w, "arr_1", classes, labels.Shape...), w.Commit())
	if err != nil {
		t.Fatal(err)
	}
}

// Features that several processes make are those of one, to the last bit of each score;
// broken images and conversions are told of as by one. Where broken images are an error
// it is the same error, with all of them.
func TestEvalOnDevices(t *testing.T) {
	ref := noiseImages(t, "ref.npz", 2100, 6, 1, 0)
	folder := t.TempDir()
	for i := range 1300 {
		im := image.NewGray(image.Rect(0, 0, 5, 5))
		for j := range im.Pix {
			im.Pix[j] = uint8(i*7 + j*j*3)
		}
		f := must(os.Create(filepath.Join(folder, fmt.Sprintf("%04d.png", i))))
		if err := errors.Join(png.Encode(f, im), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int{100, 1200} {
		truncate(t, filepath.Join(folder, fmt.Sprintf("%04d.png", i)))
	}
	args := []string{"eval", ref, folder, "--network", "dinov2", "--dinov2", tinyDINOv2(t), "--input-size", "28", "--metrics", "fid, precision, fd_dinov2", "--json", "-"}
	scratch := t.TempDir()
	run := func(more ...string) *process {
		t.Helper()
		p := program(append(args, more...)...)
		cache := t.TempDir()
		installed := filepath.Join(os.Getenv("XDG_CACHE_HOME"), "sagbench")
		if err := os.CopyFS(filepath.Join(cache, "sagbench"), os.DirFS(installed)); err != nil {
			t.Fatal(err)
		}
		p.Env = append(p.Env, "XDG_CACHE_HOME="+cache, "TMPDIR="+scratch)
		p.start(t)
		return p
	}
	one, many := run("--skip-broken"), run("--skip-broken", "--devices", "cpu,cpu,cpu")
	shared := 0 // units of 1,024 images: three of ref, two of folder
	for !hasEnded(many) {
		shared = max(shared, len(must(filepath.Glob(filepath.Join(scratch, "sagbench-*/*/*.npz")))))
		time.Sleep(time.Millisecond)
	}
	if a, b := one.status(t), many.status(t); a != 0 || b != 0 {
		t.Fatalf("exit status %d and %d\n%s\n%s", a, b, &one.stderr, &many.stderr)
	}
	if !bytes.Equal(one.stdout.Bytes(), many.stdout.Bytes()) || !strings.Contains(one.stdout.String(), `"1200.png"`) || !strings.Contains(one.stdout.String(), `"grey": 1298`) {
		t.Errorf("one process:\n%s\nthree:\n%s", &one.stdout, &many.stdout)
	}
	if left := must(filepath.Glob(filepath.Join(scratch, "*"))); shared < 5 || len(left) > 0 {
		t.Errorf("%d units were made together, %v is left", shared, left)
	}
	one, many = run(), run("--devices", "cpu,cpu")
	if a, b := one.status(t), many.status(t); a != 1 || b != 1 {
		t.Fatalf("exit status %d and %d\n%s\n%s", a, b, &one.stderr, &many.stderr)
	}
	message := func(p *process) string {
		_, m, _ := strings.Cut(p.stderr.String(), "sagbench: ")
		return m
	}
	if message(one) != message(many) || !strings.Contains(message(one), "1200.png") {
		t.Errorf("one process:\n%s\ntwo:\n%s", message(one), message(many))
	}
}
