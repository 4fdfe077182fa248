package main

import (
	"context"
	"fmt"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// jobs cuts what is missing into batches, none of which crosses a multiple of
// batch. An image's batch is thus a function of (samples, batch) alone, whatever
// was interrupted: a batch is written whole or not at all.
func jobs(missing []span, batch int) []span {
	var out []span
	for _, m := range missing {
		for at := m.from; at < m.to; {
			to := min((at/batch+1)*batch, m.to)
			out = append(out, span{at, to})
			at = to
		}
	}
	return out
}

// A network is a generator that is ready to run, with the key of what it was
// made from: rows with equal keys share it.
type network struct {
	models.Generator
	key string
}

// networkKey tells networks apart.
func (r *row) networkKey(checkpointSHA256 string) (string, error) {
	flags, err := configs.Canonical(r.model.Flags)
	return fmt.Sprintf("%s %s %s %v", r.model.Family, checkpointSHA256, flags, r.taps), err
}

// openNetwork prepares the row's network.
func (r *row) openNetwork(opt ort.Options, checkpointSHA256 string) (*network, error) {
	key, err := r.networkKey(checkpointSHA256)
	if err != nil {
		return nil, err
	}
	m, err := r.openModel(opt)
	if err != nil {
		return nil, fmt.Errorf("row %q: %w", r.title(), err)
	}
	g, ok := m.(models.Generator)
	if !ok {
		m.Close()
		return nil, r.Model.Errorf("family %s draws no images; it can be used for evaluation only", r.model.Family)
	}
	return &network{g, key}, nil
}

// openModel prepares the row's network with its attention map.
func (r *row) openModel(opt ort.Options) (models.Model, error) {
	return r.model.Flags.Open(r.checkpoint.Path, models.Options{Options: opt, Taps: r.taps, Find: findPart})
}

// condition gives the predictor the labels of the images, and what stands for ∅.
func condition(p *sampling.Predictor, g models.Generator, labels []int64, images int) (err error) {
	p.Cond.Labels = labels
	if u, ok := g.(models.Unconditional); ok {
		p.Null, err = u.Null(images)
	}
	return err
}

// predictor is the row's network under its guidances, without a condition.
func (r *row) predictor(d sampling.Denoiser, process models.Process) (*sampling.Predictor, error) {
	schedule, err := r.sampler.Value.Schedule(process.Schedule)
	if err != nil {
		return nil, err
	}
	p := &sampling.Predictor{Denoiser: d, Schedule: schedule, Predicts: process.Predicts, ClipDenoised: process.ClipDenoised}
	for _, g := range r.guidances {
		p.Guidances = append(p.Guidances, g.Value)
	}
	return p, nil
}

// draw makes the images [from, to): a function of the row's identity and their
// numbers alone. Steps that are done are reported with their number so far.
func (r *row) draw(ctx context.Context, n *network, at span, step func(done, of int)) (models.Images, error) {
	p, err := r.predictor(n, n.Process())
	if err != nil {
		return models.Images{}, err
	}
	done, last := 0, -1
	p.Trace = func(name string, t sampling.Timestep, _ tensor.Tensor) {
		if name == "x" && t.Index != last {
			done, last = done+1, t.Index
			step(done, p.Schedule.Len())
		}
	}
	noise := sampling.Keyed{Seed: r.Seed}
	var labels []int64
	for i := at.from; i < at.to; i++ {
		noise.Images = append(noise.Images, i)
		if n.Classes() > 0 {
			labels = append(labels, sampling.Label(r.Seed, i, n.Classes()))
		}
	}
	if err := condition(p, n.Generator, labels, at.len()); err != nil {
		return models.Images{}, err
	}
	if err := r.prompt(ctx, p, n.Generator, at); err != nil {
		return models.Images{}, err
	}
	p.Random = noise
	x := tensor.New(append([]int{at.len()}, n.SampleShape()...)...)
	if err := noise.Fill(-1, x); err != nil {
		return models.Images{}, err
	}
	if x, err = r.sampler.Value.Sample(ctx, p, x, noise); err != nil {
		return models.Images{}, fmt.Errorf("row %q, images %d to %d: %w", r.title(), at.from, at.to-1, err)
	}
	return n.Pixels(ctx, x)
}
