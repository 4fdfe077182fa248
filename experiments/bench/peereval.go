package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sagbench/models/ort"
)

// peerEvaluators are the programs that score a folder of images, with the protocol
// of sagbench whose numbers are theirs.
var peerEvaluators = []struct{ name, protocol string }{
	{"torch-fidelity", "torch-fidelity"},
	{"pytorch-fid", "pytorch-fid"},
	{"clean-fid", "clean-fid"},
}

// peerEval measures whole evaluations, from the files of images to FID, of public
// evaluators and of sagbench in turns, each in a process of its own. The peers'
// seconds are without their start and imports; sagbench's are those of the process,
// with nothing in its cache. A tenth as many images as samples are the reference.
func (b *bench) peerEval() error {
	python, script, err := b.peerScript()
	if err == nil {
		err = b.writeInception()
	}
	if err != nil {
		return err
	}
	samples, err := b.writeImages("png", b.images)
	if err != nil {
		return err
	}
	reference, err := b.writeImages("jpg", max(b.images/10, 2))
	if err != nil {
		return err
	}
	b.header("FID of", "evaluator", "time", "images/s", "peak memory", "against sagbench", "FID")
	title := fmt.Sprintf("%d .png against %d .jpg of %d×%[3]d", b.images, max(b.images/10, 2), pictureSide)
	for _, peer := range peerEvaluators {
		ours, err := b.oursEval(peer.protocol, reference, samples)
		if err != nil {
			return fmt.Errorf("sagbench as %s: %w", peer.name, err)
		}
		cmd := exec.CommandContext(b.ctx, python, script, peer.name, "evaluation", b.scratch)
		cmd.Env = b.peerEnv()
		theirs, err := timedEval(cmd)
		if err != nil {
			return fmt.Errorf("%s: %w", peer.name, err)
		}
		for i, e := range []evalTime{ours, theirs} {
			name := []string{"sagbench, --protocol " + peer.protocol, peer.name}[i]
			b.row(title, name, fmt.Sprintf("%.1f s", e.seconds), fmt.Sprintf("%.1f", float64(b.images+max(b.images/10, 2))/e.seconds), gigabytes(e.memory),
				fmt.Sprintf("%.1f ×", e.seconds/ours.seconds), e.value)
		}
	}
	return nil
}

// An evalTime is what an evaluation took, and its FID, which shows that both did
// the same work.
type evalTime struct {
	seconds float64
	memory  int64
	value   string
}

// timedEval runs a peer, whose last line is seconds, bytes and FID.
func timedEval(cmd *exec.Cmd) (e evalTime, err error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return e, fmt.Errorf("%w\n%s", err, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if _, err := fmt.Sscan(lines[len(lines)-1], &e.seconds, &e.memory, &e.value); err != nil {
		return e, fmt.Errorf("printed %q: %w", out, err)
	}
	return e, nil
}

// oursEval runs this program as a user does, with an empty cache.
func (b *bench) oursEval(protocol, reference, samples string) (e evalTime, err error) {
	self, err := os.Executable()
	if err != nil {
		return e, err
	}
	cache, err := os.MkdirTemp(b.scratch, "cache-")
	if err != nil {
		return e, err
	}
	defer os.RemoveAll(cache)
	scores := filepath.Join(cache, "scores.csv")
	cmd := exec.CommandContext(b.ctx, self, "eval", reference, samples, "--inception", b.inceptionFile(), "--protocol", protocol,
		"--metrics", "fid", "--csv", scores, "--threads", fmt.Sprint(b.options.Threads))
	library, err := ort.LibraryPath()
	if err != nil {
		return e, err
	}
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache, "SAGBENCH_ONNXRUNTIME="+library)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return e, fmt.Errorf("%w\n%s", err, out)
	}
	e.seconds, e.memory = time.Since(start).Seconds(), childPeak(cmd.ProcessState)
	e.value, err = fidOf(scores)
	return e, err
}

// childPeak is the largest resident size of a process that ended, in bytes; 0 where the
// system does not tell.
func childPeak(p *os.ProcessState) int64 {
	if r, ok := p.SysUsage().(*syscall.Rusage); ok {
		return r.Maxrss << 10
	}
	return 0
}

// fidOf is the FID in a CSV of eval.
func fidOf(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	header := strings.Split(lines[0], ",")
	if at := slices.Index(header, "value"); at >= 0 && len(lines) == 2 {
		return strings.Split(lines[1], ",")[at], nil
	}
	return "", fmt.Errorf("%s: expected one score in a column value, found %q", path, text)
}
