package main

import (
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
	"time"

	"sagbench/eval"
	"sagbench/eval/npz"
	"sagbench/eval/peers"
	"sagbench/models"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/ort"
)

// peersEnv names the Python that has the public evaluators installed.
const peersEnv = "SAGBENCH_PEERS"

const (
	peerRounds = 3
	peerImages = 64
	peerRows   = 10_000
	peerDims   = 2048
)

// A peerTask is something to compare: what sagbench does, and the peers that have it.
type peerTask struct {
	name, title string
	ours        func(*bench, peerData) (seconds float64, err error)
	peers       []string
	images      int // a task that is reported as images a second
}

var peerTasks = []peerTask{
	{"inception", fmt.Sprintf("Inception, %d images of 256×256", peerImages), (*bench).oursInception, []string{"torch-fidelity", "pytorch-fid"}, peerImages},
	{"covariance", fmt.Sprintf("mean and covariance of %d × %d, twice", peerRows, peerDims), (*bench).oursCovariance, []string{"torch-fidelity"}, 0},
	{"fid", fmt.Sprintf("FID solve, %d dimensions", peerDims), (*bench).oursFID, []string{"torch-fidelity", "pytorch-fid", "clean-fid"}, 0},
	{"precision_recall", fmt.Sprintf("precision and recall, %d × %d × %d", peerRows, peerRows, peerDims), (*bench).oursPrecisionRecall, []string{"torch-fidelity"}, 0},
}

// peers measures public evaluators and sagbench on the same data, in turns,
// each time in a process of its own with as many threads as the machine has
// cores, and prints the best of some rounds.
func (b *bench) peers() error {
	if task := os.Getenv(childEnv); task != "" {
		return b.ours(task, peerData(os.Getenv(peersEnv)))
	}
	python := os.Getenv(peersEnv)
	if python == "" {
		return fmt.Errorf("%s is not set: run `make bench-peers`, which installs the evaluators to compare with", peersEnv)
	}
	data := peerData(b.scratch)
	if err := data.write(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	script := filepath.Join(b.scratch, "peers.py")
	if err := os.WriteFile(script, peers.Script, 0o644); err != nil {
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
					cmd = exec.CommandContext(b.ctx, self, "bench", "peers", "--threads", strconv.Itoa(b.options.Threads))
					cmd.Env = append(os.Environ(), childEnv+"="+c.name, peersEnv+"="+b.scratch)
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
	threads := strconv.Itoa(max(b.options.Threads, 0))
	if threads == "0" {
		threads = strconv.Itoa(runtime.NumCPU())
	}
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
func (b *bench) ours(task string, data peerData) error {
	for _, c := range peerTasks {
		if c.name == task {
			seconds, err := c.ours(b, data)
			if err == nil {
				fmt.Fprintln(b.out, seconds, peakMemory())
			}
			return err
		}
	}
	return fmt.Errorf("no task %q", task)
}

// peerData is a folder with the data of the comparison.
type peerData string

func (d peerData) write() error {
	shapes, err := (&models.Inception{InputSize: 299, Width: peerDims}).Parameters(1008)
	if err != nil {
		return err
	}
	if err := randomweights.Write(filepath.Join(string(d), "inception.pt"), shapes, 1); err != nil {
		return err
	}
	w, err := npz.Create(filepath.Join(string(d), "data.npz"))
	if err != nil {
		return err
	}
	defer w.Abort()
	im := randomImages(peerImages, 256)
	a, err := w.Array("images", npz.Uint8, im.N, im.Height, im.Width, 3)
	if err == nil {
		err = npz.WriteRows(a, im.Pixels)
	}
	for i, name := range []string{"ref", "gen"} {
		if err != nil {
			break
		}
		if a, err = w.Array(name, npz.Float32, peerRows, peerDims); err == nil {
			err = npz.WriteRows(a, randomFeatures(peerRows, peerDims, uint64(i+1)))
		}
	}
	return errors.Join(err, w.Commit())
}

// open reads both sets of features.
func (d peerData) open(p eval.Products) (sets [2]*eval.Features, err error) {
	f, err := npz.Open(filepath.Join(string(d), "data.npz"))
	if err != nil {
		return sets, err
	}
	defer f.Close()
	for i, name := range []string{"ref", "gen"} {
		a, err := f.Array(name)
		if err != nil {
			return sets, err
		}
		rows, err := npz.ReadAll[float32](a, peerRows*peerDims)
		if err != nil {
			return sets, err
		}
		sets[i] = &eval.Features{Source: name, N: peerRows, D: peerDims, Pool: rows, Products: p}
	}
	return sets, nil
}

func seconds(f func() error) (float64, error) {
	start := time.Now()
	err := f()
	return time.Since(start).Seconds(), err
}

func (b *bench) oursInception(d peerData) (float64, error) {
	n, err := (&models.Inception{InputSize: 299}).Load(filepath.Join(string(d), "inception.pt"), models.Options{Options: b.options})
	if err != nil {
		return 0, err
	}
	defer n.Close()
	im := randomImages(peerImages, 256)
	run := func() error {
		_, err := models.Features(b.ctx, n, models.TF, im, models.Pool, models.LogitsUnbiased)
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

// withFeatures times work on both sets.
func (b *bench) withFeatures(d peerData, prepare, work func(ctx context.Context, ref, gen *eval.Features) error) (float64, error) {
	p, err := ort.NewProducts(b.options.Threads)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	sets, err := d.open(p)
	if err == nil && prepare != nil {
		err = prepare(b.ctx, sets[0], sets[1])
	}
	if err != nil {
		return 0, err
	}
	return seconds(func() error { return work(b.ctx, sets[0], sets[1]) })
}

func withStatistics(_ context.Context, ref, gen *eval.Features) (err error) {
	if ref.Stats, err = eval.StatsOf(ref.Pool, ref.D, ref.Products); err == nil {
		gen.Stats, err = eval.StatsOf(gen.Pool, gen.D, gen.Products)
	}
	return err
}

func (b *bench) oursCovariance(d peerData) (float64, error) {
	return b.withFeatures(d, nil, withStatistics)
}

func (b *bench) oursFID(d peerData) (float64, error) {
	return b.withFeatures(d, withStatistics, func(_ context.Context, ref, gen *eval.Features) error {
		_, err := eval.FrechetDistance(ref.Stats, gen.Stats, eval.MeanFloat32, ref.Products)
		return err
	})
}

func (b *bench) oursPrecisionRecall(d peerData) (float64, error) {
	return b.withFeatures(d, nil, func(ctx context.Context, ref, gen *eval.Features) error {
		_, err := eval.Evaluate(ctx, ref, gen, eval.Metrics["precision"](), eval.Metrics["recall"]())
		return err
	})
}
