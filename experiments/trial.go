package main

import (
	"context"
	"fmt"
	"time"

	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/sampling"
)

// trial fills in the rows' times: each network and each feature network draws and
// looks at two batches, of which the second, which finds the weights in memory,
// counts. Networks that differ in flags or checkpoint are tried one by one. An
// error also means that a network does not fit its checkpoint.
func (f *forecast) trial(ctx context.Context, opt ort.Options) error {
	passes, looks := map[string][]time.Duration{}, map[string]time.Duration{}
	for i := range f.rows {
		p := &f.rows[i]
		if p.images == 0 {
			continue
		}
		var paths []string
		for _, s := range p.row.networks() {
			paths = append(paths, s.checkpoint.Path)
		}
		keys, err := p.row.networkKeys(paths)
		if err != nil {
			return err
		}
		id := fmt.Sprint(keys)
		if _, known := passes[id]; !known {
			if passes[id], err = p.row.tryNetworks(ctx, opt); err != nil {
				return err
			}
		}
		for i, n := range append([]int{p.passes}, p.others...) {
			p.time += time.Duration(p.images*n) * passes[id][i]
		}
		for _, part := range p.row.shares {
			id = fmt.Sprint(part.key(part.path), part.names(), p.row.imageSide())
			if _, known := looks[id]; !known {
				if looks[id], err = p.row.tryFeatures(ctx, part, opt); err != nil {
					return err
				}
			}
			p.time += time.Duration(p.row.Samples) * looks[id]
		}
	}
	f.trialed = true
	return nil
}

// trialBatch is the size of the batches that the row's images come in.
func (r *row) trialBatch() int { return min(r.Batch, r.Samples) }

// tryNetworks is the time that an image takes for a pass through each of the
// row's networks.
func (r *row) tryNetworks(ctx context.Context, opt ort.Options) ([]time.Duration, error) {
	var opened []models.Model
	for i := range r.networks() {
		m, err := r.openNetwork(i, opt)
		if err != nil {
			return nil, err
		}
		defer m.Close()
		opened = append(opened, m)
	}
	n, err := r.assemble(opened)
	if err != nil {
		return nil, err
	}
	s, err := r.sampler.Value.Schedule(n.Process().Schedule)
	if err != nil {
		return nil, err
	}
	x, c, err := benchInput(n, r.trialBatch())
	if err != nil {
		return nil, err
	}
	p := &sampling.Predictor{Cond: c}
	if err := r.prompt(ctx, p, n.Generator, span{0, r.trialBatch()}); err != nil {
		return nil, err
	}
	times := make([]time.Duration, len(opened))
	for i, m := range opened {
		times[i], err = second(r.trialBatch(), func() error { return try(ctx, m, x, s.Timestep(s.Len()-1), p.Cond) })
		if err != nil {
			return nil, fmt.Errorf("row %q: %w", r.title(), err)
		}
	}
	return times, nil
}

// tryFeatures is the time that a feature network takes for an image.
func (r *row) tryFeatures(ctx context.Context, part share, opt ort.Options) (time.Duration, error) {
	net, err := part.flags.Extractor(part.path, models.Options{Options: opt})
	if err != nil {
		return 0, err
	}
	defer net.Close()
	side := max(1, r.imageSide())
	images := models.Images{N: r.trialBatch(), Height: side, Width: side}
	images.Pixels = make([]uint8, images.N*side*side*3)
	outputs := []string{models.Pool}
	if generatedParts(part.metrics).spatial {
		outputs = append(outputs, models.Spatial)
	}
	return second(images.N, func() error {
		_, err := models.Features(ctx, net, part.resize, images, outputs...)
		return err
	})
}

// second runs two batches of n images and is the second one's time an image.
func second(n int, batch func() error) (time.Duration, error) {
	if err := batch(); err != nil {
		return 0, err
	}
	start := time.Now()
	err := batch()
	return time.Since(start) / time.Duration(n), err
}
