package devices

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sagbench/experiments/human"
	"sagbench/experiments/work"
)

// script runs a shell script on devices; it finds its flags in $*. said is what people
// are told.
func script(t *testing.T, ctx context.Context, text string, devices ...string) (stdout, said string, err error) {
	t.Helper()
	told, fault := os.Create(filepath.Join(t.TempDir(), "told"))
	if fault != nil {
		t.Fatal(fault)
	}
	defer told.Close()
	var out bytes.Buffer
	err = Run(ctx, Options{Program: "/bin/sh", Args: []string{"-c", text, "script"}, Devices: devices, Part: work.Part{I: 1, N: 3}, Threads: 5, Progress: human.NewProgress(told), Stdout: &out})
	data, fault := os.ReadFile(told.Name())
	if fault != nil {
		t.Fatal(fault)
	}
	return out.String(), string(data), err
}

// Each device gets its process with its share of the part and of the threads; what they
// say is told once, what the first prints that is done goes to standard output.
func TestRun(t *testing.T) {
	stdout, said, err := script(t, t.Context(), `echo "$*" >&2; echo both >&2; echo table`, "cpu", "cuda:1", "cpu")
	if err != nil || stdout != "table\n" {
		t.Errorf("%q, %v", stdout, err)
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	slices.Sort(lines)
	want := []string{
		"--devices= --child --device=cpu --part=3/9 --threads=2",
		"--devices= --child --device=cpu --part=5/9 --threads=2",
		"--devices= --child --device=cuda:1 --part=4/9",
		"both",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
}

// A process that dies is started again; a device that always fails is given up, and the
// work is done where another one does it.
func TestRestart(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	_, said, err := script(t, t.Context(), `[ -e `+mark+` ] || { touch `+mark+`; kill -9 $$; }; echo done`, "a")
	if err != nil || !strings.Contains(said, "a: the process ended with signal: killed; it is started again") {
		t.Errorf("%v, %s", err, said)
	}
	again := filepath.Join(t.TempDir(), "again")
	fails := `case "$*" in *device=b*) echo x >> ` + again + `; echo "sagbench: no such device" >&2; exit 1;; esac; sleep 1; echo table`
	restartAfter = time.Millisecond
	defer func() { restartAfter = time.Second }()
	stdout, said, err := script(t, t.Context(), fails, "a", "b")
	if err != nil || stdout != "table\n" || !strings.Contains(said, "b: was started 4 times: no such device") {
		t.Errorf("%q, %v, %s", stdout, err, said)
	}
	if tries, err := os.ReadFile(again); string(tries) != strings.Repeat("x\n", 4) || err != nil {
		t.Errorf("%q, %v", tries, err)
	}
	if _, _, err = script(t, t.Context(), `echo "sagbench: the disk is full" >&2; exit 75`, "a"); !errors.As(err, new(human.Again)) {
		t.Errorf("%v", err)
	}
}

// What is wrong for all ends all: nothing is started again.
func TestMisuse(t *testing.T) {
	began := filepath.Join(t.TempDir(), "began")
	_, _, err := script(t, t.Context(), `echo x >> `+began+`; case "$*" in *device=b*) printf 'sagbench: bad settings:\n  batch\n' >&2; exit 2;; esac; exec sleep 60`, "a", "b")
	if !errors.As(err, new(human.Misuse)) || err.Error() != "b: bad settings:\n  batch" {
		t.Errorf("%v", err)
	}
	if times, err := os.ReadFile(began); len(times) > 4 || err != nil {
		t.Errorf("%q, %v", times, err)
	}
}

// Cancelling asks the processes to end, and leaves none.
func TestCancel(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for {
			if data, err := os.ReadFile(pids); err == nil && bytes.Count(data, []byte("\n")) == 2 {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, _, err := script(t, ctx, `trap 'exit 75' TERM; echo $$ >> `+pids+`; while :; do sleep 0.01; done`, "a", "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	data, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Fields(string(data)) {
		if pid, _ := strconv.Atoi(line); !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			t.Errorf("process %d is left", pid)
		}
	}
}

func TestParse(t *testing.T) {
	if all, err := Parse("cpu,cuda:1"); !slices.Equal(all, []string{"cpu", "cuda:1"}) || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	for _, wrong := range []string{",", "cpu,", strings.Repeat("cpu,", 64) + "cpu"} {
		if _, err := Parse(wrong); !errors.As(err, new(human.Misuse)) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	t.Setenv("CUDA_VISIBLE_DEVICES", "0,3")
	if all, err := Parse("all"); !slices.Equal(all, []string{"cuda:0", "cuda:1"}) || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	t.Setenv("CUDA_VISIBLE_DEVICES", "")
	if _, err := Parse("all"); !errors.As(err, new(human.Misuse)) {
		t.Errorf("no GPU: %v", err)
	}
}
