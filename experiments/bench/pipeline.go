package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/eval/npz"
	"sagbench/experiments/plan"
	"sagbench/experiments/score"
	"sagbench/models/features"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// pipeline computes features of sets of images as eval does, and prints what part
// of the time is spent inside the network.
func (b *bench) pipeline() error {
	net, err := b.officialInception()
	if err != nil {
		return err
	}
	timed := &timedExtractor{Extractor: net}
	x := &score.Extractor{FeatureNetwork: plan.FeatureNetwork{NetworkBlock: plan.NetworkBlock{Resize: features.TF}}, Net: timed}
	if x.Products, err = ort.NewProducts(b.ctx, b.options.Threads); err != nil {
		net.Close()
		return err
	}
	defer x.Close()
	b.header("256×256 images from", "images/s", "inside the network", "decoding and resizing, ms an image on one core")
	for i, kind := range []string{"npz", "png", "jpg"} {
		path, err := b.writeImages(kind, 24*score.FeatureBatch)
		if err != nil {
			return err
		}
		if i == 0 { // the first call prepares the graph
			if _, err := b.pipelineOf(x, path); err != nil {
				return err
			}
		}
		alone, err := b.loading(x, path)
		if err != nil {
			return err
		}
		inside, rate := 0.0, 0.0
		for range 2 {
			timed.spent = 0
			start := time.Now()
			n, err := b.pipelineOf(x, path)
			if err != nil {
				return err
			}
			total := time.Since(start)
			inside, rate = max(inside, timed.spent.Seconds()/total.Seconds()), max(rate, float64(n)/total.Seconds())
		}
		b.row(kind, fmt.Sprintf("%.1f", rate), percent(inside), fmt.Sprintf("%.1f", alone.Seconds()*1e3))
	}
	return nil
}

// pipelineOf computes the features of the set at a path.
func (b *bench) pipelineOf(x *score.Extractor, path string) (int, error) {
	ref, err := eval.ReadReference(b.ctx, path, images.Options{})
	if err != nil {
		return 0, err
	}
	f, _, err := x.Features(b.ctx, score.Source{Name: path, N: ref.Images.N, Images: ref.Images.Images()}, images.Options{}, eval.Parts{Pool: true, Stats: true, Spatial: true}, func(int) {})
	if err := errors.Join(err, ref.Close()); err != nil {
		return 0, err
	}
	return f.N, nil
}

// loading is the time that one image takes without the network.
func (b *bench) loading(x *score.Extractor, path string) (time.Duration, error) {
	ref, err := eval.ReadReference(b.ctx, path, images.Options{})
	if err != nil {
		return 0, err
	}
	start, n := time.Now(), 0
	for p, err := range ref.Images.Images() {
		if err != nil {
			return 0, err
		}
		im, err := p.Decode()
		if err == nil {
			_, err = x.Input(im)
		}
		if err != nil {
			return 0, err
		}
		n++
	}
	return time.Since(start) / time.Duration(n), ref.Close()
}

// A timedExtractor adds up the time spent in the network.
type timedExtractor struct {
	features.Extractor
	spent time.Duration
}

func (n *timedExtractor) Run(ctx context.Context, x tensor.Tensor, outputs ...string) (map[string]ort.Array, error) {
	start := time.Now()
	defer func() { n.spent += time.Since(start) }()
	return n.Extractor.Run(ctx, x, outputs...)
}

// writeImages writes n images to a file or a folder of that kind.
func (b *bench) writeImages(kind string, n int) (string, error) {
	path := filepath.Join(b.scratch, "images-"+kind)
	if kind == "npz" {
		return path + ".npz", writePictures(path+".npz", n)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	for i := range n {
		var out bytes.Buffer
		p := picture(i)
		err := png.Encode(&out, p)
		if kind == "jpg" {
			out.Reset()
			err = jpeg.Encode(&out, p, &jpeg.Options{Quality: 90})
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(path, fmt.Sprintf("%06d.%s", i, kind)), out.Bytes(), 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	return path, nil
}

// writePictures writes n images to an .npz file.
func writePictures(path string, n int) error {
	w, err := npz.Create(path)
	if err != nil {
		return err
	}
	defer w.Abort()
	const side = pictureSide
	a, err := w.Array("arr_0", npz.Uint8, n, side, side, 3)
	if err != nil {
		return err
	}
	for i := range n {
		p, row := picture(i), make([]uint8, side*side*3)
		for at := range side * side {
			copy(row[3*at:3*at+3], p.Pix[4*at:])
		}
		if err := npz.WriteRows(a, row); err != nil {
			return err
		}
	}
	return w.Commit()
}

const pictureSide = 256

// picture is an image with edges, gradients and some noise, so that it packs
// about as well as a photograph.
func picture(seed int) *image.RGBA {
	r := rand.New(rand.NewPCG(uint64(seed), 3))
	p := image.NewRGBA(image.Rect(0, 0, pictureSide, pictureSide))
	fx, fy, edge := 5+20*r.Float64(), 5+20*r.Float64(), r.IntN(pictureSide)
	for y := range pictureSide {
		for x := range pictureSide {
			v := 127 + 60*math.Sin(float64(x)/fx) + 40*math.Cos(float64(y)/fy)
			if x+y/2 > edge {
				v = 255 - v
			}
			level := func(shift float64) uint8 { return uint8(min(max(v+shift+4*r.NormFloat64(), 0), 255)) }
			p.SetRGBA(x, y, color.RGBA{level(0), level(20), level(-30), 255})
		}
	}
	return p
}
