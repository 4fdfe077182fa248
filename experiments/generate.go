package main

import (
	"context"
	"fmt"

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

// A network is a row's generator, ready to run, with the networks of its
// guidances.
type network struct {
	models.Generator
	attached []any
	classes  int
}

// Classes is the number of labels that images are drawn with, be it for the
// network of a guidance alone; 0 = they have none.
func (n *network) Classes() int { return n.classes }

// networks are the networks of the row: that which draws, then those of the
// guidances.
func (r *row) networks() []netSpec {
	all := []netSpec{r.model}
	for _, a := range r.attachments {
		all = append(all, a.netSpec)
	}
	return all
}

// networkKeys tell the networks from those of other rows: equal ones can be
// shared. contents are the hashes of their checkpoints.
func (r *row) networkKeys(contents []string) ([]string, error) {
	var keys []string
	for i, s := range r.networks() {
		key, err := s.key(contents[i], r.optionsOf(i, ort.Options{}))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// optionsOf say how network i of the row is prepared: what the guidances look at
// and perturb is the generator.
func (r *row) optionsOf(i int, opt ort.Options) models.Options {
	o := models.Options{Options: opt}
	if i == 0 {
		o.Taps, o.Perturbations = r.taps, r.perturbations
	}
	return o
}

// openNetwork prepares network i of the row.
func (r *row) openNetwork(i int, opt ort.Options) (models.Model, error) {
	m, err := r.networks()[i].open(r.optionsOf(i, opt))
	if err != nil {
		return nil, fmt.Errorf("row %q: %w", r.title(), err)
	}
	return m, nil
}

// assemble makes the row's network of all that it needs.
func (r *row) assemble(opened []models.Model) (*network, error) {
	g, ok := opened[0].(models.Generator)
	if !ok {
		return nil, r.Model.Errorf("family %s draws no images; it can be used for evaluation only", r.model.Family)
	}
	n := &network{Generator: g}
	for i, m := range opened[1:] {
		if err := r.agrees(i, g, m); err != nil {
			return nil, err
		}
		n.attached = append(n.attached, m)
	}
	if err := r.attach(n.attached); err != nil {
		return nil, err
	}
	var err error
	n.classes, err = r.classes(g, n.attached)
	return n, err
}

// condition gives the predictor the labels of the images, and what stands for ∅.
func condition(p *sampling.Predictor, g models.Generator, labels []int64, images int) (err error) {
	p.Cond.Labels = labels
	if u, ok := g.(models.Unconditional); ok {
		p.Null, err = u.Null(images)
	}
	return err
}

// predictor is the row's network under its guidances, without a condition;
// attached are the networks of the guidances.
func (r *row) predictor(d sampling.Denoiser, process models.Process, attached []any) (*sampling.Predictor, error) {
	if err := r.attach(attached); err != nil {
		return nil, err
	}
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
	p, err := r.predictor(n, n.Process(), n.attached)
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
