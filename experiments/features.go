package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/models"
	"sagbench/models/ort"
)

// featureBatch is how many images Inception looks at in one call. It is fixed,
// so that features do not depend on the batch of the experiment.
const featureBatch = 64

// An imageStream hands out images in order, in batches of featureBatch (the
// last one may be smaller), whose pixels are valid during the call only.
type imageStream func(ctx context.Context, visit func(models.Images) error) error

// An extractor turns images into features with one Inception.
type extractor struct {
	block       Inception
	path        string
	options     models.Options
	net         *models.InceptionNet // its graphs are made when images come
	sha256      string
	products    *ort.Products
	classWeight []float32 // [classes,width]
}

// newExtractor opens the Inception of a block, whose file is at path.
func newExtractor(c Inception, path string, opt ort.Options) (*extractor, error) {
	sum, err := sha256File(path)
	if err != nil {
		return nil, fmt.Errorf("inception: %w", err)
	}
	x := &extractor{block: c, path: path, options: models.Options{Options: opt}, sha256: sum}
	if x.net, err = c.Load(path, x.options); err != nil {
		return nil, err
	}
	if x.classWeight, err = x.net.Checkpoint().Tensors["fc.weight"].Float32(); err == nil {
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

// rest gives back the memory of the network's graphs, which the metrics can do
// with: half a gigabyte at full size. They are made again when images come.
func (x *extractor) rest() error {
	fresh, err := x.block.Load(x.path, x.options)
	if err != nil {
		return err
	}
	x.net.Close()
	x.net = fresh
	return nil
}

// key tells which features the extractor computes.
func (x *extractor) key() string { return inceptionKey(x.sha256, x.block) }

func inceptionKey(sha256 string, c Inception) string {
	return fmt.Sprintf("%s %s %d", sha256, c.Resize, c.InputSize)
}

// parts says which features are wanted.
type parts struct {
	pool    bool // rows of pool features, which take N·width·4 bytes
	stats   bool // mean and covariance of pool features
	spatial bool // mean and covariance of spatial features
}

// generatedParts is what the metrics need of the generated images.
func generatedParts(metrics []configs.Named[eval.Metric]) parts {
	p := parts{stats: true}
	for _, m := range metrics {
		switch m.Value.(type) {
		case *eval.FID:
		case *eval.SpatialFID:
			p.spatial = true
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

// features streams the images through Inception. Rows of pool features are kept
// only where they are wanted; of everything else statistics are accumulated.
func (x *extractor) features(ctx context.Context, source string, n int, images imageStream, want parts, tick func(int)) (*eval.Features, error) {
	f := &eval.Features{N: n, D: x.net.Width()}
	if want.pool {
		f.Pool = make([]float32, 0, n*f.D)
	}
	outputs := []string{models.Pool}
	if want.spatial {
		outputs = append(outputs, models.Spatial)
	}
	pool := eval.NewAccumulator(f.D, x.products)
	var spatial *eval.Accumulator
	err := images(ctx, func(im models.Images) error {
		out, err := x.net.Features(ctx, x.block.Resize, im, outputs...)
		if err != nil {
			return err
		}
		rows := out[models.Pool].Tensor().Data
		if want.pool {
			f.Pool = append(f.Pool, rows...)
		}
		if want.stats {
			if err := pool.Add(rows); err != nil {
				return err
			}
		}
		if want.spatial {
			t := out[models.Spatial].Tensor()
			if spatial == nil {
				spatial = eval.NewAccumulator(t.RowLen(), x.products)
			}
			if err := spatial.Add(t.Data); err != nil {
				return err
			}
		}
		tick(im.N)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	if want.stats {
		f.Stats, err = pool.Stats()
	}
	if want.spatial && err == nil {
		f.Spatial, err = spatial.Stats()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return f, nil
}

// complete adds to features, computed or read, what the metrics need beside
// them; source is what messages call them.
func (x *extractor) complete(f *eval.Features, source string) {
	f.Source, f.ClassWeight, f.Products = source, x.classWeight, x.products
	for _, s := range []*eval.Stats{f.Stats, f.Spatial} {
		if s != nil {
			s.Source = source
		}
	}
}

// streamOf reads the images of an .npz file, once.
func streamOf(m *eval.Images, path string) imageStream {
	return func(ctx context.Context, visit func(models.Images) error) error {
		pixels := make([]uint8, featureBatch*m.Pixels())
		for first := 0; ; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := readPixels(m, path, first, pixels)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			first += n
			if err := visit(models.Images{N: n, Height: m.H, Width: m.W, Pixels: pixels[:n*m.Pixels()]}); err != nil {
				return err
			}
		}
	}
}

// readPixels reads the next images. What is not stored as uint8 must hold whole
// numbers all the same: the network takes bytes.
func readPixels(m *eval.Images, path string, first int, dst []uint8) (int, error) {
	if m.Bytes {
		return m.ReadBytes(dst)
	}
	floats := make([]float32, len(dst))
	n, err := m.Read(floats)
	for i, v := range floats[:n*m.Pixels()] {
		if dst[i] = uint8(v); float32(dst[i]) != v {
			return 0, fmt.Errorf("%s: arr_0: image %d holds %g, which is no whole number; save the images as uint8", path, first+i/m.Pixels(), v)
		}
	}
	return n, err
}
