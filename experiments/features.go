package main

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/sync/errgroup"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/models/tensor"
)

// featureBatch is how many images the network looks at in one call. It is fixed,
// so that features do not depend on the batch of the experiment, and small: the
// official Inception is no faster in larger ones and takes 2.3 GB in one of 64.
const featureBatch = 16

// A source is images to look at.
type source struct {
	name   string // what messages call it
	n      int    // broken images included
	images iter.Seq2[images.Pending, error]
}

// An extractor turns images into features with one network.
type extractor struct {
	featureNetwork
	net         models.Extractor
	sha256      string
	products    *ort.Products
	classWeight []float32 // [classes,width], where the network classifies
}

// newExtractor opens a network.
func newExtractor(n featureNetwork, h hashes, opt ort.Options) (*extractor, error) {
	x := &extractor{featureNetwork: n}
	var err error
	if x.sha256, err = n.hash(h); err != nil {
		return nil, err
	}
	if x.net, err = n.flags.Extractor(n.path, models.Options{Options: opt}); err != nil {
		return nil, err
	}
	if c, ok := x.net.(models.Classifying); ok {
		x.classWeight, err = c.ClassWeight()
	}
	if err == nil {
		x.products, err = ort.NewProducts(opt.Threads)
	}
	if err != nil {
		x.net.Close()
		return nil, err
	}
	return x, nil
}

func (x *extractor) close() {
	x.net.Close()
	x.products.Close()
}

// side is the height and width of the images that the network looks at.
func (x *extractor) side() int {
	shape := x.net.InputShape()
	return shape[len(shape)-1]
}

// key tells which features the extractor computes.
func (x *extractor) key() string { return x.featureNetwork.key(x.sha256) }

// parts says which features are wanted.
type parts struct {
	pool    bool // rows of pool features, which take N·width·4 bytes
	stats   bool // mean and covariance of pool features
	spatial bool // mean and covariance of spatial features
	logits  bool // of single images

	spatialRows bool // rows of spatial features, N·2023·4 bytes
}

// drawn are the parts that drawing the images again takes.
func (p parts) drawn() parts {
	p.pool, p.spatialRows = true, p.spatial
	return p
}

// of are the parts that a network's features have to have: where it ends in a
// linear layer, logits follow from pool features.
func (p parts) of(x *extractor) parts {
	p.logits = p.logits && x.classWeight == nil
	return p
}

// generatedParts is what the metrics need of the generated images.
func generatedParts(metrics []configs.Named[eval.Metric]) parts {
	p := parts{stats: true}
	for _, m := range metrics {
		switch m.Value.(type) {
		case *eval.FID, *eval.FDDINOv2:
		case *eval.SpatialFID:
			p.spatial = true
		case *eval.InceptionScore:
			p.pool, p.logits = true, true
		default:
			p.pool = true
		}
	}
	return p
}

// referenceParts is what they need of the reference: the Inception Score asks
// nothing of it.
func referenceParts(metrics []configs.Named[eval.Metric]) parts {
	without := slices.DeleteFunc(slices.Clone(metrics), func(m configs.Named[eval.Metric]) bool {
		_, ok := m.Value.(*eval.InceptionScore)
		return ok
	})
	return generatedParts(without)
}

// features streams the images through the network: the next ones are decoded and
// resized while it computes. Rows of pool features are kept only where they are
// wanted; of everything else statistics are accumulated.
func (x *extractor) features(ctx context.Context, from source, opt images.Options, want parts, tick func(int)) (*eval.Features, images.Report, error) {
	c := newCollector(x, want, from.n)
	g, ctx := errgroup.WithContext(ctx)
	full, free := make(chan tensor.Tensor), make(chan tensor.Tensor, 2)
	for range cap(free) {
		free <- tensor.New(append([]int{featureBatch}, x.net.InputShape()...)...)
	}
	g.Go(func() error {
		for batch := range full {
			out, err := x.net.Run(ctx, batch, c.outputs...)
			if err != nil {
				return err
			}
			free <- batch
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
		report, err = x.batches(ctx, from, opt, free, full)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, report, images.At(err, from.name)
	}
	f, err := c.features()
	if err != nil {
		err = fmt.Errorf("%s: %w", from.name, err)
	}
	return f, report, err
}

// batches fills those that are free with images and hands them on.
func (x *extractor) batches(ctx context.Context, from source, opt images.Options, free <-chan tensor.Tensor, full chan<- tensor.Tensor) (images.Report, error) {
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
	load := images.Loader[[]float32]{Ahead: featureBatch, SkipBroken: opt.SkipBroken, Prepare: x.input}
	report, err := load.Run(ctx, from.images, func(in []float32) error {
		if filled == 0 {
			select {
			case batch = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		copy(batch.Row(filled), in)
		if filled++; filled < featureBatch {
			return nil
		}
		return flush()
	})
	if err == nil && filled > 0 {
		err = flush()
	}
	return report, err
}

// input is an image as the network takes it.
func (x *extractor) input(im images.Image) ([]float32, error) {
	in, err := x.net.Input(x.resize, models.Images{N: 1, Height: im.Height, Width: im.Width, Pixels: im.Pixels})
	return in.Data, err
}

// A collector keeps of features what is wanted.
type collector struct {
	want     parts
	outputs  []string
	pool     []float32
	logits   []float32
	rows     []float32 // spatial
	n, width int
	stats    *eval.Accumulator // of pool
	spatial  *eval.Accumulator // made when the first ones tell how many there are
	products *ort.Products
}

func newCollector(x *extractor, want parts, n int) *collector {
	c := &collector{want: want, outputs: []string{models.Pool}, width: x.net.Width(), products: x.products}
	c.stats = eval.NewAccumulator(c.width, x.products)
	if want.pool {
		c.pool = make([]float32, 0, n*c.width)
	}
	if want.spatial {
		c.outputs = append(c.outputs, models.Spatial)
	}
	if want.logits {
		c.outputs = append(c.outputs, models.Logits)
	}
	return c
}

func (c *collector) add(out map[string]ort.Array) error {
	t := out[models.Pool].Tensor()
	c.n += t.Rows()
	if c.want.pool {
		c.pool = append(c.pool, t.Data...)
	}
	if c.want.stats {
		if err := c.stats.Add(t.Data); err != nil {
			return err
		}
	}
	if l, ok := out[models.Logits]; ok {
		c.logits = append(c.logits, l.Tensor().Data...)
	}
	if !c.want.spatial {
		return nil
	}
	t = out[models.Spatial].Tensor()
	if c.spatial == nil {
		c.spatial = eval.NewAccumulator(t.RowLen(), c.products)
	}
	if c.want.spatialRows {
		c.rows = append(c.rows, t.Data...)
	}
	return c.spatial.Add(t.Data)
}

func (c *collector) features() (f *eval.Features, err error) {
	f = &eval.Features{N: c.n, D: c.width, Pool: c.pool, Logits: c.logits, SpatialRows: c.rows}
	if c.want.stats {
		f.Stats, err = c.stats.Stats()
	}
	if c.want.spatial && err == nil {
		f.Spatial, err = c.spatial.Stats()
	}
	return f, err
}

// complete adds to features, computed or read, what the metrics need beside
// them; source is what messages call them.
func (x *extractor) complete(f *eval.Features, source string) {
	f.Source, f.Network, f.ClassWeight, f.Products = source, x.name, x.classWeight, x.products
	for _, s := range []*eval.Stats{f.Stats, f.Spatial} {
		if s != nil {
			s.Source = source
		}
	}
}
