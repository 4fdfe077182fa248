package score

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"golang.org/x/sync/errgroup"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/eval/rows"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/models/features"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// FeatureBatch is how many images a feature network takes in one call. It is fixed,
// so that features do not depend on the batch of the experiment, and small: the
// official Inception is no faster in larger ones and takes 2.3 GB in one of 64.
const FeatureBatch = 16

// A Source is a set of images.
type Source struct {
	Name   string // what messages call it
	N      int    // broken images included
	Images iter.Seq2[images.Pending, error]
}

// An Extractor turns images into features with one network.
type Extractor struct {
	plan.FeatureNetwork
	Net         features.Extractor
	Products    *ort.Products // that statistics are computed with
	options     ort.Options
	sha256      string       // of the network's file
	unchanged   func() error // an error unless the files are those that were hashed; nil = they are
	classWeight []float32    // [classes,width], where the network classifies
	share       *Share       // nil: this process makes all features
}

// newExtractor opens a network.
func newExtractor(ctx context.Context, n plan.FeatureNetwork, h store.Hashes, opt ort.Options) (*Extractor, error) {
	x := &Extractor{FeatureNetwork: n, options: opt}
	if err := ort.CheckDevice(opt); err != nil {
		return nil, err // also where all features are known: the result names the device
	}
	var err error
	if x.sha256, err = n.Hash(h); err != nil {
		return nil, err
	}
	x.unchanged = func() error { return h.Unchanged(false) }
	opt.Unchanged = x.unchanged
	if x.Net, err = n.Open(ctx, models.Options{Options: opt}); err != nil {
		return nil, err
	}
	if c, ok := x.Net.(features.Classifying); ok {
		x.classWeight, err = c.ClassWeight()
	}
	if err == nil {
		x.Products, err = ort.NewProducts(ctx, opt.Threads)
	}
	if err != nil {
		x.Net.Close()
		return nil, err
	}
	return x, nil
}

// Close frees the network.
func (x *Extractor) Close() {
	x.Net.Close()
	x.Products.Close()
}

// side is the height and width that images are resized to.
func (x *Extractor) side() int {
	shape := x.Net.InputShape()
	return shape[len(shape)-1]
}

// key tells which features the extractor computes.
func (x *Extractor) key() string { return x.FeatureNetwork.Key(x.sha256) }

// squares is the extractor for images that are all square, if they are.
func (x *Extractor) squares(are bool) *Extractor {
	if !are {
		return x
	}
	y := *x
	y.FeatureNetwork = x.OfSquares()
	return &y
}

// computed are the parts that the network has to compute for those that are
// wanted: where it ends in a linear layer, logits follow from pool features.
func (x *Extractor) computed(want eval.Parts) eval.Parts {
	want.Logits = want.Logits && x.classWeight == nil
	return want
}

// Features streams the images through the network: the next ones are decoded and
// resized while it computes. Rows of pool features are kept only where they are
// wanted; of everything else statistics are accumulated. tick is told how many
// images more are done. The report tells of broken images, which are an error
// unless opt skips them, and of those that were converted to RGB.
func (x *Extractor) Features(ctx context.Context, from Source, opt images.Options, want eval.Parts, tick func(int)) (*eval.Features, images.Report, error) {
	c := newCollector(x, want, from.N)
	report, err := x.collect(ctx, from, opt, c, tick)
	if err != nil {
		return nil, report, err
	}
	f, err := c.features()
	if err != nil {
		err = fmt.Errorf("%s: %w", from.Name, err)
	}
	return f, report, err
}

// collect streams the images through the network into a collector.
func (x *Extractor) collect(ctx context.Context, from Source, opt images.Options, c *collector, tick func(int)) (images.Report, error) {
	g, ctx := errgroup.WithContext(ctx)
	full, empty := make(chan tensor.Tensor), make(chan tensor.Tensor, 2)
	for range cap(empty) {
		empty <- tensor.New(append([]int{FeatureBatch}, x.Net.InputShape()...)...)
	}
	g.Go(func() error {
		for batch := range full {
			out, err := x.Net.Run(ctx, batch, c.outputs...)
			if err != nil {
				var broken *models.NotFinite
				if errors.As(err, &broken) {
					broken.Image += c.n
				}
				return err
			}
			empty <- batch
			tick(batch.Rows())
			if err := c.add(out); err != nil {
				return err
			}
		}
		return nil
	})
	var report images.Report
	g.Go(func() (err error) {
		defer close(full)
		report, err = x.batches(ctx, from, opt, empty, full)
		return err
	})
	if err := g.Wait(); err != nil {
		return report, images.WithPath(err, from.Name)
	}
	if x.unchanged != nil {
		return report, x.unchanged()
	}
	return report, nil
}

// batches fills the empty batches with images and hands them on.
func (x *Extractor) batches(ctx context.Context, from Source, opt images.Options, empty <-chan tensor.Tensor, full chan<- tensor.Tensor) (images.Report, error) {
	var batch tensor.Tensor
	filled := 0
	flush := func() error {
		n := filled
		filled = 0
		select {
		case full <- batch.Slice(0, n):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	load := images.Loader[[]float32]{Ahead: FeatureBatch, SkipBroken: opt.SkipBroken, Prepare: x.Input}
	report, err := load.Run(ctx, from.Images, func(in []float32) error {
		if filled == 0 {
			select {
			case batch = <-empty:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		copy(batch.Row(filled), in)
		if filled++; filled < FeatureBatch {
			return nil
		}
		return flush()
	})
	if err == nil && filled > 0 {
		err = flush()
	}
	return report, err
}

// Input is an image as the network takes it: resized, [C,H,W].
func (x *Extractor) Input(im images.Image) ([]float32, error) {
	in, err := x.Net.Input(x.Resize, models.Images{N: 1, Height: im.Height, Width: im.Width, Pixels: im.Pixels})
	return in.Data, err
}

// A collector keeps those parts of features that are wanted.
type collector struct {
	want      eval.Parts
	outputs   []string
	pool      rows.Rows
	logits    rows.Rows
	spatial   rows.Rows
	others    map[string][]float32
	n, width  int
	expected  int               // images
	stats     *eval.Accumulator // of pool
	ofSpatial *eval.Accumulator // made when the first ones tell how many there are
	products  *ort.Products
}

func newCollector(x *Extractor, want eval.Parts, n int) *collector {
	c := &collector{want: want, expected: n, outputs: []string{features.Pool}, width: x.Net.Width(), products: x.Products}
	c.stats = eval.NewAccumulator(c.width, x.Products)
	if want.Spatial || want.SpatialRows {
		c.outputs = append(c.outputs, features.Spatial)
	}
	if want.Logits {
		c.outputs = append(c.outputs, features.Logits)
	}
	if others := strings.Fields(want.Outputs); len(others) > 0 {
		c.outputs, c.others = append(c.outputs, others...), map[string][]float32{}
	}
	return c
}

// add takes what the network gives of a batch.
func (c *collector) add(out map[string]ort.Array) error {
	of := func(name string) []float32 {
		if a, ok := out[name]; ok {
			return a.Tensor().Data
		}
		return nil
	}
	f := &eval.Features{N: out[features.Pool].Tensor().Rows(), Pool: of(features.Pool), Logits: of(features.Logits), SpatialRows: of(features.Spatial), Outputs: map[string][]float32{}}
	for _, name := range strings.Fields(c.want.Outputs) {
		f.Outputs[name] = of(name)
	}
	return c.addRows(f)
}

// addRows takes rows of features of the next images.
func (c *collector) addRows(f *eval.Features) error {
	c.n += f.N
	if c.want.Pool {
		if err := c.keep(&c.pool, f.Pool, f.N); err != nil {
			return err
		}
	}
	if c.want.Stats {
		if err := c.stats.Add(f.Pool); err != nil {
			return err
		}
	}
	if err := c.keep(&c.logits, f.Logits, f.N); err != nil {
		return err
	}
	for name, values := range f.Outputs {
		c.others[name] = append(c.others[name], values...)
	}
	if c.want.SpatialRows {
		if err := c.keep(&c.spatial, f.SpatialRows, f.N); err != nil {
			return err
		}
	}
	if !c.want.Spatial {
		return nil
	}
	if c.ofSpatial == nil {
		c.ofSpatial = eval.NewAccumulator(len(f.SpatialRows)/f.N, c.products)
	}
	return c.ofSpatial.Add(f.SpatialRows)
}

// keep adds the rows of n images.
func (c *collector) keep(to *rows.Rows, values []float32, n int) error {
	if to.Len() == 0 && len(values) > 0 {
		to.Expect(len(values) / n * c.expected)
	}
	return to.Append(values)
}

func (c *collector) features() (f *eval.Features, err error) {
	f = &eval.Features{N: c.n, D: c.width, Outputs: c.others, Held: []*rows.Rows{&c.pool, &c.logits, &c.spatial}}
	for i, to := range []*[]float32{&f.Pool, &f.Logits, &f.SpatialRows} {
		if *to, err = f.Held[i].Values(); err != nil {
			return nil, err
		}
	}
	if c.want.Stats {
		f.Stats, err = c.stats.Stats()
	}
	if c.want.Spatial && err == nil {
		f.Spatial, err = c.ofSpatial.Stats()
	}
	return f, err
}

// complete adds to features, computed or read, what the metrics need beside
// them; source is what messages call them.
func (x *Extractor) complete(f *eval.Features, source string) {
	f.Source, f.Network, f.ClassWeight, f.Products = source, x.Name, x.classWeight, x.Products
	for _, s := range []*eval.Stats{f.Stats, f.Spatial} {
		if s != nil {
			s.Source = source
		}
	}
}
