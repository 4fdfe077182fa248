package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"sagbench/eval"
	"sagbench/eval/npz"
	"sagbench/eval/peers"
	"sagbench/models/features"
	"sagbench/models/ort"
)

// peersEnv names the Python that has the public evaluators installed.
const peersEnv = "SAGBENCH_PEERS"

const (
	peerRounds = 3
	peerImages = 64
)

// A peerTask is something to compare: what sagbench does, and the peers that have it.
type peerTask struct {
	name, title string
	ours        func(*bench) (seconds float64, err error)
	peers       []string
	images      int // a task that is reported as images a second
}

var peerTasks = []peerTask{
	{"inception", fmt.Sprintf("Inception, %d images of 256×256", peerImages), (*bench).oursInception, []string{"torch-fidelity", "pytorch-fid"}, peerImages},
	{"covariance", covarianceTitle, (*bench).oursCovariance, []string{"torch-fidelity"}, 0},
	{"fid", fidTitle, (*bench).oursFID, []string{"torch-fidelity", "pytorch-fid", "clean-fid"}, 0},
	{"precision_recall", neighboursTitle, (*bench).oursPrecisionRecall, []string{"torch-fidelity"}, 0},
}

// peers measures public evaluators and sagbench on the same data, in turns,
// each time in a process of its own with as many threads as the machine has
// cores, and prints the best of some rounds.
func (b *bench) peers() error {
	if task := os.Getenv(childEnv); task != "" {
		b.scratch = os.Getenv(peersEnv)
		return b.ours(task)
	}
	python, script, err := b.peerScript()
	if err == nil {
		err = b.writePeerData()
	}
	if err != nil {
		return err
	}
	b.header("task", "evaluator", "best of "+strconv.Itoa(peerRounds), "others", "peak memory", "against sagbench")
	for _, c := range peerTasks {
		measured := map[string]*peerTimes{}
		names := append([]string{"sagbench"}, c.peers...)
		for _, name := range names {
			measured[name] = &peerTimes{}
		}
		for range peerRounds {
			for _, name := range names {
				cmd := exec.CommandContext(b.ctx, python, script, name, c.name, b.scratch)
				cmd.Env = b.peerEnv()
				if name == "sagbench" {
					if cmd, err = b.child(b.ctx, peersSection, c.name, "cpu"); err != nil {
						return err
					}
				}
				if err := measured[name].add(cmd); err != nil {
					return fmt.Errorf("%s, %s: %w", name, c.name, err)
				}
			}
		}
		for _, name := range names {
			m := measured[name]
			slices.Sort(m.seconds)
			others := make([]string, 0, peerRounds)
			for _, s := range m.seconds[1:] {
				others = append(others, c.figure(s))
			}
			b.row(c.title, name, c.figure(m.seconds[0]), strings.Join(others, ", "), gigabytes(m.memory),
				fmt.Sprintf("%.1f ×", m.seconds[0]/measured["sagbench"].seconds[0]))
		}
	}
	return nil
}

// peerScript are the Python that has the peers installed, and the script for it.
func (b *bench) peerScript() (python, script string, err error) {
	if python = os.Getenv(peersEnv); python == "" {
		return "", "", fmt.Errorf("%s is not set: run `make bench-peers`, which installs what to compare with", peersEnv)
	}
	script = filepath.Join(b.scratch, "peers.py")
	return python, script, os.WriteFile(script, peers.Script, 0o644)
}

// child is a process of this program that does one task of a section.
func (b *bench) child(ctx context.Context, section, task, device string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "bench", section, "--device", device, "--threads", strconv.Itoa(b.options.Threads))
	cmd.Env = append(os.Environ(), childEnv+"="+task, peersEnv+"="+b.scratch)
	return cmd, nil
}

func (c peerTask) figure(seconds float64) string {
	if c.images > 0 {
		return fmt.Sprintf("%.1f images/s", float64(c.images)/seconds)
	}
	return fmt.Sprintf("%.2f s", seconds)
}

// peerEnv lets numerical libraries choose their kernels and use every core.
func (b *bench) peerEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "OPENBLAS_") || strings.HasPrefix(v, "PYTHON")
	})
	threads := strconv.Itoa(cmp.Or(max(b.options.Threads, 0), runtime.NumCPU()))
	return append(env, "OMP_NUM_THREADS="+threads, "OPENBLAS_NUM_THREADS="+threads, "MKL_NUM_THREADS="+threads)
}

// peerTimes are the measurements of one evaluator at one task.
type peerTimes struct {
	seconds []float64
	memory  int64 // peak of the process, the largest of all rounds
}

// add runs a measurement, whose last line is its seconds and bytes.
func (m *peerTimes) add(cmd *exec.Cmd) error {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var seconds float64
	var memory int64
	if _, err := fmt.Sscan(lines[len(lines)-1], &seconds, &memory); err != nil {
		return fmt.Errorf("printed %q: %w", out, err)
	}
	m.seconds = append(m.seconds, seconds)
	m.memory = max(m.memory, memory)
	return nil
}

// ours is the process in which sagbench does one of the tasks.
func (b *bench) ours(task string) error {
	i := slices.IndexFunc(peerTasks, func(c peerTask) bool { return c.name == task })
	if i < 0 {
		return fmt.Errorf("no task %q", task)
	}
	seconds, err := peerTasks[i].ours(b)
	if err == nil {
		fmt.Fprintln(b.out, seconds, peakMemory())
	}
	return err
}

// peerData is the file with the images and features of the comparison.
func (b *bench) peerData() string { return filepath.Join(b.scratch, "data.npz") }

// writePeerData makes that file, and the weights of the Inception beside it.
func (b *bench) writePeerData() error {
	if err := b.writeInception(); err != nil {
		return err
	}
	w, err := npz.Create(b.peerData())
	if err != nil {
		return err
	}
	defer w.Abort()
	im := randomImages(peerImages, 256)
	err = npz.WriteArray(w, "images", im.Pixels, im.N, im.Height, im.Width, 3)
	for i, name := range []string{"ref", "gen"} {
		if err == nil {
			err = npz.WriteArray(w, name, randomFeatures(featureRows, featureDims, uint64(i+1)), featureRows, featureDims)
		}
	}
	return errors.Join(err, w.Commit())
}

func (b *bench) oursInception() (float64, error) {
	n, err := b.loadInception()
	if err != nil {
		return 0, err
	}
	defer n.Close()
	im := randomImages(peerImages, 256)
	run := func() error {
		_, err := features.Of(b.ctx, n, features.TF, im, features.Pool, features.LogitsUnbiased)
		return err
	}
	best, err := math.Inf(1), run()
	for range 3 {
		var s float64
		if err == nil {
			s, err = seconds(run)
			best = min(best, s)
		}
	}
	return best, err
}

// withFeatures times work on both sets of features of the comparison.
func (b *bench) withFeatures(prepare, work func(ctx context.Context, ref, gen *eval.Features) error) (float64, error) {
	p, err := ort.NewProducts(b.ctx, b.options.Threads)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	f, err := npz.Open(b.peerData())
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var sets [2]*eval.Features
	for i, name := range []string{"ref", "gen"} {
		a, err := f.Array(name)
		if err != nil {
			return 0, err
		}
		rows, err := npz.ReadAll[float32](a, featureRows*featureDims)
		if err != nil {
			return 0, err
		}
		sets[i] = &eval.Features{Source: name, N: featureRows, D: featureDims, Pool: rows, Products: p}
	}
	if prepare != nil {
		if err := prepare(b.ctx, sets[0], sets[1]); err != nil {
			return 0, err
		}
	}
	return seconds(func() error { return work(b.ctx, sets[0], sets[1]) })
}

func (b *bench) oursCovariance() (float64, error) { return b.withFeatures(nil, computeStatistics) }

func (b *bench) oursFID() (float64, error) {
	return b.withFeatures(computeStatistics, func(_ context.Context, ref, gen *eval.Features) error {
		_, err := eval.FrechetDistance(ref.Stats, gen.Stats, eval.MeanFloat32, ref.Products)
		return err
	})
}

func (b *bench) oursPrecisionRecall() (float64, error) {
	return b.withFeatures(nil, computePrecisionRecall)
}
