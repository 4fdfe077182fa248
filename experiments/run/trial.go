package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/models/features"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// timeForecast fills in the rows' times. Each network, those of guidances and those
// that compute features included, takes two batches; the time of the second counts,
// for which the weights are in memory. Networks that differ in flags or checkpoint
// are tried one by one. A network that does not fit its checkpoint is an error.
func timeForecast(ctx context.Context, f *plan.Forecast, opt ort.Options) error {
	passes, extractions := map[string][]time.Duration{}, map[string]time.Duration{} // of an image
	for i := range f.Rows {
		p := &f.Rows[i]
		if p.Images == 0 {
			continue
		}
		var paths []string
		for _, n := range p.Row.Networks() {
			paths = append(paths, n.Checkpoint.Path)
		}
		keys, err := networkKeys(p.Row, paths)
		if err != nil {
			return err
		}
		id := fmt.Sprint(keys)
		if _, known := passes[id]; !known {
			if passes[id], err = tryNetworks(ctx, p.Row, opt); err != nil {
				return err
			}
		}
		for i, n := range append([]int{p.Passes}, p.Others...) {
			p.Time += time.Duration(p.Images*n) * passes[id][i]
		}
		for _, c := range p.Row.Comparisons {
			height, width := p.Row.ImageSides()
			id = fmt.Sprint(c.Key(c.Weights.Path), c.MetricNames(), height, width)
			if _, known := extractions[id]; !known {
				if extractions[id], err = tryFeatures(ctx, p.Row, c, opt); err != nil {
					return err
				}
			}
			p.Time += time.Duration(p.Row.Samples) * extractions[id]
		}
	}
	f.Timed = true
	return nil
}

// trialBatch is the size of the batches that a row's images come in.
func trialBatch(r *plan.Row) int { return min(r.Batch, r.Samples) }

// tryNetworks is the time of a pass of one image through each of the row's
// networks.
func tryNetworks(ctx context.Context, r *plan.Row, opt ort.Options) ([]time.Duration, error) {
	n, err := OpenRow(ctx, r, opt)
	if err != nil {
		return nil, err
	}
	defer n.Close()
	s, err := r.Sampler.Value.Schedule(n.Process().Schedule)
	if err != nil {
		return nil, err
	}
	x, c, err := NoiseInput(n, trialBatch(r))
	if err != nil {
		return nil, err
	}
	p := &sampling.Predictor{Cond: c}
	if err := n.Prompt(ctx, r, p, store.Span{From: 0, To: trialBatch(r)}); err != nil {
		return nil, err
	}
	times := make([]time.Duration, len(n.opened))
	for i, m := range n.opened {
		times[i], err = second(trialBatch(r), func() error { return try(ctx, m, x, s.Timestep(s.Len()-1), p.Cond) })
		if err != nil {
			return nil, fmt.Errorf("row %q: %w", r.Title(), err)
		}
	}
	return times, nil
}

// tryFeatures is the time that a feature network takes for an image.
func tryFeatures(ctx context.Context, r *plan.Row, c plan.Comparison, opt ort.Options) (time.Duration, error) {
	net, err := c.Open(ctx, models.Options{Options: opt})
	if err != nil {
		return 0, err
	}
	defer net.Close()
	height, width := r.ImageSides()
	images := models.Images{N: trialBatch(r), Height: max(1, height), Width: max(1, width)}
	images.Pixels = make([]uint8, images.N*images.Height*images.Width*3)
	outputs := []string{features.Pool}
	if c.Needs().Generated.Spatial {
		outputs = append(outputs, features.Spatial)
	}
	return second(images.N, func() error {
		_, err := features.Of(ctx, net, c.Resize, images, outputs...)
		return err
	})
}

// second runs two batches of n images and returns the time of the second, per
// image.
func second(n int, batch func() error) (time.Duration, error) {
	if err := batch(); err != nil {
		return 0, err
	}
	start := time.Now()
	err := batch()
	return time.Since(start) / time.Duration(n), err
}

// try calls a network once.
func try(ctx context.Context, network models.Model, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (err error) {
	switch n := network.(type) {
	case sampling.Classifier:
		_, err = n.Gradient(ctx, x, t, c.Labels)
	case sampling.Denoiser:
		_, err = n.Denoise(ctx, x, t, c)
	default:
		err = errors.New("the network is neither a denoiser nor a classifier")
	}
	return err
}
