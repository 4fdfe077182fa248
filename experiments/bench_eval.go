package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"sagbench/eval"
	"sagbench/models"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/ort"
)

// officialInception opens the FID Inception of official size on random weights.
func (b *bench) officialInception() (*models.InceptionNet, error) {
	c := &models.Inception{InputSize: 299, Width: 2048}
	shapes, err := c.Parameters(1008)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(b.scratch, "inception.pt")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		return nil, err
	}
	return c.Load(path, models.Options{Options: b.options})
}

// inception times the features of uint8 images, resizing included.
func (b *bench) inception() error {
	n, err := b.officialInception()
	if err != nil {
		return err
	}
	defer n.Close()
	b.header("images", "batch", "images/s, best", "images/s, median")
	for _, size := range []int{64, 256} {
		for _, batch := range []int{1, 8, 32} {
			im := randomImages(batch, size)
			best, median, err := measure(func() error {
				_, err := models.Features(b.ctx, n, models.TF, im, models.Pool, models.Spatial, models.LogitsUnbiased)
				return err
			})
			if err != nil {
				return err
			}
			b.row(fmt.Sprintf("%d×%d", size, size), batch,
				fmt.Sprintf("%.1f", float64(batch)/best.Seconds()), fmt.Sprintf("%.1f", float64(batch)/median.Seconds()))
		}
	}
	return nil
}

func randomImages(n, size int) models.Images {
	im := models.Images{N: n, Height: size, Width: size, Pixels: make([]uint8, n*size*size*3)}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range im.Pixels {
		im.Pixels[i] = uint8(r.Uint32())
	}
	return im
}

// randomFeatures are n rectified, correlated features of d dimensions: the
// distribution that pool_3 has, as far as time depends on it.
func randomFeatures(n, d int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 2))
	x := make([]float32, n*d)
	for i := range n {
		row := x[i*d : (i+1)*d]
		shared := r.NormFloat64()
		for j := range row {
			row[j] = float32(max(0, 0.3+0.4*r.NormFloat64()+0.1*shared*float64(j%7)))
		}
	}
	return x
}

// metrics times the solvers on 10,000 features of 2048 dimensions a side.
func (b *bench) metrics() error {
	const n, d = 10_000, 2048
	p, err := ort.NewProducts(b.options.Threads)
	if err != nil {
		return err
	}
	defer p.Close()
	ref := &eval.Features{Source: "reference", N: n, D: d, Pool: randomFeatures(n, d, 1), Products: p}
	gen := &eval.Features{Source: "generated", N: n, D: d, Pool: randomFeatures(n, d, 2), Products: p}
	b.header("what", "time")
	timed := func(what string, f func() error) error {
		start := time.Now()
		if err := f(); err != nil {
			return err
		}
		b.row(what, fmt.Sprintf("%.2f s", time.Since(start).Seconds()))
		return nil
	}
	err = timed(fmt.Sprintf("mean and covariance of %d × %d, twice", n, d), func() (err error) {
		if ref.Stats, err = eval.StatsOf(ref.Pool, d, p); err == nil {
			gen.Stats, err = eval.StatsOf(gen.Pool, d, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	var route string
	err = timed(fmt.Sprintf("FID solve, %d dimensions", d), func() error {
		f, err := eval.FrechetDistance(ref.Stats, gen.Stats, eval.MeanFloat32, p)
		route = f.Route
		return err
	})
	if err != nil {
		return err
	}
	err = timed(fmt.Sprintf("precision and recall, %d × %d × %d", n, n, d), func() error {
		_, err := eval.Evaluate(b.ctx, ref, gen, eval.Metrics["precision"](), eval.Metrics["recall"]())
		return err
	})
	fmt.Fprintf(b.out, "\nroute of the FID: %s; peak resident memory so far %.2f GB\n", route, float64(peakMemory())/1e9)
	return err
}

// peakMemory is the largest resident size that this process has had, in bytes;
// 0 where the system does not tell.
func peakMemory() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	return statusKB(string(status), "VmHWM:") << 10
}
