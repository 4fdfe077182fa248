package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"sagbench/eval"
	"sagbench/eval/linalg"
	"sagbench/models"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/features"
	"sagbench/models/ort"
)

// inceptionFile is the file of a FID Inception of official size on random weights.
func (b *bench) inceptionFile() string { return filepath.Join(b.scratch, "inception.pt") }

// writeInception makes that file.
func (b *bench) writeInception() error {
	shapes, err := (&features.Inception{InputSize: 299, Width: featureDims}).Parameters(1008)
	if err != nil {
		return err
	}
	return randomweights.Write(b.inceptionFile(), shapes, 1)
}

// loadInception opens it.
func (b *bench) loadInception() (features.Extractor, error) {
	return (&features.Inception{InputSize: 299, Width: featureDims}).Extractor(b.ctx, b.inceptionFile(), models.Options{Options: b.options})
}

// officialInception makes and opens it.
func (b *bench) officialInception() (features.Extractor, error) {
	if err := b.writeInception(); err != nil {
		return nil, err
	}
	return b.loadInception()
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
				_, err := features.Of(b.ctx, n, features.TF, im, features.Pool, features.Spatial, features.LogitsUnbiased)
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

// The sets of features that metrics are measured on, of Inception's width.
const featureRows, featureDims = 10_000, 2048

// What a metric costs, by the names that tables give it.
var (
	covarianceTitle = fmt.Sprintf("mean and covariance of %d × %d, twice", featureRows, featureDims)
	fidTitle        = fmt.Sprintf("FID solve, %d dimensions", featureDims)
	neighboursTitle = fmt.Sprintf("precision and recall, %d × %d × %d", featureRows, featureRows, featureDims)
)

// computeStatistics fills in the statistics of both sets.
func computeStatistics(_ context.Context, ref, gen *eval.Features) (err error) {
	if ref.Stats, err = eval.StatsOf(ref.Pool, ref.D, ref.Products); err == nil {
		gen.Stats, err = eval.StatsOf(gen.Pool, gen.D, gen.Products)
	}
	return err
}

func computePrecisionRecall(ctx context.Context, ref, gen *eval.Features) error {
	_, err := eval.Evaluate(ctx, ref, gen, eval.Metrics["precision"](), eval.Metrics["recall"]())
	return err
}

// metrics times the solvers.
func (b *bench) metrics() error {
	p, err := ort.NewProducts(b.ctx, b.options.Threads)
	if err != nil {
		return err
	}
	defer p.Close()
	ref := &eval.Features{Source: "reference", N: featureRows, D: featureDims, Pool: randomFeatures(featureRows, featureDims, 1), Products: p}
	gen := &eval.Features{Source: "generated", N: featureRows, D: featureDims, Pool: randomFeatures(featureRows, featureDims, 2), Products: p}
	var route string
	b.header("what", "time")
	for _, step := range []struct {
		title string
		work  func(ctx context.Context, ref, gen *eval.Features) error
	}{
		{covarianceTitle, computeStatistics},
		{fidTitle, func(_ context.Context, ref, gen *eval.Features) error {
			f, err := eval.FrechetDistance(ref.Stats, gen.Stats, eval.MeanFloat32, p)
			route = f.Route
			return err
		}},
		{neighboursTitle, computePrecisionRecall},
	} {
		s, err := seconds(func() error { return step.work(b.ctx, ref, gen) })
		if err != nil {
			return err
		}
		b.row(step.title, fmt.Sprintf("%.2f s", s))
	}
	fmt.Fprintf(b.out, "\nroute of the FID: %s; peak resident memory so far %s\n", route, gigabytes(peakMemory()))
	return nil
}

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
	var said strings.Builder
	c.Stdout, c.Stderr = b.out, &said
	if err := c.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// evaluate is the process that memory is measured in.
func (b *bench) evaluate() error {
	n, err := b.officialInception()
	if err != nil {
		return err
	}
	_, err = features.Of(b.ctx, n, features.TF, randomImages(16, 256), features.Pool, features.Spatial, features.LogitsUnbiased)
	n.Close() // as an evaluation does, before the metrics
	if err != nil {
		return err
	}
	p, err := ort.NewProducts(b.ctx, b.options.Threads)
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
func syntheticSide(n int, p linalg.Products, seed uint64) (*eval.Features, error) {
	const d, spatial, classes, batch = featureDims, 2023, 1008, 500
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
