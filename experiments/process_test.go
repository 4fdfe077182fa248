package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sagbench/internal/tiny"
)

// asProgram makes the test binary behave as sagbench.
const asProgram = "SAGBENCH_TEST_AS_PROGRAM"

// dataLimit bounds the memory of the program, in bytes: RLIMIT_DATA, since Go
// reserves more addresses than it uses.
const dataLimit = "SAGBENCH_TEST_DATA_LIMIT"

func TestMain(m *testing.M) {
	if n, err := strconv.ParseUint(os.Getenv(dataLimit), 10, 64); err == nil {
		if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			panic(err)
		}
	}
	if os.Getenv(asProgram) != "" {
		os.Exit(execute(os.Args[1:]))
	}
	os.Exit(tiny.Main(m))
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

// fail runs the program, which must end with status 1, or 2 where usage or settings
// are wrong, and one message.
func fail(t *testing.T, args ...string) string {
	t.Helper()
	message, status := failed(t, args...)
	if status != statusFailed && status != statusMisuse {
		t.Errorf("%s: exit status %d, expected 1 or 2\n%s", strings.Join(args, " "), status, message)
	}
	return message
}

// failed runs the program, which must end with one message, and returns its status.
func failed(t *testing.T, args ...string) (message string, status int) {
	t.Helper()
	p := program(args...)
	p.start(t)
	status, message = p.status(t), p.stderr.String()
	if status == 0 || strings.Count(message, "sagbench: ") != 1 || strings.Contains(message, "goroutine ") {
		t.Fatalf("%s: exit status %d, expected an error and one message\n%s", strings.Join(args, " "), status, message)
	}
	return message, status
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
