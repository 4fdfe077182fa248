package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sagbench/experiments/human"
)

// everyMutation is of how many changed files one goes through the program; with the
// build tag slow, all do.
var everyMutation = 60

// Ten thousand small valid files with a few bytes changed are read or refused: exit
// status 0, 1 or 2, and a message below 2 kB, within 10 s and 1 GB. A process of the tests
// reads them all, and the program itself, a process for each, a part of them.
func TestMutations(t *testing.T) {
	if os.Getenv(dataLimit) != "" {
		mutate(t, 1, readMutation)
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestMutations$")
	c.Env = append(os.Environ(), dataLimit+"=1000000000")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %.6000s", err, out)
	}
	for _, f := range validFiles(t) {
		succeed(t, f.args...)
	}
	slowest := time.Duration(0)
	mutate(t, everyMutation, func(t *testing.T, name string, f validFile) {
		began := time.Now()
		runMutation(t, name, f)
		slowest = max(slowest, time.Since(began))
	})
	t.Logf("the longest process ran for %v", slowest)
}

// mutate writes one of every so many changed files after the other and hands it to
// use. Which they are is the same at each call.
func mutate(t *testing.T, every int, use func(t *testing.T, name string, f validFile)) {
	kinds := validFiles(t)
	dice := rand.New(rand.NewPCG(13, 1))
	for _, f := range kinds {
		if err := f.read(); err != nil {
			t.Fatal(err)
		}
		for i := range 1 + 10_000/len(kinds) {
			data := mutated(dice, f.data)
			if i%every != 0 {
				continue
			}
			if err := os.WriteFile(f.path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			use(t, fmt.Sprintf("%s, change %d", filepath.Base(f.path), i), f)
		}
		if err := os.WriteFile(f.path, f.data, 0o600); err != nil { // others may lie beside it and need it
			t.Fatal(err)
		}
	}
}

// readMutation reads a changed file as the program does, which would end so.
func readMutation(t *testing.T, name string, f validFile) {
	if err := f.read(); err != nil {
		if status, message := statusOf(err), human.Message(err); status != statusFailed && status != statusMisuse || len(message) > longest {
			t.Errorf("%s: exit status %d and %d bytes: %.3000s", name, status, len(message), message)
		}
	}
}

// runMutation runs the program on a changed file.
func runMutation(t *testing.T, name string, f validFile) {
	p := bounded(t, f.args...)
	said := ""
	if status := p.status(t); status != 0 {
		said = p.refusal(status)
	} else {
		said = p.slow()
	}
	if said != "" {
		t.Errorf("%s: %s", name, said)
	}
}

// mutated changes one to four places, every other one among the first 512 bytes: a
// byte, a run of bytes cut out or repeated, a number replaced by a large one.
func mutated(dice *rand.Rand, data []byte) []byte {
	data = slices.Clone(data)
	for range 1 + dice.IntN(4) {
		at := dice.IntN(len(data))
		if dice.IntN(2) == 0 {
			at %= 512
		}
		end := min(len(data), at+1+dice.IntN(16))
		switch dice.IntN(5) {
		case 0:
			data[at] ^= 1 << dice.IntN(8)
		case 1:
			data[at] = byte(dice.IntN(256))
		case 2:
			if len(data) > 32 {
				data = slices.Delete(data, at, end)
			}
		case 3:
			data = slices.Insert(data, at, data[at:end]...)
		default:
			digit := slices.IndexFunc(data[at:], func(b byte) bool { return b >= '0' && b <= '9' })
			if digit >= 0 {
				data = slices.Insert(data, at+digit, []byte(strings.Repeat("9", 1+dice.IntN(18)))...)
			}
		}
	}
	return data
}
