package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"sagbench/eval"
	"sagbench/models"
	"sagbench/models/ort"
)

// childEnv marks the process that memory is measured in: one of its own, so
// that nothing else counts.
const childEnv = "SAGBENCH_BENCH_CHILD"

// memory measures the peak of an evaluation of 50,000 images against 10,000:
// the Inception of official size with one batch of 256×256 images, features of
// all images (random, as the network would take an hour here), and every metric
// of Table 1.
func (b *bench) memory() error {
	if os.Getenv(childEnv) != "" {
		return b.evaluate()
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(b.ctx, self, "bench", "memory", "--threads", strconv.Itoa(b.options.Threads))
	c.Env = append(os.Environ(), childEnv+"=1")
	c.Stdout, c.Stderr = b.out, os.Stderr
	return c.Run()
}

func (b *bench) evaluate() error {
	n, err := b.officialInception()
	if err != nil {
		return err
	}
	_, err = models.Features(b.ctx, n, models.TF, randomImages(16, 256), models.Pool, models.Spatial, models.LogitsUnbiased)
	n.Close() // as an evaluation does, before the metrics
	if err != nil {
		return err
	}
	p, err := ort.NewProducts(b.options.Threads)
	if err != nil {
		return err
	}
	defer p.Close()
	b.header("after", "peak resident memory")
	b.row("the network", gigabytes(peakMemory()))
	ref, err := syntheticSide(10_000, p, 1)
	if err != nil {
		return err
	}
	gen, err := syntheticSide(50_000, p, 2)
	if err != nil {
		return err
	}
	b.row("features of 10,000 and 50,000 images", gigabytes(peakMemory()))
	var metrics []eval.Metric
	for _, name := range []string{"fid", "sfid", "is", "precision", "recall"} {
		metrics = append(metrics, eval.Metrics[name]())
	}
	if _, err := eval.Evaluate(b.ctx, ref, gen, metrics...); err != nil {
		return err
	}
	b.row("FID, sFID, IS, precision and recall", gigabytes(peakMemory()))
	return nil
}

// syntheticSide takes n images' random features in, batch after batch, as an
// evaluation does: pool features are kept, spatial features only counted.
func syntheticSide(n int, p eval.Products, seed uint64) (*eval.Features, error) {
	const d, spatial, classes, batch = 2048, 2023, 1008, 500
	f := &eval.Features{Source: "synthetic", N: n, D: d, Pool: make([]float32, 0, n*d), Products: p,
		ClassWeight: randomFeatures(classes, d, 3)}
	pool, space := eval.NewAccumulator(d, p), eval.NewAccumulator(spatial, p)
	for i := 0; i < n; i += batch {
		rows := randomFeatures(batch, d, seed<<32+uint64(i))
		f.Pool = append(f.Pool, rows...)
		if err := pool.Add(rows); err != nil {
			return nil, err
		}
		if err := space.Add(randomFeatures(batch, spatial, seed<<40+uint64(i))); err != nil {
			return nil, err
		}
	}
	var err error
	if f.Stats, err = pool.Stats(); err == nil {
		f.Spatial, err = space.Stats()
	}
	return f, err
}

func gigabytes(bytes int64) string { return fmt.Sprintf("%.2f GB", float64(bytes)/1e9) }

// statusKB reads a line such as "VmHWM:   123 kB" of /proc/self/status.
func statusKB(status, key string) int64 {
	_, after, _ := strings.Cut(status, key)
	line, _, _ := strings.Cut(after, "\n")
	kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(line), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return kb
}
